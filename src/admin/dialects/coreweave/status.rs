//! How an object stands: `STATUS_*` and the conditions `Ready` and `Progressing`, from what is known of its gateway or service.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::objects::Object;
use super::{Kind, LABEL, TARGETS};
use crate::config::{ResourceKind, Set};
use crate::control::{ConditionKind, Control, GatewayState, GatewayStatus, ServiceStatus, Status};

/// How everything stands at a moment.
pub(super) struct Standing {
    set: Arc<Set>,
    status: Status,
    deleting: bool,
}

/// One object's.
struct Told {
    status: &'static str,
    /// `None`: not known yet.
    ready: Option<bool>,
    reason: &'static str,
    message: String,
    endpoints: Vec<String>,
}

impl Told {
    fn new(status: &'static str, ready: Option<bool>, reason: &'static str, message: &str) -> Told {
        Told {
            status,
            ready,
            reason,
            message: message.to_owned(),
            endpoints: Vec::new(),
        }
    }
}

const READY: &str = "STATUS_READY";
const CREATING: &str = "STATUS_CREATING";
const UPDATING: &str = "STATUS_UPDATING";
const DELETING: &str = "STATUS_DELETING";

impl Standing {
    pub(super) fn of(control: &Control) -> Standing {
        Standing {
            set: control.resources(),
            status: control.status(),
            deleting: false,
        }
    }

    /// The same for what is about to go.
    pub(super) fn deleting(mut self) -> Standing {
        self.deleting = true;
        self
    }

    /// The `status` of an object.
    pub(super) fn told(&self, object: &Object) -> Value {
        let mut told = if object.kind == Kind::Gateway.word() {
            self.gateway(object)
        } else if object.kind == Kind::Deployment.word() {
            self.deployment(object)
        } else {
            let why =
                "Machines are not claimed here; the claim is kept, and nothing depends on it.";
            Told::new(READY, Some(false), "NotActedOn", why)
        };
        if self.deleting {
            told.status = DELETING;
        }
        let progressing = matches!(told.status, CREATING | UPDATING | DELETING);
        let condition = |kind: &str, holds: Option<bool>, reason: &str, message: &str| {
            json!({
                "type": kind, "status": word(holds), "reason": reason, "message": message,
                "zone": zone(object), "lastUpdateTime": object.updated_at,
            })
        };
        let reconciling = if progressing {
            "Reconciling"
        } else {
            "AsExpected"
        };
        json!({
            "status": told.status,
            "createdAt": object.created_at,
            "updatedAt": object.updated_at,
            "endpoints": told.endpoints,
            "conditions": [
                condition("Ready", told.ready, told.reason, &told.message),
                condition("Progressing", Some(progressing), reconciling, ""),
            ],
        })
    }

    /// The native resource that came of an object.
    fn name(&self, kind: ResourceKind, object: &Object) -> Option<&str> {
        let own = |labels: &std::collections::BTreeMap<String, String>| {
            labels.get(LABEL).is_some_and(|id| *id == object.id)
        };
        let mut all = self.set.all(kind).iter();
        let found = all.find(|resource| own(resource.model.labels()));
        found.map(|found| &*found.name)
    }

    fn gateway(&self, object: &Object) -> Told {
        let name = self.name(ResourceKind::Gateway, object);
        let known = { self.status.gateways.iter() }.find(|known| Some(&*known.name) == name);
        let Some(known) = known else {
            let why = "Its native gateway was taken away; delete it here, too.";
            return Told::new("STATUS_ERROR", Some(false), "Missing", why);
        };
        // Whether its deployments serve is theirs to say: an empty gateway is ready for them.
        let stands = known.conditions.iter().all(|condition| {
            condition.kind == ConditionKind::TargetsHealthy || condition.holds == Some(true)
        });
        let mut told = match (known.state, stands) {
            (GatewayState::Updating, _) => {
                Told::new(UPDATING, Some(true), "Reconciling", "A change is made.")
            }
            (GatewayState::Deleting, _) => {
                Told::new(DELETING, Some(false), "Draining", "The process ends.")
            }
            (_, true) => Told::new(READY, Some(true), "AsExpected", ""),
            (GatewayState::Error, false) => {
                Told::new("STATUS_ERROR", Some(false), "Refused", &why(known))
            }
            (_, false) => Told::new(CREATING, None, "Reconciling", &why(known)),
        };
        if told.ready == Some(true) {
            told.endpoints = self.endpoints(known);
        }
        told
    }

    /// A URL for each of its names, at the port of the first listener.
    fn endpoints(&self, gateway: &GatewayStatus) -> Vec<String> {
        let listeners = &self.set.config().listeners;
        let port = listeners.first().map(|listener| listener.address.port());
        let port = port.filter(|port| *port != 80);
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        let hosts = { gateway.hosts.iter() }.filter(|host| !host.contains('*'));
        hosts.map(|host| format!("http://{host}{port}")).collect()
    }

    fn deployment(&self, object: &Object) -> Told {
        if object.sent.get("disabled") == Some(&Value::Bool(true)) {
            let why = "It is disabled: it gets no requests.";
            return Told::new(READY, Some(false), "Disabled", why);
        }
        let name = self.name(ResourceKind::Service, object);
        let known = { self.status.services.iter() }.find(|known| Some(&*known.name) == name);
        let Some(known) = known else {
            let why = "Its native service was taken away; delete it here, too.";
            return Told::new("STATUS_ERROR", Some(false), "Missing", why);
        };
        if known.serving > 0 {
            return Told::new(READY, Some(true), "AsExpected", "");
        }
        let status = match object.created_at == object.updated_at {
            true => CREATING,
            false => UPDATING,
        };
        let (reason, why) = unserved(object, known);
        Told::new(status, Some(false), reason, &why)
    }
}

fn unserved(object: &Object, service: &ServiceStatus) -> (&'static str, String) {
    let upstream = &service.upstream;
    match object.apart.contains_key(TARGETS) {
        true => ("TargetsDown", "None of its targets answers yet.".to_owned()),
        false => (
            "NoTargets",
            format!(
                "Engines are not started here. Say where they are: PATCH with ?target=URL, or PUT /v1/upstreams/{upstream}/targets/ID."
            ),
        ),
    }
}

fn why(gateway: &GatewayStatus) -> String {
    let failing = { gateway.conditions.iter() }.filter(|condition| condition.holds != Some(true));
    let told: Vec<&str> = failing
        .map(|condition| condition.message.as_str())
        .collect();
    told.join(" ")
}

fn word(holds: Option<bool>) -> &'static str {
    match holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    }
}

/// The first zone that it names.
fn zone(object: &Object) -> &str {
    let zones = object.sent.get("zones").and_then(|zones| zones.get(0));
    zones.and_then(Value::as_str).unwrap_or_default()
}
