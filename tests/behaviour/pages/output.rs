//! Whether a command printed what its page shows.

/// Finds the first line shown that was not printed. `…` stands for anything within a line, alone on a line for any lines; how many blanks
/// there are does not matter, since ports of other lengths move columns.
pub(super) fn difference<'s>(shown: &'s [String], printed: &str) -> Option<&'s str> {
    let printed: Vec<String> = printed.lines().map(blanks).collect();
    // What part of the printed lines may be used up after each line shown.
    let mut reached = vec![false; printed.len() + 1];
    reached[0] = true;
    for line in shown {
        let mut next = vec![false; printed.len() + 1];
        let pattern = blanks(line);
        for at in (0..=printed.len()).filter(|at| reached[*at]) {
            if pattern == "…" {
                next[at..].fill(true);
            } else if printed.get(at).is_some_and(|line| fits(&pattern, line)) {
                next[at + 1] = true;
            }
        }
        if !next.contains(&true) {
            return Some(line);
        }
        reached = next;
    }
    (!reached[printed.len()]).then_some("(the end)")
}

fn blanks(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn fits(pattern: &str, line: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('…') else {
        return pattern == line;
    };
    let Some(mut line) = line.strip_prefix(start) else {
        return false;
    };
    let pieces: Vec<&str> = rest.split('…').collect();
    let (end, middle) = pieces.split_last().unwrap();
    for piece in middle {
        match line.find(piece) {
            Some(at) => line = &line[at + piece.len()..],
            None => return false,
        }
    }
    line.ends_with(end)
}

#[test]
fn differences_are_found() {
    let shown = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
    for (pattern, printed) in [
        ("a  b", "a b\n"),
        ("{\"id\":…,\"x\":1}", "{\"id\":7,\"x\":1}"),
        ("…\nlast", "one\ntwo\nlast"),
        ("first\n…", "first"),
        ("a\n…\nb\n…", "a\nb\nc\nb\nd"),
        ("…b…", "abc"),
    ] {
        assert_eq!(difference(&shown(pattern), printed), None, "{pattern}");
    }
    for (pattern, printed, at) in [
        ("a", "b", "a"),
        ("a", "a\nb", "(the end)"),
        ("a\nb", "a", "b"),
        ("x…z", "x y", "x…z"),
        ("…\nlast", "last\nmore", "(the end)"),
        ("ab…ba", "aba", "ab…ba"),
    ] {
        assert_eq!(difference(&shown(pattern), printed), Some(at), "{pattern}");
    }
}
