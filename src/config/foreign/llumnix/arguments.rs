//! `--extra-args`: more flags in one text, `k=v,k=[a,b]`, which win over the others.

/// The names and values of a text. Quotes and brackets hold commas together; a name without a value is `true`.
pub(super) fn read(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut part = String::new();
    let (mut depth, mut quote) = (0_usize, None);
    for c in text.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => part.push(c),
            ('"' | '\'', None) => quote = Some(c),
            (',', None) if depth == 0 => keep(&std::mem::take(&mut part), &mut found),
            (c, None) => {
                match c {
                    '[' => depth += 1,
                    ']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                part.push(c);
            }
        }
    }
    keep(&part, &mut found);
    found
}

fn keep(part: &str, found: &mut Vec<(String, String)>) {
    let (name, value) = part.split_once('=').unwrap_or((part, "true"));
    let name = name.trim().trim_start_matches('-');
    let value = value.trim();
    let value = value
        .strip_prefix('[')
        .and_then(|value| value.strip_suffix(']'))
        .unwrap_or(value);
    if !name.is_empty() {
        found.push((name.to_owned(), value.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_brackets_hold_commas_together() {
        for (text, expected) in [
            ("", vec![]),
            (",,", vec![]),
            ("a=1,b=2", vec![("a", "1"), ("b", "2")]),
            ("--a = x , b", vec![("a", "x"), ("b", "true")]),
            ("a=[x:1,y:2],b='p,q'", vec![("a", "x:1,y:2"), ("b", "p,q")]),
            ("a=\"b=c\",d=[", vec![("a", "b=c"), ("d", "[")]),
            ("a=]],b=1", vec![("a", "]]"), ("b", "1")]),
        ] {
            let found = read(text);
            let found: Vec<(&str, &str)> = { found.iter() }.map(|(k, v)| (&**k, &**v)).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
