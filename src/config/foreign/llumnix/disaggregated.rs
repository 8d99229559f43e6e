//! `--pd-disagg-protocol`: prefill and decode apart, in the internal pool.
//!
//! Llumnix hears from its engines which of them prefill, and where their KV is asked for; here that is said with each `--local`.

use tollgate_sdk::document::{FromNode, suggest};

use super::super::fields::Notes;
use super::super::roles;
use super::flags::Given;
use crate::model::{Disaggregation, KvProtocol};

/// The flag that turns it on.
pub(super) const PROTOCOL: &str = "pd-disagg-protocol";
/// Whether decode is scheduled only after prefill.
pub(super) const SEPARATE: &str = "separate-pd-scheduling";

const PROTOCOLS: [(&str, KvProtocol); 3] = [
    ("vllm-kvt", KvProtocol::VllmKvt),
    ("vllm-mooncake", KvProtocol::VllmMooncake),
    ("sglang-mooncake", KvProtocol::Sglang),
];

/// How the internal pool splits requests, if it does.
pub(super) fn read(given: &Given, notes: &mut Notes) -> Option<Disaggregation> {
    let separate = given.on(SEPARATE, notes);
    let path = format!("--{PROTOCOL}");
    let wished = given.get(PROTOCOL).filter(|name| !name.is_empty());
    let Some(wished) = wished else {
        if separate.is_some() {
            let message = format!("without effect: there is no {path}");
            notes.warned(format!("--{SEPARATE}"), message);
        }
        return None;
    };
    let known = PROTOCOLS.iter().find(|(name, _)| *name == wished);
    let Some((_, protocol)) = known else {
        let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
        let help = suggest(wished, &names, "protocols");
        notes.refused(path, format!("unknown protocol; {help}"));
        return None;
    };
    let settings = roles::settings(*protocol, staged(*protocol, separate, notes));
    let message = format!(
        "disaggregation = {{ protocol = {} }} of the upstream \"local\"",
        protocol.value()
    );
    notes.adapted(path, message);
    Some(settings)
}

/// Only with kvt it changes what engines are asked; elsewhere it is only when the second of them is chosen.
fn staged(protocol: KvProtocol, separate: Option<bool>, notes: &mut Notes) -> Option<bool> {
    let path = format!("--{SEPARATE}");
    if protocol == KvProtocol::VllmKvt {
        let staged = separate == Some(true);
        let message = format!("disaggregation.staged = {staged}");
        match separate {
            Some(_) => notes.adapted(path, message),
            None => notes.assumed(path, format!("{message}, Llumnix's default")),
        }
        return Some(staged);
    }
    if separate.is_some() {
        let message = match protocol {
            KvProtocol::Sglang => "SGLang has prefill and decode at the same time",
            _ => "Mooncake decodes with what prefill has answered, whenever decode is chosen",
        };
        notes.warned(path, message);
    }
    None
}
