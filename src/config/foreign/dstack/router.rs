//! Routers of dstack: their policies are our own of the same names, and nothing is launched.

use tollgate_sdk::document::suggest;

use super::super::fields::{Fields, Notes};
use super::later;

const POLICIES: [&str; 4] = ["cache_aware", "power_of_two", "random", "round_robin"];

/// What a router says.
#[derive(Default)]
pub(super) struct Router {
    /// The policy it asks for, by default `cache_aware`.
    pub(super) wished: Option<&'static str>,
    /// The native one, if this version has it.
    pub(super) policy: Option<&'static str>,
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
    if let Some(disaggregated) = table.flag("pd_disaggregation", notes) {
        let path = table.at("pd_disaggregation");
        match disaggregated {
            true => notes.refused(
                path,
                "it does not say which engines prefill: take it out, and give the converted upstream `disaggregation` and its targets a `role`",
            ),
            false => notes.taken(path, "as it is here"),
        }
    }
    table.finish(notes);
    Router {
        wished,
        policy: wished.and_then(|wished| native(wished, given.is_some(), path, notes)),
    }
}

fn native(
    wished: &'static str,
    given: bool,
    path: String,
    notes: &mut Notes,
) -> Option<&'static str> {
    let has = wished != "cache_aware" || later::CACHE_AWARE;
    match (has, given) {
        (true, true) => notes.taken(path, format!("policy = \"{wished}\"")),
        (true, false) => notes.assumed(path, format!("policy = \"{wished}\", dstack's default")),
        (false, _) => {
            let message = "\"cache_aware\" comes with a later version; until then policy = \"least_connections\"";
            notes.warned(path, message);
        }
    }
    has.then_some(wished)
}
