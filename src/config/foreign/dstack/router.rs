//! Routers of dstack: their policies are our own of the same names, and nothing is launched.

use tollgate_sdk::document::suggest;

use super::super::fields::{Fields, Notes};

const POLICIES: [&str; 4] = ["cache_aware", "power_of_two", "random", "round_robin"];

/// What a router says.
#[derive(Default)]
pub(super) struct Router {
    /// The policy, by default `cache_aware`.
    pub(super) policy: Option<&'static str>,
    /// Whether it splits requests between engines that prefill and engines that decode.
    pub(super) split: bool,
}

/// Reads `router` of a gateway or a service.
pub(super) fn read(mut table: Fields<'_>, notes: &mut Notes) -> Router {
    match table.text("type", notes) {
        Some("sglang") => {
            let message = "Tollgate balances itself, and lets all paths pass, not only \"/generate\", \"/v1/*\" and \"/chat/completions\"";
            notes.adapted(table.at("type"), message);
        }
        Some(other) => {
            let help = suggest(other, &["sglang"], "routers");
            notes.refused(table.at("type"), format!("unknown router; {help}"));
        }
        None if !table.has("type") => {
            notes.refused(table.at("type"), "missing; known routers: sglang")
        }
        None => {}
    }
    let given = table.text("policy", notes);
    let path = table.at("policy");
    let wished = match given {
        Some(given) => POLICIES.into_iter().find(|known| *known == given),
        None => Some("cache_aware"),
    };
    if let (Some(given), None) = (given, wished) {
        let help = suggest(given, &POLICIES, "policies");
        notes.refused(&path, format!("unknown policy; {help}"));
    }
    let split = table.flag("pd_disaggregation", notes);
    if let Some(split) = split {
        let path = table.at("pd_disaggregation");
        match split {
            true => notes.adapted(path, "disaggregation = { protocol = \"sglang\" }"),
            false => notes.taken(path, "as it is here"),
        }
    }
    table.finish(notes);
    if let Some(policy) = wished {
        match given {
            Some(_) => notes.taken(path, format!("policy = \"{policy}\"")),
            None => notes.assumed(path, format!("policy = \"{policy}\", dstack's default")),
        }
    }
    Router {
        policy: wished,
        split: split == Some(true),
    }
}
