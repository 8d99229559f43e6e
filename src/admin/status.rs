//! `/v1/status`: how everything stands.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde_json::{Value, json};
use tollgate_sdk::document::FromNode;

use super::scaling;
use crate::acme::Standing;
use crate::balance::KvStatus;
use crate::control::{
    CertificateStatus, Condition, Control, EngineStatus, GatewayStatus, LastReload, RoleStatus,
    ServiceStatus, Shown, Status, TargetStatus,
};
use crate::health::BreakerState;
use crate::model::Moment;
use crate::store::Health;

pub(super) async fn status(State(control): State<Arc<Control>>) -> Json<Value> {
    let certificates = control.certificates();
    let certificates: Vec<Value> = certificates.iter().map(certificate).collect();
    let mut shown = shown(&control.status());
    if let Some(shown) = shown.as_object_mut() {
        shown.insert("certificates".into(), certificates.into());
    }
    Json(shown)
}

fn shown(status: &Status) -> Value {
    let gateways: Vec<Value> = status.gateways.iter().map(gateway).collect();
    let services: Vec<Value> = status.services.iter().map(service).collect();
    let targets: Vec<Value> = status.targets.iter().map(target).collect();
    let queues = status.queues.iter().map(|queue| {
        json!({
            "service": &*queue.service,
            "depth": queue.depth,
            "waiting_for_target": queue.waiting_for_target,
        })
    });
    json!({
        "version": status.version,
        "revision": status.revision,
        "started_at": status.started_at.value(),
        "ready": status.ready,
        "file": status.file,
        "last_reload": status.last_reload.as_ref().map(reload),
        "gateways": gateways,
        "services": services,
        "targets": targets,
        "queues": queues.collect::<Vec<_>>(),
        "store": store(&status.store),
    })
}

fn reload(last: &LastReload) -> Value {
    json!({
        "at": last.at.value(),
        "result": if last.ok { "ok" } else { "refused" },
        "message": last.message,
    })
}

fn gateway(gateway: &GatewayStatus) -> Value {
    let conditions: Vec<Value> = gateway.conditions.iter().map(condition).collect();
    let services: Vec<&str> = gateway.services.iter().map(|name| &**name).collect();
    json!({
        "name": &*gateway.name,
        "status": gateway.state.as_str(),
        "conditions": conditions,
        "hosts": gateway.hosts,
        "services": services,
    })
}

fn certificate(certificate: &CertificateStatus) -> Value {
    let time = |seconds| Timestamp::from_second(seconds).ok().map(|t| t.to_string());
    let (name, of) = match &certificate.whose {
        Shown::Gateway(name) => (name, "gateway"),
        Shown::Listener(name) => (name, "listener"),
    };
    let leaf = certificate.leaf.as_ref();
    json!({
        "name": &**name,
        "of": of,
        "hosts": leaf.map(|leaf| &leaf.names),
        "issuer": leaf.map(|leaf| &leaf.issuer),
        "expires_at": leaf.and_then(|leaf| time(leaf.not_after)),
        "source": certificate.source,
        "order": certificate.order.as_ref().map(order),
    })
}

fn order(standing: &Standing) -> Value {
    let next = standing.next.and_then(Moment::at);
    json!({
        "state": standing.state.as_str(),
        "reason": standing.reason,
        "next_at": next.map(|next| next.value()),
    })
}

fn condition(condition: &Condition) -> Value {
    json!({
        "type": condition.kind.as_str(),
        "status": condition.status(),
        "reason": condition.reason,
        "message": condition.message,
        "updated_at": condition.updated_at(),
    })
}

fn service(service: &ServiceStatus) -> Value {
    json!({
        "name": &*service.name,
        "upstream": &*service.upstream,
        "in_flight": service.in_flight,
        "targets": service.targets,
        "serving": service.serving,
        "models": service.models.as_ref().map(|names| names.iter().map(|name| &**name).collect::<Vec<_>>()),
        "roles": service.roles.iter().map(role).collect::<Vec<_>>(),
        "scaling": service.scaled.as_deref().map(scaling::shown),
    })
}

fn role(status: &RoleStatus) -> Value {
    json!({
        "role": status.role.value(),
        "targets": status.targets,
        "serving": status.serving,
        "in_flight": status.in_flight,
    })
}

fn target(target: &TargetStatus) -> Value {
    json!({
        "upstream": &*target.upstream,
        "id": target.id,
        "url": &*target.url,
        "health": match target.answers {
            Some(true) => "up",
            Some(false) => "down",
            None => "unknown",
        },
        "breaker": match target.breaker {
            BreakerState::Closed => "closed",
            BreakerState::HalfOpen => "half_open",
            BreakerState::Open => "open",
        },
        "in_flight": target.in_flight,
        "weight": target.weight,
        "engine": target.engine.as_ref().map(engine),
        "kv_events": target.kv_events.as_ref().map(kv_events),
        "cooling_ms": target.cooling.map_or(0, |left| left.as_millis() as u64),
    })
}

fn engine(engine: &EngineStatus) -> Value {
    let told = &engine.told;
    json!({
        "running": told.running,
        "waiting": told.waiting,
        "kv_usage": told.kv_usage,
        "cache_tokens": told.cache_tokens,
        "prompt_tokens": told.prompt_tokens,
        "models": engine.models.iter().map(|name| &**name).collect::<Vec<_>>(),
        "adapters": told.adapters,
        "stale": engine.stale,
    })
}

fn kv_events(told: &KvStatus) -> Value {
    json!({
        "source": told.source.word(),
        "events": told.events,
        "gaps": told.gaps,
        "blocks": told.blocks,
        "tokens": told.tokens,
        "whole": told.whole,
        "silent_ms": told.heard.map(|heard| heard.elapsed().as_millis() as u64),
    })
}

fn store(health: &Health) -> Value {
    json!({
        "ok": health.ok,
        "reason": health.reason,
        "buffered": health.buffered,
        "dropped": health.dropped,
    })
}
