//! The pages of resources: those of the five kinds alike, of registered targets, and of whole documents.

use axum::http::{Method, StatusCode};
use serde_json::json;

use super::routes::Route;
use super::schemas::{list_of, named, pascal, text};
use super::{apply, explain, keys, resources, targets};
use crate::config::ResourceKind;

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

/// Bytes of the most that is applied at once.
const LARGEST_OF_MANY: usize = 32 << 20;
/// What `If-Match` is, where there is one resource.
const OWN: &str = "The resource's revision or the configuration's, if it must still be that; `*`: it must be there.";

/// The pages of every kind of resource.
pub(super) fn all() -> Vec<Route> {
    let of_kinds = resources::KINDS.into_iter().flat_map(of_kind);
    of_kinds
        .chain([rotation(), explain::page()])
        .chain(targets())
        .chain(changes())
        .collect()
}

fn of_kind(kind: ResourceKind) -> Vec<Route> {
    let word = kind.word();
    let name = pascal(word);
    let all = format!("/v1/{word}s");
    let one = format!("{all}/{{name}}");
    // Only a new key is answered with what no other resource has.
    let made = match kind {
        ResourceKind::Key => json!({"anyOf": [named("KeyWithSecret"), named("Key")]}),
        _ => named(&name),
    };
    vec![
        Route::new(GET, &*all, format!("list{name}s"), resources::list)
            .of(kind)
            .says(format!("All {word}s."))
            .query("gateway", "Only those of this gateway.", text())
            .query(
                "managed_by",
                "Only those of the file, or of the API.",
                json!({"enum": ["file", "api"]}),
            )
            .query("label", "Only those with this label: `NAME=VALUE`.", text())
            .answers(StatusCode::OK, "They.", list_of(named(&name)))
            .with("ETag", "The configuration's revision."),
        Route::new(POST, &*all, format!("create{name}"), resources::create)
            .of(kind)
            .says(format!(
                "Makes a {word}. The secret of a key is in this answer and nowhere else."
            ))
            .header(
                "If-Match",
                "The configuration's revision, if it must still be that.",
            )
            .takes(named(&format!("New{name}")))
            .answers(StatusCode::CREATED, "It is made.", made.clone())
            .with("Location", "Its address.")
            .with("ETag", "Its revision.")
            .refuses(StatusCode::CONFLICT, "There is one of this name.")
            .changes(),
        Route::new(GET, &*one, format!("get{name}"), resources::show)
            .of(kind)
            .says(format!("One {word}."))
            .answers(StatusCode::OK, "It.", named(&name))
            .with("ETag", "Its revision.")
            .refuses(StatusCode::NOT_FOUND, "There is none of this name."),
        Route::new(PUT, &*one, format!("put{name}"), resources::replace)
            .of(kind)
            .says(format!("Makes or replaces a {word}."))
            .header("If-Match", OWN)
            .takes(named(&format!("New{name}")))
            .answers(StatusCode::OK, "It is replaced.", named(&name))
            .with("ETag", "Its revision.")
            .answers(StatusCode::CREATED, "It is made.", made)
            .with("Location", "Its address.")
            .with("ETag", "Its revision.")
            .refuses(StatusCode::CONFLICT, "It is the configuration file's.")
            .changes(),
        Route::new(PATCH, &*one, format!("patch{name}"), resources::patch)
            .of(kind)
            .says(format!(
                "Changes some fields of a {word}: a JSON merge patch."
            ))
            .header("If-Match", OWN)
            .takes_as("application/merge-patch+json", json!({"type": "object"}))
            .takes(json!({"type": "object"}))
            .answers(StatusCode::OK, "It is changed.", named(&name))
            .with("ETag", "Its revision.")
            .refuses(StatusCode::NOT_FOUND, "There is none of this name.")
            .refuses(StatusCode::CONFLICT, "It is the configuration file's.")
            .changes(),
        Route::new(DELETE, &*one, format!("delete{name}"), resources::remove)
            .of(kind)
            .says(format!("Takes a {word} away."))
            .header("If-Match", OWN)
            .answers_as(StatusCode::NO_CONTENT, "It is gone.", None)
            .refuses(StatusCode::NOT_FOUND, "There is none of this name.")
            .refuses(
                StatusCode::CONFLICT,
                "Others refer to it, or it is the configuration file's.",
            )
            .changes(),
    ]
}

fn rotation() -> Route {
    let doc = "How long the old secret goes on: \"1h\".";
    Route::new(POST, "/v1/keys/{name}/rotate", "rotateKey", keys::rotate)
        .says("Gives a key another secret. The old one goes on for the key's grace.")
        .header("If-Match", OWN)
        .may_take(json!({
            "type": "object",
            "properties": {"grace": {"type": ["string", "null"], "description": doc}},
        }))
        .answers(
            StatusCode::OK,
            "The key, with its new secret.",
            named("KeyWithSecret"),
        )
        .with("ETag", "Its revision.")
        .refuses(StatusCode::NOT_FOUND, "There is none of this name.")
        .refuses(StatusCode::CONFLICT, "It is the configuration file's.")
        .changes()
}

fn targets() -> Vec<Route> {
    let all = "/v1/upstreams/{name}/targets";
    let one = "/v1/upstreams/{name}/targets/{id}";
    let nobody = "There is no upstream or service of this name, or no such target.";
    vec![
        Route::new(GET, all, "listTargets", targets::list)
            .says("How the targets of an upstream stand, or of a service that has its own.")
            .answers(StatusCode::OK, "They.", list_of(named("Target")))
            .with("ETag", "The configuration's revision.")
            .refuses(StatusCode::NOT_FOUND, nobody),
        Route::new(GET, one, "getTarget", targets::show)
            .says("How one target stands.")
            .answers(StatusCode::OK, "It.", named("Target"))
            .with("ETag", "Its revision.")
            .refuses(StatusCode::NOT_FOUND, nobody),
        Route::new(PUT, one, "putTarget", targets::register)
            .says("Registers a target beside those in the upstream's own list, or changes a registered one.")
            .header("If-Match", OWN)
            .takes(named("NewTarget"))
            .answers(StatusCode::OK, "It is changed.", named("Target"))
            .with("ETag", "Its revision.")
            .answers(StatusCode::CREATED, "It takes requests once it is known to be well.", named("Target"))
            .with("Location", "Its address.")
            .with("ETag", "Its revision.")
            .refuses(StatusCode::NOT_FOUND, nobody)
            .refuses(StatusCode::CONFLICT, "It stands in the upstream's own list.")
            .changes(),
        Route::new(DELETE, one, "deleteTarget", targets::leave)
            .says("Takes a registered target out: open requests end, new ones do not come.")
            .header("If-Match", OWN)
            .answers_as(StatusCode::NO_CONTENT, "It gets no more requests.", None)
            .refuses(StatusCode::NOT_FOUND, nobody)
            .refuses(StatusCode::CONFLICT, "It stands in the upstream's own list.")
            .changes(),
    ]
}

fn changes() -> Vec<Route> {
    let page = |route: Route, says: &str, done: &str| {
        let beside = "Of other systems' documents: ";
        let route = ["gateway", "project", "target", "local", "flag"]
            .into_iter()
            .fold(route, |route, name| {
                let doc = match name {
                    "gateway" => "the gateway of their services, if they do not say.",
                    "project" => "dstack's project.",
                    "target" => "`NAME=URL`, where replicas or engines are; may be repeated.",
                    "local" => "a URL of Llumnix' internal pool; may be repeated.",
                    _ => "`NAME=VALUE`, a flag of Llumnix' gateway; may be repeated.",
                };
                route.query(name, format!("{beside}{doc}"), text())
            });
        route
            .says(says)
            .header(
                "If-Match",
                "The configuration's revision, if it must still be that.",
            )
            .takes(json!({"type": ["object", "array"]}))
            .takes_as("application/yaml", text())
            .takes_as("application/toml", text())
            .up_to(LARGEST_OF_MANY)
            .answers(StatusCode::OK, done, named("Plan"))
            .with("ETag", "The configuration's revision.")
            .refuses(
                StatusCode::CONFLICT,
                "Something stands in the configuration file, or is referred to by others.",
            )
            .changes()
    };
    let plan = Route::new(POST, "/v1/plan", "plan", apply::plan);
    let apply = Route::new(POST, "/v1/apply", "apply", apply::apply);
    vec![
        page(plan, "What documents would change. Nothing is done.", "It.").only_reads(),
        page(
            apply,
            "Brings documents into force, all of them or none: one, a list, a configuration file, or another system's.",
            "It is in force.",
        ),
    ]
}
