//! What `tollgate top` shows, computed from two looks at a gateway: rates from what grew between them, the rest from the later one.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::telemetry::{Scrape, quantile};

/// One look: `/metrics` and `/v1/status`.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// When, since the first one.
    pub(super) at: Duration,
    pub(super) scrape: Scrape,
    pub(super) status: Value,
}

/// What grew, per second; `None` where there was no time to grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) requests: Option<f64>,
    /// Answers of 400 and above, but for clients that left.
    pub(super) errors: Option<f64>,
    pub(super) input: Option<f64>,
    pub(super) output: Option<f64>,
    /// Seconds to the first token: half of the requests, and all but one of a hundred, were as fast.
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ServiceRow {
    pub(super) name: String,
    pub(super) rates: Rates,
    pub(super) in_flight: f64,
    pub(super) queued: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TargetRow {
    pub(super) upstream: String,
    pub(super) id: String,
    pub(super) url: String,
    pub(super) health: String,
    pub(super) breaker: String,
    pub(super) in_flight: u64,
    pub(super) weight: String,
    pub(super) cooling_ms: u64,
}

/// Everything on the screen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    pub(super) version: String,
    pub(super) revision: String,
    pub(super) is_ready: bool,
    pub(super) total: ServiceRow,
    pub(super) services: Vec<ServiceRow>,
    pub(super) targets: Vec<TargetRow>,
}

/// By what services and targets are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Name,
    Requests,
    Tokens,
    Latency,
}

impl View {
    pub(super) fn between(older: &Look, newer: &Look, order: Order) -> View {
        let status = &newer.status;
        let mut names: BTreeSet<&str> = newer
            .scrape
            .values("tollgate_in_flight", "service")
            .into_iter()
            .collect();
        names.extend(items(status, "services").filter_map(|service| service.get("name")?.as_str()));
        let row = |name: &&str| service(older, newer, name);
        let mut services: Vec<ServiceRow> = names
            .iter()
            .filter(|name| !name.is_empty())
            .map(row)
            .collect();
        services.sort_by(|a, b| order.compare(a, b));
        let mut targets: Vec<TargetRow> = items(status, "targets").map(target).collect();
        targets.sort_by(|a, b| {
            let busy = match order {
                Order::Name => Ordering::Equal,
                _ => b.in_flight.cmp(&a.in_flight),
            };
            busy.then_with(|| (&a.upstream, &a.id).cmp(&(&b.upstream, &b.id)))
        });
        let queued = items(status, "queues")
            .map(|queue| whole(queue, "depth"))
            .sum();
        View {
            version: text(status, "version"),
            revision: text(status, "revision"),
            is_ready: status
                .get("ready")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            total: ServiceRow {
                name: String::new(),
                rates: rates(older, newer, &[]),
                in_flight: newer.scrape.sum("tollgate_in_flight", &[]),
                queued,
            },
            services,
            targets,
        }
    }
}

impl Order {
    /// The largest first, but names as in a list; what is the same goes by name.
    fn compare(self, a: &ServiceRow, b: &ServiceRow) -> Ordering {
        let tokens =
            |row: &ServiceRow| row.rates.input.unwrap_or(0.0) + row.rates.output.unwrap_or(0.0);
        let largest = |value: fn(&ServiceRow) -> f64| value(b).total_cmp(&value(a));
        let first = match self {
            Order::Name => Ordering::Equal,
            Order::Requests => largest(|row| row.rates.requests.unwrap_or(0.0)),
            Order::Tokens => tokens(b).total_cmp(&tokens(a)),
            Order::Latency => largest(|row| row.rates.p99.unwrap_or(0.0)),
        };
        first.then_with(|| a.name.cmp(&b.name))
    }
}

fn service(older: &Look, newer: &Look, name: &str) -> ServiceRow {
    let labels = [("service", name)];
    let own = |queue: &&Value| queue.get("service").and_then(Value::as_str) == Some(name);
    let queued = items(&newer.status, "queues").filter(own);
    ServiceRow {
        name: name.to_owned(),
        rates: rates(older, newer, &labels),
        in_flight: newer.scrape.sum("tollgate_in_flight", &labels),
        queued: queued.map(|queue| whole(queue, "depth")).sum(),
    }
}

fn rates(older: &Look, newer: &Look, labels: &[(&str, &str)]) -> Rates {
    let seconds = newer.at.saturating_sub(older.at).as_secs_f64();
    let per_second = |sum: &dyn Fn(&Scrape) -> f64| {
        let (before, after) = (sum(&older.scrape), sum(&newer.scrape));
        // A counter that has gone down began anew.
        let grown = if after < before {
            after
        } else {
            after - before
        };
        (seconds > 0.0).then(|| grown / seconds)
    };
    let requests = "tollgate_requests_total";
    let is_error = |code: &str| code >= "400" && code != "499";
    let tokens = |scrape: &Scrape, direction: &str| {
        let labels = [labels, &[("direction", direction)]].concat();
        scrape.sum("tollgate_tokens_total", &labels)
    };
    let first_token = "tollgate_time_to_first_token_seconds";
    let (before, after) = (
        older.scrape.buckets(first_token, labels),
        newer.scrape.buckets(first_token, labels),
    );
    let quantile = |part| quantile(part, &before, &after).filter(|_| seconds > 0.0);
    Rates {
        requests: per_second(&|scrape| scrape.sum(requests, labels)),
        errors: per_second(&|scrape| scrape.sum_where(requests, labels, "code", is_error)),
        input: per_second(&|scrape| tokens(scrape, "input")),
        output: per_second(&|scrape| tokens(scrape, "output")),
        p50: quantile(0.5),
        p99: quantile(0.99),
    }
}

fn target(target: &Value) -> TargetRow {
    TargetRow {
        upstream: text(target, "upstream"),
        id: text(target, "id"),
        url: text(target, "url"),
        health: text(target, "health"),
        breaker: text(target, "breaker"),
        in_flight: whole(target, "in_flight"),
        weight: text(target, "weight"),
        cooling_ms: whole(target, "cooling_ms"),
    }
}

fn items<'v>(status: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    let items = status.get(name).and_then(Value::as_array);
    items.into_iter().flatten()
}

fn text(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn whole(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn look(at: u64, metrics: &str, status: Value) -> Look {
        Look {
            at: Duration::from_secs(at),
            scrape: Scrape::parse(metrics),
            status,
        }
    }

    const BEFORE: &str = "tollgate_requests_total{gateway=\"g\",service=\"a\",code=\"200\"} 100\n\
        tollgate_requests_total{gateway=\"g\",service=\"b\",code=\"200\"} 50\n\
        tollgate_in_flight{service=\"a\"} 1\ntollgate_in_flight{service=\"b\"} 0\n";
    const AFTER: &str = "tollgate_requests_total{gateway=\"g\",service=\"a\",code=\"200\"} 110\n\
        tollgate_requests_total{gateway=\"h\",service=\"a\",code=\"499\"} 2\n\
        tollgate_requests_total{gateway=\"h\",service=\"a\",code=\"503\"} 4\n\
        tollgate_requests_total{gateway=\"g\",service=\"b\",code=\"200\"} 20\n\
        tollgate_tokens_total{gateway=\"g\",service=\"b\",direction=\"input\"} 800\n\
        tollgate_tokens_total{gateway=\"g\",service=\"b\",direction=\"output\"} 40\n\
        tollgate_in_flight{service=\"a\"} 3\ntollgate_in_flight{service=\"b\"} 2\n";

    fn status() -> Value {
        json!({"version": "1", "revision": 7, "ready": true,
        "services": [{"name": "a"}, {"name": "idle"}],
        "queues": [{"service": "b", "depth": 5}],
        "targets": [
            {"upstream": "p", "id": "2", "url": "http://b", "health": "up", "breaker": "closed", "in_flight": 9, "weight": 1},
            {"upstream": "p", "id": "1", "url": "http://a", "health": "down", "breaker": "open", "in_flight": 0, "weight": 1, "cooling_ms": 1500},
        ]})
    }

    fn names(order: Order) -> Vec<String> {
        let view = View::between(
            &look(0, BEFORE, json!({})),
            &look(2, AFTER, status()),
            order,
        );
        view.services.into_iter().map(|row| row.name).collect()
    }

    #[test]
    fn what_grew_is_told_per_second() {
        let view = View::between(
            &look(0, BEFORE, json!({})),
            &look(2, AFTER, status()),
            Order::Name,
        );
        let row = |name: &str| view.services.iter().find(|row| row.name == name).unwrap();
        assert_eq!(
            row("a").rates.requests,
            Some(8.0),
            "over all gateways and codes"
        );
        assert_eq!(row("a").rates.errors, Some(2.0), "who left is no error");
        assert_eq!(row("b").rates.requests, Some(10.0), "it began anew");
        assert_eq!(
            (row("b").rates.input, row("b").rates.output),
            (Some(400.0), Some(20.0))
        );
        assert_eq!((row("b").queued, row("a").queued), (5, 0));
        assert_eq!((view.total.in_flight, view.total.queued), (5.0, 5));
        assert_eq!((view.revision.as_str(), view.is_ready), ("7", true));
        assert_eq!(view.targets[0].id, "1", "by name");
    }

    #[test]
    fn one_look_has_no_rates() {
        let one = look(0, AFTER, status());
        let view = View::between(&one, &one, Order::Name);
        assert_eq!(view.total.rates, Rates::default());
        assert_eq!(view.total.in_flight, 5.0);
    }

    #[test]
    fn rows_are_sorted() {
        assert_eq!(names(Order::Name), ["a", "b", "idle"]);
        assert_eq!(names(Order::Requests), ["b", "a", "idle"]);
        assert_eq!(names(Order::Tokens), ["b", "a", "idle"]);
        let busy = View::between(
            &look(0, "", json!({})),
            &look(1, AFTER, status()),
            Order::Requests,
        );
        assert_eq!(busy.targets[0].id, "2", "by load");
    }

    #[test]
    fn nothing_in_a_status_panics() {
        for status in [
            json!(null),
            json!([]),
            json!({"targets": [1, {}], "queues": 7, "services": [{"name": 1}]}),
        ] {
            View::between(&Look::default(), &look(1, "", status), Order::Latency);
        }
    }
}
