//! `mirror`: a share of requests is copied to another service, whose answers nobody waits for.
//!
//! It owns which requests are copied; the engine sends the copies. Whether a request is one of them depends on its id alone, so that
//! every retry under the same id fares alike, and every process of a fleet agrees.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading};
use tollgate_sdk::plugin::{Builds, Built, Exchange, Host, Plugin, Stage, Step};

document! {
    /// A share of requests is copied to another service. Clients notice nothing of it.
    pub struct Mirror (checked) {
        /// The service that gets the copies.
        #[example = "shadow"]
        service: String,
        /// Which part of the requests, from 0 to 1.
        share: f64 = 1.0,
    }
}

impl Mirror {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let given = |name| node.entry(name).map_or(node.span, |given| given.span);
        if !(0.0..=1.0).contains(&self.share) {
            let help = "from 0, which is none, to 1, which is all: 0.1 is every tenth";
            let message = "the share is out of range";
            r.error(given("share"), &at.field("share"), message, help);
        }
        if self.service.is_empty() {
            let message = "the service has no name";
            let help = "name a service of this configuration";
            r.error(given("service"), &at.field("service"), message, help);
        }
        self
    }
}

impl Builds for Mirror {
    const NAME: &'static str = "mirror";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, _: &Host) -> Built {
        Arc::new(Copier {
            service: self.service.as_str().into(),
            share: self.share,
        })
    }

    fn services(&self) -> Vec<String> {
        vec![self.service.clone()]
    }
}

struct Copier {
    service: Arc<str>,
    share: f64,
}

impl Plugin for Copier {
    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        if self.picks(x.request.id()) {
            x.edits.copies.push(self.service.clone());
        }
        Step::PASS
    }
}

impl Copier {
    fn picks(&self, id: &str) -> bool {
        // The place of the id in 0..1. Ids may be times, so only a hash that mixes well spreads them; the service's name is in it
        // so that two mirrors do not pick the same requests.
        let mut hash = Sha256::new();
        hash.update(self.service.as_bytes());
        hash.update([0]);
        hash.update(id.as_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, ..] = hash;
        let place = f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0);
        place < self.share
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tollgate_sdk::plugin::Built;

    use crate::testing::{Call, plugin, problems, untyped};

    fn copies(plugin: &Built, id: &str) -> Vec<String> {
        let mut call = Call::post("{}");
        call.id = id.into();
        assert_eq!(call.pre_request(plugin), Ok(()));
        call.edits
            .copies
            .iter()
            .map(|name| name.to_string())
            .collect()
    }

    fn mirror(service: &str, share: f64) -> Built {
        plugin("mirror", json!({"service": service, "share": share}))
    }

    #[test]
    fn all_or_none_or_about_as_many_as_wished() {
        let all = plugin("mirror", json!({"service": "shadow"}));
        let (none, tenth) = (mirror("shadow", 0.0), mirror("shadow", 0.1));
        // Ids that differ in little, as times do.
        let ids: Vec<String> = (0..10_000).map(|n| format!("0190b6c2-{n:06}")).collect();
        assert!(ids.iter().all(|id| copies(&all, id) == ["shadow"]));
        assert!(ids.iter().all(|id| copies(&none, id).is_empty()));
        let copied = ids.iter().filter(|id| !copies(&tenth, id).is_empty());
        // Six standard deviations.
        let copied = copied.count();
        assert!((820..=1180).contains(&copied), "{copied}");
    }

    #[test]
    fn an_id_fares_alike_and_mirrors_pick_for_themselves() {
        let (here, there) = (mirror("a", 0.5), mirror("a", 0.5));
        let other = mirror("b", 0.5);
        let ids: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        assert!(ids.iter().all(|id| copies(&here, id) == copies(&there, id)));
        let both = { ids.iter() }
            .filter(|id| !copies(&here, id).is_empty() && !copies(&other, id).is_empty());
        let both = both.count();
        assert!((150..=350).contains(&both), "{both}");
    }

    #[test]
    fn the_engine_can_ask_which_service_is_named() {
        assert_eq!(
            untyped("mirror", json!({"service": "shadow"})).services(),
            ["shadow"]
        );
        assert!(untyped("api_key", json!({})).services().is_empty());
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let told = problems("mirror", json!({"service": "", "share": 10})).concat();
        assert!(
            told.contains("share: the share is out of range (from 0"),
            "{told}"
        );
        assert!(told.contains("service: the service has no name"), "{told}");
        let told = problems("mirror", json!({"share": -0.1})).concat();
        assert!(told.contains("missing field `service`"), "{told}");
        // Without its service, there is nothing to check the share against.
        assert_eq!(
            problems("mirror", json!({"service": "a", "share": -0.1})).len(),
            1
        );
    }
}
