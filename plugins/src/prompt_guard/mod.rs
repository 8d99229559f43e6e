//! `prompt_guard`: what prompts may not say, or must. Also read as `prompt_moderation`.
//!
//! It owns which texts of a request are the prompt and whether a pattern is in one of them. Every pattern is looked for in one pass over the
//! text, in linear time whatever the patterns are. What was found is never repeated to the client or in a log.

mod grams;
#[cfg(test)]
mod naive;
mod prefix;
mod search;
#[cfg(test)]
mod tests;
mod texts;

use std::sync::Arc;

use tollgate_sdk::codes;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading};
use tollgate_sdk::plugin::{
    Builds, Built, Exchange, Host, Needs, Plugin, Refusal, Stage, Step, Verdict,
};

use crate::pattern::Pattern;
use search::Search;

document! {
    /// What prompts may not say, or must. A prompt is every text a request gives the model: of `messages`, `prompt`, `input`,
    /// `inputs`, `system` and `instructions`; a body that is not JSON is one as a whole. What is denied gets 403; if anything is to be
    /// allowed, at least one text must match it.
    pub struct PromptGuard (checked) {
        /// Words and phrases that are denied, in any case.
        #[example = ["project x"]]
        keywords: Vec<String> = Vec::new(),
        /// Patterns that are denied.
        regex: Vec<Pattern> = Vec::new(),
        /// Denied too.
        deny: Patterns = Patterns::default(),
        /// What a prompt must match; nothing is everything.
        allow: Patterns = Patterns::default(),
        /// Whether a keyword is only found as whole words: "art" not in "start".
        whole_words: bool = true,
        /// What happens to a request that is refused.
        actions: Actions = Actions::default(),
    }
    later ["similarity_threshold"]
}

document! {
    /// Keywords and patterns.
    pub struct Patterns (default) {
        /// Words and phrases, in any case.
        keywords: Vec<String> = Vec::new(),
        /// Patterns.
        regex: Vec<Pattern> = Vec::new(),
    }
}

document! {
    /// What happens to a request that is refused.
    pub struct Actions (default) {
        /// What is done.
        #[written = "type"]
        kind: Action = Action::Block,
        /// What the client is told.
        message: String = "the prompt is not allowed".into(),
    }
}

document! {
    /// What is done.
    pub enum Action {
        /// The request is refused.
        Block = "block",
    }
}

impl PromptGuard {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let lists = ["keywords", "regex", "deny", "allow"];
        if lists.iter().all(|name| node.entry(name).is_none()) {
            let help = "for example: keywords = [\"project x\"]";
            r.error(node.span, at, "nothing is denied or allowed", help);
        }
        empty_keywords(node, at, r);
        for name in ["deny", "allow"] {
            if let Some(node) = node.entry(name) {
                empty_keywords(node, &at.field(name), r);
            }
        }
        for (name, search) in [("deny", self.denied()), ("allow", self.allowed())] {
            if search.is_err() {
                let given = node.entry(name).unwrap_or(node);
                let help = "divide them among several entries of the plugin";
                r.error(given.span, at, "the patterns are too many", help);
            }
        }
        self
    }

    fn denied(&self) -> Result<Search, search::TooLarge> {
        let keywords = self.keywords.iter().chain(&self.deny.keywords);
        let regex = self.regex.iter().chain(&self.deny.regex);
        Search::new(keywords, regex, self.whole_words)
    }

    fn allowed(&self) -> Result<Search, search::TooLarge> {
        Search::new(&self.allow.keywords, &self.allow.regex, self.whole_words)
    }
}

/// Reports keywords that every text has.
fn empty_keywords(node: &Node, at: &At<'_>, r: &mut Reading<'_>) {
    let keywords = node.entry("keywords").and_then(Node::as_list);
    let at = at.field("keywords");
    for (index, keyword) in keywords.unwrap_or_default().iter().enumerate() {
        if keyword.as_str().is_some_and(|text| text.trim().is_empty()) {
            let message = "a keyword has at least one letter";
            r.error(keyword.span, &at.index(index), message, "take it out");
        }
    }
}

impl Builds for PromptGuard {
    const NAME: &'static str = "prompt_guard";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, _: &Host) -> Built {
        let allow = &self.allow;
        Arc::new(Guard {
            deny: self.denied().ok(),
            allow: self.allowed().ok(),
            must_match: !allow.keywords.is_empty() || !allow.regex.is_empty(),
            message: self.actions.message.clone(),
        })
    }
}

struct Guard {
    /// `None` if it could not be built, which reading has refused: then nothing passes.
    deny: Option<Search>,
    allow: Option<Search>,
    must_match: bool,
    message: String,
}

impl Plugin for Guard {
    fn needs(&self) -> Needs {
        Needs {
            request_body: true,
            ..Needs::default()
        }
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        self.decide(x.body).into()
    }
}

impl Guard {
    fn decide(&self, body: &[u8]) -> Verdict {
        let refused = || Err(Refusal::of(&codes::PROMPT_NOT_ALLOWED, &self.message));
        let (Some(deny), Some(allow)) = (&self.deny, &self.allow) else {
            return refused();
        };
        if body.is_empty() {
            return Ok(());
        }
        let mut allowed = !self.must_match;
        let clean = texts::all(body, |text| {
            allowed = allowed || allow.finds(text);
            !deny.finds(text)
        });
        match clean && allowed {
            true => Ok(()),
            false => refused(),
        }
    }
}
