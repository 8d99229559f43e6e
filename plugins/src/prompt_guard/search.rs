//! Whether a text has one of many patterns.
//!
//! Keywords and the beginnings of regular expressions are one Aho–Corasick automaton ("Efficient string matching", CACM 18(6), 1975), which
//! runs only from the places that [`Grams`] tells of, and a regular expression only where its beginning stands. If there are too many such
//! places, what is wanted runs over the whole text once: all of it takes time linear in the text. Keywords are compared in small
//! letters: of ASCII by the automaton itself; a text with other letters is first written in small ones where that matters.

use aho_corasick::automaton::Automaton;
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};
use regex_automata::Input;
use regex_automata::meta::{self, Regex};

use super::grams::Grams;
use super::prefix::{FOLDED, prefix};
use crate::pattern::Pattern;

/// Letters beyond ASCII that become letters of ASCII when they are written small.
const SMALL: [char; 2] = ['\u{212A}', '\u{130}'];
/// A shorter beginning of a regular expression tells nothing.
const MIN_PREFIX: usize = 3;
/// The most memory a set of patterns may take.
const MAX_SET: usize = 64 << 20;
/// The memory for what a set has learnt of texts so far; too little, and it learns the same again and again.
const LEARNT: usize = 16 << 20;
/// As many places regular expressions are tried at one by one: each may read to the text's end.
const MAX_TRIES: usize = 8;

/// The patterns cannot be compiled together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Many patterns.
#[derive(Debug)]
pub(super) struct Search {
    index: Option<Index>,
    /// Regular expressions whose beginnings are in the index.
    begun: Option<Regex>,
    /// Those of which no beginning is sure.
    loose: Option<Regex>,
}

/// The keywords, and after them the beginnings of regular expressions.
#[derive(Debug)]
struct Index {
    grams: Grams,
    automaton: NFA,
    keywords: usize,
    whole_words: bool,
    /// Whether a keyword has letters that are not ASCII.
    beyond_ascii: bool,
}

/// What is looked for in one pass.
#[derive(Clone, Copy)]
struct Wanted {
    keywords: bool,
    begun: bool,
}

/// Why a pass over single places ended.
enum Stop {
    Found,
    /// There are too many.
    Spent,
}

impl Search {
    pub(super) fn new<'a>(
        keywords: impl IntoIterator<Item = &'a String>,
        regex: impl IntoIterator<Item = &'a Pattern>,
        whole_words: bool,
    ) -> Result<Self, TooLarge> {
        let keywords: Vec<_> = { keywords.into_iter() }
            .map(|keyword| keyword.trim().to_lowercase())
            .filter(|keyword| !keyword.is_empty())
            .collect();
        let regex = { regex.into_iter().map(Pattern::as_str) }.map(|regex| (prefix(regex), regex));
        let (begun, loose): (Vec<_>, Vec<_>) =
            regex.partition(|(prefix, _)| prefix.len() >= MIN_PREFIX);
        let prefixes = begun.iter().map(|(prefix, _)| prefix.clone()).collect();
        Ok(Self {
            index: Index::new(&keywords, prefixes, whole_words)?,
            begun: set(&begun)?,
            loose: set(&loose)?,
        })
    }

    /// Whether the text has one of them.
    pub(super) fn finds(&self, text: &str) -> bool {
        let has = |letters: [char; 2]| text.contains(letters);
        let (small, sure) = match text.is_ascii() {
            true => (false, true),
            false => {
                let beyond = { self.index.as_ref() }.is_some_and(|index| index.beyond_ascii);
                (beyond || has(SMALL), !has(FOLDED))
            }
        };
        let wanted = Wanted {
            keywords: !small,
            begun: sure,
        };
        let matches = |regex: &Option<Regex>| regex.as_ref().is_some_and(|r| r.is_match(text));
        let keywords = Wanted {
            keywords: true,
            begun: false,
        };
        self.finds_indexed(text, wanted)
            || (small && self.finds_indexed(&text.to_lowercase(), keywords))
            || (!sure && matches(&self.begun))
            || matches(&self.loose)
    }

    fn finds_indexed(&self, text: &str, wanted: Wanted) -> bool {
        let Some(index) = self
            .index
            .as_ref()
            .filter(|_| wanted.keywords || wanted.begun)
        else {
            return false;
        };
        let (mut steps, mut tries) = (text.len(), MAX_TRIES);
        let ended = index.grams.each(text.as_bytes(), |at| {
            index.run(text, at, Anchored::Yes, |found| {
                steps = steps.checked_sub(1).ok_or(Stop::Spent)?;
                let Some((pattern, start, end)) = found else {
                    return Ok(());
                };
                if pattern < index.keywords {
                    let found = wanted.keywords && index.accepts(text, start, end);
                    return if found { Err(Stop::Found) } else { Ok(()) };
                }
                if !wanted.begun {
                    return Ok(());
                }
                tries = tries.checked_sub(1).ok_or(Stop::Spent)?;
                let input = Input::new(text)
                    .range(start..)
                    .anchored(regex_automata::Anchored::Yes);
                match self
                    .begun
                    .as_ref()
                    .is_some_and(|begun| begun.is_match(input))
                {
                    true => Err(Stop::Found),
                    false => Ok(()),
                }
            })
        });
        match ended {
            Ok(()) => false,
            Err(Stop::Found) => true,
            Err(Stop::Spent) => {
                let whole = |regex: &Regex| regex.is_match(text);
                (wanted.keywords && index.finds_keyword(text))
                    || (wanted.begun && self.begun.as_ref().is_some_and(whole))
            }
        }
    }
}

impl Index {
    fn new(
        keywords: &[String],
        prefixes: Vec<Vec<u8>>,
        whole_words: bool,
    ) -> Result<Option<Self>, TooLarge> {
        let all = keywords.iter().map(|keyword| keyword.clone().into_bytes());
        let all: Vec<_> = all.chain(prefixes).collect();
        let Some(grams) = Grams::new(&all) else {
            return Ok(None);
        };
        let automaton = NFA::builder()
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(true)
            .build(&all)
            .map_err(|_| TooLarge)?;
        Ok(Some(Self {
            grams,
            automaton,
            keywords: keywords.len(),
            whole_words,
            beyond_ascii: keywords.iter().any(|keyword| !keyword.is_ascii()),
        }))
    }

    /// Runs the automaton from a place on, and tells of every step and of every pattern it finds, by its number, start and end.
    fn run(
        &self,
        text: &str,
        from: usize,
        anchored: Anchored,
        mut each: impl FnMut(Option<(usize, usize, usize)>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let Ok(mut state) = self.automaton.start_state(anchored) else {
            return Err(Stop::Spent);
        };
        let rest = text.as_bytes().get(from..).unwrap_or_default();
        for (end, byte) in (from + 1..).zip(rest) {
            state = self.automaton.next_state(anchored, state, *byte);
            if !self.automaton.is_special(state) {
                each(None)?;
                continue;
            }
            if self.automaton.is_dead(state) {
                break;
            }
            each(None)?;
            if self.automaton.is_match(state) {
                for nth in 0..self.automaton.match_len(state) {
                    let pattern = self.automaton.match_pattern(state, nth);
                    let start = end - self.automaton.pattern_len(pattern);
                    each(Some((pattern.as_usize(), start, end)))?;
                }
            }
        }
        Ok(())
    }

    /// Whether the text has a keyword, wherever.
    fn finds_keyword(&self, text: &str) -> bool {
        let found = self.run(text, 0, Anchored::No, |found| match found {
            Some((pattern, start, end))
                if pattern < self.keywords && self.accepts(text, start, end) =>
            {
                Err(Stop::Found)
            }
            _ => Ok(()),
        });
        matches!(found, Err(Stop::Found))
    }

    /// Whether a keyword that stands there counts.
    fn accepts(&self, text: &str, start: usize, end: usize) -> bool {
        !self.whole_words || is_whole(text, start, end)
    }
}

/// Regular expressions as one, if there are any.
fn set(patterns: &[(Vec<u8>, &str)]) -> Result<Option<Regex>, TooLarge> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let patterns: Vec<_> = patterns.iter().map(|(_, pattern)| *pattern).collect();
    let config = meta::Config::new()
        .match_kind(regex_automata::MatchKind::All)
        .nfa_size_limit(Some(MAX_SET))
        .hybrid_cache_capacity(LEARNT);
    let built = meta::Builder::new().configure(config).build_many(&patterns);
    built.map(Some).map_err(|_| TooLarge)
}

/// Whether no word goes on beyond the ends of what was found.
fn is_whole(text: &str, start: usize, end: usize) -> bool {
    let (before, rest) = text.split_at_checked(start).unwrap_or((text, ""));
    let (found, after) = rest.split_at_checked(end - start).unwrap_or((rest, ""));
    let of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let goes_on = |out: Option<char>, inside: Option<char>| of_word(out) && of_word(inside);
    !goes_on(before.chars().next_back(), found.chars().next())
        && !goes_on(after.chars().next(), found.chars().next_back())
}
