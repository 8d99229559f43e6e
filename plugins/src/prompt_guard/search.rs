//! Whether a text has one of many patterns.
//!
//! Keywords are one Aho–Corasick automaton ("Efficient string matching", CACM 18(6), 1975), compiled to a table where it is not too
//! large; regular expressions are one set. Neither sees a text that [`Skim`] can clear, and all of them take time linear in
//! the text. Keywords are compared in small letters: of ASCII by the automaton itself; a text with other letters is first
//! written in small ones.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex::{RegexSet, RegexSetBuilder};

use super::skim::{Skim, beginning};
use crate::pattern::Pattern;

/// Keywords whose letters are fewer than this together become a table: it takes about a KiB for each.
const TABLE: usize = 32 << 10;
/// The most memory a set of patterns may take.
const MAX_SET: usize = 64 << 20;
/// The memory for what a set has learnt of texts so far; too little, and it learns the same again and again.
const LEARNT: usize = 16 << 20;

/// The patterns cannot be compiled together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Many patterns.
#[derive(Debug)]
pub(super) struct Search {
    keywords: Option<Keywords>,
    regex: Option<Patterns>,
}

#[derive(Debug)]
struct Patterns {
    /// What passes over most clean texts of ASCII; `None` if a pattern begins with too little that is sure.
    skim: Option<Skim>,
    set: RegexSet,
}

#[derive(Debug)]
struct Keywords {
    /// What passes over most clean texts; `None` if a keyword is too short for it.
    skim: Option<Skim>,
    automaton: AhoCorasick,
    whole_words: bool,
    /// Whether a keyword has letters that are not ASCII.
    beyond_ascii: bool,
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
        let regex: Vec<_> = regex.into_iter().map(Pattern::as_str).collect();
        let set = || {
            let mut set = RegexSetBuilder::new(&regex);
            set.size_limit(MAX_SET).dfa_size_limit(LEARNT).build()
        };
        Ok(Self {
            keywords: match keywords.is_empty() {
                true => None,
                false => Some(Keywords::new(&keywords, whole_words)?),
            },
            regex: match regex.is_empty() {
                true => None,
                false => Some(Patterns {
                    skim: Skim::new(
                        &{ regex.iter() }
                            .map(|regex| beginning(regex))
                            .collect::<Vec<_>>(),
                    ),
                    set: set().map_err(|_| TooLarge)?,
                }),
            },
        })
    }

    /// Whether the text has one of them.
    pub(super) fn finds(&self, text: &str) -> bool {
        self.keywords
            .as_ref()
            .is_some_and(|keywords| keywords.finds(text))
            || self.regex.as_ref().is_some_and(|regex| regex.finds(text))
    }
}

impl Patterns {
    fn finds(&self, text: &str) -> bool {
        let skimmed = self.skim.as_ref().filter(|_| text.is_ascii());
        if skimmed.is_some_and(|skim| !skim.may_find(text.as_bytes())) {
            return false;
        }
        self.set.is_match(text)
    }
}

impl Keywords {
    fn new(keywords: &[String], whole_words: bool) -> Result<Self, TooLarge> {
        let letters: usize = keywords.iter().map(String::len).sum();
        let kind = match letters < TABLE {
            true => AhoCorasickKind::DFA,
            false => AhoCorasickKind::ContiguousNFA,
        };
        let automaton = AhoCorasick::builder()
            .kind(Some(kind))
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(true)
            .build(keywords)
            .map_err(|_| TooLarge)?;
        Ok(Self {
            skim: Skim::new(keywords),
            automaton,
            whole_words,
            beyond_ascii: keywords.iter().any(|keyword| !keyword.is_ascii()),
        })
    }

    fn finds(&self, text: &str) -> bool {
        match self.beyond_ascii && !text.is_ascii() {
            true => self.finds_in(&text.to_lowercase()),
            false => self.finds_in(text),
        }
    }

    fn finds_in(&self, text: &str) -> bool {
        let skimmed = self.skim.as_ref();
        if skimmed.is_some_and(|skim| !skim.may_find(text.as_bytes())) {
            return false;
        }
        let found = self.automaton.is_match(text);
        if !self.whole_words || !found {
            return found;
        }
        // A keyword inside a word must not hide one that is a word and overlaps it.
        let mut found = self.automaton.find_overlapping_iter(text);
        found.any(|found| is_whole(text, found.start(), found.end()))
    }
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
