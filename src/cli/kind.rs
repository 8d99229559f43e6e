//! Kinds of things as the command line names them.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command};

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gateway,
    Service,
    Upstream,
    Rule,
    Key,
    /// An entry of a chain.
    Plugin,
    Target,
    Certificate,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Gateway,
        Kind::Service,
        Kind::Upstream,
        Kind::Rule,
        Kind::Key,
        Kind::Plugin,
        Kind::Target,
        Kind::Certificate,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Gateway => "gateway",
            Kind::Service => "service",
            Kind::Upstream => "upstream",
            Kind::Rule => "rule",
            Kind::Key => "key",
            Kind::Plugin => "plugin",
            Kind::Target => "target",
            Kind::Certificate => "certificate",
        }
    }

    /// Whether it is a resource of its own, which can be applied.
    pub(super) fn is_resource(self) -> bool {
        !matches!(self, Kind::Plugin | Kind::Target | Kind::Certificate)
    }

    /// The resource that bears exactly this name.
    pub(super) fn of_resource(name: &str) -> Option<Kind> {
        let mut all = Kind::ALL.into_iter();
        all.find(|kind| kind.is_resource() && kind.name() == name)
    }

    /// By its name, its plural, or the beginning of either if no other kind begins so.
    fn parse(text: &str) -> Result<Kind, String> {
        let text = text.to_lowercase();
        let begins =
            |kind: &Kind| !text.is_empty() && format!("{}s", kind.name()).starts_with(&text);
        let found: Vec<Kind> = Kind::ALL.into_iter().filter(begins).collect();
        match found.as_slice() {
            [kind] => Ok(*kind),
            _ => {
                let names = Kind::ALL.map(Kind::name).join(", ");
                Err(format!("'{text}' is no kind; it is one of {names}"))
            }
        }
    }
}

/// Reads a [`Kind`]; its values are known to shells that complete.
#[derive(Clone)]
pub(super) struct KindParser;

impl TypedValueParser for KindParser {
    type Value = Kind;

    fn parse_ref(
        &self,
        command: &Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Kind, clap::Error> {
        let parsed = Kind::parse(&value.to_string_lossy());
        parsed.map_err(|message| {
            clap::Error::raw(ErrorKind::InvalidValue, message + "\n").with_cmd(command)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names = Kind::ALL.into_iter().map(|kind| kind.name());
        Some(Box::new(names.map(PossibleValue::new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_plurals_and_beginnings() {
        for kind in Kind::ALL {
            let plural = format!("{}s", kind.name());
            for end in 1..=plural.len() {
                assert_eq!(Kind::parse(&plural[..end]), Ok(kind), "{plural} {end}");
            }
        }
        assert_eq!(Kind::parse("Services"), Ok(Kind::Service));
        for wrong in ["", "servicess", "listener", "x", "gateway "] {
            let told = Kind::parse(wrong).unwrap_err();
            assert!(told.contains("upstream"), "{told}");
        }
    }
}
