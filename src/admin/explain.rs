//! `POST /v1/upstreams/{name}/explain`: what a request would cost at each target, in the terms of `cache_aware`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::reply;
use super::routes::Route;
use super::schemas::named;
use crate::config::ResourceKind;
use crate::control::{ChangeError, Control, Explanation, Unexplained};

/// Prompts are as long as bodies of requests may be by default.
const LARGEST: usize = 32 << 20;

pub(super) fn page() -> Route {
    let path = "/v1/upstreams/{name}/explain";
    Route::new(Method::POST, path, "explainUpstream", explain)
        .says("What a request would cost now at each target of an upstream with the policy `cache_aware`, or of a service that has such targets of its own. It is sent nowhere.")
        .takes(json!({"type": "object", "description": "The request's body, as a client would send it."}))
        .up_to(LARGEST)
        .only_reads()
        .answers(StatusCode::OK, "The terms of each target's cost; the lowest cost is chosen.", named("Explanation"))
        .refuses(StatusCode::NOT_FOUND, "There is none of this name.")
        .refuses(StatusCode::CONFLICT, "Its policy is another.")
}

async fn explain(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Ok(body) = body else {
        return reply::malformed("the body broke off");
    };
    match control.explain(&name, &body) {
        Ok(explained) => Json(shown(&explained)).into_response(),
        Err(Unexplained::Unknown) => {
            reply::refused(&ChangeError::Missing(ResourceKind::Upstream, name))
        }
        Err(Unexplained::OtherPolicy) => {
            let why = format!(
                "The policy of {name} does not reckon costs. With `policy = \"cache_aware\"` it would."
            );
            reply::error(StatusCode::CONFLICT, "other_policy", &why)
        }
        Err(Unexplained::Body(error)) => {
            reply::malformed(&format!("the body is no request: {error}"))
        }
    }
}

fn shown(explained: &Explanation) -> Value {
    let least = |known: Option<f64>, cost: f64| Some(known.map_or(cost, |least| least.min(cost)));
    let usable = explained.targets.iter().filter(|target| target.usable);
    let best = usable.map(|target| target.terms.cost).fold(None, least);
    let targets = explained.targets.iter().map(|target| {
        let terms = &target.terms;
        json!({
            "id": target.id,
            "usable": target.usable,
            "cheapest": target.usable && best == Some(terms.cost),
            "cost_seconds": terms.cost,
            "pending_seconds": terms.pending,
            "own_seconds": terms.own,
            "duplicate_seconds": terms.duplicate,
            "load_seconds": terms.load,
            "first_token_seconds": terms.first_token(),
            "matched_tokens": terms.matched.round(),
            "tokens_per_second": target.rate.round(),
        })
    });
    json!({
        "prompt_tokens": explained.tokens.round(),
        "duplication_price": explained.price,
        "targets": targets.collect::<Vec<_>>(),
    })
}
