//! The file: faults that are made to happen and healed, other processes, age and versions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Barrier;

use serde_json::json;
use tempfile::TempDir;

use super::super::tests::{at, everything, options, put, record};
use super::super::usage::{By, HOUR};
use super::*;

/// Long enough for any machine; nothing waits for it unless it fails.
const LONG: Duration = Duration::from_secs(60);

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("state")).unwrap();
        Self { folder }
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn file(&self) -> PathBuf {
        self.folder().join("tollgate.db")
    }

    /// Writes nothing by itself but what a test waits for, and does not wait for others' locks for long.
    fn open(&self, capacity: usize) -> Sqlite {
        let options = Options {
            capacity,
            interval: Duration::from_hours(1),
            busy: Duration::from_millis(20),
            ..options()
        };
        Sqlite::open(&self.file(), options).unwrap()
    }
}

impl Sqlite {
    /// Does something with the connection that writes.
    fn inject(&self, fault: impl FnOnce(&mut Connection) + Send + 'static) {
        let done = self.write(|file| {
            fault(file.connection());
            Ok(())
        });
        done.unwrap();
    }

    fn requests(&self) -> u64 {
        let rows = self.usage(&everything(By::Gateway)).unwrap();
        rows.iter().map(|row| row.requests).sum()
    }
}

/// A fault stops writing, costs nothing but what is beyond the buffer, and heals.
fn survives(
    place: &Place,
    reason: &StoreError,
    strike: impl FnOnce(&Sqlite),
    heal: impl FnOnce(&Sqlite),
) {
    let store = place.open(10);
    // Longer than a page, so that it fits into no room that is left.
    let long = "k".repeat(10_000);
    store.record(record(0, &long, "m"));
    assert!(store.flush(LONG));
    strike(&store);
    for _ in 0..4 {
        store.record(record(1, &long, "m"));
    }
    // Until a try has failed.
    assert!(!store.buffer.flush(LONG, true));
    let health = store.health();
    assert!(!health.ok);
    assert_eq!(health.reason, Some(reason.to_string()));
    assert_eq!((health.buffered, health.dropped), (4, 0));
    for _ in 0..9 {
        store.record(record(2, &long, "m"));
    }
    let health = store.health();
    assert_eq!((health.buffered, health.dropped), (10, 3));
    assert_eq!(
        store.apply(&[put("k", None, json!(&long))], None),
        Err(reason.clone())
    );

    heal(&store);
    assert!(store.flush(LONG), "{:?}", store.health());
    let healthy = Health {
        ok: true,
        dropped: 3,
        ..Health::default()
    };
    assert_eq!(store.health(), healthy);
    assert_eq!(store.requests(), 11);
    assert_eq!(store.apply(&[put("k", None, json!(&long))], None), Ok(1));
}

#[test]
fn a_locked_file_is_waited_for() {
    let place = Place::new();
    let other = std::cell::OnceCell::new();
    survives(
        &place,
        &StoreError::Busy,
        |_| {
            let connection = Connection::open(place.file()).unwrap();
            connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
            other.set(connection).unwrap();
        },
        |_| other.get().unwrap().execute_batch("COMMIT").unwrap(),
    );
}

#[test]
fn a_read_only_file_is_waited_for() {
    let only = |on: bool| {
        move |store: &Sqlite| {
            store.inject(move |c| c.pragma_update(None, "query_only", on).unwrap());
        }
    };
    survives(
        &Place::new(),
        &StoreError::ReadOnly,
        only(true),
        only(false),
    );
}

#[test]
fn a_full_disk_is_waited_for() {
    let pages = |count: u32| {
        move |store: &Sqlite| {
            store.inject(move |c| {
                let pragma = format!("PRAGMA max_page_count = {count}");
                c.query_row(&pragma, [], |_| Ok(())).unwrap();
            });
        }
    };
    survives(&Place::new(), &StoreError::Full, pages(1), pages(1 << 30));
}

#[test]
fn a_folder_that_vanishes_is_waited_for() {
    let place = Place::new();
    let away = place.folder.path().join("away");
    survives(
        &place,
        &StoreError::Missing,
        |_| fs::rename(place.folder(), &away).unwrap(),
        |_| fs::rename(&away, place.folder()).unwrap(),
    );
}

#[test]
fn a_file_put_in_the_place_of_the_open_one_is_used() {
    let (place, spare) = (Place::new(), Place::new());
    spare
        .open(10)
        .apply(&[put("spare", None, json!(1))], None)
        .unwrap();
    let store = place.open(10);
    store.apply(&[put("lost", None, json!(1))], None).unwrap();
    fs::remove_dir_all(place.folder()).unwrap();
    // A deleted file is not made anew: its keys would be gone.
    let error = store.apply(&[put("k", None, json!(1))], None);
    assert_eq!(error, Err(StoreError::Missing));
    fs::rename(spare.folder(), place.folder()).unwrap();
    store.record(record(0, "a", "m"));
    assert_eq!(store.requests(), 1);
    assert_eq!(store.list("key").unwrap()[0].name, "spare");
    assert_eq!(store.apply(&[put("k", None, json!(1))], Some(1)), Ok(2));
}

/// The process's death at any time after a write: the files as they are then.
#[test]
fn what_was_written_outlives_a_crash() {
    let (place, copy) = (Place::new(), Place::new());
    let store = place.open(1_000);
    let key = put("k", Some("main"), json!({"hash": "1f"}));
    store.apply(&[key], None).unwrap();
    for _ in 0..7 {
        store.record(record(0, "a", "m"));
    }
    assert!(store.flush(LONG));
    // Of this nothing is written.
    store.record(record(0, "a", "m"));
    for entry in fs::read_dir(place.folder()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.folder().join(entry.file_name())).unwrap();
    }
    let after = copy.open(1_000);
    assert_eq!(after.requests(), 7);
    assert_eq!(after.revision(), Ok(1));
    assert_eq!(after.list("key").unwrap()[0].body, json!({"hash": "1f"}));
    assert_eq!(store.requests(), 8);
}

#[test]
fn closing_writes_what_waits() {
    let place = Place::new();
    let store = place.open(5_000);
    for n in 0..2_500 {
        store.record(record(n, "a", "m"));
    }
    drop(store);
    assert_eq!(place.open(10).requests(), 2_500);
}

#[test]
fn a_full_batch_and_a_lone_record_are_written_unasked() {
    for (batch, interval) in [
        (3, Duration::from_hours(1)),
        (100, Duration::from_millis(1)),
    ] {
        let place = Place::new();
        let options = Options {
            batch,
            interval,
            ..options()
        };
        let store = Sqlite::open(&place.file(), options).unwrap();
        for n in 0..3 {
            store.record(record(n, "a", "m"));
        }
        // Nobody asks this store; another reader looks until it is there.
        let other = Connection::open(place.file()).unwrap();
        let until = std::time::Instant::now() + LONG;
        let count = || {
            let count = "SELECT count(*) FROM record";
            other
                .query_row(count, [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        while count() < 3 {
            assert!(std::time::Instant::now() < until);
            std::thread::yield_now();
        }
    }
}

#[test]
fn others_may_open_and_write_the_file_at_the_same_time() {
    let place = Place::new();
    let options = || Options {
        busy: LONG,
        ..options()
    };
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let (place, start) = (&place, &start);
            scope.spawn(move || {
                start.wait();
                let store = Sqlite::open(&place.file(), options()).unwrap();
                for n in 0..25 {
                    let name = format!("{name}{n}");
                    store.apply(&[put(&name, None, json!(n))], None).unwrap();
                    store.record(record(n, &name, "m"));
                }
            });
        }
    });
    let store = Sqlite::open(&place.file(), options()).unwrap();
    assert_eq!(store.revision(), Ok(100));
    assert_eq!(store.list("key").unwrap().len(), 100);
    assert_eq!(store.requests(), 100);
}

#[test]
fn nobody_else_may_read_the_files() {
    let place = Place::new();
    let store = place.open(10);
    store.apply(&[put("k", None, json!(1))], None).unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(place.folder()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        seen += 1;
    }
    assert_eq!(seen, 3, "the file, its log and the log's index");
}

#[test]
fn old_records_and_old_sums_go() {
    const DAY: u64 = 24 * 3_600_000;
    let place = Place::new();
    let store = place.open(100_000);
    // An hour for each of 60 days, a quarter to and a quarter past.
    for day in 0..60 {
        for quarter in [45, 75] {
            store.record(record(day * DAY + quarter * 60_000, "a", "m"));
        }
    }
    store.record(record(0, "old", "m"));
    // More than is deleted at once.
    for n in 0..4_500 {
        store.record(record(n, "a", "m"));
    }
    let counter = |period: i64| Counter {
        limit: "l".into(),
        who: period.to_string(),
        period,
        used: 1,
    };
    let now = at(59 * DAY + 2 * 3_600_000);
    let seconds = usage_seconds(now);
    let counters = [counter(seconds - 41 * 86_400), counter(seconds)];
    let added = counters.iter().map(|counter| Added {
        limit: counter.limit.clone(),
        who: counter.who.clone(),
        period: counter.period,
        by: 1,
    });
    store.count(&added.collect::<Vec<_>>()).unwrap();
    assert!(store.flush(LONG));
    let day = Duration::from_hours(24);
    let rounds = store.write(move |file| {
        let mut rounds = 1;
        while file.transact(false, |t| write::delete_old(t, now, day * 20, day * 40))? {
            rounds += 1;
        }
        Ok(rounds)
    });
    assert!(rounds.unwrap() > 40, "a little at a time");
    // Two exchanges of each of the last 40 days.
    assert_eq!(store.requests(), 80);
    let count = |of: &str| {
        let count = format!("SELECT count(*) FROM {of}");
        let count = store.read(|c| Ok(c.query_row(&count, [], |row| row.get::<_, i64>(0))?));
        count.unwrap()
    };
    assert_eq!(count("record"), 40);
    assert_eq!(count("rollup"), 80);
    assert_eq!(count("seen"), 1);
    assert_eq!(store.counters().unwrap(), counters[1..]);
    // An hour whose records are gone counts whole, one whose records are there does not.
    let half = |day: u64| Query {
        since: at(day * DAY + 50 * 60_000),
        until: at(day * DAY + 70 * 60_000),
        ..everything(By::Gateway)
    };
    let requests = |query| {
        let rows = store.usage(&query).unwrap();
        rows.iter().map(|row| row.requests).sum::<u64>()
    };
    assert_eq!(requests(half(30)), 2);
    assert_eq!(requests(half(50)), 0);
}

fn usage_seconds(at: SystemTime) -> i64 {
    super::super::usage::milliseconds(at) / 1000
}

#[test]
fn too_many_models_count_as_one() {
    let place = Place::new();
    let options = || Options {
        models: 3,
        ..options()
    };
    let store = Sqlite::open(&place.file(), options()).unwrap();
    for n in 0..2 {
        store.record(record(0, "a", &format!("m{n}")));
    }
    // Also after a restart in the same hour.
    drop(store);
    let store = Sqlite::open(&place.file(), options()).unwrap();
    for n in 0..10 {
        store.record(record(1, "a", &format!("m{n}")));
    }
    // Another gateway and another hour have names of their own.
    store.record(UsageRecord {
        gateway: "other".into(),
        ..record(1, "a", "m8")
    });
    store.record(record(HOUR as u64, "a", "m9"));
    for until in [at(HOUR as u64 * 2), at(HOUR as u64 + 1)] {
        let query = Query {
            until,
            ..everything(By::Model)
        };
        let rows = store.usage(&query).unwrap();
        let rows: Vec<_> = rows.iter().map(|row| (&*row.name, row.requests)).collect();
        let expected = [
            ("(other)", 7),
            ("m0", 2),
            ("m1", 2),
            ("m2", 1),
            ("m8", 1),
            ("m9", 1),
        ];
        assert_eq!(rows, expected);
    }
}

#[test]
fn an_empty_file_gets_the_tables() {
    let place = Place::new();
    fs::write(place.file(), "").unwrap();
    let store = place.open(10);
    store.record(record(0, "a", "m"));
    assert_eq!(store.requests(), 1);
    assert_eq!(store.revision(), Ok(0));
}

#[test]
fn versions_follow_each_other() {
    let place = Place::new();
    drop(place.open(10));
    let mut file = Connection::open(place.file()).unwrap();
    file.execute("UPDATE meta SET value = 5 WHERE name = 'revision'", [])
        .unwrap();
    let [first] = schema::SCRIPTS;
    let broken = [first, "CREATE TABLE a (b); CREATE TABLE a (b);"];
    assert!(schema::prepare(&mut file, &broken, LONG).is_err());
    let version = |file: &Connection| {
        let version = file.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'a'";
        let tables = file.query_row(tables, [], |row| row.get::<_, i64>(0));
        (version.unwrap(), tables.unwrap())
    };
    assert_eq!(version(&file), (1, 0), "nothing of the broken one stays");
    let later = [first, "CREATE TABLE a (b)", "INSERT INTO a VALUES (1)"];
    for _ in 0..2 {
        schema::prepare(&mut file, &later, LONG).unwrap();
        assert_eq!(version(&file), (3, 1));
    }
    assert_eq!(resources::revision(&file), Ok(5), "what was there stays");
    let inserted = file.query_row("SELECT count(*) FROM a", [], |row| row.get(0));
    assert_eq!(inserted, Ok(1_i64), "no script runs twice");
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let refused = |make: &dyn Fn(&Place)| {
        let place = Place::new();
        make(&place);
        let before = fs::read(place.file()).unwrap();
        let error = Sqlite::open(&place.file(), options()).err().unwrap();
        assert_eq!(fs::read(place.file()).unwrap(), before);
        let shown = error.to_string();
        assert!(!shown.contains("tollgate.db"), "{shown}");
        error
    };
    let sql = |sql: &'static str| {
        move |place: &Place| {
            let connection = Connection::open(place.file()).unwrap();
            connection.execute_batch(sql).unwrap();
        }
    };
    let newer = StoreError::Newer {
        found: 99,
        known: schema::SCRIPTS.len() as i64,
    };
    assert_eq!(refused(&sql("PRAGMA user_version = 99")), newer);
    assert!(newer.to_string().contains("99"), "{newer}");
    let foreign = refused(&sql("CREATE TABLE song (title)"));
    assert_eq!(foreign, StoreError::Foreign);
    assert_eq!(
        refused(&sql("PRAGMA user_version = -1")),
        StoreError::Foreign
    );
    let text = |place: &Place| fs::write(place.file(), "not a database\n".repeat(500)).unwrap();
    assert_eq!(refused(&text), StoreError::Damaged);
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let place = Place::new();
    let path = place.folder().join("no/such/tollgate.db");
    let error = Sqlite::open(&path, options()).err();
    assert_eq!(error, Some(StoreError::Unopened));
    // A folder is no file.
    let error = Sqlite::open(&place.folder(), options()).err();
    assert_eq!(error, Some(StoreError::Unopened));
}

/// Callers must not wait for a writer that is gone.
#[test]
fn a_writer_that_panics_closes_the_store() {
    let place = Place::new();
    let store = place.open(10);
    store.record(record(0, "a", "m"));
    let result: Result<(), _> = store.write(|_| panic!("on purpose"));
    assert_eq!(result, Err(StoreError::Closed));
    assert!(!store.flush(LONG));
    assert!(!store.health().ok);
    assert_eq!(store.apply(&[], None), Err(StoreError::Closed));
    assert_eq!(store.revision(), Ok(0));
    store.record(record(0, "a", "m"));
    assert_eq!(store.health().dropped, 1);
}
