//! CoreWeave Inference's API, `/v1alpha1/inference`: gateways, deployments and capacity claims.
//!
//! Machines, engines and weights are not ours: where a deployment's engines are is told beside it, `?target=URL` as often as there are some, or by targets
//! registered with its upstream, `PUT /v1/upstreams/{name}/targets/{id}`. All objects are converted as one document, since weights are shared by those that have
//! a model in common.

mod parameters;
mod read;
mod spec;
mod status;
mod write;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::routes::{Route, Shared};
use super::errors::in_full;
use super::objects::{Fields, Object, Shelf};
use super::shift::bundle;
use crate::config::foreign::{Converted, Dialect, Options, convert_as};

/// Where its objects are kept.
const SHELF: Shelf = Shelf("coreweave");

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gateway,
    Deployment,
    Claim,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Gateway, Kind::Deployment, Kind::Claim];

    /// The field that an answer has it in.
    fn word(self) -> &'static str {
        match self {
            Kind::Gateway => "gateway",
            Kind::Deployment => "deployment",
            Kind::Claim => "capacityClaim",
        }
    }

    /// Its place in addresses.
    fn place(self) -> &'static str {
        match self {
            Kind::Gateway => "gateways",
            Kind::Deployment => "deployments",
            Kind::Claim => "capacityclaims",
        }
    }

    /// The field that a list of them is in.
    fn list(self) -> &'static str {
        match self {
            Kind::Gateway | Kind::Deployment => "items",
            Kind::Claim => "capacityClaims",
        }
    }
}

/// Every page.
pub(super) fn pages() -> Vec<Route> {
    Kind::ALL.into_iter().flat_map(of_kind).collect()
}

fn of_kind(kind: Kind) -> Vec<Route> {
    let all = format!("/v1alpha1/inference/{}", kind.place());
    let one = format!("{all}/{{id}}");
    let choices = format!("{all}/parameters");
    let pages = [
        page(Method::GET, &all, read::list),
        page(Method::POST, &all, write::create),
        page(Method::GET, &choices, parameters::show),
        page(Method::GET, &one, read::show),
        page(Method::PATCH, &one, write::patch),
        page(Method::DELETE, &one, write::remove),
    ];
    pages.into_iter().map(|page| page.knows(kind)).collect()
}

fn page<H, T>(method: Method, path: &str, handler: H) -> Route
where
    H: axum::handler::Handler<T, Shared>,
    T: 'static,
{
    Route::new(method, path, "", handler).foreign(retell)
}

/// Errors as Connect has them: a code of its list, with the fields that are wrong as details.
fn retell(status: StatusCode, error: &Value) -> (StatusCode, Value) {
    let own = error.get("code").and_then(Value::as_str);
    let (status, code) = match own.unwrap_or_default() {
        "invalid" | "malformed" | "unsupported_media_type" => {
            (StatusCode::BAD_REQUEST, "invalid_argument")
        }
        "exists" => (StatusCode::CONFLICT, "already_exists"),
        "in_use" | "owned_by_file" | "owned_by_upstream" | "stale" => {
            (StatusCode::BAD_REQUEST, "failed_precondition")
        }
        "not_found" => (StatusCode::NOT_FOUND, "not_found"),
        "invalid_token" => (StatusCode::UNAUTHORIZED, "unauthenticated"),
        "permission_denied" => (StatusCode::FORBIDDEN, "permission_denied"),
        "request_too_large" => (status, "resource_exhausted"),
        "request_timeout" => (status, "deadline_exceeded"),
        "store_unavailable" | "overloaded" => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        "method_not_allowed" => (status, "unimplemented"),
        _ if status.is_client_error() => (status, "invalid_argument"),
        _ => (status, "internal"),
    };
    let details = error.get("details").and_then(Value::as_array);
    let violations = details.map(|details| {
        let violation = |detail: &Value| json!({"field": detail.get("path"), "description": detail.get("message")});
        let violations: Vec<Value> = details.iter().map(violation).collect();
        json!([{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}])
    });
    let details = violations.unwrap_or_else(|| json!([]));
    let body = json!({"code": code, "message": in_full(error), "details": details});
    (status, body)
}

/// The mark of the gateway that takes requests for every host.
const DEFAULT: &str = "default";
/// Where a deployment's engines are: URLs.
const TARGETS: &str = "targets";

/// The name by which a gateway can always be reached, as CoreWeave has `api.ID.gw.cwinference.com`.
fn own_host(gateway: &Object) -> String {
    format!("api.{}.gw.localhost", gateway.id)
}

/// What they all are here.
fn convert(all: &[Object]) -> Converted {
    let mut options = Options::default();
    for deployment in all {
        let targets = deployment.apart.get(TARGETS).and_then(Value::as_array);
        let targets = targets.into_iter().flatten().filter_map(Value::as_str);
        let name = deployment.called();
        let placed = targets.map(|url| (name.to_owned(), url.to_owned()));
        options.targets.extend(placed);
    }
    let reached: Vec<Object> = all.iter().map(reachable).collect();
    let lists = ["gateways", "deployments", "capacityClaims"];
    let document = bundle(&reached, &lists);
    let mut converted = convert_as(Dialect::CoreWeave, &document, &options);
    for gateway in all {
        if gateway.apart.contains_key(DEFAULT)
            && let Some(body) = resource_of(&mut converted, &gateway.id)
        {
            body.insert(DEFAULT.into(), true.into());
        }
    }
    converted
}

/// A gateway with its own host among its names, so that there can be several.
fn reachable(object: &Object) -> Object {
    let mut object = object.clone();
    if object.kind == Kind::Gateway.word() {
        let host = own_host(&object);
        let at = object.sent.entry("endpointConfiguration");
        let endpoint = at.or_insert_with(|| json!({}));
        if endpoint.is_null() {
            *endpoint = json!({});
        }
        if let Some(endpoint) = endpoint.as_object_mut() {
            let names = endpoint.entry("additionalDns").or_insert_with(|| json!([]));
            if names.is_null() {
                *names = json!([]);
            }
            if let Some(names) = names.as_array_mut() {
                names.push(host.into());
            }
        }
    }
    object
}

fn resource_of<'c>(converted: &'c mut Converted, id: &str) -> Option<&'c mut Fields> {
    let known = |body: &Fields| {
        body.get("labels")?
            .get(LABEL)?
            .as_str()
            .map(|own| own == id)
    };
    { converted.resources.iter_mut() }
        .map(|resource| &mut resource.body)
        .find(|body| known(body) == Some(true))
}

/// The label by which a native resource says whose it is.
const LABEL: &str = "coreweave-id";
