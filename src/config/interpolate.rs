//! `${NAME}` and `${NAME:-default}` in any text of the tree, filled in from the environment.
//!
//! `$${` is a plain `${`. Empty counts as not set for the default, as in a shell. What a field reads is told apart by
//! [`Origin`], so that no message shows what the environment holds.

use tollgate_sdk::document::{At, Node, Origin, Reading, Span, Value};

/// Looks up a variable of the environment.
pub type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Fills in every reference below `node`; returns the places of texts that could not be filled in.
pub fn interpolate(node: &mut Node, text: &str, env: &Env<'_>, r: &mut Reading<'_>) -> Vec<Span> {
    let mut walk = Walk {
        text,
        env,
        failed: Vec::new(),
    };
    walk.node(node, &At::ROOT, r);
    walk.failed
}

struct Walk<'a> {
    text: &'a str,
    env: &'a Env<'a>,
    failed: Vec<Span>,
}

impl Walk<'_> {
    fn node(&mut self, node: &mut Node, at: &At<'_>, r: &mut Reading<'_>) {
        match &mut node.value {
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.node(item, &at.index(index), r);
                }
            }
            Value::Table(entries) => {
                for (key, node) in entries {
                    self.node(node, &at.field(&key.text), r);
                }
            }
            Value::String(text) if text.contains("${") => {
                let before = r.problems.len();
                let (filled, origin) = self.fill(text, node.span, at, r);
                if r.problems.len() > before {
                    self.failed.push(node.span);
                }
                node.value = Value::String(filled);
                node.origin = origin;
            }
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
        }
    }

    fn fill(&self, text: &str, span: Span, at: &At<'_>, r: &mut Reading<'_>) -> (String, Origin) {
        let mut filled = String::new();
        let mut origin = Origin::Typed;
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let (before, reference) = rest.split_at(start);
            if let Some(before) = before.strip_suffix('$') {
                filled.push_str(before);
                filled.push_str("${");
                rest = reference.get(2..).unwrap_or_default();
                continue;
            }
            filled.push_str(before);
            let Some(end) = reference.find('}') else {
                let help = "write \"${NAME}\" or \"${NAME:-default}\"; a plain ${ is written $${";
                r.error(
                    self.narrow(span, "${"),
                    at,
                    "a reference to the environment is not closed",
                    help,
                );
                return (filled, origin);
            };
            let (reference, after) = reference.split_at(end + 1);
            let inside = reference.get(2..end).unwrap_or_default();
            let (name, default) = match inside.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inside, None),
            };
            let place = self.narrow(span, reference);
            if !is_variable(name) {
                let help = "write \"${NAME}\" or \"${NAME:-default}\"; a plain ${ is written $${";
                r.error(
                    place,
                    at,
                    "the braces do not hold the name of a variable",
                    help,
                );
            } else {
                let set = (self.env)(name).filter(|value| default.is_none() || !value.is_empty());
                match set.as_deref().or(default) {
                    Some(value) => filled.push_str(value),
                    None => {
                        let help = format!("set it, or give a default: \"${{{name}:-default}}\"");
                        r.error(
                            place,
                            at,
                            format!("the environment variable {name} is not set"),
                            help,
                        );
                    }
                }
            }
            origin = match text == reference {
                true => Origin::Wholly,
                false => Origin::Partly,
            };
            rest = after;
        }
        filled.push_str(rest);
        (filled, origin)
    }

    /// The place of `part` in the text typed at `span`, or all of it if the text was escaped beyond recognition.
    fn narrow(&self, span: Span, part: &str) -> Span {
        let typed = self.text.get(span.start..span.end).unwrap_or_default();
        match typed.find(part) {
            Some(at) => Span {
                start: span.start + at,
                end: span.start + at + part.len(),
                ..span
            },
            None => span,
        }
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
