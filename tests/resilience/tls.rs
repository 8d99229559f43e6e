//! TLS while things change and others misbehave: files that are replaced, processes that hand over, clients that hang in the handshake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::upgrade::{gone, upgrade};
use crate::behaviour::tls::{Two, ask, at};
use crate::harness::{
    Authority, CHAT, Client, Manner, Process, Upstream, chat, post, replace, service, until,
};

/// Connects and asks until told to stop; how often it was served, and what went wrong.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

impl Load {
    pub(super) fn start(
        address: std::net::SocketAddr,
        name: &'static str,
        manner: &Manner,
    ) -> Load {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let config = manner.config();
        let (stopped, counted): (_, Arc<AtomicUsize>) = (stop.clone(), Arc::clone(&served));
        let thread = std::thread::spawn(move || {
            let mut wrong = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let asked = Client::try_secure(address, name, config.clone()).and_then(|mut c| {
                    c.try_send(&at(name, post(CHAT, "", chat("m"))))?;
                    c.try_reply()
                });
                match asked {
                    Ok(reply) if reply.status == 200 => {
                        let _ = counted.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(reply) => wrong.push(reply.text()),
                    Err(error) => wrong.push(error.to_string()),
                }
            }
            wrong
        });
        Load {
            stop,
            served,
            thread,
        }
    }

    /// Waits until it was served so often again.
    pub(super) fn more(&self, times: usize) {
        let before = self.served.load(Ordering::Relaxed);
        until("clients to be served", || {
            (self.served.load(Ordering::Relaxed) >= before + times).then_some(())
        });
    }

    #[track_caller]
    pub(super) fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let wrong = self.thread.join().unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

#[test]
fn certificates_are_renewed_under_load() {
    let two = Two::new();
    let gateway = two.start("tls = \"auto\"", "");
    let load = Load::start(gateway.address(), "a.example", &two.manner());
    for _ in 0..3 {
        let renewed = two.authority.issue(&["a.example"]);
        // Between the two they do not belong together.
        replace(&two.path().join("a.pem"), &renewed.certificate);
        load.more(5);
        replace(&two.path().join("a.key"), &renewed.key);
        until("the new certificate", || {
            let client = Client::secure(gateway.address(), "a.example", &two.manner());
            let shown = client.tls().peer_certificates()?.first()?.clone();
            (shown == renewed.der()).then_some(())
        });
    }
    load.end();
}

fn process(two: &Two, server: &str) -> Process {
    let path = two.path().display();
    Process::start_own(
        &format!(
            "[server]\n{server}\n[[listener]]\naddress = \"$LISTENER\"\ntls = {{ certificate = \"{path}/a.pem\", key = \"{path}/a.key\" }}\n{}",
            service("m", "m", &two.upstream.url())
        ),
        &[],
    )
}

#[test]
fn a_broken_pair_leaves_the_old_one_in_force() {
    let two = Two::new();
    let process = process(&two, "");

    replace(
        &two.path().join("a.key"),
        &two.authority.issue(&["a.example"]).key,
    );
    until("a word about it", || {
        let said = process.read("stderr");
        (said.contains("not the key of the certificate") && said.contains("stays in force"))
            .then_some(())
    });
    // Asked to read everything, it says so where the file is named.
    let refused = process.api().cli(&["reload"]);
    refused.failed(
        1,
        &[
            "tls.key: it is not the key of the certificate",
            "tollgate.toml:",
        ],
    );
    let mut client = Client::secure(process.address, "a.example", &two.manner());
    let shown = client.tls().peer_certificates().unwrap()[0].clone();
    assert_eq!(ask(&mut client, "a.example"), 200);
    let mended = two.authority.issue(&["a.example"]);
    mended.write(two.path(), "a");
    process.signal("HUP");
    until("the mended one", || {
        let client = Client::secure(process.address, "a.example", &two.manner());
        (client.tls().peer_certificates()?[0] == mended.der()).then_some(())
    });
    assert_ne!(shown, mended.der());
    assert!(!process.read("stderr").contains("PRIVATE KEY"));
}

#[test]
fn a_listener_with_tls_is_handed_over() {
    let two = Two::new();
    let process = process(&two, "");
    let load = Load::start(process.address, "a.example", &two.manner());
    let mut kept = Client::secure(process.address, "a.example", &two.manner());
    assert_eq!(ask(&mut kept, "a.example"), 200);
    load.more(5);
    let (old, new) = upgrade(&process);
    assert_ne!(old, new);
    // The old one still serves what it has.
    assert_eq!(ask(&mut kept, "a.example"), 200);
    load.more(20);
    gone(old);
    load.more(20);
    load.end();
}

#[test]
fn who_hangs_in_the_handshake_is_let_go() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let upstream = Upstream::obliging();
    let files = authority.issue(&["a.example"]).write(folder.path(), "a");
    let gateway = crate::harness::Gateway::start(&format!(
        "[server]\nheader_timeout = \"300ms\"\n[[listener]]\naddress = \"$LISTENER\"\ntls = {{ {files} }}\n{}",
        service("m", "m", &upstream.url())
    ));
    // Nothing, and the beginning of what a client says first.
    let mut silent = gateway.client();
    let mut slow = gateway.client();
    slow.send([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]);
    silent.assert_closed();
    slow.assert_closed();
    let result = [("result", "timeout")];
    gateway.wait_for("tollgate_tls_handshakes_total", &result, |count| {
        count == 2.0
    });
    // After the handshake the head's own time begins.
    let mut client = Client::secure(gateway.address(), "a.example", &authority.trusted());
    client.send(b"GET / HTTP/1.1\r\n");
    assert_eq!(client.reply().status, 408);
}

#[test]
fn a_thousand_that_say_nothing_keep_nobody_out() {
    let two = Two::new();
    let gateway = two.start("tls = \"auto\"", "");
    let idle: Vec<Client> = (0..1000).map(|_| gateway.client()).collect();
    let mut client = Client::secure(gateway.address(), "a.example", &two.manner());
    assert_eq!(ask(&mut client, "a.example"), 200);
    drop(idle);
    // They left, or were left.
    gateway.wait_for("tollgate_tls_handshakes_total", &[], |count| {
        count >= 1001.0
    });
    assert_eq!(ask(&mut client, "a.example"), 200);
    gateway.assert_gauges_zero();
}
