//! What there is to choose from. Tollgate runs where it is run: any zone and any instance type is taken and kept for the record.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::super::objects::Object;
use super::super::settled;
use super::{Kind, SHELF};
use crate::control::Control;

/// The zone of whoever has named none.
const HERE: &str = "LOCAL";

/// The choices for a kind of object.
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Extension(kind): Extension<Kind>,
) -> Response {
    let all = SHELF.load(&control).await;
    settled(all.map(|all| Json(choices(kind, &all)).into_response()))
}

fn choices(kind: Kind, all: &[Object]) -> Value {
    match kind {
        Kind::Gateway | Kind::Claim => json!({"zones": zones(all)}),
        Kind::Deployment => {
            let gateways = { all.iter() }.filter(|object| object.kind == Kind::Gateway.word());
            let ids: Vec<&str> = gateways.map(|gateway| gateway.id.as_str()).collect();
            json!({
                "gatewayIds": ids,
                "runtimes": [{"engine": "vllm", "versions": []}, {"engine": "dynamo-vllm", "versions": []}],
                "instanceTypes": [],
            })
        }
    }
}

/// Those that were named; case does not tell them apart.
fn zones(all: &[Object]) -> BTreeSet<String> {
    let named = all.iter().filter_map(|object| object.sent.get("zones"));
    let named = named.filter_map(Value::as_array).flatten();
    let named = named.filter_map(Value::as_str).map(str::to_uppercase);
    named.chain([HERE.to_owned()]).collect()
}
