//! Why a body was refused.
//!
//! It owns the words a client reads, and no rule: those are where the fault is found. A message quotes the
//! client's own keys, escaped, and nothing else of the body.

use std::fmt;

/// Why a body was not understood, in words a client can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeekError {
    /// Offset from the start of the body: of the offending byte, or of where the offending key, string or
    /// value begins.
    pub at: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is not a JSON object.
    NotObject,
    /// It ends inside the object.
    Truncated,
    /// Something other than whitespace follows the object.
    Trailing,
    /// The grammar of JSON wants this instead.
    Expected(&'static str),
    /// A string has a control character, an unknown escape, a lone surrogate or is not UTF-8.
    Text(&'static str),
    /// A number that no 64-bit float can hold, or of more than 1,024 characters.
    Number,
    /// Containers are nested deeper than 127.
    TooDeep,
    /// This key came before: an engine might take the other value.
    DuplicateKey(Box<str>),
    /// A key differs from a known one in letter case only: an engine might take it for the same.
    Lookalike(Box<str>, &'static str),
    /// More than 1,024 keys.
    TooManyKeys,
    /// A key of more than 1,024 bytes.
    KeyTooLong,
    /// A known field has to be something else.
    WrongType(&'static str, &'static str),
    /// A known field is longer than any sane value.
    TooLong(&'static str),
}

impl PeekError {
    pub(super) fn new(at: usize, fault: Fault) -> Self {
        Self { at, fault }
    }

    /// The known field that is to blame, for the `param` of an error.
    pub fn field(&self) -> Option<&'static str> {
        match self.fault {
            Fault::WrongType(field, _) | Fault::TooLong(field) | Fault::Lookalike(_, field) => {
                Some(field)
            }
            _ => None,
        }
    }
}

impl fmt::Display for PeekError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Fault::NotObject => f.write_str("not a JSON object"),
            Fault::Truncated => f.write_str("JSON object cut off"),
            Fault::Trailing => f.write_str("unexpected data after the JSON object"),
            Fault::Expected(what) => write!(f, "invalid JSON: expected {what}"),
            Fault::Text(flaw) => write!(f, "invalid JSON: {flaw} in a string"),
            Fault::Number => f.write_str("number out of range"),
            Fault::TooDeep => f.write_str("nested deeper than 127 levels"),
            Fault::DuplicateKey(key) => write!(f, "duplicate key {key:?}"),
            Fault::Lookalike(key, field) => {
                write!(f, "key {key:?} could be mistaken for {field:?}")
            }
            Fault::TooManyKeys => f.write_str("too many keys"),
            Fault::KeyTooLong => f.write_str("key longer than 1024 bytes"),
            Fault::WrongType(field, expected) => write!(f, "{field:?} must be {expected}"),
            Fault::TooLong(field) => write!(f, "{field:?} is too long"),
        }?;
        write!(f, " at byte {}", self.at)
    }
}

impl std::error::Error for PeekError {}
