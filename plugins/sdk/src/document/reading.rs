//! What is true while a document is read: where we are, what was wrong so far, what must never be shown.

use std::fmt;

use super::format::Format;
use super::{Node, Span};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document is accepted; its author should look.
    Warning,
}

/// One mistake and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What to point at.
    pub span: Span,
    /// The field: `service[1].timeouts.connect`. Empty for the whole document.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// Whether it refuses the document.
    pub severity: Severity,
}

/// The path to the value being read, a list through the callers' frames.
#[derive(Clone, Copy)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
}

impl At<'static> {
    /// The whole document.
    pub const ROOT: At<'static> = At {
        parent: None,
        step: Step::Root,
    };
}

impl<'a> At<'a> {
    /// The field `name` below this one.
    pub fn field(&'a self, name: &'a str) -> At<'a> {
        At {
            parent: Some(self),
            step: Step::Field(name),
        }
    }

    /// The element `index` below this one.
    pub fn index(&'a self, index: usize) -> At<'a> {
        At {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// What this one is below; the whole document is below nothing.
    pub fn parent(&self) -> Option<&'a At<'a>> {
        self.parent
    }

    /// The last name on the path, unless it ends in an index.
    pub fn name(&self) -> Option<&'a str> {
        match self.step {
            Step::Field(name) => Some(name),
            Step::Root | Step::Index(_) => None,
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Field(name) => {
                let first = self.parent.is_none_or(|p| matches!(p.step, Step::Root));
                write!(f, "{}{name}", if first { "" } else { "." })
            }
        }
    }
}

/// Reads the file a secret is kept in; the error is a sentence for the user.
pub type ReadFile<'a> = dyn Fn(&str) -> Result<String, String> + 'a;

/// Collects every problem of one reading.
pub struct Reading<'a> {
    /// What was wrong so far.
    pub problems: Vec<Problem>,
    /// Ranges whose text no diagnostic may show.
    pub masked: Vec<Span>,
    /// In which format examples are written.
    pub format: Format,
    read_file: &'a ReadFile<'a>,
}

impl<'a> Reading<'a> {
    /// A fresh reading. `read_file` serves `{ file = "…" }`, so that this crate does no I/O.
    pub fn new(format: Format, read_file: &'a ReadFile<'a>) -> Self {
        Self {
            problems: Vec::new(),
            masked: Vec::new(),
            format,
            read_file,
        }
    }

    /// Reports an error.
    pub fn error(&mut self, span: Span, at: &At<'_>, message: impl Into<String>, help: impl Help) {
        self.report(Severity::Error, span, at, message.into(), help.into_help());
    }

    /// Reports a warning.
    pub fn warn(&mut self, span: Span, at: &At<'_>, message: impl Into<String>, help: impl Help) {
        self.report(
            Severity::Warning,
            span,
            at,
            message.into(),
            help.into_help(),
        );
    }

    /// Reports a value of the wrong type: `expected` is "a whole number", `example` such a value.
    pub fn expected(
        &mut self,
        node: &Node,
        at: &At<'_>,
        expected: &str,
        example: &serde_json::Value,
    ) {
        let example = match at.name() {
            Some(name) => self.format.field(name, example),
            None => self.format.value(example),
        };
        let found = match self.masked.contains(&node.span) {
            true => "something else".to_owned(),
            false => node.found(),
        };
        self.error(
            node.span,
            at,
            format!("expected {expected}, found {found}"),
            format!("for example: {example}"),
        );
    }

    /// Forbids showing the text of `span` in any diagnostic.
    pub fn mask(&mut self, span: Span) {
        self.masked.push(span);
    }

    /// The content of a file named by the document.
    pub fn file(&self, path: &str) -> Result<String, String> {
        (self.read_file)(path)
    }

    /// Whether any problem refuses the document.
    pub fn failed(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
    }

    fn report(
        &mut self,
        severity: Severity,
        span: Span,
        at: &At<'_>,
        message: String,
        help: Option<String>,
    ) {
        self.problems.push(Problem {
            span,
            path: at.to_string(),
            message,
            help,
            severity,
        });
    }
}

/// What can be given as the help of a problem: text, or nothing as `()`.
pub trait Help {
    /// The help's text, if any.
    fn into_help(self) -> Option<String>;
}

impl Help for () {
    fn into_help(self) -> Option<String> {
        None
    }
}

impl Help for &str {
    fn into_help(self) -> Option<String> {
        Some(self.into())
    }
}

impl Help for String {
    fn into_help(self) -> Option<String> {
        Some(self)
    }
}

impl<T: Help> Help for Option<T> {
    fn into_help(self) -> Option<String> {
        self.and_then(T::into_help)
    }
}
