//! What a service manager is told, by the protocol of `sd_notify(3)`.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{PATIENCE, Process, Upstream, service};

/// The manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Manager {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager(socket)
    }

    /// What comes next, but for signs of life.
    fn next(&self) -> String {
        loop {
            let said = self.any();
            if said != "WATCHDOG=1" {
                return said;
            }
        }
    }

    fn any(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }
}

#[test]
fn the_manager_hears_of_every_turn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    let upstream = Upstream::obliging();
    let path = path.display().to_string();
    let toml = service("m", "m", &upstream.url());
    let environment = [
        ("NOTIFY_SOCKET", path.as_str()),
        ("WATCHDOG_USEC", "200000"),
    ];
    let mut process = Process::start_own(&toml, &environment);
    assert_eq!(manager.next(), "READY=1");
    let start = Instant::now();
    for _ in 0..5 {
        assert_eq!(manager.any(), "WATCHDOG=1");
    }
    assert!(
        start.elapsed() > Duration::from_millis(200),
        "not in a rush"
    );

    process.signal("HUP");
    let reloading = manager.next();
    let (first, time) = reloading.split_once('\n').unwrap();
    assert_eq!(first, "RELOADING=1");
    let time = time.strip_prefix("MONOTONIC_USEC=").unwrap();
    assert!(time.parse::<u64>().unwrap() > 0);
    assert_eq!(manager.next(), "READY=1");

    let done = process.api().ask("POST", "/v1/upgrade", &Value::Null);
    assert_eq!(done.status, 200, "{}", done.text());
    let new = done.json()["new"].as_u64().unwrap();
    assert_eq!(manager.next(), format!("MAINPID={new}\nREADY=1"));
    // It looks at the file again.
    assert!(manager.next().starts_with("RELOADING=1"));
    assert_eq!(manager.next(), "READY=1");
    process.end();
    // The old one says nothing of its end: the service does not stop.
    assert_eq!(manager.any(), "WATCHDOG=1");
    let ended = std::process::Command::new("kill")
        .arg(new.to_string())
        .status();
    assert!(ended.unwrap().success());
    assert_eq!(manager.next(), "STOPPING=1");
}

/// A program that fails does not become the service.
#[test]
fn the_manager_hears_nothing_of_a_failed_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    let upstream = Upstream::obliging();
    let path = path.display().to_string();
    let toml = service("m", "m", &upstream.url());
    let process = Process::start_own(&toml, &[("NOTIFY_SOCKET", path.as_str())]);
    assert_eq!(manager.next(), "READY=1");
    process.replace_program("#!/bin/sh\nexit 1\n");
    let failed = process.api().ask("POST", "/v1/upgrade", &Value::Null);
    assert_eq!(failed.status, 500, "{}", failed.text());
    assert_eq!(failed.json()["error"]["code"], "upgrade_failed");
    process.signal("TERM");
    assert_eq!(manager.next(), "STOPPING=1");
}
