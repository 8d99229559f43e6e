//! A gateway of dstack: a native gateway at the same domain, and a rule for clients that leave `/v1` out.

use serde_json::{Map, Value, json};
use tollgate_sdk::document::{FromText, suggest};

use super::super::fields::{Fields, found, quoted};
use super::super::{Options, name};
use super::{Gateway, Part, put_labels, router};
use crate::model::HostPattern;

pub(super) fn convert(mut fields: Fields<'_>, options: &Options, part: &mut Part) -> Gateway {
    let mut body = Map::new();
    let mut labels = Map::new();
    fields.any("type");
    part.notes.taken(fields.at("type"), "a gateway");
    let (whole, domain_given) = (fields.path().to_owned(), fields.at("domain"));
    let given = fields.text("name", &mut part.notes);
    let default = default(&mut fields, part);
    facts(&mut fields, &mut labels, part);
    let domain = domain(&mut fields, options, part);
    let name = called(given, domain.as_deref(), &fields, options, part);
    let public = fields.flag("public_ip", &mut part.notes);
    if let Some(public) = public {
        labels.insert("dstack.public_ip".into(), json!(public.to_string()));
        let message = "whether it can be reached from outside is decided by the addresses of listeners; kept as a label";
        part.notes.warned(fields.at("public_ip"), message);
    }
    let hosted = domain.is_some();
    let https = certificate(&mut fields, hosted, &mut body, &mut labels, part);
    let replicas = replicas(&mut fields, &mut labels, part);
    tags(&mut fields, &mut labels, part);
    let policy = gateway_router(&mut fields, replicas, &mut labels, part);
    fields.finish(&mut part.notes);

    body.insert("name".into(), json!(name));
    put_labels(&mut body, labels);
    if let Some(domain) = &domain {
        body.insert("domain".into(), json!(domain));
    }
    let message = "callers need a key of the gateway (auth = \"api_key\"): tokens of dstack are not known here; make keys with `tollgate key create`. Without one they get 401, not 403";
    part.notes.assumed(whole, message);
    part.add("gateway", body);
    if let Some(domain) = &domain {
        without_v1(&name, domain, &domain_given, part);
    }
    Gateway {
        name,
        default,
        https,
        policy,
    }
}

fn called(
    given: Option<&str>,
    domain: Option<&str>,
    fields: &Fields<'_>,
    options: &Options,
    part: &mut Part,
) -> String {
    let path = fields.at("name");
    let adapted = given.and_then(|given| name::adapt(given, "name", &path, &mut part.notes));
    if let Some(name) = adapted {
        return name;
    }
    let wished = options.gateway.as_deref().or(domain);
    let name = wished
        .and_then(name::label)
        .unwrap_or_else(|| "gateway".into());
    if !fields.has("name") {
        let message = format!("`name` = {}; dstack would make one up", quoted(&name));
        part.notes.assumed(path, message);
    }
    name
}

/// dstack's default gateway gets the services that name none; a native one the hosts that nobody has. They share only their name.
fn default(fields: &mut Fields<'_>, part: &mut Part) -> bool {
    let default = fields.flag("default", &mut part.notes);
    let message = match default {
        Some(true) => "services of the same list that name no gateway are for this one",
        Some(false) => "as without it",
        None => return false,
    };
    part.notes.adapted(fields.at("default"), message);
    default == Some(true)
}

/// Where and on what dstack would start it.
fn facts(fields: &mut Fields<'_>, labels: &mut Map<String, Value>, part: &mut Part) {
    for field in ["backend", "region", "instance_type"] {
        if let Some(value) = fields.text(field, &mut part.notes) {
            let label = format!("dstack.{field}");
            let message = format!(
                "nothing is started here; kept as the label {}",
                quoted(&label)
            );
            part.notes.warned(fields.at(field), message);
            labels.insert(label, json!(value));
        }
    }
}

fn domain(fields: &mut Fields<'_>, options: &Options, part: &mut Part) -> Option<String> {
    const VARIABLE: &str = "run.project_name";
    let path = fields.at("domain");
    let Some(given) = fields.text("domain", &mut part.notes) else {
        if !fields.has("domain") {
            let message = "no host: nothing reaches the gateway until it has a `domain` or `hosts`";
            part.notes.assumed(path, message);
        }
        return None;
    };
    let mut domain = given.trim_start_matches(['*', '.']).to_ascii_lowercase();
    while let Some((before, rest)) = domain.split_once("${{") {
        let Some((variable, after)) = rest.split_once("}}") else {
            break;
        };
        if variable.trim() != VARIABLE {
            let message = format!(
                "there is no variable {}; known is {}",
                quoted(variable.trim()),
                quoted(VARIABLE)
            );
            part.notes.refused(path, message);
            return None;
        }
        let Some(project) = options.project.as_deref().and_then(name::label) else {
            let message = "a gateway here has one domain for all: say with which project's name it is filled in (--project)";
            part.notes.refused(path, message);
            return None;
        };
        domain = format!("{before}{}{after}", project);
    }
    if !matches!(HostPattern::from_text(&domain), Ok(HostPattern::Exact(_))) {
        part.notes
            .refused(path, format!("{} is not a domain", quoted(given)));
        return None;
    }
    if domain == given {
        part.notes
            .taken(path, "`domain`: services are at `<name>.<domain>`");
    } else {
        let message = format!(
            "`domain` = {}: services are at `<name>.<domain>`",
            quoted(&domain)
        );
        part.notes.adapted(path, message);
    }
    Some(domain)
}

/// Clients of dstack's model endpoint leave `/v1` out, and only there.
fn without_v1(gateway: &str, domain: &str, path: &str, part: &mut Part) {
    let host = format!("^gateway\\.{}(:[0-9]+)?$", domain.replace('.', "\\."));
    let rule = json!({
        "name": name::with_suffix(gateway, "chat-completions"),
        "gateway": gateway,
        "path": "/chat/completions",
        "headers": {"host": {"regex": host}},
        "rewrite": "/v1/chat/completions",
    });
    let message = format!(
        "models are at \"gateway.{domain}/v1\"; a rule also takes \"/chat/completions\" there, but their list is only at \"/v1/models\""
    );
    part.notes.assumed(path, message);
    if let Value::Object(rule) = rule {
        part.add("rule", rule);
    }
}

/// Whether dstack would give the services HTTPS. `hosted`: there is a host to order a certificate for.
fn certificate(
    fields: &mut Fields<'_>,
    hosted: bool,
    body: &mut Map<String, Value>,
    labels: &mut Map<String, Value>,
    part: &mut Part,
) -> bool {
    let path = fields.at("certificate");
    let notes = &mut part.notes;
    let given = match fields.any("certificate") {
        Some(Value::Null) => {
            notes.taken(path, "`certificate` = \"none\"");
            return false;
        }
        Some(given) => given,
        None => {
            let message = "`certificate` = \"none\"; dstack would get one from Let's Encrypt: for that write `certificate: {type: lets-encrypt}`, or \"acme\" here, and a table [acme]";
            notes.assumed(path, message);
            return true;
        }
    };
    let Some(mut table) = Fields::of(given, &path, notes) else {
        return true;
    };
    match table.text("type", notes) {
        Some("lets-encrypt") if !hosted => {
            let message = "`certificate` = \"none\": there is no host to order one for until the gateway has a `domain`";
            notes.warned(table.at("type"), message);
        }
        Some("lets-encrypt") => {
            body.insert("certificate".into(), json!("acme"));
            let message = "`certificate` = \"acme\": the table [acme] says how it is ordered, and needs terms_agreed and encryption_key";
            notes.taken(table.at("type"), message);
        }
        Some("acm") => {
            let message =
                "`certificate` = \"none\": TLS ends at the load balancer before it, as it did";
            notes.adapted(table.at("type"), message);
            if let Some(arn) = table.text("arn", notes) {
                labels.insert("dstack.certificate.arn".into(), json!(arn));
                notes.warned(table.at("arn"), "the load balancer's; kept as a label");
            }
        }
        Some(other) => {
            let help = suggest(other, &["lets-encrypt", "acm"], "types");
            notes.refused(table.at("type"), format!("unknown type; {help}"));
        }
        None if !table.has("type") => {
            notes.refused(table.at("type"), "missing; known types: lets-encrypt, acm")
        }
        None => {}
    }
    table.finish(notes);
    true
}

fn replicas(fields: &mut Fields<'_>, labels: &mut Map<String, Value>, part: &mut Part) -> i64 {
    let Some(replicas) = fields.whole("replicas", &mut part.notes) else {
        return 1;
    };
    let path = fields.at("replicas");
    if replicas < 1 {
        part.notes.refused(path, "at least 1");
        return 1;
    }
    labels.insert("dstack.replicas".into(), json!(replicas.to_string()));
    let message = "how many processes of Tollgate run is for whoever starts them; kept as a label";
    part.notes.warned(path, message);
    replicas
}

fn tags(fields: &mut Fields<'_>, labels: &mut Map<String, Value>, part: &mut Part) {
    let Some(tags) = fields.given("tags", &mut part.notes) else {
        return;
    };
    let path = fields.at("tags");
    let Some(tags) = tags.as_object() else {
        let message = format!("expected a table, found {}", found(tags));
        part.notes.refused(path, message);
        return;
    };
    for (key, value) in tags {
        let at = format!(
            "{path}.{}",
            key.chars().filter(|c| !c.is_control()).collect::<String>()
        );
        match value.as_str() {
            Some(text) => {
                labels.insert(key.clone(), json!(text));
                part.notes
                    .adapted(at, "a label of the same name; nothing else is tagged");
            }
            None => part
                .notes
                .refused(at, format!("expected text, found {}", found(value))),
        }
    }
}

/// A policy is an upstream's here; that of a gateway becomes its services'.
fn gateway_router(
    fields: &mut Fields<'_>,
    replicas: i64,
    labels: &mut Map<String, Value>,
    part: &mut Part,
) -> Option<&'static str> {
    let table = fields.table("router", &mut part.notes)?;
    if replicas > 1 {
        let message = "dstack takes a router only with one replica";
        part.notes.refused(fields.at("router"), message);
    }
    let (path, disaggregated) = (fields.at("router"), table.at("pd_disaggregation"));
    let router = router::read(table, &mut part.notes);
    if router.split {
        let message = "a service splits requests, by its own `router`; a gateway's does not";
        part.notes.refused(disaggregated, message);
    }
    if let Some(policy) = router.policy {
        labels.insert("dstack.router.policy".into(), json!(policy));
        let message = format!(
            "a policy is an upstream's: services of the same list get it, others want policy = {}; kept as a label",
            quoted(policy)
        );
        part.notes.adapted(path, message);
    }
    router.policy
}
