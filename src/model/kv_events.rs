//! Where engines tell what enters and leaves their caches.

use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading};

document! {
    /// Where each target's engine publishes the events of its KV cache (vLLM: `--kv-events-config`), over ZeroMQ.
    pub struct KvEvents (default checked) {
        /// The port of its publisher, on the host of the target's URL.
        #[range(1..=65535)]
        port: u16 = 5557,
        /// The port where it repeats events that were missed, if it does.
        #[example = 5558]
        #[range(1..=65535)]
        replay_port: Option<u16>,
        /// The topic; empty for all.
        topic: String = String::new(),
        /// How many engines one target has that share its work (data parallel): each publishes on the port after the one before it.
        #[range(1..=256)]
        ranks: u16 = 1,
    }
}

impl KvEvents {
    /// The ports of the engine of this rank: where it publishes, and where it repeats.
    pub fn ports(&self, rank: u16) -> (u16, Option<u16>) {
        let after = |port: u16| port.saturating_add(rank);
        (after(self.port), self.replay_port.map(after))
    }

    /// What concerns several fields.
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let last = self.ranks.saturating_sub(1);
        let ports = [("port", Some(self.port)), ("replay_port", self.replay_port)];
        for (field, port) in ports {
            if port.is_some_and(|port| port.checked_add(last).is_none()) {
                let message = format!("with {} ranks there is no port for each", self.ranks);
                let help = "choose a lower port, or fewer `ranks`";
                r.error(node.span, &at.field(field), message, help);
            }
        }
        let apart = self.replay_port.map(|replay| replay.abs_diff(self.port));
        if apart.is_some_and(|apart| apart < self.ranks) {
            let message = "the ports of publishers and those where events are repeated overlap";
            let help = "keep them at least as far apart as there are `ranks`";
            r.error(node.span, &at.field("replay_port"), message, help);
        }
        self
    }
}
