//! What is well formed in itself and cannot be true beside the rest, and what can never take effect.

use std::collections::HashMap;
use std::net::SocketAddr;

use tollgate_sdk::document::{FromText, Node, Quoted, Reading, Span, Value};

use super::fallbacks;
use super::sections::{Entry, Sections};
use crate::model::{Admin, Config, HostPattern, KeyHash};

/// Reports conflicts as errors and what can never take effect as warnings.
pub(super) fn check(sections: &Sections<'_>, r: &mut Reading<'_>) {
    hosts(sections, r);
    default_gateways(sections, r);
    addresses(sections, r);
    services_of_rules(sections, r);
    fallbacks::check(sections, r);
    prefixes_of_limits(sections, r);
    // A mistyped name leaves things unreachable that are not meant to be.
    if !r.failed() {
        unreachable(sections, r);
    }
}

/// Of two keys of a gateway with one secret, only one could ever be meant.
pub(super) fn secrets(config: &Config, sections: &Sections<'_>, r: &mut Reading<'_>) {
    let mut seen: HashMap<(&str, KeyHash), &Entry<'_>> = HashMap::new();
    // Everything was read, so both are in the order of the file.
    for (key, entry) in config.keys.iter().zip(sections.all("key")) {
        let Some(hash) = key.hash else { continue };
        let identity = (key.gateway.as_str(), hash);
        if let Some(first) = seen.get(&identity) {
            let name = first.name.as_ref().map_or("…", |name| name.as_str());
            let message = format!("it has the secret of the key {}", Quoted(name));
            let help = format!(
                "give it a secret of its own; the other is at {}",
                sections.place(first.span())
            );
            entry.at(|at| r.error(entry.span(), at, message, help));
        }
        seen.insert(identity, entry);
    }
}

/// A host belongs to one gateway.
fn hosts(sections: &Sections<'_>, r: &mut Reading<'_>) {
    let mut seen: Vec<(HostPattern, &Entry<'_>, Span)> = Vec::new();
    for gateway in sections.all("gateway") {
        let mut own: Vec<(HostPattern, &str, Span, Option<usize>)> = Vec::new();
        for text in gateway.texts("hosts", "") {
            if let Ok(host) = HostPattern::from_text(text.text) {
                own.push((host, "hosts", text.span, text.index));
            }
        }
        if let (Some(sub), Some(domain)) = (gateway.text("subdomain"), gateway.text("domain"))
            && let Ok(host) = HostPattern::from_text(&format!("{}.{}", sub.text, domain.text))
        {
            own.push((host, "subdomain", sub.span, None));
        }
        for (host, field, span, index) in own {
            let Some((_, first, place)) = seen.iter().find(|(taken, ..)| *taken == host) else {
                seen.push((host, gateway, span));
                continue;
            };
            let place = sections.place(*place);
            gateway.at(|at| {
                let at = at.field(field);
                let indexed = index.map(|index| at.index(index));
                let at = indexed.as_ref().unwrap_or(&at);
                let host = host.to_string();
                if first.index == gateway.index {
                    let message = format!("the host {} is given twice", Quoted(&host));
                    r.warn(
                        span,
                        at,
                        message,
                        format!("keep one; the first is at {place}"),
                    );
                } else {
                    let message = format!(
                        "the host {} already belongs to {}",
                        Quoted(&host),
                        called(first)
                    );
                    r.error(
                        span,
                        at,
                        message,
                        format!("keep it in one of them; the first is at {place}"),
                    );
                }
            });
        }
    }
}

fn called(gateway: &Entry<'_>) -> String {
    match &gateway.name {
        Some(name) => format!("gateway {}", Quoted(name.as_str())),
        None => "another gateway".into(),
    }
}

fn is_default(gateway: &Entry<'_>) -> bool {
    let given = gateway.node.entry("default");
    given.is_some_and(|node| node.value == Value::Bool(true) || node.as_str() == Some("true"))
}

fn default_gateways(sections: &Sections<'_>, r: &mut Reading<'_>) {
    let mut defaults = sections
        .all("gateway")
        .filter(|gateway| is_default(gateway));
    let Some(first) = defaults.next() else {
        return;
    };
    for gateway in defaults {
        let span = gateway
            .node
            .entry("default")
            .map_or(gateway.node.span, |node| node.span);
        let message = format!("{} is the default already", called(first));
        let help = format!("keep one; the first is at {}", sections.place(first.span()));
        gateway.at(|at| r.error(span, &at.field("default"), message, help));
    }
}

/// Two listeners cannot hold one address, nor a listener the admin's.
fn addresses(sections: &Sections<'_>, r: &mut Reading<'_>) {
    let parse = |text: &str| SocketAddr::from_text(text).ok();
    let typed = sections
        .root
        .entry("admin")
        .and_then(|admin| admin.entry("address"));
    let admin = match typed {
        Some(node) => node.as_str().and_then(parse),
        None => Some(Admin::default().address),
    };
    let mut taken: Vec<(SocketAddr, String)> = Vec::new();
    if let Some(address) = admin {
        let holder = match typed {
            Some(node) => format!("`admin.address` at {}", sections.place(node.span)),
            None => {
                format!("the admin listener, by default at {address}: set `address` in [admin]")
            }
        };
        taken.push((address, holder));
    }
    for listener in sections.all("listener") {
        let Some(text) = listener.text("address") else {
            continue;
        };
        let Some(address) = parse(text.text) else {
            continue;
        };
        if let Some((_, holder)) = taken.iter().find(|(other, _)| overlap(*other, address)) {
            let message = format!("the address {address} is taken");
            let help = format!("choose another; it is taken by {holder}");
            listener.at(|at| r.error(text.span, &at.field("address"), message, help));
        }
        taken.push((
            address,
            format!("the listener at {}", sections.place(text.span)),
        ));
    }
}

/// Whether a socket bound to one address leaves none for the other. Port 0 is any free port.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let any = |a: SocketAddr, b: SocketAddr| a.ip().is_unspecified() && a.is_ipv4() == b.is_ipv4();
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || any(a, b) || any(b, a))
}

/// Whether the gateway offers the service.
pub(super) fn offers(gateway: &str, service: &Entry<'_>) -> bool {
    let gateways = service.texts("gateways", "");
    !service.has("gateways") || gateways.iter().any(|text| text.text == gateway)
}

/// Of two rate limits with one prefix, only one could count.
fn prefixes_of_limits(sections: &Sections<'_>, r: &mut Reading<'_>) {
    for service in sections.all("service") {
        let limits = service.node.entry("rate_limits").and_then(Node::as_list);
        let mut seen: Vec<(&str, Span)> = Vec::new();
        for (index, limit) in limits.unwrap_or_default().iter().enumerate() {
            let given = limit.entry("prefix");
            let prefix = given.map_or(Some("/"), Node::as_str);
            let span = given.map_or(limit.span, |given| given.span);
            let Some(prefix) = prefix else { continue };
            let Some((_, first)) = seen.iter().find(|(known, _)| *known == prefix) else {
                seen.push((prefix, span));
                continue;
            };
            let message = format!("there is already a limit for {}", Quoted(prefix));
            let help = format!("keep one; the first is at {}", sections.place(*first));
            service.at(|at| {
                let at = at.field("rate_limits");
                r.error(span, &at.index(index).field("prefix"), message, help);
            });
        }
    }
}

fn services_of_rules(sections: &Sections<'_>, r: &mut Reading<'_>) {
    for rule in sections.all("rule") {
        let Some(gateway) = rule.text("gateway") else {
            continue;
        };
        let named = rule.texts("services", "name");
        for text in &named {
            let service = sections
                .all("service")
                .find(|service| service.is(text.text));
            if service.is_some_and(|service| !offers(gateway.text, service)) {
                let (service, gateway) = (Quoted(text.text), Quoted(gateway.text));
                let message = format!("gateway {gateway} does not offer service {service}");
                let help = format!(
                    "add {gateway} to the service's `gateways`, or take the service out of the rule"
                );
                rule.at(|at| {
                    let at = at.field("services");
                    r.error(text.span, &at.index(text.index.unwrap_or(0)), message, help);
                });
            }
        }
        for (index, text) in named.iter().enumerate() {
            if named
                .iter()
                .take(index)
                .any(|first| first.text == text.text)
            {
                let message = format!("service {} is given twice", Quoted(text.text));
                rule.at(|at| {
                    r.warn(
                        text.span,
                        &at.field("services"),
                        message,
                        "keep one, with the sum of the weights",
                    )
                });
            }
        }
    }
}

fn unreachable(sections: &Sections<'_>, r: &mut Reading<'_>) {
    for gateway in sections.all("gateway") {
        if !gateway.has("hosts") && !gateway.has("domain") && !is_default(gateway) {
            let message = "no request can reach it: it has no hosts and is not the default";
            let help = format!(
                "add: {}",
                r.format.field("hosts", &serde_json::json!(["*"]))
            );
            gateway.at(|at| r.warn(gateway.span(), at, message, help));
        }
    }
    for service in sections.all("service") {
        let ruled = |rule: &Entry<'_>| {
            rule.texts("services", "name")
                .iter()
                .any(|text| service.is(text.text))
        };
        let has_host = |gateway: &Entry<'_>| {
            let name = gateway.name.as_ref();
            gateway.has("domain") && name.is_some_and(|name| offers(name.as_str(), service))
        };
        let falls_back = |entry: &Entry<'_>| {
            let mut named = entry.texts("fallback", "").into_iter();
            entry.span() != service.span() && named.any(|text| service.is(text.text))
        };
        let reached = service.has("models")
            || service.has("path_prefix")
            || sections.all("rule").any(ruled)
            || sections.all("gateway").any(has_host)
            || fallbacks::KINDS
                .iter()
                .any(|kind| sections.all(kind).any(falls_back));
        if !reached {
            let message = "no request can reach it: it has no models, no path_prefix, and no rule or fallback names it";
            let help = format!(
                "add: {}",
                r.format.field("models", &serde_json::json!(["*"]))
            );
            service.at(|at| r.warn(service.span(), at, message, help));
        }
    }
    for upstream in sections.all("upstream") {
        let used = |service: &Entry<'_>| {
            service
                .text("upstream")
                .is_some_and(|text| upstream.is(text.text))
        };
        if !sections.all("service").any(used) {
            let name = upstream.name.as_ref().map_or("…", |name| name.as_str());
            let help = format!(
                "name it in a service: {}",
                r.format.field("upstream", &name.into())
            );
            upstream.at(|at| r.warn(upstream.span(), at, "no service uses it", help));
        }
    }
}
