//! `model_allowlist`: which models may be asked for.
//!
//! It owns the comparison of names and nothing of routing. It looks at the body as it will be sent, after what earlier plugins
//! changed, and a POST that names no model is refused: what an upstream would choose by itself is nobody's promise.

use std::sync::Arc;

use http::Method;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Quoted, Reading};
use tollgate_sdk::llm::ModelPattern;
use tollgate_sdk::llm::peek::peek;
use tollgate_sdk::plugin::{
    Builds, Built, Exchange, Host, Needs, Plugin, Refusal, Stage, Step, Verdict,
};

document! {
    /// Which models may be asked for; others get 403.
    pub struct ModelAllowlist (checked) {
        /// Names; a `*` at the end stands for any rest.
        #[example = ["Qwen/*", "gpt-4o-mini"]]
        models: Vec<ModelPattern>,
    }
}

impl ModelAllowlist {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        if let Some(given) = node
            .entry("models")
            .filter(|given| given.as_list() == Some(&[]))
        {
            let help = "name models, or take the plugin out of the chain";
            r.error(given.span, &at.field("models"), "no model is allowed", help);
        }
        self
    }
}

impl Builds for ModelAllowlist {
    const NAME: &'static str = "model_allowlist";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, _: &Host) -> Built {
        Arc::new(Allowlist(self.models.clone()))
    }
}

struct Allowlist(Vec<ModelPattern>);

impl Plugin for Allowlist {
    fn needs(&self) -> Needs {
        Needs {
            request_peek: true,
            ..Needs::default()
        }
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        self.decide(x).into()
    }
}

impl Allowlist {
    fn decide(&self, x: &Exchange<'_>) -> Verdict {
        let rewritten = x.edits.body.as_ref().and_then(|body| peek(body).ok());
        let rewritten = rewritten.and_then(|peek| peek.model);
        let rewritten = rewritten.as_ref().map(|model| &*model.value);
        let Some(model) = rewritten.or(x.request.model) else {
            return match *x.request.method == Method::POST {
                true => Err(Refusal::invalid(
                    "the request names no model",
                    Some("model"),
                )),
                false => Ok(()),
            };
        };
        if self.0.iter().any(|pattern| pattern.matches(model)) {
            return Ok(());
        }
        let message = format!("the model {} may not be used here", Quoted(model));
        Err(Refusal::forbidden(message).about("model"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Call, plugin, problems};

    fn asking(model: &str) -> Call {
        Call::post(json!({"model": model}).to_string())
    }

    #[test]
    fn exact_names_and_prefixes() {
        let list = plugin("model_allowlist", json!({"models": ["gpt-4o", "Qwen/*"]}));
        for (model, status) in [
            ("gpt-4o", None),
            ("gpt-4o-mini", Some(403)),
            ("GPT-4o", Some(403)),
            ("Qwen/Qwen3-8B", None),
            ("Qwen/", None),
            ("qwen/Qwen3-8B", Some(403)),
            ("x/Qwen/y", Some(403)),
        ] {
            assert_eq!(asking(model).refused(&list), status, "{model}");
        }
        let refusal = asking("other").pre_request(&list).unwrap_err();
        assert_eq!(refusal.param.as_deref(), Some("model"));
        assert_eq!(refusal.code, "permission_denied");
    }

    #[test]
    fn all_may_be_allowed_by_a_star() {
        let list = plugin("model_allowlist", json!({"models": ["*"]}));
        assert_eq!(asking("anything").refused(&list), None);
    }

    #[test]
    fn a_request_that_names_no_model_asks_for_none() {
        let list = plugin("model_allowlist", json!({"models": ["gpt-4o"]}));
        assert_eq!(Call::post("{}").refused(&list), Some(400));
        assert_eq!(Call::get().refused(&list), None);
    }

    #[test]
    fn the_model_that_is_sent_counts() {
        let list = plugin("model_allowlist", json!({"models": ["gpt-4o"]}));
        let mut call = asking("gpt-4o");
        call.edits.body = Some(json!({"model": "other"}).to_string().into());
        assert_eq!(call.refused(&list), Some(403));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let told = problems("model_allowlist", json!({"models": ["a*b", "", 1]}));
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told.concat()
                .contains("models[0]: \"a*b\": `*` may only stand at the end")
        );
        assert!(
            problems("model_allowlist", json!({"models": []}))
                .concat()
                .contains("no model is allowed")
        );
        assert!(
            problems("model_allowlist", json!({}))
                .concat()
                .contains("missing field `models`")
        );
    }
}
