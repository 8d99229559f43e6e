//! What ties a request to others: the key of a hashing policy, or how its prompt begins.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE};
use pingora_http::RequestHeader;
use tollgate_sdk::llm::prompt::prompt as prompt_of;

use super::exchange::{Body, Exchange};
use crate::balance::{Ask, Claim, Prompted, Usable, stable_hash};
use crate::model::{HashKey, Priority};
use crate::snapshot::Offer;

/// The hash of what ties this request to others, where the policy asks for it.
pub(super) fn key(head: &RequestHeader, x: &Exchange) -> Option<u64> {
    let key = x.offer.as_ref()?.service.upstream.affinity.as_ref()?;
    let headers = &head.headers;
    let mut hasher = DefaultHasher::new();
    match key {
        HashKey::Header(name) => hasher.write(headers.get(name)?.as_bytes()),
        HashKey::Ip => hasher.write(x.client.to_string().as_bytes()),
        HashKey::Key => {
            let key = headers
                .get(AUTHORIZATION)
                .or_else(|| headers.get("x-api-key"))?;
            hasher.write(key.as_bytes());
        }
        HashKey::Cookie(name) => {
            let mut cookies = headers
                .get_all(COOKIE)
                .iter()
                .filter_map(|line| line.to_str().ok());
            let value = cookies.find_map(|line| {
                let mut pairs = line
                    .split(';')
                    .filter_map(|pair| pair.trim().split_once('='));
                pairs
                    .find(|(known, _)| known == name)
                    .map(|(_, value)| value)
            })?;
            hasher.write(value.as_bytes());
        }
    }
    Some(hasher.finish())
}

/// Reads the prompt, if the service's policy goes by it and nobody has read it so.
pub(super) fn read_prompt(x: &mut Exchange) {
    let offer = x.offer.as_ref();
    let block = offer.and_then(|offer| offer.service.upstream.policy.reads_prompts());
    let Some(block) = block else {
        return;
    };
    if x.prompt.as_ref().is_some_and(|(known, _)| *known == block) {
        return;
    }
    let body: Cow<'_, [u8]> = match &x.body {
        Body::Unread => return,
        Body::Short { original, .. } => Cow::Borrowed(original),
        Body::Long { pieces, .. } => match &**pieces {
            [one] => Cow::Borrowed(one),
            several => Cow::Owned(several.concat()),
        },
    };
    // A body that is no JSON, or ambiguous, was not let through as a prompt.
    if x.peek.is_none() {
        return;
    }
    let model = named(x).unwrap_or_default();
    x.prompt = Some((block, prompt_of(&body, model, block)));
}

/// The model that the request names.
fn named(x: &Exchange) -> Option<&str> {
    let peek = x.peek.as_ref();
    let named = peek.and_then(|peek| Some(&peek.model.as_ref()?.value));
    named.or(x.model.as_ref()).map(|model| &**model)
}

/// The model that a target must list to be asked for it: of a service that has its models from engines, if any of them lists it. Not every engine has every
/// adapter.
pub(super) fn listed_model(x: &Exchange) -> Option<&str> {
    let service = &x.offer.as_ref()?.service;
    let model = named(x).filter(|_| service.document.models.is_auto())?;
    let mut targets = service.upstream.targets.iter();
    targets.any(|target| target.lists(model)).then_some(model)
}

/// The prompt, as the service's policy asks for it.
pub(super) fn prompt(x: &Exchange) -> Option<Prompted<'_>> {
    let block = x.offer.as_ref()?.service.upstream.policy.reads_prompts()?;
    let (known, prompt) = x.prompt.as_ref()?;
    let streamed = x.peek.as_ref().and_then(|peek| peek.stream);
    (*known == block).then_some(Prompted {
        prompt,
        streamed: streamed == Some(true),
    })
}

impl Exchange {
    /// Whether its service lets it wait for a target with less to do.
    pub(super) fn is_patient(&self) -> bool {
        let queued = |offer: &Arc<Offer>| offer.service.queue.is_some();
        self.replayable && self.offer.as_ref().is_some_and(queued)
    }

    /// What it says of itself where requests wait.
    pub(super) fn claim(&self) -> Claim {
        /// Bytes of a prompt that make requests alike enough to be served one after the other.
        const HEAD: usize = 4096;
        let upstream = self.offer.as_ref().map(|offer| &offer.service.upstream);
        let ask = Ask {
            usable: &|_| Usable::No,
            key: None,
            prompt: prompt(self),
            patient: true,
        };
        let blocks = self.prompt.as_ref().map(|(block, prompt)| {
            let head = (HEAD / block).max(1).min(prompt.blocks.len());
            prompt.blocks.get(head.checked_sub(1)?).copied()
        });
        let key = self.key.as_ref();
        Claim {
            class: key.map_or(Priority::Default, |key| key.priority) as u8,
            owner: key.map_or(0, |key| stable_hash(key.principal.id.as_bytes())),
            weight: key.map_or(1, |key| key.weight),
            work: upstream.and_then(|upstream| upstream.policy.work(&ask)),
            head: blocks.flatten(),
        }
    }
}
