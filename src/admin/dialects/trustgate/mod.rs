//! TrustGate's admin API, `/api/v1`: gateways, and below each its upstreams, services, rules and keys.
//!
//! A gateway with all that is below it is converted as one document, since a rule means what it does only together with its service and its targets.
//! Native names of what is below begin with the gateway's, `edge.chat`: here they are everybody's.

mod call;
mod checks;
mod keys;
mod list;
mod plugins;
mod write;

use axum::Json;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::routes::Route;
use super::errors::in_full;
use super::objects::{Object, Shelf};
use super::shift::bundle;
use crate::config::foreign::{Converted, Dialect, Fate, Note, Options, convert_as};

/// Where its objects are kept.
const SHELF: Shelf = Shelf("trustgate");

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gateway,
    Upstream,
    Service,
    Rule,
    Key,
}

impl Kind {
    const ALL: [Kind; 5] = [
        Kind::Gateway,
        Kind::Upstream,
        Kind::Service,
        Kind::Rule,
        Kind::Key,
    ];

    fn word(self) -> &'static str {
        match self {
            Kind::Gateway => "gateway",
            Kind::Upstream => "upstream",
            Kind::Service => "service",
            Kind::Rule => "rule",
            Kind::Key => "key",
        }
    }

    fn list(self) -> &'static str {
        match self {
            Kind::Gateway => "gateways",
            Kind::Upstream => "upstreams",
            Kind::Service => "services",
            Kind::Rule => "rules",
            Kind::Key => "keys",
        }
    }
}

/// Every page.
pub(super) fn pages() -> Vec<Route> {
    let mut all: Vec<Route> = Kind::ALL.into_iter().flat_map(of_kind).collect();
    let keys = "/api/v1/iam/api-keys";
    let key = "/api/v1/iam/api-keys/{id}";
    let policies = "/api/v1/iam/api-keys/{id}/policies";
    let plugins = "/api/v1/plugins";
    all.extend([
        page(Method::GET, "/api/v1/version", version),
        page(Method::POST, "/api/v1/invalidate-cache", nothing_cached).only_reads(),
        page(Method::GET, keys, keys::list).knows(Kind::Key),
        page(Method::GET, "/api/v1/iam/api-keys/public", keys::list).knows(Kind::Key),
        page(Method::POST, keys, keys::create).knows(Kind::Key),
        page(Method::GET, key, list::show).knows(Kind::Key),
        page(Method::DELETE, key, write::remove).knows(Kind::Key),
        page(Method::PUT, policies, keys::policies).knows(Kind::Key),
        page(Method::POST, plugins, plugins::add).knows(Kind::Gateway),
        page(Method::PUT, plugins, plugins::update).knows(Kind::Gateway),
        page(Method::DELETE, plugins, plugins::remove).knows(Kind::Gateway),
    ]);
    all
}

fn of_kind(kind: Kind) -> Vec<Route> {
    // A gateway is a parameter of what is below it, which the router wants to have one name.
    let gateway = "/api/v1/gateways/{gateway}";
    let (all, one) = match kind {
        Kind::Gateway => ("/api/v1/gateways".to_owned(), gateway.to_owned()),
        below => {
            let all = format!("{gateway}/{}", below.list());
            let one = format!("{all}/{{id}}");
            (all, one)
        }
    };
    let mut pages = vec![
        page(Method::GET, &all, list::list),
        page(Method::POST, &all, write::create),
        page(Method::GET, &one, list::show),
        page(Method::DELETE, &one, write::remove),
    ];
    if kind != Kind::Key {
        pages.push(page(Method::PUT, &one, write::update));
    }
    pages.into_iter().map(|page| page.knows(kind)).collect()
}

fn page<H, T>(method: Method, path: &str, handler: H) -> Route
where
    H: axum::handler::Handler<T, super::super::routes::Shared>,
    T: 'static,
{
    Route::new(method, path, "", handler).foreign(retell)
}

async fn version() -> Json<Value> {
    Json(json!({"app_name": "Tollgate", "version": env!("CARGO_PKG_VERSION")}))
}

/// A change is in force when its answer is sent: there is nothing that could be stale.
async fn nothing_cached() -> Json<Value> {
    Json(json!({"message": "Nothing is cached: every change is in force when it is answered."}))
}

/// TrustGate has one status for everything that its client did wrong, and errors without a code.
fn retell(status: StatusCode, error: &Value) -> (StatusCode, Value) {
    let status = match status {
        StatusCode::CONFLICT
        | StatusCode::PRECONDITION_FAILED
        | StatusCode::UNPROCESSABLE_ENTITY
        | StatusCode::UNSUPPORTED_MEDIA_TYPE => StatusCode::BAD_REQUEST,
        other => other,
    };
    (status, json!({"error": in_full(error)}))
}

/// The mark of the gateway that takes requests for every host.
const DEFAULT: &str = "default";

/// What a gateway and all that is below it are here.
fn convert(tenant: &[Object]) -> Converted {
    let options = Options {
        qualified: true,
        ..Options::default()
    };
    let lists = Kind::ALL.map(Kind::list);
    let mut converted = convert_as(Dialect::TrustGate, &bundle(tenant, &lists), &options);
    let default = { tenant.iter() }.any(|object| object.apart.contains_key(DEFAULT));
    let own = { converted.resources.iter_mut() }.find(|resource| resource.kind == "gateway");
    if let (Some(gateway), false) = (own, default) {
        // It is not the only one here, which the conversion cannot know.
        gateway.body.remove(DEFAULT);
        if !gateway.body.contains_key("hosts") {
            converted.notes.push(Note {
                path: "gateways[0].subdomain".into(),
                fate: Fate::Refused,
                message: "another gateway takes requests for every host, and here the host tells gateways apart, not the key: give it a `subdomain`, or `security_config.allowed_hosts`".into(),
            });
        }
    }
    converted
}
