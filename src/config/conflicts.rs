//! What is well formed in itself and cannot be true beside the rest, and what can never take effect.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use tollgate_sdk::document::{FromText, Json, Node, Quoted, Reading, Span, Value};

use super::sections::{Entry, Sections, place};
use super::{fallbacks, scaled, served};
use crate::model::{Admin, HostPattern, Key, KeyHash};

/// Reports conflicts as errors and what can never take effect as warnings.
pub(super) fn check(sections: &Sections<'_>, r: &mut Reading<'_>) {
    hosts(sections, r);
    default_gateways(sections, r);
    services_of_rules(sections, r);
    fallbacks::check(sections, r);
    scaled::check(sections, r);
    served::check(sections, r);
    prefixes_of_limits(sections, r);
    // A mistyped name leaves things unreachable that are not meant to be.
    if !r.failed() {
        unreachable(sections, r);
    }
}

/// Of two keys of a gateway with one secret, only one could ever be meant. `key` is what was read from an entry.
pub(super) fn secrets<'m>(
    sections: &Sections<'_>,
    key: impl Fn(&Entry<'_>) -> Option<&'m Key>,
    r: &mut Reading<'_>,
) {
    let mut seen: HashMap<(&str, KeyHash), &Entry<'_>> = HashMap::new();
    for entry in sections.all("key") {
        let Some((gateway, hash)) = key(entry).and_then(|key| Some((&key.gateway, key.hash?)))
        else {
            continue;
        };
        let identity = (gateway.as_str(), hash);
        if let Some(first) = seen.get(&identity) {
            let name = first.name.as_ref().map_or("…", |name| name.as_str());
            let message = format!("it has the secret of the key {}", Quoted(name));
            let help = format!(
                "give it a secret of its own; the other is {}",
                sections.place(first, first.span())
            );
            entry.at(|at| r.error(entry.span(), at, message, help));
        }
        seen.insert(identity, entry);
    }
}

/// A host belongs to one gateway.
fn hosts(sections: &Sections<'_>, r: &mut Reading<'_>) {
    let mut seen: HashMap<HostPattern, (&Entry<'_>, Span)> = HashMap::new();
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
            let Some((first, place)) = seen.get(&host) else {
                seen.insert(host, (gateway, span));
                continue;
            };
            let place = sections.place(first, *place);
            gateway.at(|at| {
                let at = at.field(field);
                let indexed = index.map(|index| at.index(index));
                let at = indexed.as_ref().unwrap_or(&at);
                let host = host.to_string();
                if first.index == gateway.index {
                    let message = format!("the host {} is given twice", Quoted(&host));
                    r.warn(span, at, message, format!("keep one; the first is {place}"));
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
                        format!("keep it in one of them; the first is {place}"),
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
        let help = format!(
            "keep one; the first is {}",
            sections.place(first, first.span())
        );
        gateway.at(|at| r.error(span, &at.field("default"), message, help));
    }
}

/// Two listeners cannot hold one address, nor a listener the admin's. `text` is what `root` was read from.
pub(super) fn addresses(root: &Node, text: &str, sections: &Sections<'_>, r: &mut Reading<'_>) {
    let parse = |text: &str| SocketAddr::from_text(text).ok();
    let whole = text;
    let typed = root.entry("admin").and_then(|admin| admin.entry("address"));
    let admin = match typed {
        Some(node) => node.as_str().and_then(parse),
        None => Some(Admin::default().address),
    };
    let mut taken: Vec<(SocketAddr, String)> = Vec::new();
    if let Some(address) = admin {
        let holder = match typed {
            Some(node) => format!("`admin.address` {}", place(whole, node.span)),
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
        taken.push((address, format!("the listener {}", place(whole, text.span))));
    }
}

/// Where a proxy says whose a connection is, somebody must be allowed to say it.
pub(super) fn announced(root: &Node, sections: &Sections<'_>, r: &mut Reading<'_>) {
    let server = root.entry("server");
    let trusted = server.and_then(|server| server.entry("trusted_proxies"));
    if { trusted }
        .and_then(Node::as_list)
        .is_some_and(|list| !list.is_empty())
    {
        return;
    }
    for listener in sections.all("listener") {
        let Some(node) = listener.node.entry("proxy_protocol") else {
            continue;
        };
        if node.json() == Json::Bool(true) {
            let message = "nobody may say whose a connection is";
            let help = "name the proxies in front: server.trusted_proxies = [\"10.0.0.0/8\"]";
            listener.at(|at| r.error(node.span, &at.field("proxy_protocol"), message, help));
        }
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
        let mut seen: HashMap<&str, Span> = HashMap::new();
        for (index, limit) in limits.unwrap_or_default().iter().enumerate() {
            let given = limit.entry("prefix");
            let prefix = given.map_or(Some("/"), Node::as_str);
            let span = given.map_or(limit.span, |given| given.span);
            let Some(prefix) = prefix else { continue };
            let Some(first) = seen.get(prefix) else {
                seen.insert(prefix, span);
                continue;
            };
            let message = format!("there is already a limit for {}", Quoted(prefix));
            let help = format!("keep one; the first is {}", sections.place(service, *first));
            service.at(|at| {
                let at = at.field("rate_limits");
                r.error(span, &at.index(index).field("prefix"), message, help);
            });
        }
    }
}

/// Whether the gateway offers the service, as far as one can tell: who names a gateway that is not there was told so, and meant one that is.
fn may_offer(sections: &Sections<'_>, gateway: &str, service: &Entry<'_>) -> bool {
    let is_there = |name: &str| sections.find("gateway", name).is_some();
    let given = service.node.entry("gateways").and_then(Node::as_list);
    let named = service.texts("gateways", "");
    let known = named.iter().filter(|text| is_there(text.text)).count();
    offers(gateway, service) || !is_there(gateway) || known < given.map_or(0, <[_]>::len)
}

fn services_of_rules(sections: &Sections<'_>, r: &mut Reading<'_>) {
    for rule in sections.all("rule") {
        let Some(gateway) = rule.text("gateway") else {
            continue;
        };
        let named = rule.texts("services", "name");
        for text in &named {
            let service = sections.find("service", text.text);
            if service.is_some_and(|service| !may_offer(sections, gateway.text, service)) {
                let (service, gateway) = (Quoted(text.text), Quoted(gateway.text));
                let message = format!("gateway {gateway} does not offer service {service}");
                let help = format!(
                    "add {gateway} to the service's `gateways`, or take the service out of the rule"
                );
                rule.at(|at| {
                    text.at(&at.field("services"), |at| {
                        r.error(text.span, at, message, help)
                    })
                });
            }
        }
        let mut seen = HashSet::new();
        for text in &named {
            if !seen.insert(text.text) {
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
    unreached(sections, r);
    let services = sections.all("service");
    let used: HashSet<&str> = services
        .filter_map(|service| Some(service.text("upstream")?.text))
        .collect();
    for upstream in sections.all("upstream") {
        let name = upstream.name.as_ref().map_or("…", |name| name.as_str());
        if !used.contains(name) {
            let help = format!(
                "name it in a service: {}",
                r.format.field("upstream", &name.into())
            );
            upstream.at(|at| r.warn(upstream.span(), at, "no service uses it", help));
        }
    }
}

/// Services that no request comes to.
fn unreached(sections: &Sections<'_>, r: &mut Reading<'_>) {
    let mut named: HashSet<&str> = HashSet::new();
    for rule in sections.all("rule") {
        named.extend(rule.texts("services", "name").iter().map(|text| text.text));
    }
    for entry in fallbacks::KINDS.iter().flat_map(|kind| sections.all(kind)) {
        let others = entry.texts("fallback", "");
        let others = others.iter().map(|text| text.text);
        named.extend(others.filter(|name| entry.kind != "service" || !entry.is(name)));
    }
    // A gateway with a domain has a host for each of its services.
    let gateways = sections
        .all("gateway")
        .filter(|gateway| gateway.has("domain"));
    let with_domain: HashSet<&str> = gateways
        .filter_map(|gateway| gateway.name.as_ref())
        .map(|name| name.as_str())
        .collect();
    for service in sections.all("service") {
        let offered_by = service.texts("gateways", "");
        let has_host = match service.has("gateways") {
            true => offered_by
                .iter()
                .any(|text| with_domain.contains(text.text)),
            false => !with_domain.is_empty(),
        };
        let own = service.name.as_ref();
        let reached = service.has("models")
            || service.has("path_prefix")
            || has_host
            || own.is_some_and(|name| named.contains(name.as_str()));
        if !reached {
            let message = "no request can reach it: it has no models, no path_prefix, and no rule or fallback names it";
            let help = format!(
                "add: {}",
                r.format.field("models", &serde_json::json!(["*"]))
            );
            service.at(|at| r.warn(service.span(), at, message, help));
        }
    }
}
