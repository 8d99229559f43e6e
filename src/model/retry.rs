//! Retry: further tries on other targets of a service.

use std::time::Duration;

use tollgate_sdk::document::{
    At, Document, Field, FromNode, FromText, Invalid, Json, Node, Reading, Value, json,
};
use tollgate_sdk::{document, text_in_document};

use super::switch::{refuse, switched, with_switch};

document! {
    /// Further tries on other targets of the service, before anything has reached the client.
    pub struct Retry (default custom) {
        /// How many further tries; 0 is none.
        #[range(0..=100)]
        attempts: u32 = 2,
        /// What is tried again: "connect" (no connection), "timeout" (before the first byte), "5xx", or single statuses such as "503".
        on: Vec<RetryOn> = vec![RetryOn::Connect, RetryOn::Timeout, RetryOn::ServerError],
        /// The pause before the first further try, at most: it doubles with each, and a random part of it is waited.
        backoff: Duration = Duration::from_millis(25),
        /// The longest pause of all.
        max_backoff: Duration = Duration::from_secs(1),
        /// The part of the service's requests, from 0.0 to 1.0, that may be tried again; ten a second always may.
        #[range(0..=1)]
        budget: f64 = 0.2,
    }
}

document! {
    /// Further tries, where they differ from the service's.
    pub struct PartialRetry (default custom) {
        /// How many further tries; 0 is none.
        #[example = 2]
        #[range(0..=100)]
        attempts: Option<u32>,
        /// What is tried again.
        #[example = ["connect", "timeout", "5xx"]]
        on: Option<Vec<RetryOn>>,
        /// The pause before the first further try, at most.
        #[example = "25ms"]
        backoff: Option<Duration>,
        /// The longest pause of all.
        #[example = "1s"]
        max_backoff: Option<Duration>,
        /// The part of the service's requests that may be tried again.
        #[example = 0.2]
        #[range(0..=1)]
        budget: Option<f64>,
    }
}

impl PartialRetry {
    /// The service's retry with what differs put in its place.
    pub fn over(&self, service: &Retry) -> Retry {
        Retry {
            attempts: self.attempts.unwrap_or(service.attempts),
            on: self.on.as_ref().unwrap_or(&service.on).clone(),
            backoff: self.backoff.unwrap_or(service.backoff),
            max_backoff: self.max_backoff.unwrap_or(service.max_backoff),
            budget: self.budget.unwrap_or(service.budget),
        }
    }
}

/// Read from a table, or from "off", which is no attempts, or "on", which is the defaults.
impl FromNode for Retry {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        match switched(node) {
            Some(true) => Some(Self::default()),
            Some(false) => Some(Self {
                attempts: 0,
                ..Self::default()
            }),
            None if node.as_table().is_some() => {
                let read = <Self as Document>::read(node, at, r)?;
                check((read.backoff, read.max_backoff), read.budget, node, at, r);
                Some(read)
            }
            None => {
                refuse::<Self>(node, at, r);
                None
            }
        }
    }

    fn schema() -> Json {
        with_switch(<Self as Document>::schema())
    }

    fn value(&self) -> Json {
        self.value_fields().into()
    }

    fn example() -> Json {
        <Self as Document>::example()
    }

    fn fields() -> Vec<Field> {
        <Self as Document>::fields()
    }
}

/// Read from a table, or from "off", which is no attempts.
impl FromNode for PartialRetry {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        match switched(node) {
            Some(true) => Some(Self::default()),
            Some(false) => Some(Self {
                attempts: Some(0),
                ..Self::default()
            }),
            None if node.as_table().is_some() => {
                let read = <Self as Document>::read(node, at, r)?;
                let pauses = (
                    read.backoff.unwrap_or_default(),
                    read.max_backoff.unwrap_or(Duration::MAX),
                );
                check(pauses, read.budget.unwrap_or_default(), node, at, r);
                Some(read)
            }
            None => {
                refuse::<Self>(node, at, r);
                None
            }
        }
    }

    fn schema() -> Json {
        with_switch(<Self as Document>::schema())
    }

    fn value(&self) -> Json {
        self.value_fields().into()
    }

    fn example() -> Json {
        <Self as Document>::example()
    }

    fn fields() -> Vec<Field> {
        <Self as Document>::fields()
    }
}

fn check(
    (backoff, max_backoff): (Duration, Duration),
    budget: f64,
    node: &Node,
    at: &At<'_>,
    r: &mut Reading<'_>,
) {
    if let (false, Some(given)) = ((0.0..=1.0).contains(&budget), node.entry("budget")) {
        let message = "a part of all requests is from 0.0 to 1.0";
        let help = format!("for example: {}", r.format.field("budget", &json!(0.2)));
        r.error(given.span, &at.field("budget"), message, help);
    }
    warn_above(
        ("backoff", backoff),
        ("max_backoff", max_backoff),
        node,
        at,
        r,
    );
}

/// Warns of a first pause above the longest.
pub(super) fn warn_above(
    (name, first): (&str, Duration),
    (max_name, max): (&str, Duration),
    node: &Node,
    at: &At<'_>,
    r: &mut Reading<'_>,
) {
    let given = node
        .entry(name)
        .map(|node| (name, node))
        .or_else(|| Some((max_name, node.entry(max_name)?)));
    if let (true, Some((at_name, given))) = (first > max, given) {
        let message = format!("`{name}` is above `{max_name}`");
        let help = format!("no pause is longer than `{max_name}`: raise it, or lower `{name}`");
        r.warn(given.span, &at.field(at_name), message, help);
    }
}

/// What is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryOn {
    /// A target that could not be connected to, or that broke off before its first byte.
    Connect,
    /// A target that did not answer in time.
    Timeout,
    /// Every status from 500 to 599.
    ServerError,
    /// This status: 500 to 599.
    Status(u16),
}

impl RetryOn {
    /// Whether an answer with this status is tried again.
    pub fn covers(self, status: u16) -> bool {
        match self {
            Self::Connect | Self::Timeout => false,
            Self::ServerError => (500..=599).contains(&status),
            Self::Status(own) => own == status,
        }
    }
}

const CAUSES: &str = "write \"connect\", \"timeout\", \"5xx\", or a status such as \"503\"";

impl FromText for RetryOn {
    const EXPECTED: &'static str = "what is tried again";
    const EXAMPLE: &'static str = "5xx";
    const PATTERN: Option<&'static str> = Some("^(connect|timeout|5xx|5[0-9][0-9])$");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        match text {
            "connect" => return Ok(Self::Connect),
            "timeout" => return Ok(Self::Timeout),
            "5xx" => return Ok(Self::ServerError),
            _ => {}
        }
        let status = Some(text).filter(|text| text.len() == 3);
        match status.and_then(|text| text.parse::<u16>().ok()) {
            Some(status @ 500..=599) => Ok(Self::Status(status)),
            Some(429) => Err(Invalid::new("a 429 is not tried on other targets")
                .help("turn on the service's `queue`: it waits, then sends again")),
            Some(_) => {
                Err(Invalid::new("only statuses from 500 to 599 are tried again").help(CAUSES))
            }
            None => Err(Invalid::new("not something that is tried again").help(CAUSES)),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Connect => "connect".into(),
            Self::Timeout => "timeout".into(),
            Self::ServerError => "5xx".into(),
            Self::Status(status) => status.to_string(),
        }
    }

    fn help_for_other(node: &Node) -> Option<String> {
        match node.value {
            Value::Int(status @ 500..=599) => Some(format!("write it in quotes: \"{status}\"")),
            _ => Some(CAUSES.into()),
        }
    }
}

text_in_document!(RetryOn);
