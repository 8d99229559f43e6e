//! What is sent to be applied: one document or many, native or foreign, as the resources it speaks of.
//!
//! A document with `kind` is a resource, a list holds several, a YAML text may hold several documents, and a table of sections is a
//! configuration file. What belongs to another system is converted.

use tollgate_sdk::document::{Format, FromNode, Node, Problem, Quoted, Value, suggest};

use super::diagnostic::line_and_column;
use super::foreign::{self, Note};
use super::kinds::ResourceKind;
use super::resource::{Mistake, reading};
use super::sections::fill_names;
use super::{masking, raw};
use crate::model::{KINDS, KeyHash, TABLES};

/// A resource that is to be put.
pub struct Document {
    /// Its kind.
    pub kind: ResourceKind,
    /// Where it stands: `documents[2]`, `service[0]`; empty if there is no other.
    pub path: String,
    /// What was typed.
    pub node: Node,
}

/// What a text asks for.
#[derive(Default)]
pub struct Documents {
    /// The resources.
    pub documents: Vec<Document>,
    /// What became of the fields of foreign documents, each with its document's path.
    pub notes: Vec<(String, Note)>,
    /// What is left out.
    pub warnings: Vec<Mistake>,
    /// What is wrong with documents that are no resources. If there is anything, nothing can be applied.
    pub mistakes: Vec<Mistake>,
}

/// Reads a text.
///
/// # Errors
/// What is wrong with its syntax.
pub fn read(text: &str, format: Format, options: &foreign::Options) -> Result<Documents, String> {
    let mut found = Found {
        options,
        read: Documents::default(),
    };
    let mut roots = Vec::new();
    for part in parts(text, format) {
        roots.push(tree(&part, format)?);
    }
    roots.retain(|root| !root.as_table().is_some_and(<[_]>::is_empty));
    match <[Node; 1]>::try_from(roots) {
        Ok([root]) => found.whole(root),
        Err(several) => {
            for (index, root) in several.into_iter().enumerate() {
                found.document(root, format!("documents[{index}]"));
            }
        }
    }
    let mut read = found.read;
    if read.mistakes.is_empty() && read.documents.is_empty() {
        let message = "there is nothing to apply; give a document with `kind` and `name`";
        read.mistakes.push(Mistake::new("", message));
    }
    Ok(read)
}

/// The documents of a YAML text, each at its own lines.
fn parts(text: &str, format: Format) -> Vec<String> {
    if format != Format::Yaml {
        return vec![text.to_owned()];
    }
    let mut parts = vec![String::new()];
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let rest = line.strip_prefix("---");
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            parts.push("\n".repeat(number));
        }
        if let Some(part) = parts.last_mut() {
            part.push_str(line);
        }
    }
    parts
}

/// Reads a text as a tree.
///
/// # Errors
/// What is wrong with its syntax, each mistake as `line:column: message`.
pub fn tree(text: &str, format: Format) -> Result<Node, String> {
    let (root, r) = reading(|r| raw::read(text, format, r));
    root.ok_or_else(|| {
        let mut masked = Vec::new();
        masking::mask_lines(text, &mut masked);
        let told = |problem: &Problem| {
            let (line, column) = line_and_column(text, problem.span.start);
            // The parser quotes what it stumbled over.
            let shown = !masked
                .iter()
                .any(|mask| mask.start <= problem.span.start && problem.span.start <= mask.end);
            match shown {
                true => format!("{line}:{column}: {}", problem.message),
                false => format!("{line}:{column}: the syntax is wrong"),
            }
        };
        let told: Vec<String> = r.problems.iter().map(told).collect();
        told.join("; ")
    })
}

struct Found<'o> {
    options: &'o foreign::Options,
    read: Documents,
}

impl Found<'_> {
    /// The only root of a text.
    fn whole(&mut self, root: Node) {
        if self.foreign(&root, "") {
            return;
        }
        let items = match &root.value {
            Value::List(items) => Some(items.as_slice()),
            Value::Table(_) if root.entry("kind").is_none() => {
                root.entry("items").and_then(Node::as_list)
            }
            _ => None,
        };
        match items {
            Some(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.document(item.clone(), format!("documents[{index}]"));
                }
            }
            None => self.document(root, String::new()),
        }
    }

    fn document(&mut self, node: Node, path: String) {
        if self.foreign(&node, &path) {
            return;
        }
        let Some(entries) = node.as_table() else {
            let message = "a document is expected: a table with `kind` and `name`";
            self.read.mistakes.push(Mistake::new(path, message));
            return;
        };
        let (field, word) = match (node.entry("kind"), node.entry("type")) {
            (Some(kind), _) => ("kind", kind.as_str().unwrap_or_default()),
            // Other systems say `type`; a service has a field of that name.
            (None, Some(kind)) if ResourceKind::of(kind.as_str().unwrap_or_default()).is_some() => {
                ("type", kind.as_str().unwrap_or_default())
            }
            _ if entries.iter().any(|(key, _)| is_section(&key.text)) => {
                self.sections(node, &path);
                return;
            }
            _ => {
                let message = format!("missing field `kind`; one of {}", words().join(", "));
                self.read.mistakes.push(Mistake::new(path, message));
                return;
            }
        };
        let Some(kind) = ResourceKind::of(word) else {
            let help = suggest(word, &words(), "kinds");
            let message = format!("there is no kind {}; {help}", Quoted(word));
            let mistake = Mistake::new(field, message);
            self.read.mistakes.push(below(&path, mistake));
            return;
        };
        let mut node = node.clone();
        if let Value::Table(entries) = &mut node.value {
            entries.retain(|(key, _)| key.text != field);
        }
        self.read.documents.push(Document { kind, path, node });
    }

    /// A configuration file.
    fn sections(&mut self, mut root: Node, path: &str) {
        fill_names(&mut root);
        let Value::Table(entries) = root.value else {
            return;
        };
        for (key, node) in entries {
            let word = key.text.as_str();
            let at = match path {
                "" => word.to_owned(),
                path => format!("{path}.{word}"),
            };
            let Some(kind) = ResourceKind::of(word) else {
                let message = match is_section(word) {
                    true => {
                        let message = "it belongs to the process and stays as its file has it";
                        self.read.warnings.push(Mistake::new(at, message));
                        continue;
                    }
                    false => format!("unknown field; {}", suggest(word, &words(), "kinds")),
                };
                self.read.mistakes.push(Mistake::new(at, message));
                continue;
            };
            let Value::List(items) = node.value else {
                self.read
                    .mistakes
                    .push(Mistake::new(at, "a list is expected"));
                continue;
            };
            let items = items.into_iter().enumerate();
            let items = items.map(|(index, node)| Document {
                kind,
                path: format!("{at}[{index}]"),
                node,
            });
            self.read.documents.extend(items);
        }
    }

    /// Whether it is another system's document. Then it was converted.
    fn foreign(&mut self, node: &Node, path: &str) -> bool {
        let Some(converted) = foreign::convert(&node.json(), self.options) else {
            return false;
        };
        let refused = converted.notes.iter();
        let refused = refused.filter(|note| note.fate == foreign::Fate::Refused);
        let refused = refused.map(|note| below(path, Mistake::new(&note.path, &note.message)));
        let mut refused = refused.peekable();
        if refused.peek().is_some() {
            // What its resources lack by that is no mistake of theirs.
            self.read.mistakes.extend(refused);
            return true;
        }
        for resource in converted.resources {
            let name = resource.body.get("name").cloned().unwrap_or_default();
            let name = name.as_str().unwrap_or_default();
            let Some(kind) = ResourceKind::of(resource.kind) else {
                continue;
            };
            let own = format!("{}[{name}]", resource.kind);
            let mut body = resource.body;
            // Who brings keys along from elsewhere goes on using them; here only the hash is kept.
            if let (ResourceKind::Key, Some(secret)) = (kind, body.remove("secret")) {
                let hash = KeyHash::of(secret.as_str().unwrap_or_default().as_bytes());
                body.insert("hash".into(), hash.value());
            }
            self.read.documents.push(Document {
                kind,
                path: below(path, Mistake::new(own, "")).path,
                node: Node::of(&body.into()),
            });
        }
        let notes = converted.notes.into_iter();
        self.read
            .notes
            .extend(notes.map(|note| (path.to_owned(), note)));
        true
    }
}

fn below(path: &str, mistake: Mistake) -> Mistake {
    match path {
        "" => mistake,
        path if mistake.path.is_empty() => Mistake::new(path, mistake.message),
        path => Mistake::new(format!("{path}.{}", mistake.path), mistake.message),
    }
}

fn is_section(word: &str) -> bool {
    let sections = KINDS.iter().chain(&TABLES);
    sections.map(|kind| kind.name).any(|name| name == word)
}

fn words() -> Vec<&'static str> {
    ResourceKind::ALL.iter().map(|kind| kind.word()).collect()
}
