//! `data_masking`: personal and secret data in requests and answers, replaced before anybody else sees them.
//!
//! It owns what is looked for ([`entity`], and the configuration's own rules) and where: in every text of a request, of a JSON answer
//! and of a stream of events, there across the events' borders ([`stream`]). What it cannot read it does not let pass as clean:
//! a compressed answer is refused. Nothing that was found reaches an error or a log.

mod body;
#[cfg(test)]
mod cuts;
mod entity;
mod mask;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use tollgate_sdk::codes;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, FromText, Node, Reading};
use tollgate_sdk::plugin::{
    Builds, Built, Exchange, Host, Needs, Plugin, Refusal, ResponseHead, Stage, State, Step,
    Verdict,
};

use crate::pattern::{self, Pattern};
use entity::Entity;
use mask::{Mask, Masker, Rule};
use stream::EventStream;

document! {
    /// Personal and secret data, replaced in requests, in answers and in streams of them: numbers of cards, addresses, keys, and what
    /// `rules` describe. A stream is held back only as far as its end may be the beginning of something, at most 2048 bytes of each text in it.
    pub struct DataMasking (checked) {
        /// Whether every predefined entity is masked; those named in `predefined_entities` as it says there.
        apply_all: bool = false,
        /// Entities that are masked.
        predefined_entities: Vec<EntityChoice> = Vec::new(),
        /// What else is masked.
        rules: Vec<MaskingRule> = Vec::new(),
        /// Whether requests are masked.
        requests: bool = true,
        /// Whether answers are.
        responses: bool = true,
    }
    later ["similarity_threshold", "max_edit_distance", "normalize_input", "reversible_hashing"]
}

document! {
    /// One entity.
    pub struct EntityChoice {
        /// Which.
        entity: Entity,
        /// Whether it is masked.
        enabled: bool = true,
        /// What stands in its place, if not "[MASKED_EMAIL]" and the like.
        #[example = "[EMAIL]"]
        mask_with: Option<String>,
        /// Whether the first letter of the mask is repeated for every letter that was there.
        preserve_len: bool = false,
    }
}

document! {
    /// One rule of the configuration's own.
    pub struct MaskingRule (checked) {
        /// What `pattern` is.
        #[written = "type"]
        kind: RuleKind = RuleKind::Keyword,
        /// What is masked.
        #[example = "project x"]
        pattern: String,
        /// What stands in its place.
        mask_with: String = "[MASKED]".into(),
        /// Whether the first letter of the mask is repeated for every letter that was there.
        preserve_len: bool = false,
    }
}

document! {
    /// What a pattern is.
    pub enum RuleKind {
        /// Words, found as whole words in any case.
        Keyword = "keyword",
        /// A regular expression, run in linear time. What it matches has at most 2048 bytes: of something longer as much is masked as it
        /// matches within them, and what cannot match within them is not.
        Regex = "regex",
    }
}

impl MaskingRule {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let given = node.entry("pattern").unwrap_or(node);
        let at = at.field("pattern");
        match self.kind {
            RuleKind::Keyword if self.pattern.trim().is_empty() => {
                let message = "a keyword has at least one letter";
                r.error(given.span, &at, message, "for example: \"project x\"");
            }
            RuleKind::Keyword => {}
            RuleKind::Regex => {
                if let Err(invalid) = Pattern::from_text(&self.pattern) {
                    let message = format!("{}: {}", given.quoted(), invalid.message);
                    r.error(given.span, &at, message, invalid.help);
                }
            }
        }
        self
    }

    /// `None` if the pattern is none, which was reported.
    fn rule(&self) -> Option<Rule> {
        let pattern = match self.kind {
            RuleKind::Keyword => pattern::keyword(self.pattern.trim()),
            RuleKind::Regex => self.pattern.clone(),
        };
        Pattern::from_text(&pattern).ok()?;
        let mask = Mask::new(&self.mask_with, self.preserve_len);
        Some(Rule::new(pattern, None, mask))
    }
}

impl DataMasking {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let given = |name: &str| {
            let list = node.entry(name);
            list.is_some_and(|list| list.as_list().is_none_or(|items| !items.is_empty()))
        };
        if !self.apply_all && !given("predefined_entities") && !given("rules") {
            let help = "write that `apply_all` is true, or name what is masked in `predefined_entities` or `rules`";
            r.error(node.span, at, "nothing is masked", help);
        }
        if Masker::new(self.all_rules()).is_none() {
            let given = node.entry("rules").unwrap_or(node);
            let help = "divide them among several entries of the plugin";
            let at = at.field("rules");
            r.error(given.span, &at, "the rules are too large together", help);
        }
        self
    }

    /// The configuration's own rules come first: they win where both find something.
    fn all_rules(&self) -> Vec<Rule> {
        let own = self.rules.iter().filter_map(MaskingRule::rule);
        let entities = Entity::ALL.iter().filter_map(|entity| {
            let choice =
                { self.predefined_entities.iter() }.find(|choice| choice.entity == *entity);
            let (mask_with, preserve) = match choice {
                Some(choice) if choice.enabled => (choice.mask_with.clone(), choice.preserve_len),
                None if self.apply_all => (None, false),
                Some(_) | None => return None,
            };
            let mask_with = mask_with.unwrap_or_else(|| entity.mask());
            let mask = Mask::new(&mask_with, preserve);
            Some(Rule::new(entity.pattern().into(), entity.accept(), mask))
        });
        own.chain(entities).collect()
    }
}

impl Builds for DataMasking {
    const NAME: &'static str = "data_masking";
    const STAGES: &'static [Stage] = &[Stage::PreRequest, Stage::PreResponse];
    const APART: bool = true;

    fn build(&self, _: &Host) -> Built {
        Arc::new(Masking {
            masker: Masker::new(self.all_rules()).map(Arc::new),
            requests: self.requests,
            responses: self.responses,
        })
    }
}

struct Masking {
    /// `None` if it could not be built, which reading has refused: then nothing passes.
    masker: Option<Arc<Masker>>,
    requests: bool,
    responses: bool,
}

/// What is known of an answer while it passes.
enum Answer {
    /// Events, with what of them is held back.
    Events(Box<EventStream>),
    /// A text, and what came of it so far.
    Whole(Vec<u8>),
}

impl Plugin for Masking {
    fn needs(&self) -> Needs {
        Needs {
            request_body: self.requests,
            chunks: self.responses,
            response_body: self.responses,
            ..Needs::default()
        }
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        self.request(x).into()
    }

    fn pre_response(&self, x: &mut Exchange<'_>, head: &mut ResponseHead<'_>) -> Verdict {
        let value = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let encoded =
            value(CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"));
        let text = head.events || value(CONTENT_TYPE).is_none_or(is_text);
        if !self.responses || !text {
            return Ok(());
        }
        if encoded {
            let message = "the answer is compressed and cannot be masked";
            return Err(Refusal::of(&codes::UPSTREAM_ERROR, message));
        }
        let masker = self.masker()?;
        head.headers.remove(CONTENT_LENGTH);
        x.state.put(match head.events {
            true => Answer::Events(Box::new(EventStream::new(masker))),
            false => Answer::Whole(Vec::new()),
        });
        Ok(())
    }

    fn chunk(&self, state: &mut State, chunk: Bytes, end: bool) -> Result<Bytes, Refusal> {
        match state.get::<Answer>() {
            None => Ok(chunk),
            Some(Answer::Events(events)) => match events.push(&chunk, end) {
                Ok(masked) => Ok(masked.into()),
                Err(stream::TooLong) => {
                    let message = "an event of the answer is too long to be masked";
                    Err(Refusal::of(&codes::UPSTREAM_ERROR, message))
                }
            },
            Some(Answer::Whole(held)) if !end => {
                held.extend_from_slice(&chunk);
                Ok(Bytes::new())
            }
            Some(Answer::Whole(held)) => {
                let whole = match held.is_empty() {
                    true => chunk,
                    false => [std::mem::take(held), chunk.to_vec()].concat().into(),
                };
                let masked = body::mask(&*self.masker()?, &whole);
                Ok(masked.map_or(whole, Bytes::from))
            }
        }
    }
}

impl Masking {
    fn masker(&self) -> Result<Arc<Masker>, Refusal> {
        let unusable = || Refusal::of(&codes::INTERNAL_ERROR, "data cannot be masked");
        self.masker.clone().ok_or_else(unusable)
    }

    fn request(&self, x: &mut Exchange<'_>) -> Verdict {
        let masker = self.masker()?;
        if self.responses {
            x.edits.remove_request(ACCEPT_ENCODING);
        }
        if self.requests
            && let Some(masked) = body::mask(&masker, x.body)
        {
            x.edits.body = Some(masked.into());
        }
        Ok(())
    }
}

/// Whether a content type is one of text.
fn is_text(content_type: &str) -> bool {
    let name = content_type.split(';').next().unwrap_or_default().trim();
    let name = name.to_ascii_lowercase();
    name.starts_with("text/") || name.contains("json") || name.contains("xml")
}
