//! Files that are not what they should be: each is told where the document names it, all at once, and how to mend it.

use serde_json::json;
use tollgate::config;

use crate::harness::{Authority, Gateway, Issued};

#[test]
fn what_is_wrong_with_files_is_told_at_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let path = |name: &str| folder.path().join(name);
    authority
        .issue(&["good.example"])
        .write(folder.path(), "good");
    authority
        .issue(&["other.example"])
        .write(folder.path(), "other");
    authority
        .issue_expired(&["good.example"])
        .write(folder.path(), "old");
    std::fs::write(path("none.pem"), "no certificate\n").unwrap();
    std::fs::write(path("broken.pem"), "-----BEGIN CERTIFICATE-----\n!!!\n").unwrap();
    std::fs::write(
        path("noise.pem"),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let secret =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(path("locked.key"), secret).unwrap();
    let text = r#"
[[listener]]
address = "127.0.0.1:8443"
tls = { certificate = "good.pem", key = "other.key" }

[[gateway]]
name = "a"
hosts = ["a.example"]
certificate = { certificate = "missing.pem", key = "locked.key" }
client_ca = "none.pem"

[[gateway]]
name = "b"
hosts = ["good.example", "more.example"]
certificate = { certificate = "old.pem", key = "old.key" }

[[upstream]]
name = "u"
targets = ["https://localhost:1"]
tls = { ca = "noise.pem", certificate = "broken.pem", key = "good.pem" }

[[service]]
name = "s"
models = ["m"]
upstream = "u"
"#;
    let file = path("tollgate.toml");
    std::fs::write(&file, text).unwrap();
    let said = config::load(&file).unwrap_err().to_string();
    for (place, field, what) in [
        (
            "4:41",
            "listener[0].tls.key",
            "it is not the key of the certificate",
        ),
        (
            "9:31",
            "gateway[0].certificate.certificate",
            "there is no file",
        ),
        (
            "9:52",
            "gateway[0].certificate.key",
            "the key has a passphrase",
        ),
        (
            "10:13",
            "gateway[0].client_ca",
            "there is no certificate in the file",
        ),
        (
            "15:31",
            "gateway[1].certificate.certificate",
            "clients will refuse the certificate: it ended on 2021-01-01",
        ),
        (
            "15:31",
            "gateway[1].certificate.certificate",
            "the certificate is for good.example, and not for more.example",
        ),
        (
            "20:14",
            "upstream[0].tls.ca",
            "certificate 1 in the file is not one",
        ),
        (
            "20:41",
            "upstream[0].tls.certificate",
            "the file is not well-formed PEM",
        ),
        (
            "20:61",
            "upstream[0].tls.key",
            "there is no private key in the file",
        ),
    ] {
        let line = said.lines().find(|line| {
            line.contains(&format!("tollgate.toml:{place}: "))
                && line.contains(&format!("{field}: {what}"))
        });
        assert!(line.is_some(), "{place} {field} {what} is not in:\n{said}");
    }
    assert!(!said.contains("c2VjcmV0"), "{said}");
}

#[test]
fn what_belongs_together_is_asked_for() {
    let no_file = |path: &str| Err(format!("there is no file {path}"));
    let text = r#"
[[listener]]
address = "127.0.0.1:8443"
tls = "self-signed"

[[gateway]]
name = "a"
hosts = ["a.example"]
client_ca = "clients.pem"
certificate = "ordered"

[[gateway]]
name = "b"
hosts = ["b.example"]
certificate = { certificate = "b.pem" }

[[upstream]]
name = "u"
targets = ["https://localhost:1"]
tls = { certificate = "c.pem" }
"#;
    let said = config::parse("t.toml", text, config::Format::Toml, &|_| None, &no_file);
    let said = said.unwrap_err().to_string();
    for what in [
        "listener[0].tls: unknown value \"self-signed\"",
        "gateway[0].certificate: unknown value \"ordered\"",
        "gateway[1].certificate: missing field `key`",
        "upstream[0].tls.certificate: `certificate` is of no use without `key`",
    ] {
        assert!(said.contains(what), "{what} is not in:\n{said}");
    }
    let text = "[[listener]]\naddress = \"127.0.0.1:1\"\n[[gateway]]\nname = \"a\"\nhosts = [\"*\"]\nclient_ca = \"x.pem\"\n";
    let said = config::parse("t.toml", text, config::Format::Toml, &|_| None, &no_file);
    let said = said.unwrap_err().to_string();
    assert!(
        said.contains("gateway[0].client_ca: clients can be asked"),
        "{said}"
    );
}

/// Each of what stands in the way of an order is told at its place, by a file and by the admin API alike.
#[test]
fn what_an_order_needs_is_asked_for() {
    let no_file = |path: &str| Err(format!("there is no file {path}"));
    let read = |text: &str| {
        let read = config::parse("t.toml", text, config::Format::Toml, &|_| None, &no_file);
        read.map_or_else(
            |wrong| wrong.to_string(),
            |loaded| loaded.warnings.to_string(),
        )
    };
    let file = |acme: &str, hosts: &str| {
        format!(
            "[[listener]]\naddress = \"127.0.0.1:1\"\ntls = \"auto\"\n[acme]\n{acme}\n[[gateway]]\nname = \"a\"\nhosts = {hosts}\ncertificate = \"acme\"\n"
        )
    };
    let key = format!(
        "terms_agreed = true\nencryption_key = \"{}\"",
        "k".repeat(32)
    );
    for (acme, hosts, place, what) in [
        (
            "",
            "[\"a.example\"]",
            "gateway[0].certificate",
            "terms_agreed = true",
        ),
        (
            "terms_agreed = true",
            "[\"a.example\"]",
            "gateway[0].certificate",
            "encryption_key = ",
        ),
        (
            &key,
            "[\"*\"]",
            "gateway[0].certificate",
            "no host to order",
        ),
        (
            &key,
            "[\"a.example\", \"*.b.example\"]",
            "gateway[0].certificate",
            "*.b.example",
        ),
        // It comes into force all the same.
        (
            &key,
            "[\"a.example\"]",
            "gateway[0].certificate",
            "a listener without tls",
        ),
        (
            "encryption_key = \"short\"",
            "[\"a.example\"]",
            "acme.encryption_key",
            "32 characters",
        ),
        (
            "directory = \"http://a.example/\"",
            "[\"a.example\"]",
            "acme.directory",
            "over https",
        ),
        (
            "challenge = \"dns-01\"",
            "[\"a.example\"]",
            "acme.challenge",
            "the program that writes",
        ),
        (
            "challenge = { type = \"http-01\", exec = [\"x\"] }",
            "[\"a.example\"]",
            "acme.challenge.exec",
            "only for dns-01",
        ),
        (
            "challenge = \"dns-02\"",
            "[\"a.example\"]",
            "acme.challenge",
            "unknown value",
        ),
        (
            "backoff = \"0s\"",
            "[\"a.example\"]",
            "acme.backoff",
            "may not be zero",
        ),
        (
            "eab_key_id = \"k\"",
            "[\"a.example\"]",
            "acme.eab_key_id",
            "eab_hmac_key",
        ),
    ] {
        let said = read(&file(acme, hosts));
        assert!(
            said.contains(&format!("{place}: ")),
            "{place} is not in:\n{said}"
        );
        assert!(said.contains(what), "{what} is not in:\n{said}");
    }
    let good = file(
        &format!("{key}\nchallenge = \"tls-alpn-01\""),
        "[\"a.example\"]",
    );
    assert_eq!(read(&good), "");
    let gateway = Gateway::start("");
    let body = json!({"name": "n", "hosts": ["*.n.example"], "certificate": "acme"});
    let reply = gateway.api().ask("POST", "/v1/gateways", &body);
    assert_eq!(reply.status, 422, "{}", reply.text());
    let details = reply.json()["error"]["details"].clone();
    let told: Vec<&str> = { details.as_array().unwrap().iter() }
        .map(|detail| detail["message"].as_str().unwrap())
        .collect();
    assert_eq!(details[0]["path"], "certificate");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("terms_agreed") && told[1].contains("dns-01"),
        "{told:?}"
    );
}

/// What a gateway holds of a file is not lost by looking for it elsewhere.
#[test]
fn relative_paths_begin_at_the_file() {
    let folder = tempfile::tempdir().unwrap();
    Issued::self_signed(&["a.example"]).write(folder.path(), "a");
    let text = "[[listener]]\naddress = \"127.0.0.1:1\"\ntls = { certificate = \"a.pem\", key = \"./a.key\" }\n[[gateway]]\nname = \"a\"\nhosts = [\"*\"]\n";
    let file = folder.path().join("tollgate.toml");
    std::fs::write(&file, text).unwrap();
    let loaded = config::load(&file).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
}
