//! Who is not believed: clients without the certificate that is asked for, upstreams whose certificate is not good.

use serde_json::Value;

use crate::behaviour::tls::{Two, ask, at};
use crate::harness::{
    Authority, CHAT, Client, Gateway, H2Client, Issued, Manner, TlsUpstream, bearer, chat, get,
    post, sha256, until,
};

/// A gateway whose clients are vouched for by an authority of their own. `required` or `optional`.
fn asking(two: &Two, clients: &Authority, how: &str) -> Gateway {
    let ca = clients.write(two.path(), "clients.pem");
    let more = format!(
        "client_ca = \"{}\"\nclient_certificate = \"{how}\"",
        ca.display()
    );
    two.start("tls = \"auto\"", &more)
}

/// Whether a request comes through; in TLS 1.3 a client learns after its handshake that it is refused.
fn let_in(gateway: &Gateway, name: &str, manner: &Manner) -> bool {
    let Ok(mut client) = Client::try_secure(gateway.address(), name, manner.config()) else {
        return false;
    };
    client
        .try_send(&at(name, post(CHAT, "", chat("m"))))
        .is_ok()
        && client.try_reply().is_ok_and(|reply| reply.status == 200)
}

#[test]
fn clients_without_a_good_certificate_are_not_let_in() {
    let two = Two::new();
    let clients = Authority::new("clients");
    let gateway = asking(&two, &clients, "required");
    let manner = two.manner();
    assert!(let_in(
        &gateway,
        "a.example",
        &manner.clone().showing(&clients.issue(&["me"]))
    ));
    assert!(!let_in(&gateway, "a.example", &manner));
    for foreign in [
        two.authority.issue(&["me"]),
        Issued::self_signed(&["me"]),
        clients.issue_expired(&["me"]),
    ] {
        assert!(!let_in(
            &gateway,
            "a.example",
            &manner.clone().showing(&foreign)
        ));
    }
    // Others are not asked.
    assert!(let_in(&gateway, "x.b.example", &manner));
    assert_eq!(two.upstream.requests().len(), 2);
}

/// The connection of a host that asks for nothing, its sessions, and the listeners without TLS are no ways around.
#[test]
fn there_is_no_way_around_it() {
    let two = Two::new();
    let clients = Authority::new("clients");
    let both = two.authority.issue(&["a.example", "*.b.example"]);
    both.write(two.path(), "a");
    both.write(two.path(), "b");
    let gateway = asking(&two, &clients, "required");
    let config = two.manner().config();
    let mut client = Client::try_secure(gateway.address(), "x.b.example", config.clone()).unwrap();
    assert_eq!(ask(&mut client, "x.b.example"), 200);
    assert_eq!(ask(&mut client, "a.example"), 421);
    let h2 = H2Client::secure(gateway.address(), "x.b.example", &two.manner());
    let reply = h2
        .open_at("a.example", "GET", "/v1/models", &[], true)
        .reply();
    assert_eq!(reply.unwrap().status, 421);
    // Having been let in there does not help.
    let mut other = Client::try_secure(gateway.address(), "a.example", config);
    let served = other.as_mut().is_ok_and(|client| {
        let sent = client.try_send(&at("a.example", get("/v1/models", "")));
        sent.is_ok() && client.try_reply().is_ok()
    });
    assert!(!served);
    let plain = asking_in_the_clear(&two, &clients);
    let mut client = plain.client();
    client.send(at("a.example", get("/v1/models", "")));
    let reply = client.reply();
    assert_eq!(reply.status, 403, "{}", reply.text());
    assert_eq!(reply.json()["error"]["code"], "permission_denied");
}

fn asking_in_the_clear(two: &Two, clients: &Authority) -> Gateway {
    let ca = clients.write(two.path(), "clients.pem");
    two.start("", &format!("client_ca = \"{}\"", ca.display()))
}

/// A certificate is a key where a key has its fingerprint for a hash.
#[test]
fn a_certificate_may_be_a_key() {
    let two = Two::new();
    let clients = Authority::new("clients");
    let (known, unknown) = (clients.issue(&["me"]), clients.issue(&["other"]));
    let ca = clients.write(two.path(), "clients.pem");
    let files = two.authority.issue(&["k.example"]).write(two.path(), "k");
    let gateway = Gateway::start(&format!(
        "[[listener]]\naddress = \"$LISTENER\"\ntls = \"auto\"\n[[gateway]]\nname = \"k\"\nhosts = [\"k.example\"]\n\
         certificate = {{ {files} }}\nclient_ca = \"{}\"\nclient_certificate = \"optional\"\n\
         [[key]]\nname = \"machine\"\ngateway = \"k\"\nhash = \"sha256:{}\"\n\
         [[key]]\nname = \"person\"\ngateway = \"k\"\nsecret = \"a-secret-of-a-person\"\nmodels = [\"other\"]\n{}",
        ca.display(),
        sha256(&known.der()),
        crate::harness::service("m", "m", &two.upstream.url()),
    ));
    let manner = two.manner();
    let status = |manner: &Manner, fields: &str| {
        let mut client = Client::secure(gateway.address(), "k.example", manner);
        client.send(at("k.example", post(CHAT, fields, chat("m"))));
        client.reply().status
    };
    assert_eq!(status(&manner.clone().showing(&known), ""), 200);
    assert_eq!(status(&manner.clone().showing(&unknown), ""), 401);
    assert_eq!(status(&manner, ""), 401);
    // What is sent says who asks, whoever's the connection is.
    let person = bearer("a-secret-of-a-person");
    assert_eq!(status(&manner.clone().showing(&known), &person), 403);
    // What everybody may read of it opens nothing.
    let fingerprint = bearer(&sha256(&known.der()));
    assert_eq!(status(&manner, &fingerprint), 401);
}

/// A gateway with one upstream, and its access log.
fn towards(two: &Two, url: &str, tls: &str, health: &str) -> Gateway {
    let log = two.path().join("access.log");
    let _ = std::fs::remove_file(&log);
    Gateway::start(&format!(
        "[log]\naccess = \"{}\"\n[[service]]\nname = \"m\"\nmodels = [\"m\"]\nupstream = \"u\"\nretry = {{ attempts = 1 }}\n\
         [[upstream]]\nname = \"u\"\ntargets = [\"{url}\"]\nhealth = {health}\ntls = {{ {tls} }}\n",
        log.display()
    ))
}

/// What the access log says of the only request.
fn cause(two: &Two) -> String {
    let line = until("the access log", || {
        let text = std::fs::read_to_string(two.path().join("access.log")).ok()?;
        text.ends_with('\n').then_some(text)
    });
    let line: Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    line["cause"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn upstreams_without_a_good_certificate_get_no_request() {
    let two = Two::new();
    let ca = two.authority.write(two.path(), "ca.pem");
    let ours = format!("ca = \"{}\"", ca.display());
    let good = two.authority.issue(&["localhost", "engine.internal"]);
    for (what, shown, tls, why) in [
        ("unknown", good.clone(), String::new(), "UnknownIssuer"),
        (
            "self-signed",
            Issued::self_signed(&["localhost"]),
            ours.clone(),
            "UnknownIssuer",
        ),
        (
            "expired",
            two.authority.issue_expired(&["localhost"]),
            ours.clone(),
            "expired",
        ),
        (
            "wrong host",
            two.authority.issue(&["other.example"]),
            ours.clone(),
            "not valid for name",
        ),
        (
            "another name",
            good.clone(),
            format!("{ours}, server_name = \"x.internal\""),
            "not valid for name",
        ),
    ] {
        let upstream = TlsUpstream::start(&shown, None);
        let gateway = towards(&two, &upstream.url("localhost"), &tls, "\"off\"");
        let reply = gateway.client().chat("m", "");
        assert_eq!(reply.status, 502, "{what}: {}", reply.text());
        assert!(!reply.text().contains("ertificate"), "{}", reply.text());
        let cause = cause(&two);
        assert!(cause.contains(why), "{what}: {cause}");
        assert!(upstream.begun().is_empty(), "{what}");
    }
    for (tls, name) in [
        (ours.clone(), "localhost"),
        (
            format!("{ours}, server_name = \"engine.internal\""),
            "engine.internal",
        ),
        ("verify = false".to_owned(), "localhost"),
    ] {
        let upstream = TlsUpstream::start(&good, None);
        let gateway = towards(&two, &upstream.url("localhost"), &tls, "\"off\"");
        gateway.client().chat("m", "").assert_ok();
        let begun = upstream.begun();
        assert_eq!(begun[0].name.as_deref(), Some(name), "{tls}");
        assert!(!begun[0].shown);
    }
}

#[test]
fn upstreams_see_the_certificate_that_is_theirs_to_see() {
    let two = Two::new();
    let ca = two.authority.write(two.path(), "ca.pem");
    let ca = format!("ca = \"{}\"", ca.display());
    let clients = Authority::new("clients");
    let shown = two.authority.issue(&["localhost"]);
    let own = clients.issue(&["tollgate"]).write(two.path(), "own");
    let foreign = Authority::new("other").issue(&["tollgate"]);
    let foreign = foreign.write(two.path(), "foreign");
    for (tls, status) in [
        (format!("{ca}, {own}"), 200),
        (ca.clone(), 502),
        (format!("{ca}, {foreign}"), 502),
    ] {
        let upstream = TlsUpstream::start(&shown, Some(&clients));
        let gateway = towards(&two, &upstream.url("localhost"), &tls, "\"off\"");
        assert_eq!(gateway.client().chat("m", "").status, status, "{tls}");
        assert_eq!(upstream.begun().len(), usize::from(status == 200));
    }
}

/// Probes see what requests would.
#[test]
fn probes_use_the_same_certificates() {
    let two = Two::new();
    let ca = two.authority.write(two.path(), "ca.pem");
    let ca = format!("ca = \"{}\"", ca.display());
    let clients = Authority::new("clients");
    let shown = two.authority.issue(&["localhost"]);
    let own = clients.issue(&["tollgate"]).write(two.path(), "own");
    let health = "{ type = \"http\", interval = \"100ms\", unhealthy_after = 1 }";
    for (tls, up) in [(format!("{ca}, {own}"), 1.0), (ca, 0.0), (own, 0.0)] {
        let upstream = TlsUpstream::start(&shown, Some(&clients));
        let gateway = towards(&two, &upstream.url("localhost"), &tls, health);
        let known = |reply: Value| reply["targets"][0]["health"] != "unknown";
        until("a probe", || {
            known(gateway.api().get("/v1/status").json()).then_some(())
        });
        gateway.wait_for("tollgate_target_up", &[], |value| value == up);
    }
}
