//! `/sim/…`: faults, counts and recorded requests over HTTP, on the port the engine serves.
//!
//! The library offers the same by methods of `Engine`; this is for engines in another process.
//! Nothing here is counted as a request.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::peer::{End, Peer, ReplyHead, Request};
use super::plan::read_steps;
use super::reply;
use super::shared::Shared;

/// Longest control request.
const MAX_BODY: usize = 1 << 20;

/// Answers one control request.
pub(super) async fn serve(
    shared: &Shared,
    request: &Request,
    peer: &mut Peer<'_>,
) -> Result<(), End> {
    let Some(body) = peer.whole(MAX_BODY).await? else {
        return refuse(peer, 413, "The request body is too large.").await;
    };
    match (request.method.as_str(), request.route()) {
        ("GET", "/sim/state") => send(peer, &shared.state()).await,
        ("GET", "/sim/requests") => send(peer, &shared.requests()).await,
        ("POST", "/sim/faults") => match read_steps(&body) {
            Ok(steps) => {
                let count = steps.len();
                shared.plan.replace(steps);
                send(peer, &json!({ "steps": count })).await
            }
            Err(message) => refuse(peer, 400, &message).await,
        },
        ("DELETE", "/sim/faults") => {
            shared.plan.replace(Vec::new());
            send(peer, &json!({ "steps": 0 })).await
        }
        ("POST", "/sim/record") => {
            let keep = serde_json::from_slice::<Value>(&body).ok();
            match keep
                .as_ref()
                .and_then(|value| value.get("keep"))
                .and_then(Value::as_u64)
            {
                Some(keep) => {
                    shared.set_record(usize::try_from(keep).unwrap_or(usize::MAX));
                    send(peer, &json!({ "keep": keep })).await
                }
                None => refuse(peer, 400, "expected {\"keep\": N}").await,
            }
        }
        ("GET", "/query") => match &shared.transfers {
            Some(transfers) => {
                let entry = |rank| {
                    let engine = json!({"engine_id": transfers.engine_at(rank)});
                    (rank.to_string(), engine)
                };
                let ranks: Map<String, Value> = (0..transfers.config.ranks).map(entry).collect();
                send(peer, &ranks).await
            }
            None => refuse(peer, 404, "no engine shares requests here").await,
        },
        ("POST", "/sim/kv") => hand_over(shared, &body, peer).await,
        ("POST", "/sim/reset") => {
            shared.reset();
            send(peer, &shared.state()).await
        }
        _ => refuse(peer, 404, "no such control path").await,
    }
}

/// Gives another engine what is held for it.
async fn hand_over(shared: &Shared, body: &[u8], peer: &mut Peer<'_>) -> Result<(), End> {
    let Some(transfers) = &shared.transfers else {
        return refuse(peer, 404, "no engine shares requests here").await;
    };
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let flag = |name: &str| asked.get(name).and_then(Value::as_bool).unwrap_or(false);
    let text = |name: &str| asked.get(name).and_then(Value::as_str);
    let id = text("id").unwrap_or_default();
    let taken = match flag("computes") {
        true => transfers.compute(id),
        false => {
            let taken = transfers.take(id, text("engine"), flag("waits"));
            peer.until(taken).await?
        }
    };
    match taken {
        Ok(()) => send(peer, &json!({})).await,
        Err(why) => refuse(peer, 409, &format!("{why:?}")).await,
    }
}

async fn send(peer: &mut Peer<'_>, answer: &impl Serialize) -> Result<(), End> {
    // Numbers, strings and maps with string keys always serialize.
    let body = serde_json::to_vec(answer).unwrap_or_default();
    peer.full(&ReplyHead::json(200), body).await
}

async fn refuse(peer: &mut Peer<'_>, status: u16, message: &str) -> Result<(), End> {
    peer.full(
        &ReplyHead::json(status),
        reply::error(status, message, None),
    )
    .await
}
