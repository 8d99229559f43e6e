//! Pebble, an authority that speaks ACME, with a DNS of its own in which every name is this machine's.
//!
//! It refuses some good nonces, as real ones may. Both programs are Debian's (package `pebble`).

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{Authority, Client, Manner, free_port, get, until};

/// A running authority. Its accounts and its root are gone with it.
pub(crate) struct Pebble {
    folder: tempfile::TempDir,
    setup: Setup,
    /// Vouches for its own server.
    authority: Authority,
    port: u16,
    management: u16,
    names: u16,
    records: u16,
    running: Vec<Child>,
}

/// How it is set up.
#[derive(Clone)]
pub(crate) struct Setup {
    /// Where it asks in the clear.
    pub(crate) http: u16,
    /// Where it shakes hands.
    pub(crate) tls: u16,
    /// How long its certificates are good, in seconds.
    pub(crate) life: u64,
    /// Of a hundred good nonces it refuses so many.
    pub(crate) refused_nonces: u8,
    /// An account that it knows by other means: name and key.
    pub(crate) external: Option<(String, String)>,
}

impl Setup {
    /// One that takes every good nonce, so that orders can be counted.
    pub(crate) fn exact() -> Setup {
        Setup {
            refused_nonces: 0,
            ..Setup::new()
        }
    }

    /// With free ports, and certificates for a year.
    pub(crate) fn new() -> Setup {
        Setup {
            http: free_port(),
            tls: free_port(),
            life: 365 * 86_400,
            refused_nonces: 5,
            external: None,
        }
    }
}

impl Pebble {
    pub(crate) fn start(setup: Setup) -> Pebble {
        let mut pebble = Pebble {
            folder: tempfile::tempdir().unwrap(),
            authority: Authority::new("the directory's own"),
            port: free_port(),
            management: free_port(),
            names: free_port(),
            records: free_port(),
            running: Vec::new(),
            setup,
        };
        pebble.run();
        pebble
    }

    /// After [`stop`](Self::stop), at the same addresses.
    pub(crate) fn start_again(&mut self) {
        self.run();
    }

    fn run(&mut self) {
        let local = |port: u16| format!("127.0.0.1:{port}");
        let folder = self.folder.path();
        self.authority.write(folder, "directory.pem");
        let own = self.authority.issue(&["127.0.0.1"]);
        own.write(folder, "own");
        let keys = self.setup.external.iter().cloned();
        let keys: Value = keys.map(|(name, key)| (name, json!(key))).collect();
        let config = json!({"pebble": {
            "listenAddress": local(self.port),
            "managementListenAddress": local(self.management),
            "certificate": folder.join("own.pem"),
            "privateKey": folder.join("own.key"),
            "httpPort": self.setup.http,
            "tlsPort": self.setup.tls,
            "ocspResponderURL": "",
            "certificateValidityPeriod": self.setup.life,
            "externalAccountBindingRequired": self.setup.external.is_some(),
            "externalAccountMACKeys": keys,
        }});
        std::fs::write(folder.join("pebble.json"), config.to_string()).unwrap();
        let names = [
            ("-dns01", local(self.names)),
            ("-management", local(self.records)),
            ("-http01", String::new()),
            ("-https01", String::new()),
            ("-tlsalpn01", String::new()),
            ("-defaultIPv4", "127.0.0.1".into()),
            ("-defaultIPv6", String::new()),
        ];
        let names = names.iter().flat_map(|(flag, value)| [*flag, value]);
        let names: Vec<String> = names.map(str::to_owned).collect();
        let authority = ["-config", "pebble.json", "-dnsserver", &local(self.names)];
        let authority = authority.map(str::to_owned);
        self.running = vec![
            self.spawn("pebble-challtestsrv", &names),
            self.spawn("pebble", &authority),
        ];
        until("the authority to answer", || {
            self.try_page(self.port, "/dir")
        });
        let records = SocketAddr::from((Ipv4Addr::LOCALHOST, self.records));
        until("its DNS to be there", || Client::try_connect(records).ok());
    }

    fn spawn(&self, program: &str, arguments: &[String]) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("{program}.log")))
            .unwrap();
        Command::new(program)
            .args(arguments)
            .current_dir(self.folder.path())
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env(
                "PEBBLE_WFE_NONCEREJECT",
                self.setup.refused_nonces.to_string(),
            )
            // Each order is proved anew.
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}: install the package pebble"))
    }

    /// It is gone.
    pub(crate) fn stop(&mut self) {
        for mut child in self.running.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn try_page(&self, port: u16, path: &str) -> Option<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let config = self.authority.trusted().config();
        let mut client = Client::try_secure(address, "127.0.0.1", config).ok()?;
        client.try_send(&get(path, "connection: close\r\n")).ok()?;
        let reply = client.try_reply().ok()?;
        (reply.status == 200).then(|| reply.text())
    }

    pub(crate) fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    /// A table `[acme]` with this directory, and with more fields.
    pub(crate) fn table(&self, more: &str) -> String {
        let ca = self.folder.path().join("directory.pem");
        format!(
            "[acme]\ndirectory = \"{}\"\nca = \"{}\"\nterms_agreed = true\nemail = \"ops@example.com\"\n{more}\n",
            self.directory(),
            ca.display()
        )
    }

    /// Listeners where it asks and shakes hands.
    pub(crate) fn listeners(&self) -> String {
        let Setup { http, tls, .. } = self.setup;
        format!(
            "[[listener]]\naddress = \"127.0.0.1:{http}\"\n[[listener]]\naddress = \"127.0.0.1:{tls}\"\ntls = \"auto\"\n"
        )
    }

    /// The listener at which it shakes hands.
    pub(crate) fn tls(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.setup.tls))
    }

    /// The listener that it asks in the clear.
    pub(crate) fn plain(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.setup.http))
    }

    /// Clients that trust what it issues, and nothing else.
    pub(crate) fn trusted(&self) -> Manner {
        let root = until("its root", || self.try_page(self.management, "/roots/0"));
        Manner::trusting(&root)
    }

    /// How many orders it was asked for.
    pub(crate) fn orders(&self) -> usize {
        let log = std::fs::read_to_string(self.folder.path().join("pebble.log")).unwrap();
        log.matches("orders in the db").count()
    }

    /// A program that writes records to its DNS, and what it does to a file `calls` beside it.
    pub(crate) fn hook(&self) -> PathBuf {
        let path = self.folder.path().join("hook");
        let text = format!(
            "#!/bin/sh\nset -e\necho \"$1 $2 $3\" >> \"$(dirname \"$0\")/calls\"\n\
             case $1 in\n\
             present) curl -sf -d \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" http://127.0.0.1:{0}/set-txt ;;\n\
             cleanup) curl -sf -d \"{{\\\"host\\\":\\\"$2.\\\"}}\" http://127.0.0.1:{0}/clear-txt ;;\n\
             esac\n",
            self.records
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// What the hook was called with, a line for each call.
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("calls"));
        let text = text.unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("pebble.log"));
            eprintln!("{}", log.unwrap_or_default());
        }
    }
}
