//! Engines that share requests, and upstreams that split requests between them.

use std::time::Duration;

use tollgate_bench::engine::{
    Engine, EngineConfig, EngineRole, TransferConfig, TransferProtocol, TransferState,
};

use super::{engine_with, until};

/// A way to split requests: as `disaggregation` has it, and as the engines do.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    pub(crate) settings: &'static str,
    pub(crate) protocol: TransferProtocol,
    /// Prefill is a request of its own, and not only the decoding engine's doing.
    pub(crate) asks_prefill: bool,
}

/// Every one there is.
pub(crate) const WAYS: [Way; 6] = [
    way("protocol = \"sglang\"", TransferProtocol::Sglang),
    way("protocol = \"vllm-nixl\"", TransferProtocol::Nixl),
    way("protocol = \"vllm-mooncake\"", TransferProtocol::Mooncake),
    way(
        "protocol = \"vllm-mooncake\", staged = false",
        TransferProtocol::Mooncake,
    ),
    way("protocol = \"vllm-kvt\"", TransferProtocol::Kvt),
    Way {
        asks_prefill: false,
        ..way(
            "protocol = \"vllm-kvt\", staged = false",
            TransferProtocol::Kvt,
        )
    },
];

const fn way(settings: &'static str, protocol: TransferProtocol) -> Way {
    Way {
        settings,
        protocol,
        asks_prefill: true,
    }
}

impl Way {
    /// An engine of this role, with these changes to the defaults.
    pub(crate) fn engine(
        &self,
        role: EngineRole,
        change: impl FnOnce(&mut EngineConfig),
    ) -> Engine {
        let transfer = TransferConfig {
            lease: Duration::from_secs(5),
            ..TransferConfig::new(self.protocol, role)
        };
        engine_with(|config| {
            config.transfer = Some(transfer);
            change(config);
        })
    }

    /// A target that prefills, with a port for its KV where there is one: the engine's own.
    pub(crate) fn prefill(&self, address: std::net::SocketAddr) -> String {
        let port = match self.protocol {
            TransferProtocol::Nixl => String::new(),
            _ => format!(", bootstrap_port = {}", address.port()),
        };
        format!("{{ url = \"http://{address}\", role = \"prefill\"{port} }}")
    }

    /// A service `m` that is split in this way between targets. `upstream` and `service` are more fields.
    pub(crate) fn service(&self, targets: &[String], upstream: &str, service: &str) -> String {
        format!(
            "[[service]]\nname = \"m\"\nmodels = [\"m\"]\nupstream = \"m\"\n{service}\n[[upstream]]\nname = \"m\"\ntargets = [{}]\nhealth = \"off\"\ndisaggregation = {{ {} }}\n{upstream}\n",
            targets.join(", "),
            self.settings
        )
    }
}

/// A target that decodes.
pub(crate) fn decode(address: std::net::SocketAddr) -> String {
    format!("{{ url = \"http://{address}\", role = \"decode\" }}")
}

/// A target for both.
pub(crate) fn both(address: std::net::SocketAddr) -> String {
    format!("{{ url = \"http://{address}\" }}")
}

/// Waits until an engine holds nothing for others, and no id came to it twice.
#[track_caller]
pub(crate) fn assert_nothing_held(engine: &Engine) -> TransferState {
    let state = until("what is held to be fetched or freed", || {
        let state = engine.state().transfers;
        (state.held == 0).then_some(state)
    });
    assert_eq!(state.duplicates, 0, "{state:?}");
    state
}

/// How many requests came to an engine.
pub(crate) fn calls_of(engine: &Engine) -> u64 {
    engine.state().started
}
