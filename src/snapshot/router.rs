//! Rules and models: from a request to the service that answers it.
//!
//! Rules are tried in order of precedence: higher priority, then exact path, parameters, longer prefix, more
//! predicates, order in the file. What no rule takes goes by its model's name: exact, then what engines serve, then the longest prefix.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, Method};
use regex::Regex;

use super::automatic::Automatic;
use super::models::Models;
use super::rules::Rules;
use super::{Chain, Offer, Split};
use crate::auth::Key;
use crate::model::{self, By, HeaderMatch, PathPattern, RewritePiece, Segment};

/// What rules look at before the body.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// Its path, percent-encoded, without query.
    pub path: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The one service of the host asked, if it belongs to one.
    pub service: Option<usize>,
    /// Who asks.
    pub who: Who<'a>,
}

/// Who asks, as far as it decides among services that share a model or a rule.
#[derive(Clone, Copy, Debug)]
pub enum Who<'a> {
    /// Somebody of whom no key is asked.
    Anybody,
    /// Whoever has this key.
    Holder(&'a Key),
    /// Somebody without the key that most services here ask for.
    Stranger,
}

impl Who<'_> {
    fn may_use(self, offer: &Offer) -> bool {
        match self {
            Who::Anybody => true,
            Who::Holder(key) => key.opens(&offer.service.name),
            Who::Stranger => offer.service.public,
        }
    }
}

/// What is known of the model asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelName<'a> {
    /// It may stand in the body, which was not read yet.
    Unread,
    /// The request names none.
    Absent,
    /// It is this.
    Is(&'a str),
}

/// Where a request goes.
#[derive(Debug)]
pub enum Decision {
    /// To this service.
    Route(Route),
    /// It depends on the model: read the body and ask again.
    NeedsModel,
    /// The path is known, the method is not; the value of `Allow`.
    MethodNotAllowed(String),
    /// A model is named that nobody serves.
    ModelNotFound,
    /// No rule takes it and it names no model.
    NoRoute,
}

/// A way to a service.
#[derive(Debug)]
pub struct Route {
    /// The service whose turn it is.
    pub offer: Arc<Offer>,
    /// The rule's name, if one took it.
    pub rule: Option<Arc<str>>,
    /// What the rule's requests pass.
    pub chain: Option<Arc<Chain>>,
    /// The path to send, where it is not the request's own.
    pub path: Option<String>,
    /// Time limits: the rule's where it has some, else the service's.
    pub timeouts: model::Timeouts,
    /// Send the client's `Host`.
    pub preserve_host: bool,
    /// What is tried again: the rule's word where it has one, else the service's.
    pub retry: Arc<model::Retry>,
    /// The rule's own fallbacks, before the service's: indexes of the gateway's offers.
    pub fallback: Vec<usize>,
}

/// A gateway's rules and models, compiled.
#[derive(Debug)]
pub struct Router {
    rules: Rules,
    models: Models,
    by: By,
    offers: Vec<Arc<Offer>>,
    /// Where offers stand, by their services' names.
    places: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) rule: Arc<model::Rule>,
    name: Arc<str>,
    pub(super) chain: Option<Arc<Chain>>,
    pub(super) split: Option<Split>,
    fallback: Vec<usize>,
    headers: Arc<[(http::HeaderName, Predicate)]>,
}

#[derive(Debug)]
enum Predicate {
    Is(String),
    Matches(Regex),
}

/// How a path matched: how much of it the pattern took, and its parameters.
struct Match<'p> {
    taken: usize,
    params: Vec<(&'p str, &'p str)>,
}

impl Rule {
    /// `split`: the services, or `None` to go by model. `known`: what came of the same document before.
    pub(super) fn new(
        rule: Arc<model::Rule>,
        known: Option<&Rule>,
        split: Option<Split>,
        fallback: Vec<usize>,
        chain: Option<Arc<Chain>>,
    ) -> Rule {
        let headers = match known {
            Some(known) => known.headers.clone(),
            None => rule.headers.iter().filter_map(predicate).collect(),
        };
        Rule {
            name: rule.name.clone().into(),
            chain,
            rule,
            split,
            fallback,
            headers,
        }
    }

    pub(super) fn precedence(&self) -> impl Ord + use<> {
        let (class, length) = match &self.rule.path {
            Some(PathPattern::Exact(path)) => (0, path.len()),
            Some(PathPattern::Params { segments, .. }) => (1, literal_length(segments)),
            Some(PathPattern::Prefix(prefix)) => (2, prefix.len()),
            None => (3, 0),
        };
        let predicates = self.headers.len()
            + usize::from(!self.rule.methods.is_empty())
            + usize::from(self.rule.model.is_some());
        (
            Reverse(self.rule.priority),
            class,
            Reverse(length),
            Reverse(predicates),
        )
    }

    fn allows(&self, method: &Method) -> bool {
        let methods = &self.rule.methods;
        methods.is_empty()
            || methods.contains(method)
            || (*method == Method::HEAD && methods.contains(&Method::GET))
    }

    fn wants_headers(&self, headers: &HeaderMap) -> bool {
        self.headers.iter().all(|(name, predicate)| {
            headers
                .get_all(name)
                .iter()
                .any(|value| match (predicate, value.to_str()) {
                    (Predicate::Is(want), Ok(value)) => want == value,
                    (Predicate::Matches(regex), Ok(value)) => regex.is_match(value),
                    (_, Err(_)) => false,
                })
        })
    }

    /// The path to send instead of `path`, if it changes.
    fn path_to_send(&self, path: &str, matched: &Match<'_>) -> Option<String> {
        let rest = path.get(matched.taken..).unwrap_or_default();
        if let Some(rewrite) = &self.rule.rewrite {
            return Some(render(rewrite, &matched.params));
        }
        if !self.rule.strip_path {
            return None;
        }
        Some(if rest.starts_with('/') {
            rest.to_owned()
        } else {
            format!("/{rest}")
        })
    }
}

fn predicate(
    (name, want): &(http::HeaderName, HeaderMatch),
) -> Option<(http::HeaderName, Predicate)> {
    let predicate = match want {
        HeaderMatch::Exact(value) => Predicate::Is(value.clone()),
        // It was compiled once when the document was read.
        HeaderMatch::Regex(source) => Predicate::Matches(Regex::new(source).ok()?),
    };
    Some((name.clone(), predicate))
}

impl Router {
    pub(super) fn new(
        rules: Vec<Rule>,
        models: Models,
        by: By,
        offers: Vec<Arc<Offer>>,
        places: HashMap<Arc<str>, usize>,
    ) -> Router {
        Router {
            rules: Rules::new(rules),
            models,
            by,
            offers,
            places,
        }
    }

    /// The gateway's services, in the order of the configuration.
    pub fn offers(&self) -> &[Arc<Offer>] {
        &self.offers
    }

    /// The models that services have from engines, if any has.
    pub(super) fn automatic(&self) -> Option<&Automatic> {
        self.models.automatic.as_ref()
    }

    pub(super) fn rules(&self) -> &[Rule] {
        self.rules.all()
    }

    /// One of the gateway's services.
    pub fn offer(&self, index: usize) -> Option<&Arc<Offer>> {
        self.offers.get(index)
    }

    /// The gateway's service of this name.
    pub fn offer_named(&self, name: &str) -> Option<&Arc<Offer>> {
        self.offers.get(*self.places.get(name)?)
    }

    /// Decides from the head and what is known of the model.
    pub fn decide(&self, head: Head<'_>, model: ModelName<'_>) -> Decision {
        let mut allow: Vec<&Method> = Vec::new();
        for rule in self.rules.candidates(head.path) {
            let matched = match &rule.rule.path {
                Some(pattern) => match match_path(pattern, head.path) {
                    Some(matched) => matched,
                    None => continue,
                },
                None => Match {
                    taken: 0,
                    params: Vec::new(),
                },
            };
            if !rule.wants_headers(head.headers) {
                continue;
            }
            if !rule.allows(head.method) {
                if rule.rule.path.is_some() {
                    allow.extend(&rule.rule.methods);
                }
                continue;
            }
            match (&rule.rule.model, model) {
                (Some(_), ModelName::Unread) => return Decision::NeedsModel,
                (Some(_), ModelName::Absent) => continue,
                (Some(pattern), ModelName::Is(name)) if !pattern.matches(name) => continue,
                _ => {}
            }
            let path = rule.path_to_send(head.path, &matched);
            return self.through(rule, path, head, model);
        }
        match self.by_model(head, model) {
            Decision::NoRoute if !allow.is_empty() => {
                Decision::MethodNotAllowed(allow_value(&allow))
            }
            decision => decision,
        }
    }

    fn through(
        &self,
        rule: &Rule,
        path: Option<String>,
        head: Head<'_>,
        model: ModelName<'_>,
    ) -> Decision {
        let mut decision = match &rule.split {
            Some(split) => match split.next_for(|offer| head.who.may_use(offer)) {
                Some(offer) => Decision::Route(plain(offer)),
                None => Decision::NoRoute,
            },
            None => self.by_model(head, model),
        };
        if let Decision::Route(route) = &mut decision {
            route.rule = Some(rule.name.clone());
            route.chain.clone_from(&rule.chain);
            route.path = path.or(route.path.take());
            route.preserve_host = rule.rule.preserve_host;
            override_timeouts(&rule.rule.timeouts, &mut route.timeouts);
            if rule.rule.retry != model::PartialRetry::default() {
                route.retry = Arc::new(rule.rule.retry.over(&route.retry));
            }
            route.fallback.clone_from(&rule.fallback);
        }
        decision
    }

    fn by_model(&self, head: Head<'_>, model: ModelName<'_>) -> Decision {
        if let Some(offer) = head.service.and_then(|i| self.offers.get(i)) {
            return Decision::Route(plain(offer));
        }
        let (name, path) = match (self.by, model) {
            (By::None, _) => return Decision::NoRoute,
            (By::Path, _) => match model_in_path(head.path) {
                Some((name, rest)) => (name, Some(rest.to_owned())),
                None => return Decision::NoRoute,
            },
            (_, ModelName::Unread) => return Decision::NeedsModel,
            (_, ModelName::Absent) => return Decision::NoRoute,
            (_, ModelName::Is(name)) => (Cow::Borrowed(name), None),
        };
        match self.models.next_for(&name, |offer| head.who.may_use(offer)) {
            Some(offer) => Decision::Route(Route {
                path,
                ..plain(&offer)
            }),
            None => Decision::ModelNotFound,
        }
    }
}

fn plain(offer: &Arc<Offer>) -> Route {
    Route {
        rule: None,
        chain: None,
        offer: offer.clone(),
        path: None,
        timeouts: offer.service.timeouts.clone(),
        preserve_host: false,
        retry: offer.service.retry.clone(),
        fallback: Vec::new(),
    }
}

/// The first segment, decoded, and the rest of the path.
pub fn model_in_path(path: &str) -> Option<(Cow<'_, str>, &str)> {
    let path = path.strip_prefix('/')?;
    let end = path.find('/').unwrap_or(path.len());
    let (segment, rest) = path.split_at_checked(end)?;
    if segment.is_empty() {
        return None;
    }
    let name = percent_encoding::percent_decode_str(segment)
        .decode_utf8()
        .ok()?;
    Some((name, if rest.is_empty() { "/" } else { rest }))
}

fn match_path<'p>(pattern: &'p PathPattern, path: &'p str) -> Option<Match<'p>> {
    match pattern {
        PathPattern::Exact(exact) => (exact == path).then(|| Match {
            taken: path.len(),
            params: Vec::new(),
        }),
        PathPattern::Prefix(prefix) => {
            let rest = path.strip_prefix(prefix.as_str())?;
            (rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')).then(|| Match {
                taken: prefix.len(),
                params: Vec::new(),
            })
        }
        PathPattern::Params { segments, rest } => match_params(segments, *rest, path),
    }
}

fn match_params<'p>(segments: &'p [Segment], open: bool, path: &'p str) -> Option<Match<'p>> {
    let mut rest = path;
    let mut params = Vec::new();
    for segment in segments {
        let tail = rest.strip_prefix('/')?;
        let end = tail.find('/').unwrap_or(tail.len());
        let (value, after) = tail.split_at_checked(end)?;
        match segment {
            Segment::Literal(literal) if literal == value => {}
            Segment::Param(name) if !value.is_empty() => params.push((name.as_str(), value)),
            _ => return None,
        }
        rest = after;
    }
    (open || rest.is_empty()).then_some(Match {
        taken: path.len() - rest.len(),
        params,
    })
}

fn render(rewrite: &model::Rewrite, params: &[(&str, &str)]) -> String {
    let piece = |piece: &RewritePiece| match piece {
        RewritePiece::Literal(text) => text.clone(),
        RewritePiece::Param(name) => params
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| *value)
            .unwrap_or_default()
            .to_owned(),
    };
    rewrite.pieces.iter().map(piece).collect()
}

fn override_timeouts(rule: &model::PartialTimeouts, timeouts: &mut model::Timeouts) {
    timeouts.connect = rule.connect.unwrap_or(timeouts.connect);
    timeouts.first_byte = rule.first_byte.unwrap_or(timeouts.first_byte);
    timeouts.idle = rule.idle.unwrap_or(timeouts.idle);
    timeouts.total = rule.total.or(timeouts.total);
}

fn literal_length(segments: &[Segment]) -> usize {
    segments
        .iter()
        .map(|segment| match segment {
            Segment::Literal(literal) => literal.len() + 1,
            Segment::Param(_) => 1,
        })
        .sum()
}

fn allow_value(methods: &[&Method]) -> String {
    let mut names: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}
