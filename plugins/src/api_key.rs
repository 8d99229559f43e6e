//! `api_key`: a key is demanded where the gateway itself demands none.
//!
//! It owns no keys: the gateway looks up what a request brings, also where `auth = "none"` lets requests without one pass. This
//! entry turns those away from the rules and services that have it in their chain.

use std::collections::HashSet;
use std::sync::Arc;

use tollgate_sdk::codes;
use tollgate_sdk::document;
use tollgate_sdk::plugin::{
    Builds, Built, Exchange, Host, Plugin, Principal, Refusal, Stage, Step, Verdict,
};

document! {
    /// A key is demanded: for rules and services of a gateway that has keys but lets requests without one pass. No key gets 401,
    /// another than those named 403.
    pub struct ApiKey (default) {
        /// Names of the keys that may pass; none is every key of the gateway.
        #[example = ["team-a"]]
        keys: Vec<String> = Vec::new(),
    }
}

impl Builds for ApiKey {
    const NAME: &'static str = "api_key";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, _: &Host) -> Built {
        Arc::new(Demand {
            keys: self.keys.iter().cloned().collect(),
        })
    }
}

struct Demand {
    keys: HashSet<String>,
}

impl Plugin for Demand {
    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        self.judge(x.request.principal).into()
    }
}

impl Demand {
    fn judge(&self, principal: Option<&Principal>) -> Verdict {
        let Some(principal) = principal else {
            let message = "this needs an API key";
            return Err(Refusal::of(&codes::INVALID_API_KEY, message));
        };
        match self.keys.is_empty() || self.keys.contains(&*principal.name) {
            true => Ok(()),
            false => Err(Refusal::forbidden("this key may not be used here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Call, plugin, problems};

    #[test]
    fn any_key_will_do_unless_some_are_named() {
        let any = plugin("api_key", json!({}));
        let refusal = Call::get().pre_request(&any).unwrap_err();
        assert_eq!((refusal.status, refusal.code), (401, "invalid_api_key"));
        assert_eq!(Call::get().key("team-b").refused(&any), None);

        let some = plugin("api_key", json!({"keys": ["team-a", "team-c"]}));
        assert_eq!(Call::get().refused(&some), Some(401));
        assert_eq!(Call::get().key("team-c").refused(&some), None);
        let refusal = Call::get().key("team-b").pre_request(&some).unwrap_err();
        assert_eq!((refusal.status, refusal.code), (403, "permission_denied"));
        // The name counts, not what limits count by.
        let by_id = Call::get()
            .key("b")
            .refused(&plugin("api_key", json!({"keys": ["id of b"]})));
        assert_eq!(by_id, Some(403));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let told = problems("api_key", json!({"keys": ["a", 7], "key": "x"})).concat();
        assert!(told.contains("keys[1]: expected text"), "{told}");
        assert!(told.contains("key: unknown field"), "{told}");
        let told = problems("api_key", json!({"keys": "team-a"})).concat();
        assert!(
            told.contains(r#"write a list: "keys": ["team-a"]"#),
            "{told}"
        );
    }
}
