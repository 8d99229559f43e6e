//! The known word nearest to one that was mistyped.

use super::node::Quoted;

/// The word of `known` that `typed` was probably meant to be, if one is close enough.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = typed.to_lowercase();
    known
        .into_iter()
        .map(|word| (score(&lower, &word.to_lowercase()), word))
        .filter(|(score, _)| *score >= 0.6)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}

/// A help line: the nearest word, or all of them, or that there are none. `what` is the plural: "fields".
pub fn suggest(typed: &str, known: &[&str], what: &str) -> String {
    match nearest(typed, known.iter().copied()) {
        Some(word) => format!("did you mean {}?", Quoted(word)),
        None if known.is_empty() => format!("there are no {what}"),
        None => format!("known {what}: {}", known.join(", ")),
    }
}

/// Likeness from 0 to 1: by edits, and a little in favour of words of which one begins with the other.
fn score(typed: &str, word: &str) -> f64 {
    let edits = strsim::normalized_damerau_levenshtein(typed, word);
    let begins = typed.len() >= 3 && (word.starts_with(typed) || typed.starts_with(word));
    if begins { edits.max(0.6) } else { edits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_far_fetched() {
        let known = ["weight", "models", "model", "targets", "timeouts"];
        assert_eq!(nearest("wieght", known), Some("weight"));
        assert_eq!(nearest("modles", known), Some("models"));
        assert_eq!(nearest("MODEL", known), Some("model"));
        assert_eq!(nearest("timeout", known), Some("timeouts"));
        assert_eq!(nearest("backends", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn lists_all_when_none_is_near() {
        assert_eq!(suggest("zzz", &["a", "b"], "fields"), "known fields: a, b");
        assert_eq!(suggest("zzz", &[], "upstreams"), "there are no upstreams");
    }
}
