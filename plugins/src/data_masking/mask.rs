//! Finding and replacing in one text, whole or as it grows.
//!
//! All rules are one automaton without backtracking. A match has at most [`MAX_HELD`] bytes, so that a search takes time linear in the text: a
//! few thousand steps for each of its letters at worst, about one where nothing is found. For a text that grows, a second automaton answers the
//! question that decides what may go on: from which place on could what is there still become something else? It is run from every
//! place that is held, anchored, and a place is settled as soon as it cannot match any more. What a growing text comes out
//! as is therefore the same however it is cut.

use std::borrow::Cow;

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::meta::{self, Regex};
use regex_automata::util::pool::Pool;
use regex_automata::{Anchored, Input, Match, MatchKind, nfa::thompson};
use regex_syntax::hir::{Hir, HirKind, LookSet};

use super::entity::Accept;

/// The longest end of a stream that is held back, in bytes, and the longest match: a rule that could match more matches that much.
pub(super) const MAX_HELD: usize = 2048;
/// How many places are searched for a match's beginning at once.
const STEP: usize = 3 * MAX_HELD;
/// The most memory the compiled rules may take.
const MAX_SIZE: usize = 32 << 20;
/// The memory for what an automaton has learnt of texts so far.
const LEARNT: usize = 8 << 20;

/// What stands in the place of what was found.
#[derive(Clone, Debug)]
pub(super) enum Mask {
    Text(String),
    /// As often as there were letters.
    Repeated(char),
}

impl Mask {
    pub(super) fn new(with: &str, preserve_len: bool) -> Self {
        match preserve_len {
            true => Self::Repeated(with.chars().next().unwrap_or('*')),
            false => Self::Text(with.to_owned()),
        }
    }

    fn write(&self, found: &str, out: &mut String) {
        match self {
            Self::Text(text) => out.push_str(text),
            Self::Repeated(letter) => out.extend(found.chars().map(|_| *letter)),
        }
    }
}

/// A pattern, what tells its candidates apart, and their mask.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pattern: String,
    accept: Option<Accept>,
    mask: Mask,
}

impl Rule {
    pub(super) fn new(pattern: String, accept: Option<Accept>, mask: Mask) -> Self {
        Self {
            pattern,
            accept,
            mask,
        }
    }
}

type Caches = Pool<
    Cache,
    Box<dyn Fn() -> Cache + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>,
>;

/// All rules, compiled.
pub(super) struct Masker {
    rules: Vec<Rule>,
    search: Regex,
    open: DFA,
    caches: Caches,
}

impl Masker {
    /// `None` if the rules are too large together.
    pub(super) fn new(rules: Vec<Rule>) -> Option<Self> {
        let patterns: Vec<_> = rules.iter().map(|rule| &*rule.pattern).collect();
        let limits = meta::Config::new()
            .nfa_size_limit(Some(MAX_SIZE))
            .hybrid_cache_capacity(LEARNT);
        let search = meta::Builder::new()
            .configure(limits)
            .build_many(&patterns)
            .ok()?;
        let config = DFA::config()
            .match_kind(MatchKind::All)
            .skip_cache_capacity_check(true)
            .cache_capacity(LEARNT);
        let open = DFA::builder()
            .configure(config)
            .build_from_nfa(without_borders(&patterns)?)
            .ok()?;
        let made = open.clone();
        let caches: Caches = Pool::new(Box::new(move || made.create_cache()));
        Some(Self {
            rules,
            search,
            open,
            caches,
        })
    }

    /// The text with everything masked, or `None` if there is nothing to mask.
    pub(super) fn whole(&self, text: &str) -> Option<String> {
        match self.settled(text, 0, text.len()) {
            (Cow::Borrowed(_), _) => None,
            (Cow::Owned(masked), _) => Some(masked),
        }
    }

    /// Masks what begins in `from..until`; returns that part, and where it ends: beyond `until` if something found does.
    fn settled<'a>(&self, text: &'a str, from: usize, until: usize) -> (Cow<'a, str>, usize) {
        let mut out = String::new();
        let (mut copied, mut at) = (from, from);
        while at < until {
            let Some(found) = self.next(text, at).filter(|found| found.start() < until) else {
                break;
            };
            let candidate = text.get(found.range()).unwrap_or_default();
            let rule = self.rules.get(found.pattern().as_usize());
            let accepted = rule.and_then(|rule| match rule.accept {
                Some(accept) => Some((rule, accept(candidate)?)),
                None => Some((rule, candidate.len())),
            });
            let Some((rule, len)) = accepted.filter(|(_, len)| *len > 0) else {
                // Inside what is not the real thing may be the real thing.
                at = next_char(text, found.start());
                continue;
            };
            out.push_str(text.get(copied..found.start()).unwrap_or_default());
            rule.mask
                .write(candidate.get(..len).unwrap_or_default(), &mut out);
            at = found.start() + len;
            copied = at;
        }
        let end = copied.max(until);
        let rest = text.get(copied..end).unwrap_or_default();
        if copied == from {
            return (Cow::Borrowed(rest), end);
        }
        out.push_str(rest);
        (Cow::Owned(out), end)
    }

    /// The first match from a place on. To tell that it is one, no more is read than [`MAX_HELD`] bytes from its beginning: without that, rules
    /// that have to look far ahead for each short match took time quadratic in the text.
    fn next(&self, text: &str, from: usize) -> Option<Match> {
        let mut at = from;
        loop {
            let begins = at.saturating_add(STEP);
            let end = begins.saturating_add(MAX_HELD).min(text.len());
            let found = self.search.search(&Input::new(text).range(at..end));
            match found {
                Some(found) if found.start() < begins => {
                    if found.len() <= MAX_HELD {
                        return Some(found);
                    }
                    let start = found.start();
                    let shorter = Input::new(text).range(start..start + MAX_HELD);
                    let shorter = self.search.search(&shorter.anchored(Anchored::Yes));
                    if shorter.is_some() {
                        return shorter;
                    }
                    at = next_char(text, start);
                }
                _ if end == text.len() => return None,
                _ => at = text.floor_char_boundary(begins),
            }
        }
    }

    /// The first place from which what is there could still become something.
    fn first_open(&self, text: &str, from: usize) -> usize {
        let mut cache = self.caches.get();
        let least = text.len().saturating_sub(MAX_HELD);
        let mut at = from.max(least);
        while at < text.len() {
            if text.is_char_boundary(at) && self.is_open(text, at, &mut cache) {
                return at;
            }
            at += 1;
        }
        text.len()
    }

    fn is_open(&self, text: &str, start: usize, cache: &mut Cache) -> bool {
        let input = Input::new(text).range(start..).anchored(Anchored::Yes);
        let Ok(mut state) = self.open.start_state_forward(cache, &input) else {
            return true;
        };
        for byte in text.as_bytes().get(start..).unwrap_or_default() {
            // What the automaton cannot tell counts as open.
            let Ok(next) = self.open.next_state(cache, state, *byte) else {
                return true;
            };
            if next.is_dead() {
                return false;
            }
            if next.is_quit() {
                return true;
            }
            state = next;
        }
        true
    }
}

/// The patterns without those borders of words that only tables of Unicode tell, which the automaton has not. What may match with them may
/// match without: a little more is held, and nothing less.
fn without_borders(patterns: &[&str]) -> Option<thompson::NFA> {
    let parsed = patterns
        .iter()
        .map(|pattern| Some(without_border(regex_syntax::parse(pattern).ok()?)));
    let parsed: Vec<Hir> = parsed.collect::<Option<_>>()?;
    let config = thompson::Config::new().nfa_size_limit(Some(MAX_SIZE));
    let mut compiler = thompson::Compiler::new();
    compiler.configure(config).build_many_from_hir(&parsed).ok()
}

/// Recurses as deep as the pattern is nested, which its parser bounds.
fn without_border(pattern: Hir) -> Hir {
    match pattern.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Class(class) => Hir::class(class),
        HirKind::Look(look) if LookSet::singleton(look).contains_word_unicode() => Hir::empty(),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Repetition(mut repetition) => {
            repetition.sub = Box::new(without_border(*repetition.sub));
            Hir::repetition(repetition)
        }
        HirKind::Capture(mut capture) => {
            capture.sub = Box::new(without_border(*capture.sub));
            Hir::capture(capture)
        }
        HirKind::Concat(parts) => Hir::concat(parts.into_iter().map(without_border).collect()),
        HirKind::Alternation(parts) => {
            Hir::alternation(parts.into_iter().map(without_border).collect())
        }
    }
}

/// Where the next character begins.
fn next_char(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.chars().next().map_or(1, char::len_utf8)
}

/// A text that grows, and what of it is held back.
#[derive(Debug, Default)]
pub(super) struct Growing {
    /// The character before what is held, which words may not begin after, and what is held.
    text: String,
    held_from: usize,
}

impl Growing {
    /// Takes what comes next, and returns what goes on: all of it at the `end`.
    pub(super) fn push(&mut self, masker: &Masker, next: &str, end: bool) -> String {
        self.text.push_str(next);
        let until = match end {
            true => self.text.len(),
            false => masker.first_open(&self.text, self.held_from),
        };
        let (masked, done) = masker.settled(&self.text, self.held_from, until);
        let masked = masked.into_owned();
        let before = self
            .text
            .get(..done)
            .and_then(|text| text.chars().next_back());
        let before = before.map_or(0, char::len_utf8);
        self.text.drain(..done - before);
        self.held_from = before;
        masked
    }

    /// Whether anything is held back.
    pub(super) fn holds(&self) -> bool {
        self.text.len() > self.held_from
    }
}
