//! A watcher of `/v1/events`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Client, PATIENCE, get};

/// An open stream of events.
pub(crate) struct Watch {
    client: Client,
    text: String,
}

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) id: u64,
    pub(crate) event: String,
    pub(crate) data: Value,
}

impl Watch {
    /// Begins to watch; nothing that happens after this returns is missed. `fields`: more header lines.
    #[track_caller]
    pub(crate) fn open(admin: SocketAddr, fields: &str) -> Watch {
        let mut client = Client::connect(admin);
        client.send(get("/v1/events", fields));
        let head = client.head().unwrap();
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        let mut watch = Watch {
            client,
            text: String::new(),
        };
        assert_eq!(watch.block().trim(), ": watching");
        watch
    }

    /// The next event of any kind; comments are passed over.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Told {
        loop {
            let block = self.block();
            let field = |name: &str| {
                let lines = block.lines();
                let mut found =
                    lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                found.next().map(str::to_owned)
            };
            if let (Some(id), Some(event), Some(data)) =
                (field("id"), field("event"), field("data"))
            {
                let data: Value = serde_json::from_str(&data).unwrap();
                assert!(data["message"].is_string(), "{data}");
                let id = id.parse().unwrap();
                return Told { id, event, data };
            }
            assert!(block.starts_with(':'), "{block:?}");
        }
    }

    /// The next event of this kind that is as wanted.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, event: &str, wanted: impl Fn(&Value) -> bool) -> Told {
        let start = Instant::now();
        loop {
            let told = self.next();
            if told.event == event && wanted(&told.data) {
                return told;
            }
            assert!(start.elapsed() < PATIENCE, "still waiting for {event}");
        }
    }

    /// Waits for a comment, with nothing else before it.
    #[track_caller]
    pub(crate) fn comment(&mut self) {
        let block = self.block();
        assert!(block.starts_with(':'), "{block:?}");
    }

    /// Reads that take longer fail.
    pub(crate) fn patience(&mut self, patience: Duration) {
        self.client.patience(patience);
    }

    /// Up to the next empty line.
    #[track_caller]
    fn block(&mut self) -> String {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let rest = self.text.split_off(end + 2);
                return std::mem::replace(&mut self.text, rest);
            }
            let chunk = self.client.chunk().unwrap().expect("the stream has ended");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}
