//! Certificates that are ordered: from a real authority, by each of the ways to prove that a host is ours.

use std::io;

use rustls::{AlertDescription, Error};
use serde_json::{Value, json};

use super::tls::{ask, at};
use crate::harness::{
    Client, Gateway, Manner, Pebble, Setup, Upstream, free_port, get, learn, service, until,
};

/// A gateway that wants a certificate for these hosts.
pub(crate) fn wanting(name: &str, hosts: &[&str]) -> String {
    format!(
        "[[gateway]]\nname = \"{name}\"\nhosts = {hosts:?}\nauth = \"none\"\ncertificate = \"acme\"\n"
    )
}

/// Waits for a handshake with somebody who has a certificate for the name.
#[track_caller]
pub(crate) fn handshake(pebble: &Pebble, name: &str) -> Client {
    let config = pebble.trusted().config();
    until("a handshake", || {
        Client::try_secure(pebble.tls(), name, config.clone()).ok()
    })
}

/// What a client is told in the handshake.
pub(crate) fn refusal(pebble: &Pebble, name: &str, manner: &Manner) -> String {
    match Client::try_secure(pebble.tls(), name, manner.config()) {
        Ok(_) => panic!("{name} was let in"),
        Err(error) => told(&error),
    }
}

fn told(error: &io::Error) -> String {
    match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => format!("{alert:?}"),
        _ => error.to_string(),
    }
}

/// How the order of a gateway stands.
pub(crate) fn order(gateway: &Gateway, name: &str) -> Value {
    let status = gateway.api().get("/v1/status").json();
    let certificates = status["certificates"].as_array().unwrap();
    let own = certificates.iter().find(|c| c["name"] == name);
    own.map_or(Value::Null, |own| own["order"].clone())
}

/// A condition of a gateway; null if it has none of this type.
pub(crate) fn condition(gateway: &Gateway, name: &str) -> Value {
    let status = gateway.api().get("/v1/status").json();
    let gateways = status["gateways"].as_array().unwrap();
    let own = gateways.iter().find(|g| g["name"] == name).unwrap();
    let mut conditions = own["conditions"].as_array().unwrap().iter();
    let wanted = conditions.find(|c| c["type"] == "CertificateIssued");
    wanted.cloned().unwrap_or_default()
}

fn alert(alert: AlertDescription) -> String {
    format!("{alert:?}")
}

/// The criterion: within ten seconds of a change by the admin API, without a restart.
#[test]
fn a_gateway_that_is_made_has_its_certificate_within_ten_seconds() {
    let upstream = Upstream::obliging();
    let pebble = Pebble::start(Setup {
        refused_nonces: 20,
        ..Setup::new()
    });
    let gateway = Gateway::start(&format!(
        "{}{}[[gateway]]\nname = \"plain\"\nhosts = [\"p.example\"]\nauth = \"none\"\n{}",
        pebble.listeners(),
        pebble.table(""),
        service("m", "m", &upstream.url())
    ));
    let manner = pebble.trusted();
    let nobody = alert(AlertDescription::UnrecognisedName);
    assert_eq!(refusal(&pebble, "n.example", &manner), nobody);
    let mut watch = gateway.watch();
    let body = json!({
        "name": "n", "hosts": ["n.example", "o.example"], "auth": "none",
        "certificate": "acme", "redirect_https": true,
    });
    let reply = gateway.api().ask("PUT", "/v1/gateways/n", &body);
    assert_eq!(reply.status, 201, "{}", reply.text());
    for name in ["n.example", "o.example"] {
        let mut client = handshake(&pebble, name);
        assert_eq!(ask(&mut client, name), 200, "{name}");
    }
    let event = watch.wait_for("certificate", |data| data["gateway"] == "n");
    assert_eq!(event.data["result"], "ok", "{}", event.data);
    until("the order to be over", || {
        (order(&gateway, "n")["state"] == "issued").then_some(())
    });
    assert!(order(&gateway, "n")["next_at"].is_string());
    let ready = until("the condition", || {
        let condition = condition(&gateway, "n");
        (condition["status"] == "True").then_some(condition)
    });
    assert_eq!(ready["reason"], "Issued");
    assert_eq!(condition(&gateway, "plain"), Value::Null);
    let metrics = gateway.metrics();
    let orders = |result| metrics.sum("tollgate_acme_orders_total", &[("result", result)]);
    assert_eq!([orders("ok"), orders("failed")], [1.0, 0.0]);
    let left = metrics.sum("tollgate_certificate_expiry_seconds", &[("gateway", "n")]);
    assert!(left > 300.0 * 86_400.0, "{left}");
    let table = gateway.api().cli(&["get", "certificates"]).done();
    let line = table.lines().find(|line| line.starts_with("n ")).unwrap();
    for cell in ["n.example", "Pebble", "acme", "issued"] {
        assert!(line.contains(cell), "{cell}: {table}");
    }
    // A host more is another order; meanwhile the first goes on.
    let patch = json!({"hosts": ["n.example", "o.example", "q.example"]});
    let reply = gateway.api().ask("PATCH", "/v1/gateways/n", &patch);
    assert_eq!(reply.status, 200, "{}", reply.text());
    Client::secure(pebble.tls(), "n.example", &manner);
    handshake(&pebble, "q.example");
    Client::secure(pebble.tls(), "n.example", &manner);
    assert_eq!(refusal(&pebble, "p.example", &manner), nobody);
}

#[test]
fn a_handshake_proves_a_host_where_no_listener_is_plain() {
    let pebble = Pebble::start(Setup::new());
    let gateway = Gateway::start(&format!(
        "[[listener]]\naddress = \"{}\"\ntls = \"auto\"\n{}{}",
        pebble.tls(),
        pebble.table("challenge = \"tls-alpn-01\""),
        wanting("n", &["n.example", "o.example"])
    ));
    for name in ["n.example", "o.example"] {
        handshake(&pebble, name);
    }
    // Whoever asks for an answer afterwards finds none, and is not served either.
    let asking = pebble.trusted().offering(&["acme-tls/1"]);
    let nobody = alert(AlertDescription::UnrecognisedName);
    assert_eq!(refusal(&pebble, "n.example", &asking), nobody);
    let none = alert(AlertDescription::NoApplicationProtocol);
    let mixed = pebble.trusted().offering(&["acme-tls/1", "spdy/1"]);
    assert_eq!(refusal(&pebble, "n.example", &mixed), none);
    drop(gateway);
}

#[test]
fn a_record_proves_a_wildcard() {
    let pebble = Pebble::start(Setup::new());
    let hook = pebble.hook();
    let challenge = format!(
        "challenge = {{ type = \"dns-01\", exec = [\"{}\"] }}",
        hook.display()
    );
    let gateway = Gateway::start(&format!(
        "{}{}{}",
        pebble.listeners(),
        pebble.table(&challenge),
        wanting("n", &["*.n.example", "n.example", "x.n.example"])
    ));
    for name in ["any.n.example", "x.n.example", "n.example"] {
        handshake(&pebble, name);
    }
    until("the order to be over", || {
        (order(&gateway, "n")["state"] == "issued").then_some(())
    });
    // What the wildcard stands for is not proved by itself, and nothing is left behind.
    let calls = pebble.calls();
    let of = |verb: &str| -> Vec<&str> {
        let own = calls.iter().filter_map(|call| call.strip_prefix(verb));
        let mut own: Vec<&str> = own.map(str::trim).collect();
        own.sort_unstable();
        own
    };
    assert_eq!(of("present").len(), 2, "{calls:?}");
    assert_eq!(of("present"), of("cleanup"));
    let name = "_acme-challenge.n.example ";
    assert!(
        of("present").iter().all(|call| call.starts_with(name)),
        "{calls:?}"
    );
}

#[test]
fn a_program_that_fails_is_told_of_and_the_gateway_serves() {
    let upstream = Upstream::obliging();
    let pebble = Pebble::start(Setup::new());
    let gateway = Gateway::start(&format!(
        "{}{}{}{}",
        pebble.listeners(),
        pebble.table("challenge = { type = \"dns-01\", exec = [\"/bin/false\"] }"),
        wanting("n", &["*.n.example"]),
        service("m", "m", &upstream.url())
    ));
    let failed = until("the failure", || {
        let order = order(&gateway, "n");
        (order["state"] == "failed").then_some(order)
    });
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains("/bin/false present ended with"), "{reason}");
    let mut client = Client::connect(pebble.plain());
    assert_eq!(ask(&mut client, "a.n.example"), 200);
}

#[test]
fn until_it_is_there_clients_see_what_is_wished() {
    let upstream = Upstream::obliging();
    let pebble = Pebble::start(Setup::new());
    let nowhere = pebble.table("").replace("/dir\"", "/nothing\"");
    for (more, expected) in [
        ("", alert(AlertDescription::UnrecognisedName)),
        ("until_issued = \"self_signed\"", "UnknownIssuer".to_owned()),
    ] {
        let gateway = Gateway::start(&format!(
            "{}{nowhere}{more}\n{}{}",
            pebble.listeners(),
            wanting("n", &["n.example"]),
            service("m", "m", &upstream.url())
        ));
        let manner = pebble.trusted();
        until("what is shown", || {
            let told = refusal(&pebble, "n.example", &manner);
            told.contains(&expected).then_some(())
        });
        let failed = until("the failure", || {
            let order = order(&gateway, "n");
            (order["state"] == "failed").then_some(order)
        });
        let reason = failed["reason"].as_str().unwrap();
        assert!(reason.contains("answered 404"), "{reason}");
        let mut client = Client::connect(pebble.plain());
        assert_eq!(ask(&mut client, "n.example"), 200);
    }
}

#[test]
fn an_account_may_come_by_other_means() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    learn(key);
    let external = Some(("kid-1".to_owned(), key.to_owned()));
    let pebble = Pebble::start(Setup {
        external,
        ..Setup::new()
    });
    let start = |eab: &str| {
        Gateway::start(&format!(
            "{}{}{}",
            pebble.listeners(),
            pebble.table(eab),
            wanting("n", &["n.example"])
        ))
    };
    for (eab, why) in [
        ("", "external"),
        (
            "eab_key_id = \"kid-1\"\neab_hmac_key = \"not base64!\"",
            "acme.eab_hmac_key",
        ),
    ] {
        let gateway = start(eab);
        let failed = until("the failure", || {
            let order = order(&gateway, "n");
            (order["state"] == "failed").then_some(order)
        });
        let reason = failed["reason"].as_str().unwrap().to_lowercase();
        assert!(reason.contains(why), "{reason}");
    }
    let gateway = start(&format!("eab_key_id = \"kid-1\"\neab_hmac_key = \"{key}\""));
    handshake(&pebble, "n.example");
    drop(gateway);
}

/// A listener's own certificate is for whoever has none yet.
#[test]
fn a_listeners_own_certificate_stands_in() {
    let upstream = Upstream::obliging();
    let folder = tempfile::tempdir().unwrap();
    let authority = crate::harness::Authority::new("ours");
    let own = authority.issue(&["n.example"]).write(folder.path(), "own");
    let pebble = Pebble::start(Setup::new());
    let port = free_port();
    let gateway = Gateway::start(&format!(
        "[[listener]]\naddress = \"127.0.0.1:{port}\"\ntls = {{ {own} }}\n{}{}{}",
        pebble.table("backoff = \"1h\""),
        wanting("n", &["n.example"]),
        service("m", "m", &upstream.url())
    ));
    // Nobody answers the authority here.
    until("the failure", || {
        (order(&gateway, "n")["state"] == "failed").then_some(())
    });
    let address = ([127, 0, 0, 1], port).into();
    let mut client = Client::secure(address, "n.example", &authority.trusted());
    client.send(at("n.example", get("/v1/models", "")));
    client.reply().assert_ok();
}
