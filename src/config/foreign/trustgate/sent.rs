//! Which path reaches the targets of a rule.

use super::catalog::literal;
use super::target::Target;

/// What is sent to the targets.
pub(super) enum Sent {
    /// The request's path, without the rule's if it is stripped.
    Path,
    /// The target's path and what follows the rule's.
    Rest,
    /// This.
    Instead(String),
}

pub(super) fn what_is_sent(
    pattern: &str,
    stripped: bool,
    targets: &[Target],
) -> Result<Sent, &'static str> {
    let exact = !pattern.ends_with("/*") && !pattern.contains('{');
    let own = |target: &Target| match (&target.sends, stripped, exact) {
        (Some(path), ..) => Some(path.clone()),
        // What an exact rule lets through is known beforehand.
        (None, true, true) => Some("/".to_owned()),
        (None, false, true) => Some(pattern.to_owned()),
        (None, _, false) => None,
    };
    if targets.iter().all(|target| target.sends.is_none()) {
        return Ok(Sent::Path);
    }
    let fixed = targets.iter().filter(|target| target.fixed).count();
    if stripped && !exact && fixed == 0 {
        let param = |target: &Target| {
            target
                .sends
                .as_deref()
                .is_some_and(|path| rewrite(path, pattern) != literal(path))
        };
        return match targets.iter().any(param) {
            true => Err(
                "a target's path has a parameter of the rule's, which does not go with `strip_path` here",
            ),
            false => Ok(Sent::Rest),
        };
    }
    if stripped && fixed > 0 && fixed < targets.len() {
        return Err(
            "with `strip_path` providers and other targets differ in what is sent; give them services of their own",
        );
    }
    let mut paths: Vec<Option<String>> = targets.iter().map(own).collect();
    paths.dedup();
    match paths.as_slice() {
        [Some(path)] => Ok(Sent::Instead(rewrite(path, pattern))),
        _ => Err(
            "its targets have different paths; one rule sends one: give them services of their own",
        ),
    }
}

/// A target's path with the rule's parameters; other braces stand for themselves.
fn rewrite(path: &str, pattern: &str) -> String {
    let known = |name: &str| {
        pattern.split('/').any(|segment| {
            segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) == Some(name)
        })
    };
    let mut written = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('{') {
        written += &literal(before);
        match after.split_once('}') {
            Some((name, after)) if known(name) => {
                written += &format!("{{{name}}}");
                rest = after;
            }
            _ => {
                written += "%7B";
                rest = after;
            }
        }
    }
    written + &literal(rest)
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn parameters_are_the_rules_and_other_braces_literal() {
        for (path, pattern, sent) in [
            ("/v2/{id}/x", "/a/{id}", "/v2/{id}/x"),
            ("/v2/{user_id}", "/a/{id}", "/v2/%7Buser_id%7D"),
            ("/{{id}", "/{id}/*", "/%7B{id}"),
            ("/}{", "/a", "/%7D%7B"),
            ("/v1", "/a", "/v1"),
        ] {
            assert_eq!(rewrite(path, pattern), sent);
        }
    }
}
