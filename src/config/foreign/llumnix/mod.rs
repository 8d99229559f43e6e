//! Llumnix's gateway, v0.1.0: its list of routes, and its flags by name.
//!
//! A route becomes a service and an upstream. Its internal pool has no addresses in the document: they come from `--local`, or from
//! the flag that lists them. Llumnix checks nothing of a route; here a list that would not do what it says is refused.

mod arguments;
mod disaggregated;
mod flags;
mod pool;
mod route;
mod splitting;

use serde_json::{Map, Value, json};

use super::fields::{Notes, quoted};
use super::{Converted, Dialect, Options, Resource, name};
use crate::model::Name;
use flags::Flags;
use pool::Pools;
use route::Route;

/// The fields of a route. One of the first two is what tells a list of them from others.
const FIELDS: [&str; 6] = [
    "base_url", "prefix", "weight", "fallback", "api_key", "model",
];

/// A list of tables, each with a field that only routes have, or all with nothing but fields of routes.
pub(super) fn recognises(document: &Value) -> bool {
    let is_route = |item: &Value| {
        item.as_object().is_some_and(|table| {
            !table.contains_key("kind")
                && !table.contains_key("type")
                && FIELDS.iter().take(2).any(|name| table.contains_key(*name))
        })
    };
    document
        .as_array()
        .is_some_and(|items| items.iter().any(is_route))
}

/// Converts what [`recognises`] accepts.
pub(super) fn convert(document: &Value, options: &Options) -> Converted {
    let mut notes = Notes::default();
    let flags = flags::read(options, &mut notes);
    let items = document.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut routes: Vec<Route<'_>> = { items.iter().enumerate() }
        .filter_map(|(index, item)| route::read(item, index, &mut notes))
        .collect();
    splitting::split(&mut routes, flags.policy, &mut notes);
    let mut resources = Vec::new();
    let gateway = gateway(&flags, options, &mut resources, &mut notes);
    serve(
        &routes,
        &flags,
        options,
        gateway.as_deref(),
        &mut resources,
        &mut notes,
    );
    Converted {
        dialect: Dialect::Llumnix,
        resources,
        notes: notes.into_vec(),
    }
}

/// The gateway that the services are for: one that is there already, or one like Llumnix's, which asks nobody for a key.
fn gateway(
    flags: &Flags,
    options: &Options,
    resources: &mut Vec<Resource>,
    notes: &mut Notes,
) -> Option<String> {
    if let Some(address) = &flags.address {
        push(
            resources,
            "listener",
            json!({"name": "llumnix", "address": address}),
        );
    }
    match &options.gateway {
        Some(name) if Name::new(name).is_ok() => {
            notes.assumed(
                "",
                format!("gateways = [{}], which is there already", quoted(name)),
            );
            Some(name.clone())
        }
        Some(name) => {
            notes.refused("--gateway", format!("{} is not a name", quoted(name)));
            None
        }
        None => {
            let message = "a gateway \"llumnix\" for every host and, as it was, without keys (auth = \"none\"); name another with --gateway";
            notes.assumed("", message);
            push(
                resources,
                "gateway",
                json!({"name": "llumnix", "hosts": ["*"], "auth": "none"}),
            );
            Some("llumnix".into())
        }
    }
}

/// Upstreams and services for all routes that can get requests.
fn serve(
    routes: &[Route<'_>],
    flags: &Flags,
    options: &Options,
    gateway: Option<&str>,
    resources: &mut Vec<Resource>,
    notes: &mut Notes,
) {
    let mut pools = Pools::default();
    let mut named: Vec<(&Route<'_>, String, String)> = Vec::new();
    for route in routes.iter().filter(|route| route.serves()) {
        let upstream = pools.upstream(route, flags, options, resources, notes);
        let service = pools.service_name(route);
        named.push((route, upstream, service));
    }
    for (route, upstream, service) in &named {
        // A URL that has failed is not asked again.
        let chain: Vec<&String> = { named.iter() }
            .filter(|(other, ..)| other.falls_back() && other.url != route.url)
            .map(|(_, _, service)| service)
            .collect();
        let mut body = of_route(route, flags);
        body.insert("name".into(), json!(service));
        body.insert("upstream".into(), json!(upstream));
        if let Some(gateway) = gateway {
            body.insert("gateways".into(), json!([gateway]));
        }
        if !chain.is_empty() {
            body.insert("fallback".into(), json!(chain));
        }
        resources.push(Resource {
            kind: "service",
            body,
        });
    }
    if named.is_empty() {
        notes.refused("", "no route can get requests");
    }
    told_for_all(
        &named.iter().map(|(route, ..)| *route).collect::<Vec<_>>(),
        notes,
    );
}

fn of_route(route: &Route<'_>, flags: &Flags) -> Map<String, Value> {
    let mut body = Map::new();
    if !route.models.is_empty() {
        body.insert("models".into(), json!(route.models));
    }
    if let Some(share) = route.share {
        body.insert("weight".into(), json!(share));
    }
    if route.is_local() {
        let timeouts = json!({"connect": "3s", "first_byte": "15m", "idle": "5m"});
        body.insert("timeouts".into(), timeouts);
        if let Some(attempts) = flags.attempts {
            let retry = json!({"attempts": attempts, "backoff": "10ms", "max_backoff": "100ms", "budget": 1.0});
            body.insert("retry".into(), retry);
        }
    } else {
        body.insert("retry".into(), json!("off"));
        if let (true, Some(queue)) = (route.falls_back(), &flags.queue) {
            body.insert("queue".into(), queue.clone());
        }
    }
    body
}

/// What Llumnix does without being told, and what is done here.
fn told_for_all(routes: &[&Route<'_>], notes: &mut Notes) {
    let message = "what leads nowhere gets 404, what nobody serves 502 or 503, in the form of OpenAI's errors; Llumnix answers 400 with a text";
    notes.assumed("", message);
    if routes.iter().any(|route| route.is_local()) {
        let message = "the internal pool's waits as in Llumnix: connect 3s, first_byte 15m, idle 5m; engines are picked here, without its scheduler";
        notes.assumed("", message);
        let message =
            "a request that names no model gets 400; Llumnix sends it to the internal pool";
        notes.assumed("", message);
    }
    if routes.iter().any(|route| !route.is_local()) {
        let message = "outside URLs are tried once for each request, without Llumnix's limit of 30s for the whole of an answer";
        notes.assumed("", message);
    }
}

fn push(resources: &mut Vec<Resource>, kind: &'static str, body: Value) {
    if let Value::Object(body) = body {
        resources.push(Resource { kind, body });
    }
}

/// The name with the first number that leaves it alone among others.
fn unique(wished: &str, taken: &[String]) -> String {
    let free = |name: &String| !taken.contains(name);
    let numbered = (2..).map(|number: u32| name::with_suffix(wished, &number.to_string()));
    std::iter::once(wished.to_owned())
        .chain(numbered)
        .find(free)
        .unwrap_or_default()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]
mod tests {
    use super::*;
    use crate::config::foreign::Fate;

    fn converted(document: &Value, flags: &[(&str, &str)]) -> Converted {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let options = Options {
            local: vec!["http://10.0.0.1:8000".into()],
            flags: flags.iter().map(pair).collect(),
            ..Options::default()
        };
        convert(document, &options)
    }

    fn services(converted: &Converted) -> Vec<&Map<String, Value>> {
        let services = converted.resources.iter().filter(|r| r.kind == "service");
        services.map(|r| &r.body).collect()
    }

    /// A URL that failed is not asked again, whichever of its routes was first.
    #[test]
    fn no_route_falls_back_to_its_own_url() {
        let document = json!([
            {"base_url": "http://a:1", "prefix": "x", "fallback": true},
            {"base_url": "http://a:1/", "prefix": "y", "fallback": true},
            {"base_url": "http://b:1", "fallback": true},
            {"base_url": "local", "prefix": "*", "fallback": true},
        ]);
        let converted = converted(&document, &[("route-policy", "prefix")]);
        assert!(!converted.is_refused());
        let chains = services(&converted)
            .into_iter()
            .map(|body| &body["fallback"]);
        let chains: Vec<&Value> = chains.collect();
        let expected = [
            json!(["b"]),
            json!(["b"]),
            json!(["a", "a-2"]),
            json!(["a", "a-2", "b"]),
        ];
        assert_eq!(chains, expected.iter().collect::<Vec<_>>());
    }

    /// A lone weight 0 would serve here, and in Llumnix does not.
    #[test]
    fn a_weight_of_nothing_leads_nowhere() {
        let document =
            json!([{"base_url": "local", "weight": 0}, {"base_url": "http://b:1", "weight": 7}]);
        let some = converted(&document, &[("route-policy", "weight")]);
        assert_eq!(services(&some).len(), 1);
        assert_eq!(services(&some)[0]["weight"], 7);
        let document = json!([{"base_url": "local", "weight": 0}]);
        let none = converted(&document, &[("route-policy", "weight")]);
        assert!(none.is_refused() && services(&none).is_empty());
    }

    #[test]
    fn no_key_is_told() {
        let document = json!([{"base_url": "http://b:1", "prefix": "*", "api_key": "hunter2"}]);
        let flags = [
            ("route-policy", "prefix"),
            ("service-token", "hunter2"),
            ("discovery-etcd-password", "hunter2"),
        ];
        let converted = converted(&document, &flags);
        assert_eq!(converted.resources[1].body["api_key"], "hunter2");
        assert!(
            converted
                .notes
                .iter()
                .all(|note| !note.to_string().contains("hunter2"))
        );
        let warned = converted
            .notes
            .iter()
            .filter(|note| note.fate == Fate::Warned);
        assert_eq!(warned.count(), 2);
    }

    #[test]
    fn a_queue_that_never_sends_again_is_none() {
        let document = json!([{"base_url": "http://b:1", "prefix": "*", "fallback": true}]);
        for (count, queue) in [("0", None), ("-1", Some(json!({"max_retries": -1})))] {
            let flags = [
                ("route-policy", "prefix"),
                ("fallback-retry-queue-enabled", "true"),
                ("fallback-retry-max-count", count),
            ];
            let converted = converted(&document, &flags);
            assert_eq!(
                services(&converted)[0].get("queue"),
                queue.as_ref(),
                "{count}"
            );
        }
    }
}
