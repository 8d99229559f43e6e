//! A service of dstack: a native service, and an upstream that holds its replicas.

use super::super::fields::{Fields, Notes, found, quoted};
use super::super::roles::{self, Placed};
use super::super::{Options, name};
use super::groups::Groups;
use super::model::Model;
use super::scaling::Use;
use super::{Gateway, Part, groups, limits, model, probes, put_labels};
use super::{replicas, router, scaling, unserved};
use crate::model::Scheme;
use serde_json::{Map, Value, json};

/// A service and its upstream as they grow.
struct Pair {
    name: String,
    service: Map<String, Value>,
    upstream: Map<String, Value>,
}

pub(super) fn convert(
    mut fields: Fields<'_>,
    gateways: &[Gateway],
    options: &Options,
    part: &mut Part,
) {
    let notes = &mut part.notes;
    let mut labels = Map::new();
    let mut pair = begin(&mut fields, options, notes);
    let port = port(&mut fields, notes);
    let offer = offered(&mut fields, gateways, options, &mut pair, notes);
    https(&mut fields, offer, notes);
    let public = auth(&mut fields, &mut pair, notes);
    let model = model::convert(&mut fields, notes);
    kind(&fields, model.as_ref(), public, &mut pair, notes);
    let limits = limits::convert(&mut fields, notes);
    if !limits.is_empty() {
        pair.service.insert("rate_limits".into(), limits.into());
    }
    let given = |group: &str| {
        let name = format!("{}/{group}", pair.name);
        options.targets.iter().any(|(known, _)| *known == name)
    };
    let groups = groups::convert(&mut fields, &given, notes);
    let scaling = match &groups {
        Some(groups) => {
            fields.any("scaling");
            groups.scaling.clone()
        }
        None => counted(&mut fields, notes),
    };
    if let Some(scaling) = scaling {
        pair.service.insert("scaling".into(), scaling.into());
    }
    let env = unserved::environment(&mut fields, notes);
    let health = probes::convert(&mut fields, &env, model.is_some(), notes);
    if let Some(health) = health {
        pair.upstream.insert("health".into(), health);
    }
    let routed = policy(&mut fields, offer, groups.as_ref(), &mut pair, notes);
    let split = routed || groups.as_ref().is_some_and(|groups| groups.split);
    if split {
        apart(&fields, &mut pair, notes);
    }
    unserved::convert(&mut fields, &mut labels, notes);
    let message = "dstack gives an engine 300s: timeouts = { first_byte = \"5m\", idle = \"5m\" }; it sends the Host it was asked for, Tollgate the replica's, and the other as X-Forwarded-Host";
    notes.assumed(fields.path(), message);
    pair.service
        .insert("timeouts".into(), json!({"first_byte": "5m", "idle": "5m"}));
    let targets = replicas::targets(
        &fields,
        &pair.name,
        port,
        groups.as_ref(),
        split,
        options,
        notes,
    );
    let entries = replicas::values(&targets, "");
    pair.upstream.insert("targets".into(), entries);
    put_labels(&mut pair.service, labels);
    fields.finish(notes);
    finish(pair, model, &targets, part);
}

fn begin(fields: &mut Fields<'_>, options: &Options, notes: &mut Notes) -> Pair {
    fields.any("type");
    notes.taken(
        fields.at("type"),
        "a service, and an upstream of the same name",
    );
    let path = fields.at("name");
    let given = fields.text("name", notes);
    let adapted = given.and_then(|given| match given.contains(['.', '_']) {
        // A dot or an underscore would not do as a label of a host.
        true => name::label(given).inspect(|name| {
            notes.adapted(&path, format!("`name` = {}", quoted(name)));
        }),
        false => name::adapt(given, "name", &path, notes),
    });
    let name = adapted.unwrap_or_else(|| {
        let model = fields.peek("model");
        let model = model.and_then(|model| model.as_str().or_else(|| model.get("name")?.as_str()));
        let only = { options.targets.first() }.map(|(name, _)| name.as_str());
        let from = model.or(only).and_then(name::label);
        let name = from.unwrap_or_else(|| "service".into());
        if given.is_none() {
            let message = format!("`name` = {}; dstack would make one up", quoted(&name));
            notes.assumed(path, message);
        }
        name
    });
    let named = |name: &str| Map::from_iter([("name".to_owned(), json!(name))]);
    Pair {
        service: named(&name),
        upstream: named(&name),
        name,
    }
}

/// The engine's port: a number, or `X:Y`, of which only Y counts.
fn port(fields: &mut Fields<'_>, notes: &mut Notes) -> Option<u16> {
    let path = fields.at("port");
    let Some(value) = fields.given("port", notes) else {
        notes.refused(path, "missing: the port of the engine");
        return None;
    };
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let port = match value {
        Value::Number(port) => port
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0),
        Value::String(text) => match text.split_once(':') {
            Some((from, port)) => number(from).and(number(port)),
            None => number(text),
        },
        _ => None,
    };
    match port {
        Some(port) => notes.adapted(path, format!("part of the targets' URLs: {port}")),
        None => notes.refused(path, "not a port: from 1 to 65535, or \"X:Y\""),
    }
    port
}

/// The gateway that offers it, if it stands in the same list.
fn offered<'g>(
    fields: &mut Fields<'_>,
    gateways: &'g [Gateway],
    options: &Options,
    pair: &mut Pair,
    notes: &mut Notes,
) -> Option<&'g Gateway> {
    let path = fields.at("gateway");
    let known = |name: &str| gateways.iter().find(|gateway| gateway.name == name);
    let default = gateways.iter().find(|gateway| gateway.default);
    let only = gateways.first().filter(|_| gateways.len() == 1);
    let fallback = options
        .gateway
        .as_deref()
        .or_else(|| Some(&default.or(only)?.name));
    let name = match fields.given("gateway", notes) {
        Some(Value::String(given)) => {
            let alone = given.rsplit('/').next().unwrap_or(given);
            name::adapt(alone, "gateways", &path, notes)
        }
        Some(Value::Bool(false)) => {
            below_a_path(fields, options, pair, notes);
            return None;
        }
        Some(Value::Bool(true)) if fallback.is_none() => {
            notes.refused(
                path,
                "it needs a gateway, and none is the default: name it here or with --gateway",
            );
            None
        }
        Some(other) if !other.is_boolean() => {
            notes.refused(
                path,
                format!("expected a name, true or false, found {}", found(other)),
            );
            None
        }
        given => {
            match (fallback, given) {
                (Some(name), Some(_)) => {
                    notes.adapted(path, format!("gateways = [{}]", quoted(name)))
                }
                (Some(name), None) => notes.assumed(path, format!("gateways = [{}]", quoted(name))),
                (None, _) => {
                    notes.assumed(path, "every gateway offers it; name one with --gateway")
                }
            }
            fallback.map(str::to_owned)
        }
    };
    strip_prefix(fields, false, pair, notes);
    let name = name?;
    pair.service.insert("gateways".into(), json!([name]));
    known(&name)
}

/// `gateway: false` is dstack's own proxy, which serves below a path.
fn below_a_path(fields: &mut Fields<'_>, options: &Options, pair: &mut Pair, notes: &mut Notes) {
    let project = options.project.as_deref().and_then(name::label);
    if project.is_none() {
        notes.assumed(
            fields.path(),
            "the project is \"main\"; give another with --project",
        );
    }
    let prefix = format!(
        "/proxy/services/{}/{}",
        project.as_deref().unwrap_or("main"),
        pair.name
    );
    notes.adapted(
        fields.at("gateway"),
        format!("path_prefix = {}", quoted(&prefix)),
    );
    pair.service.insert("path_prefix".into(), json!(prefix));
    strip_prefix(fields, true, pair, notes);
}

fn strip_prefix(fields: &mut Fields<'_>, used: bool, pair: &mut Pair, notes: &mut Notes) {
    let path = fields.at("strip_prefix");
    match fields.flag("strip_prefix", notes) {
        Some(strip) if used => {
            notes.taken(path, "`strip_prefix`");
            pair.service.insert("strip_prefix".into(), json!(strip));
        }
        Some(_) => notes.warned(
            path,
            "without effect on what is served at a host of its own",
        ),
        None => {}
    }
}

fn https(fields: &mut Fields<'_>, gateway: Option<&Gateway>, notes: &mut Notes) {
    let path = fields.at("https");
    let https = match fields.given("https", notes) {
        Some(Value::Bool(https)) => Some(*https),
        Some(Value::String(auto)) if auto == "auto" => None,
        Some(other) => {
            notes.refused(
                path,
                format!("expected true, false or \"auto\", found {}", found(other)),
            );
            return;
        }
        None => return,
    };
    match (https, gateway) {
        (Some(true), Some(gateway)) if !gateway.https => {
            notes.refused(
                path,
                "its gateway has no certificate: write https: auto or false",
            );
        }
        (Some(true), _) => {
            let message = "whether it is reached over TLS is decided by what stands before Tollgate, for all services alike";
            notes.warned(path, message);
        }
        (Some(false), _) => notes.taken(path, "plain HTTP, as it is here"),
        (None, _) => notes.taken(path, "as its gateway has it"),
    }
}

/// Whether it is for everybody.
fn auth(fields: &mut Fields<'_>, pair: &mut Pair, notes: &mut Notes) -> bool {
    let path = fields.at("auth");
    match fields.flag("auth", notes) {
        Some(false) => {
            notes.taken(path, "auth = \"none\"");
            pair.service.insert("auth".into(), json!("none"));
            true
        }
        Some(true) => {
            let message = "a key of its gateway, which must not have auth = \"none\"; tokens of dstack are not known here";
            notes.adapted(path, message);
            false
        }
        None => {
            if !fields.has("auth") {
                let message = "a key of its gateway is asked for, as dstack asks for a token";
                notes.assumed(path, message);
            }
            false
        }
    }
}

/// What it speaks.
fn kind(
    fields: &Fields<'_>,
    model: Option<&Model>,
    public: bool,
    pair: &mut Pair,
    notes: &mut Notes,
) {
    let path = fields.at("model");
    match model {
        Some(model) => {
            pair.service.insert("models".into(), json!([model.name]));
            let message = "dstack lets pages of every origin call a model; here the plugin `cors` of the gateway would, and none is added";
            notes.assumed(&path, message);
            if public {
                let message = "with auth: false its model needs no key at `gateway.<domain>` either; dstack asks for a token there";
                notes.warned(path, message);
            }
        }
        None if !fields.has("model") => {
            notes.assumed(
                path,
                "no model: type = \"http\", any requests at its own host",
            );
            pair.service.insert("type".into(), json!("http"));
        }
        None => {}
    }
}

/// Its native `scaling`, if that is read.
fn counted(fields: &mut Fields<'_>, notes: &mut Notes) -> Option<Map<String, Value>> {
    let path = fields.at("replicas");
    let count = scaling::count(fields, "replicas", notes);
    if count.is_none() && fields.has("replicas") {
        // What is wrong with it was told; that scaling does not go with it would be one word too many.
        fields.any("scaling");
        return None;
    }
    scaling::convert(fields, count, &path, Use::Now, notes)
}

/// Its requests are split between those that prefill and those that decode.
fn apart(fields: &Fields<'_>, pair: &mut Pair, notes: &mut Notes) {
    let value = roles::value(&replicas::sglang());
    pair.upstream.insert("disaggregation".into(), value);
    if !fields.has("model") {
        let message = "missing: only requests for a model are split between prefill and decode";
        notes.refused(fields.at("model"), message);
    }
    if pair.service.contains_key("scaling") {
        let message = "it counts all replicas together: which of them are to prefill is for whoever starts them";
        notes.warned(fields.at("scaling"), message);
    }
}

/// The policy of its own router, else that of its gateway's. Returns whether its router splits requests.
fn policy(
    fields: &mut Fields<'_>,
    gateway: Option<&Gateway>,
    groups: Option<&Groups>,
    pair: &mut Pair,
    notes: &mut Notes,
) -> bool {
    let mut split = false;
    let policy = match fields.table("router", notes) {
        Some(table) => {
            let router::Router { policy, split: own } = router::read(table, notes);
            split = own;
            if groups.is_some_and(|groups| groups.routed) {
                notes.refused(fields.at("router"), "a group is the router already");
            }
            policy
        }
        None => gateway
            .and_then(|gateway| gateway.policy)
            .inspect(|policy| {
                let message = format!("policy = \"{policy}\", of its gateway's router");
                notes.assumed(fields.at("router"), message);
            }),
    };
    match policy {
        Some(policy) => {
            pair.upstream.insert("policy".into(), json!(policy));
        }
        None if !fields.has("router") && gateway.is_none_or(|gateway| gateway.policy.is_none()) => {
            let message = "policy = \"least_connections\"; dstack would take them in turn";
            notes.assumed(fields.at("router"), message);
        }
        None => {}
    }
    split
}

/// A model below another path than `/v1` is a second service: at its own host paths stay as they are.
fn finish(mut pair: Pair, model: Option<Model>, targets: &[Placed], part: &mut Part) {
    pair.service.insert("upstream".into(), json!(pair.name));
    if let Some(prefix) = model.and_then(|model| model.prefix) {
        let second = name::with_suffix(&pair.name, "model");
        let (mut service, mut upstream) = (pair.service.clone(), pair.upstream.clone());
        let below = replicas::values(targets, &prefix);
        if { targets.iter() }.any(|placed| placed.url.scheme == Scheme::Unix) {
            part.notes.refused(
                "--target",
                "a unix socket has no path of its own for the model's prefix",
            );
        }
        service.insert("name".into(), json!(second));
        service.insert("upstream".into(), json!(second));
        service.remove("path_prefix");
        service.remove("strip_prefix");
        upstream.insert("name".into(), json!(second));
        upstream.insert("targets".into(), below);
        pair.service.remove("models");
        part.add("upstream", upstream);
        part.add("service", service);
    }
    part.add("upstream", pair.upstream);
    part.add("service", pair.service);
}
