//! Patterns by which requests are told apart: hosts and paths; and the template of a rewritten path. That of models is the sdk's, since
//! plugins tell models apart, too.

use std::fmt;

use tollgate_sdk::document::{FromText, Invalid};
use tollgate_sdk::text_in_document;

/// The hosts a gateway answers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// One host, in lower case.
    Exact(String),
    /// Every host that ends in a dot and this: `*.example.com` is `example.com` here.
    Wildcard(String),
    /// Every host.
    Any,
}

impl FromText for HostPattern {
    const EXPECTED: &'static str = "a host";
    const EXAMPLE: &'static str = "api.example.com";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let host = rest.split(['/', ':']).next().unwrap_or_default();
            return Err(Invalid::new(format!("a host has no scheme ({scheme})"))
                .help(format!("write the host alone: \"{host}\"")));
        }
        let lower = text.to_ascii_lowercase();
        let lower = lower.strip_suffix('.').unwrap_or(&lower);
        if lower.starts_with('[') && lower.ends_with(']') {
            return Ok(Self::Exact(lower.into()));
        }
        if let Some((host, port)) = lower.rsplit_once(':') {
            let message = format!("a host has no port ({port})");
            return Err(Invalid::new(message).help(format!("write the host alone: \"{host}\"")));
        }
        match lower.strip_prefix("*.") {
            Some(suffix) if is_host(suffix) => Ok(Self::Wildcard(suffix.into())),
            None if is_host(lower) => Ok(Self::Exact(lower.into())),
            _ if lower.contains('*') => Err(Invalid::new(
                "`*` may only stand for the first label, or alone",
            )
            .help("write \"api.example.com\", \"*.example.com\" or \"*\"")),
            _ => Err(Invalid::new("not a host")
                .help("write \"api.example.com\", \"*.example.com\" or \"*\"")),
        }
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Whether this is a host name or an IPv4 address: labels of letters, digits, `-` and `_`.
pub(crate) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// The paths a rule applies to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// One path.
    Exact(String),
    /// `/a/*` is `/a` here, and `/*` is empty: what stands before the last slash.
    Prefix(String),
    /// `/users/{id}/posts`, or with any rest: `/users/{id}/*`.
    Params {
        /// Between the slashes.
        segments: Vec<Segment>,
        /// Whether anything may follow.
        rest: bool,
    },
}

/// One segment of a path with parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Matches itself.
    Literal(String),
    /// Matches any one segment, under this name.
    Param(String),
}

impl PathPattern {
    /// The names of its parameters.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        let segments = match self {
            Self::Params { segments, .. } => segments.as_slice(),
            Self::Exact(_) | Self::Prefix(_) => &[],
        };
        segments.iter().filter_map(|segment| match segment {
            Segment::Param(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }
}

impl FromText for PathPattern {
    const EXPECTED: &'static str = "a path";
    const EXAMPLE: &'static str = "/v1/*";
    const PATTERN: Option<&'static str> = Some("^/");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        check_path(text)?;
        let (path, rest) = match text.strip_suffix("/*") {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        if path.contains('*') {
            return Err(Invalid::new("`*` may only be the last segment")
                .help("write \"/v1/*\" for everything below /v1, or \"/v1/{name}/files\" for any one segment"));
        }
        if !path.contains(['{', '}']) {
            return Ok(if rest {
                Self::Prefix(path.into())
            } else {
                Self::Exact(path.into())
            });
        }
        let mut segments = Vec::new();
        for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
            segments.push(segment_of(segment, &segments)?);
        }
        Ok(Self::Params { segments, rest })
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// One segment; `before` are those it may not share a parameter's name with.
fn segment_of(text: &str, before: &[Segment]) -> Result<Segment, Invalid> {
    let name = text
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'));
    let Some(name) = name else {
        if text.contains(['{', '}']) {
            return Err(Invalid::new("a parameter must be a whole segment")
                .help("for example \"/users/{id}/posts\""));
        }
        return Ok(Segment::Literal(text.into()));
    };
    if !is_param(name) {
        return Err(Invalid::new(format!("`{{{name}}}` is not a parameter"))
            .help("letters, digits and _ between the braces, for example \"/users/{id}\""));
    }
    let segment = Segment::Param(name.into());
    if before.contains(&segment) {
        return Err(
            Invalid::new(format!("the parameter `{{{name}}}` stands here twice"))
                .help("give each parameter a name of its own"),
        );
    }
    Ok(segment)
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(path) => write!(f, "{path}/*"),
            Self::Params { segments, rest } => {
                for segment in segments {
                    match segment {
                        Segment::Literal(text) => write!(f, "/{text}")?,
                        Segment::Param(name) => write!(f, "/{{{name}}}")?,
                    }
                }
                f.write_str(if *rest { "/*" } else { "" })
            }
        }
    }
}

/// The path sent instead of the client's; its parameters are the rule's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rewrite {
    /// In order; put together they are the path.
    pub pieces: Vec<RewritePiece>,
}

/// A piece of a rewritten path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RewritePiece {
    /// As it stands.
    Literal(String),
    /// What the parameter of this name matched.
    Param(String),
}

impl Rewrite {
    /// The names of the parameters it uses.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            RewritePiece::Param(name) => Some(name.as_str()),
            RewritePiece::Literal(_) => None,
        })
    }
}

impl FromText for Rewrite {
    const EXPECTED: &'static str = "a path";
    const EXAMPLE: &'static str = "/v2/users/{id}";
    const PATTERN: Option<&'static str> = Some("^/");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        check_path(text)?;
        let braces = || {
            Invalid::new("braces that do not enclose a parameter")
                .help("for example \"/v2/users/{id}\"")
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(braces)?;
            if literal.contains('}') || !is_param(name) {
                return Err(braces());
            }
            if !literal.is_empty() {
                pieces.push(RewritePiece::Literal(literal.into()));
            }
            pieces.push(RewritePiece::Param(name.into()));
            rest = after;
        }
        if rest.contains('}') {
            return Err(braces());
        }
        if !rest.is_empty() {
            pieces.push(RewritePiece::Literal(rest.into()));
        }
        Ok(Self { pieces })
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            RewritePiece::Literal(text) => f.write_str(text),
            RewritePiece::Param(name) => write!(f, "{{{name}}}"),
        })
    }
}

fn is_param(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A path begins with a slash and holds neither a query nor what a request line cannot.
pub(crate) fn check_path(text: &str) -> Result<(), Invalid> {
    if !text.starts_with('/') {
        return Err(Invalid::new("a path begins with a slash").help(format!("write \"/{text}\"")));
    }
    if text.contains(['?', '#']) {
        return Err(Invalid::new("a path has neither query nor fragment")
            .help("leave out what begins with ? or #"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(
            Invalid::new("spaces and characters outside ASCII must be percent-encoded")
                .help("a space is %20"),
        );
    }
    Ok(())
}

text_in_document!(HostPattern, PathPattern, Rewrite);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_printed_as_they_are_typed() {
        for host in [
            "*",
            "api.example.com",
            "*.example.com",
            "127.0.0.1",
            "[::1]",
            "a_b",
        ] {
            assert_eq!(
                HostPattern::from_text(host).map(|h| h.to_text()).as_deref(),
                Ok(host)
            );
        }
        assert_eq!(
            HostPattern::from_text("API.Example.com."),
            Ok(HostPattern::Exact("api.example.com".into()))
        );
        for path in [
            "/",
            "/*",
            "/a",
            "/a/",
            "/a/*",
            "/users/{id}/posts",
            "/{a}/{b}/*",
        ] {
            assert_eq!(
                PathPattern::from_text(path).map(|p| p.to_text()).as_deref(),
                Ok(path)
            );
        }
        for path in ["/", "/v2/{id}", "/{a}-{b}.json"] {
            assert_eq!(
                Rewrite::from_text(path).map(|p| p.to_text()).as_deref(),
                Ok(path)
            );
        }
    }

    #[test]
    fn a_prefix_is_what_stands_before_the_last_slash() {
        assert_eq!(
            PathPattern::from_text("/*"),
            Ok(PathPattern::Prefix(String::new()))
        );
        assert_eq!(
            PathPattern::from_text("/a/*"),
            Ok(PathPattern::Prefix("/a".into()))
        );
        let segments = vec![Segment::Literal("a".into()), Segment::Param("id".into())];
        assert_eq!(
            PathPattern::from_text("/a/{id}/*"),
            Ok(PathPattern::Params {
                segments,
                rest: true
            })
        );
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for host in [
            "", "a b", "*.", "a.*", "**", "-a", "a..b", "http://a", "a:80", "*.*.a",
        ] {
            assert!(HostPattern::from_text(host).is_err(), "{host}");
        }
        for path in [
            "", "a", "/a*", "/*/a", "/a?b", "/{", "/{a", "/{}", "/{a-b}", "/x{a}", "/{a}/{a}", "/é",
        ] {
            assert!(PathPattern::from_text(path).is_err(), "{path}");
        }
        for path in ["", "a", "/{", "/}", "/{}", "/{a b}", "/{a}}"] {
            assert!(Rewrite::from_text(path).is_err(), "{path}");
        }
    }
}
