//! Targets whose certificate was revoked: nothing is sent to them, over a new connection or one that was kept.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::config;

use crate::harness::{
    Authority, CHAT, Gateway, H2Behaviour, H2Upstream, Issued, Process, Reply, TlsUpstream, chat,
    chunked, get, post, replace, until,
};

/// An answer after which the connection stays.
const KEEPING: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

/// An authority, two certificates of it, and the folder of its files.
struct Issuer {
    folder: TempDir,
    authority: Authority,
    good: Issued,
    bad: Issued,
}

impl Issuer {
    /// With a list that has none of the two, but a third.
    fn new() -> Issuer {
        let authority = Authority::new("ours");
        let issuer = Issuer {
            folder: tempfile::tempdir().unwrap(),
            good: authority.issue(&["localhost"]),
            bad: authority.issue(&["localhost"]),
            authority,
        };
        issuer.authority.write(issuer.folder.path(), "ca.pem");
        issuer.revoke(&[&issuer.authority.issue(&["localhost"])]);
        issuer
    }

    fn revoke(&self, revoked: &[&Issued]) {
        replace(&self.crl(), &self.authority.list(revoked));
    }

    fn crl(&self) -> PathBuf {
        self.folder.path().join("engines.crl")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    /// What a document says of its files.
    fn tls(&self) -> String {
        let folder = self.folder.path().display();
        format!("ca = \"{folder}/ca.pem\", crl = \"{folder}/engines.crl\"")
    }

    /// A gateway to targets whose requests take either road.
    fn gateway(&self, targets: &[String], more: &str) -> Gateway {
        Gateway::start(&document(targets, &self.tls(), more, &self.log()))
    }

    /// What the access log says of the last request, of so many.
    fn cause(&self, requests: usize) -> String {
        let line = until("the access log", || {
            let text = std::fs::read_to_string(self.log()).ok()?;
            let lines = text.lines().count() == requests && text.ends_with('\n');
            lines.then(|| text.lines().last().unwrap().to_owned())
        });
        let line: Value = serde_json::from_str(&line).unwrap();
        line["cause"].as_str().unwrap_or_default().to_owned()
    }
}

fn document(targets: &[String], tls: &str, more: &str, log: &Path) -> String {
    let log = log.display();
    format!(
        "[log]\naccess = \"{log}\"\n\
         [[service]]\nname = \"m\"\nmodels = [\"m\"]\nupstream = \"u\"\nretry = {{ attempts = 1 }}\n\
         [[service]]\nname = \"raw\"\ntype = \"http\"\npath_prefix = \"/raw\"\nupstream = \"u\"\nretry = {{ attempts = 1 }}\n\
         [[upstream]]\nname = \"u\"\ntargets = {targets:?}\ntls = {{ {tls} }}\nbreaker = \"off\"\n{more}\n"
    )
}

const NO_PROBES: &str = "health = \"off\"";

/// A body that is read before it goes on, none at all, and one that passes unread.
fn roads() -> [(&'static str, Vec<u8>); 3] {
    [
        ("a body that is read", post(CHAT, "", chat("m"))),
        ("no body", get("/raw/x", "")),
        ("a body that passes", chunked("/raw/x", "", b"unread", 3)),
    ]
}

fn ask(gateway: &Gateway, request: &[u8]) -> Reply {
    let mut client = gateway.client();
    client.send(request);
    client.reply()
}

#[test]
fn a_target_with_a_revoked_certificate_gets_no_request() {
    let issuer = Issuer::new();
    let upstream = TlsUpstream::start(&issuer.bad, None);
    let targets = [upstream.url("localhost")];
    let gateway = issuer.gateway(&targets, NO_PROBES);
    for (road, request) in roads() {
        let reply = ask(&gateway, &request);
        assert_eq!(reply.status, 200, "{road}: {}", reply.text());
    }
    assert_eq!(upstream.begun().len(), 3);
    drop(gateway);
    issuer.revoke(&[&issuer.bad]);
    std::fs::remove_file(issuer.log()).unwrap();
    let gateway = issuer.gateway(&targets, NO_PROBES);
    let serial = issuer.bad.serial();
    let serial: Vec<String> = { serial.iter() }
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let why = format!("(serial {}) is revoked", serial.join(":"));
    for (place, (road, request)) in roads().into_iter().enumerate() {
        let reply = ask(&gateway, &request);
        reply.assert_refused(502, "upstream_error");
        assert!(
            !reply.text().contains("revoked"),
            "{road}: {}",
            reply.text()
        );
        let cause = issuer.cause(place + 1);
        assert!(
            cause.contains("the certificate of 127.0.0.1:") && cause.contains(&why),
            "{road}: {cause}"
        );
    }
    assert_eq!(upstream.begun().len(), 3);
}

#[test]
fn a_target_with_a_good_one_serves_in_its_place() {
    let issuer = Issuer::new();
    issuer.revoke(&[&issuer.bad]);
    let revoked = TlsUpstream::start(&issuer.bad, None);
    let good = TlsUpstream::start(&issuer.good, None);
    let targets = [revoked.url("localhost"), good.url("localhost")];
    let more = format!("{NO_PROBES}\npolicy = \"round_robin\"");
    let gateway = issuer.gateway(&targets, &more);
    let [whole, without, _] = roads();
    for (road, request) in [whole, without] {
        let before = gateway.metrics().sum("tollgate_retries_total", &[]);
        for _ in 0..4 {
            let reply = ask(&gateway, &request);
            assert_eq!(reply.status, 200, "{road}: {}", reply.text());
        }
        let after = { gateway.metrics() }.sum("tollgate_retries_total", &[("reason", "connect")]);
        assert!(after - before >= 1.0, "{road}: nobody met the revoked one");
    }
    assert_eq!(good.begun().len(), 8);
    assert!(revoked.begun().is_empty());
}

/// Once it is revoked, a connection from before is of no use any more; and it is again when that is taken back.
#[test]
fn a_kept_connection_is_not_used_when_its_certificate_is_revoked() {
    let [whole, without, _] = roads();
    for (road, request) in [whole, without] {
        let issuer = Issuer::new();
        let upstream = TlsUpstream::answering(&issuer.bad, None, KEEPING);
        let gateway = issuer.gateway(&[upstream.url("localhost")], NO_PROBES);
        // The client may have its answer before the connection is back.
        until("a request over a kept connection", || {
            assert_eq!(ask(&gateway, &request).status, 200, "{road}");
            upstream.begun().last()?.kept.then_some(())
        });
        issuer.revoke(&[&issuer.good, &issuer.bad]);
        until("the list to be read", || {
            (ask(&gateway, &request).status == 502).then_some(())
        });
        let before = upstream.begun().len();
        for _ in 0..3 {
            ask(&gateway, &request).assert_refused(502, "upstream_error");
        }
        assert_eq!(upstream.begun().len(), before, "{road}");
        issuer.revoke(&[&issuer.good]);
        until("the next list to be read", || {
            (ask(&gateway, &request).status == 200).then_some(())
        });
    }
}

#[test]
fn connections_of_http2_are_no_exception() {
    for (road, request) in roads() {
        let issuer = Issuer::new();
        let upstream = H2Upstream::secure(H2Behaviour::Echo, &issuer.bad);
        let more = format!("{NO_PROBES}\nhttp2 = true");
        let gateway = issuer.gateway(&[upstream.secure_url("localhost")], &more);
        for _ in 0..2 {
            let reply = ask(&gateway, &request);
            assert_eq!(reply.status, 200, "{road}: {}", reply.text());
        }
        issuer.revoke(&[&issuer.bad]);
        until("the list to be read", || {
            (ask(&gateway, &request).status == 502).then_some(())
        });
        let before = upstream.heads().len();
        for _ in 0..3 {
            ask(&gateway, &request).assert_refused(502, "upstream_error");
        }
        assert_eq!(upstream.heads().len(), before, "{road}");
        issuer.revoke(&[]);
        until("the next list to be read", || {
            (ask(&gateway, &request).status == 200).then_some(())
        });
    }
}

#[test]
fn probes_take_it_out() {
    for http2 in [false, true] {
        let issuer = Issuer::new();
        let plain = TlsUpstream::start(&issuer.bad, None);
        let second = H2Upstream::secure(H2Behaviour::Echo, &issuer.bad);
        let target = match http2 {
            false => plain.url("localhost"),
            true => second.secure_url("localhost"),
        };
        let probe =
            "{ type = \"http\", interval = \"100ms\", unhealthy_after = 1, healthy_after = 1 }";
        let more = format!("health = {probe}\nhttp2 = {http2}");
        let gateway = issuer.gateway(&[target], &more);
        let asked = || plain.begun().len() + second.heads().len();
        until("a probe", || (asked() > 0).then_some(()));
        gateway.wait_for("tollgate_target_up", &[], |value| value == 1.0);
        issuer.revoke(&[&issuer.bad]);
        gateway.wait_for("tollgate_target_up", &[], |value| value == 0.0);
        let before = asked();
        issuer.revoke(&[]);
        gateway.wait_for("tollgate_target_up", &[], |value| value == 1.0);
        until("probes to go on", || (asked() > before).then_some(()));
    }
}

/// Where nobody has to vouch, any list counts; it is told that this is of little use.
#[test]
fn without_an_authority_any_list_counts() {
    let issuer = Issuer::new();
    let foreign = Authority::new("foreign");
    replace(&issuer.crl(), &foreign.list(&[&issuer.bad]));
    let tls = format!("verify = false, crl = \"{}\"", issuer.crl().display());
    for (shown, status) in [(&issuer.good, 200), (&issuer.bad, 502)] {
        let upstream = TlsUpstream::start(shown, None);
        let targets = [upstream.url("localhost")];
        let text = document(&targets, &tls, NO_PROBES, &issuer.log());
        let gateway = Gateway::start(&text);
        assert_eq!(gateway.client().chat("m", "").status, status);
    }
    let said = load(&issuer, &tls).unwrap();
    assert!(
        said.contains("upstream[0].tls.crl: who has a revoked certificate may show any other"),
        "{said}"
    );
}

/// What is said of a file with an upstream that has these files: warnings, or errors.
fn load(issuer: &Issuer, tls: &str) -> Result<String, String> {
    let file = issuer.folder.path().join("tollgate.toml");
    let text = document(
        &["https://localhost:1".to_owned()],
        tls,
        NO_PROBES,
        &issuer.log(),
    );
    let rest = "[[listener]]\naddress = \"127.0.0.1:1\"\n[[gateway]]\nname = \"a\"\nhosts = [\"*\"]\nauth = \"none\"\n";
    std::fs::write(&file, text + rest).unwrap();
    match config::load(&file) {
        Ok(loaded) => Ok(loaded.warnings.to_string()),
        Err(wrong) => Err(wrong.to_string()),
    }
}

#[test]
fn what_is_wrong_with_a_list_is_told_at_its_place() {
    let issuer = Issuer::new();
    let good = issuer.authority.list(&[&issuer.bad]);
    assert_eq!(load(&issuer, &issuer.tls()).unwrap(), "");
    let foreign = Authority::new("foreign").list(&[]);
    let namesake = Authority::new("ours").list(&[]);
    let noise = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    let cut = good.split_inclusive('\n').take(3).collect::<String>();
    let signed = "revocation list 1 in the file is not signed by an authority of `ca`";
    for (text, told) in [
        (
            "no list\n".to_owned(),
            vec![
                "there is no revocation list in the file",
                "openssl crl -inform DER",
            ],
        ),
        (
            issuer.authority.pem.clone(),
            vec!["there is no revocation list in the file"],
        ),
        (cut, vec!["the file is not well-formed PEM"]),
        (
            noise.to_owned(),
            vec!["revocation list 1 in the file is not one"],
        ),
        (foreign.clone(), vec![signed]),
        (namesake, vec![signed]),
        (
            format!("{good}{noise}{foreign}"),
            vec![
                "revocation list 2 in the file is not one",
                "revocation list 3 in the file is not signed by an authority of `ca`",
            ],
        ),
    ] {
        replace(&issuer.crl(), &text);
        let said = load(&issuer, &issuer.tls()).unwrap_err();
        for told in told {
            assert!(
                said.contains("tollgate.toml:17:") && said.contains(told),
                "{told} is not in:\n{said}"
            );
        }
        assert!(said.contains("upstream[0].tls.crl: "), "{said}");
    }
    std::fs::write(issuer.crl(), [0x30, 0x82, 0xff, 0xfe]).unwrap();
    let said = load(&issuer, &issuer.tls()).unwrap_err();
    assert!(
        said.contains("is not UTF-8") && said.contains("-inform DER"),
        "{said}"
    );
    std::fs::remove_file(issuer.crl()).unwrap();
    let said = load(&issuer, &issuer.tls()).unwrap_err();
    assert!(said.contains("tls.crl: there is no file"), "{said}");
    let gateway = Gateway::start("");
    let body =
        json!({"name": "u", "targets": ["https://localhost:1"], "tls": {"crl": issuer.crl()}});
    let reply = gateway.api().ask("POST", "/v1/upstreams", &body);
    assert_eq!(reply.status, 422, "{}", reply.text());
    assert_eq!(reply.json()["error"]["details"][0]["path"], "tls.crl");
}

#[test]
fn a_broken_list_leaves_the_last_one_in_force() {
    let issuer = Issuer::new();
    issuer.revoke(&[&issuer.bad]);
    let revoked = TlsUpstream::start(&issuer.bad, None);
    let targets = [revoked.url("localhost")];
    let text = document(&targets, &issuer.tls(), NO_PROBES, &issuer.log());
    let process = Process::start(&text);
    assert_eq!(process.client().chat("m", "").status, 502);
    let whole = issuer.authority.list(&[]);
    replace(&issuer.crl(), &whole[..whole.len() / 2]);
    until("a word about it", || {
        let said = process.read("stderr");
        (said.contains("engines.crl: the file is not well-formed PEM")
            && said.contains("what was read before stays in force"))
        .then_some(())
    });
    assert_eq!(process.client().chat("m", "").status, 502);
    assert!(revoked.begun().is_empty());
    replace(&issuer.crl(), &whole);
    until("the mended one", || {
        (process.client().chat("m", "").status == 200).then_some(())
    });
}

/// Better an old list than none; and it is told, once.
#[test]
fn a_list_that_should_have_been_replaced_still_holds() {
    let issuer = Issuer::new();
    let overdue = |revoked: &[&Issued]| issuer.authority.list_until(revoked, 2021);
    replace(&issuer.crl(), &overdue(&[&issuer.bad]));
    let told = "the revocation list of ours should have been replaced by 2021-01-01T00:00:00Z";
    let said = load(&issuer, &issuer.tls()).unwrap();
    assert!(
        said.contains("upstream[0].tls.crl: ") && said.contains(told),
        "{said}"
    );
    let revoked = TlsUpstream::start(&issuer.bad, None);
    let targets = [revoked.url("localhost")];
    let text = document(&targets, &issuer.tls(), NO_PROBES, &issuer.log());
    let process = Process::start(&text);
    assert_eq!(process.client().chat("m", "").status, 502);
    let in_log = || {
        let said = process.read("stderr");
        let lines = said
            .lines()
            .filter(|line| line.contains("engines.crl: the revocation list"));
        lines.count()
    };
    until("a word about it", || (in_log() > 0).then_some(()));
    // By then the files were looked at several times.
    replace(&issuer.crl(), "broken");
    until("the next look", || {
        { process.read("stderr") }
            .contains("there is no revocation list in the file")
            .then_some(())
    });
    assert_eq!(in_log(), 1);
    // Another one is told of anew.
    replace(&issuer.crl(), &overdue(&[]));
    until("another word", || (in_log() == 2).then_some(()));
    assert_eq!(process.client().chat("m", "").status, 200);
}
