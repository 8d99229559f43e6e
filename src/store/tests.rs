//! What every store promises, asked of both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;

/// 2026-01-01 12:00 UTC, a whole hour.
pub(super) const NOON: u64 = 1_767_268_800;

pub(super) fn at(milliseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOON) + Duration::from_millis(milliseconds)
}

/// Records are kept however old they are.
pub(super) fn options() -> Options {
    Options {
        keep_records: Duration::MAX,
        keep_rollups: Duration::MAX,
        ..Options::default()
    }
}

/// A record so many milliseconds after noon.
pub(super) fn record(milliseconds: u64, key: &str, model: &str) -> UsageRecord {
    UsageRecord {
        at: at(milliseconds),
        gateway: "main".into(),
        key: key.into(),
        service: "qwen".into(),
        model: model.into(),
        status: 200,
        input: 10,
        cached: 4,
        output: 3,
        estimated: false,
        duration: Duration::from_millis(20),
        first_byte: Some(Duration::from_millis(5)),
        cost: Some(1_500_000),
    }
}

pub(super) fn everything(by: By) -> Query {
    Query {
        by,
        since: SystemTime::UNIX_EPOCH,
        until: at(1 << 40),
        gateway: None,
        key: None,
    }
}

/// One of each; the folder lives as long as the store in it.
fn stores() -> [(Option<TempDir>, Box<dyn Store>); 2] {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(&folder.path().join("state.db"), options()).unwrap();
    [
        (None, Box::new(Memory::default())),
        (Some(folder), Box::new(sqlite)),
    ]
}

pub(super) fn put(name: &str, gateway: Option<&str>, body: serde_json::Value) -> Change {
    Change::Put {
        kind: "key".into(),
        name: name.into(),
        gateway: gateway.map(str::to_owned),
        body,
    }
}

fn names(resources: &[Resource]) -> Vec<(&str, Option<&str>, u64)> {
    let name = |r| {
        let Resource { name, gateway, .. }: &Resource = r;
        (&**name, gateway.as_deref(), r.revision)
    };
    resources.iter().map(name).collect()
}

#[test]
fn resources_are_known_by_kind_gateway_and_name() {
    for (_folder, store) in stores() {
        assert_eq!(store.revision(), Ok(0));
        let changes = [
            put("a", Some("main"), json!({"n": 1})),
            put("a", Some("other"), json!({"n": 2})),
            put("a", None, json!({"n": 3})),
        ];
        assert_eq!(store.apply(&changes, Some(0)), Ok(1));
        let body = json!({"n": 4, "text": "ä\u{0}\"", "list": [null, 1.5]});
        assert_eq!(
            store.apply(&[put("a", Some("main"), body.clone())], None),
            Ok(2)
        );
        let listed = store.list("key").unwrap();
        let expected = [
            ("a", None, 1),
            ("a", Some("main"), 2),
            ("a", Some("other"), 1),
        ];
        assert_eq!(names(&listed), expected);
        assert_eq!(listed[1].body, body);
        assert_eq!(store.list("gateway"), Ok(vec![]));

        let gone = Change::Delete {
            kind: "key".into(),
            name: "a".into(),
            gateway: Some("other".into()),
        };
        assert_eq!(store.apply(std::slice::from_ref(&gone), Some(2)), Ok(3));
        assert_eq!(names(&store.list("key").unwrap()), expected[..2]);
        // What is gone can be deleted again, and nothing is no change.
        assert_eq!(store.apply(&[gone], None), Ok(4));
        assert_eq!(store.apply(&[], Some(4)), Ok(4));
    }
}

#[test]
fn a_stale_change_changes_nothing() {
    for (_folder, store) in stores() {
        store.apply(&[put("a", None, json!(1))], None).unwrap();
        let stale = store.apply(&[put("b", None, json!(2))], Some(0));
        assert_eq!(stale, Err(StoreError::Stale { now: 1 }));
        assert_eq!(store.apply(&[], Some(7)), Err(StoreError::Stale { now: 1 }));
        assert_eq!(names(&store.list("key").unwrap()), [("a", None, 1)]);
        assert_eq!(store.revision(), Ok(1));
    }
}

#[test]
fn bodies_are_not_printed() {
    let change = put("a", None, json!({"credential": "hunter2"}));
    let store = Memory::default();
    store.apply(std::slice::from_ref(&change), None).unwrap();
    let shown = format!("{change:?} {:?}", store.list("key"));
    assert!(
        shown.contains("\"a\"") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[test]
fn counters_keep_the_last_period() {
    let counter = |who: &str, period, used| Counter {
        limit: "gateway/main/budget".into(),
        who: who.into(),
        period,
        used,
    };
    for (_folder, store) in stores() {
        assert_eq!(store.counters(), Ok(vec![]));
        let (a, b) = (
            counter("a", 3600, 5),
            counter("b", 3600, u64::from(u32::MAX)),
        );
        let added = |who: &str, period, by| Added {
            limit: "gateway/main/budget".into(),
            who: who.into(),
            period,
            by,
        };
        let counted = store.count(&[added("b", 3600, i64::from(u32::MAX)), added("a", 3600, 5)]);
        assert_eq!(counted, Ok(vec![b.clone(), a]));
        let counted = store.count(&[added("a", 3600, -1)]);
        assert_eq!(counted, Ok(vec![counter("a", 3600, 4)]));
        assert_eq!(store.counters(), Ok(vec![counter("a", 3600, 4), b.clone()]));
        // A later period begins anew, and one that is over comes too late.
        let counted = store.count(&[added("a", 7200, 1), added("a", 3600, 99)]);
        assert_eq!(counted, Ok(vec![counter("a", 7200, 1); 2]));
        assert_eq!(store.counters(), Ok(vec![counter("a", 7200, 1), b]));
        let counted = store.count(&[added("a", 7200, -3), added("c", 3600, -3)]);
        let none = vec![counter("a", 7200, 0), counter("c", 3600, 0)];
        assert_eq!(counted, Ok(none));
    }
}

#[test]
fn what_was_just_recorded_is_in_the_answer() {
    for (_folder, store) in stores() {
        for (status, key) in [(200, "a"), (404, "a"), (499, "a"), (500, "b")] {
            let record = record(0, key, "m");
            store.record(UsageRecord { status, ..record });
        }
        let rows = store.usage(&everything(By::Key)).unwrap();
        let row = |name: &str, requests, errors| Row {
            name: name.into(),
            requests,
            errors,
            input_tokens: 10 * requests,
            cached_tokens: 4 * requests,
            output_tokens: 3 * requests,
            cost: 1.5 * requests as f64,
        };
        assert_eq!(rows, [row("a", 3, 1), row("b", 1, 1)]);
        let days = store.usage(&everything(By::Day)).unwrap();
        assert_eq!(days, [row("2026-01-01", 4, 2)]);
        assert_eq!(store.health().buffered, 0);
    }
}

#[test]
fn long_names_and_untrue_numbers_are_bounded() {
    for (_folder, store) in stores() {
        let long = "ü".repeat(100_000);
        let untrue = UsageRecord {
            input: u64::MAX,
            cost: Some(u64::MAX),
            duration: Duration::MAX,
            at: SystemTime::UNIX_EPOCH - Duration::from_secs(1),
            ..record(0, "a", &long[2..])
        };
        for _ in 0..100 {
            store.record(untrue.clone());
        }
        store.record(record(0, "a", &format!("x{long}")));
        let rows = store.usage(&everything(By::Model)).unwrap();
        assert_eq!(rows[0].name, "ü".repeat(64));
        assert_eq!(rows[0].input_tokens, 100 * u64::from(u32::MAX));
        // No half of a character.
        assert_eq!(rows[1].name, format!("x{}", "ü".repeat(63)));
    }
}

#[test]
fn histories_begin_with_the_first_hour_and_have_no_gaps() {
    const HOUR: u64 = 3_600_000;
    for (_folder, store) in stores() {
        for hour in [0, 2, 2, 5] {
            store.record(record(hour * HOUR + 1, "old", "m"));
            store.record(record(hour * HOUR + 2, "old", "other"));
        }
        store.record(UsageRecord {
            status: 500,
            ..record(4 * HOUR, "new", "m")
        });
        // The hour that is not over.
        store.record(record(6 * HOUR, "new", "m"));
        let activity = |requests| Activity {
            requests,
            errors: 0,
            tokens: 13 * requests,
        };
        let old = |hours: &[u64]| History {
            gateway: "main".into(),
            key: "old".into(),
            hours: hours.iter().copied().map(activity).collect(),
        };
        let mut new = old(&[1, 0]);
        new.key = "new".into();
        new.hours[0].errors = 1;
        let now = at(6 * HOUR + 1);
        let expected = vec![new.clone(), old(&[2, 0, 4, 0, 0, 2])];
        assert_eq!(store.hourly(now, 100), Ok(expected));
        // Its first hour is before the window: the window counts from its own beginning.
        assert_eq!(store.hourly(now, 3), Ok(vec![new, old(&[0, 0, 2])]));
        assert_eq!(store.hourly(now, 0), Ok(vec![]));
        assert_eq!(store.hourly(SystemTime::UNIX_EPOCH, u32::MAX), Ok(vec![]));
    }
}

/// What a question should answer, by looking at every record.
fn naive(records: &[UsageRecord], query: &Query) -> BTreeMap<String, [u64; 6]> {
    let mut sums: BTreeMap<String, [u64; 6]> = BTreeMap::new();
    for r in records {
        let wrong = |asked: &Option<String>, is: &str| asked.as_ref().is_some_and(|a| a != is);
        if r.at < query.since
            || r.at >= query.until
            || wrong(&query.gateway, &r.gateway)
            || wrong(&query.key, &r.key)
        {
            continue;
        }
        let name = match query.by {
            By::Key => r.key.to_string(),
            By::Model => r.model.to_string(),
            By::Service => r.service.to_string(),
            By::Gateway => r.gateway.to_string(),
            // The records are of two days.
            By::Day if r.at < at(12 * 3_600_000) => "2026-01-01".to_owned(),
            By::Day => "2026-01-02".to_owned(),
        };
        let failed = r.status >= 400 && r.status != 499;
        let cost = r.cost.unwrap_or(0);
        let amounts = [1, u64::from(failed), r.input, r.cached, r.output, cost];
        let sum = sums.entry(name).or_default();
        for (sum, amount) in sum.iter_mut().zip(amounts) {
            *sum += amount;
        }
    }
    sums
}

/// Milliseconds after noon, often near the start of an hour.
fn moment() -> impl Strategy<Value = u64> {
    let near =
        (0..15_u64, 0..3_u64).prop_map(|(hour, ms)| (hour * 3_600_000 + ms).saturating_sub(1));
    prop_oneof![near, 0..15 * 3_600_000_u64]
}

fn some_record() -> impl Strategy<Value = UsageRecord> {
    let names = (0..2_u8, 0..3_u8, 0..2_u8, 0..3_u8);
    let tokens = (0..1000_u64, 0..1000_u64, 0..1000_u64);
    let status = prop::sample::select(vec![200, 399, 400, 404, 499, 500]);
    let cost = prop::option::of(0..5_000_000_u64);
    (moment(), names, tokens, status, cost).prop_map(
        |(ms, (gateway, key, service, model), (input, cached, output), status, cost)| UsageRecord {
            gateway: Arc::from(["g0", "g1"][usize::from(gateway)]),
            key: Arc::from(["", "k1", "k2"][usize::from(key)]),
            service: Arc::from(["", "s1"][usize::from(service)]),
            status,
            input,
            cached,
            output,
            cost,
            ..record(ms, "", ["m0", "m1", "m2"][usize::from(model)])
        },
    )
}

fn some_query() -> impl Strategy<Value = Query> {
    let by = vec![By::Key, By::Model, By::Service, By::Gateway, By::Day];
    let gateway = prop::option::of(prop::sample::select(vec!["g0".to_owned(), "g2".to_owned()]));
    let key = prop::option::of(prop::sample::select(vec![String::new(), "k1".to_owned()]));
    (prop::sample::select(by), moment(), moment(), gateway, key).prop_map(
        |(by, since, until, gateway, key)| Query {
            by,
            since: at(since),
            until: at(until),
            gateway,
            key,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn answers_are_exact_wherever_they_begin_and_end(
        records in prop::collection::vec(some_record(), 0..60),
        queries in prop::collection::vec(some_query(), 20),
    ) {
        for (_folder, store) in stores() {
            for (n, record) in records.iter().enumerate() {
                store.record(record.clone());
                // More than one batch, so that sums are added to sums.
                if n % 20 == 19 {
                    prop_assert!(store.flush(Duration::from_secs(30)));
                }
            }
            for query in &queries {
                let rows = store.usage(query).unwrap();
                let mut expected = naive(&records, query);
                for pair in rows.windows(2) {
                    let ordered = match query.by {
                        By::Day => pair[0].name < pair[1].name,
                        _ => pair[0].requests >= pair[1].requests,
                    };
                    prop_assert!(ordered, "{rows:?}");
                }
                for row in rows {
                    let sums = [row.requests, row.errors, row.input_tokens, row.cached_tokens, row.output_tokens];
                    let wanted = expected.remove(&row.name).unwrap_or_default();
                    prop_assert_eq!(&sums[..], &wanted[..5], "{:?}", query);
                    prop_assert!((row.cost * 1e6 - wanted[5] as f64).abs() < 0.01);
                }
                prop_assert!(expected.is_empty(), "{:?}: {:?} is missing", query, expected);
            }
        }
    }
}

#[test]
fn the_name_of_a_store_is_memory_or_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tollgate.db");
    assert!(open("memory", Options::default()).is_ok());
    assert!(open(path.to_str().unwrap(), Options::default()).is_ok());
    assert!(path.is_file());
    let error = open("postgres://tollgate:hunter2@db/x", Options::default()).err();
    let error = error.unwrap().to_string();
    assert!(
        error.contains("`postgres`") && !error.contains("hunter2"),
        "{error}"
    );
}
