//! Durations and sizes: text with a unit, because a bare number leaves the unit to the reader's luck.

use std::fmt;
use std::time::Duration;

use super::{FromText, Invalid, Node, Value};

/// A number of bytes, written `"64KiB"`, `"32MiB"`, `"1GiB"` (or `KB`, `MB`, `GB`, by thousands).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl Size {
    /// So many times 1024 bytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// So many times 1024² bytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// So many times 1024³ bytes.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let whole = units
            .iter()
            .find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit));
        match whole {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

const SIZE_HELP: &str =
    "write a number with its unit: \"64KiB\", \"32MiB\", \"1GiB\" (or B, KB, MB, GB)";

impl FromText for Size {
    const EXPECTED: &'static str = "a size with its unit";
    const EXAMPLE: &'static str = "32MiB";
    const PATTERN: Option<&'static str> = Some("^[0-9]+(B|[KMG]i?B)$");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        let units = [
            ("B", 1),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("KB", 1000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
        ];
        with_unit(text, &units, "a size")
            .map(Self)
            .map_err(|e| e.help(SIZE_HELP))
    }

    fn to_text(&self) -> String {
        self.to_string()
    }

    fn help_for_other(node: &Node) -> Option<String> {
        number(node).map(|n| format!("write the unit: \"{n}B\", \"{n}KiB\" or \"{n}MiB\""))
    }
}

const DURATION_HELP: &str =
    "write a whole number with its unit: \"1500ms\", \"30s\", \"5m\", \"24h\", \"7d\"";

impl FromText for Duration {
    const EXPECTED: &'static str = "a duration with its unit";
    const EXAMPLE: &'static str = "30s";
    const PATTERN: Option<&'static str> = Some("^[0-9]+(ms|s|m|h|d)$");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        let units = [
            ("ms", 1),
            ("s", 1000),
            ("m", 60_000),
            ("h", 3_600_000),
            ("d", 86_400_000),
        ];
        with_unit(text, &units, "a duration")
            .map(Self::from_millis)
            .map_err(|e| e.help(DURATION_HELP))
    }

    fn to_text(&self) -> String {
        // The unit a person would choose: 120s rather than 2m, but 10m rather than 600s.
        let seconds = self.as_secs();
        let units = [(86_400, 2, "d"), (3600, 2, "h"), (60, 5, "m")];
        let fits = |&&(unit, least, _): &&(u64, u64, _)| {
            seconds.is_multiple_of(unit) && seconds / unit >= least
        };
        match units.iter().find(fits) {
            _ if self.subsec_millis() > 0 => format!("{}ms", self.as_millis()),
            Some((unit, _, name)) => format!("{}{name}", seconds / unit),
            None => format!("{seconds}s"),
        }
    }

    fn help_for_other(node: &Node) -> Option<String> {
        number(node).map(|n| format!("write the unit: \"{n}ms\", \"{n}s\" or \"{n}m\""))
    }
}

crate::text_in_document!(Size, Duration);

/// The whole number a node holds, if it is one.
fn number(node: &Node) -> Option<i64> {
    match node.value {
        Value::Int(number) if number >= 0 => Some(number),
        _ => None,
    }
}

/// Reads `<number><unit>`, spaces between allowed; the result is in the smallest unit.
fn with_unit(text: &str, units: &[(&str, u64)], what: &str) -> Result<u64, Invalid> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    if digits.is_empty() {
        return Err(Invalid::new(format!("not {what}")));
    }
    let Some((_, factor)) = units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
    else {
        return Err(Invalid::new(match unit {
            "" => "the unit is missing".into(),
            _ if unit.starts_with('.') => "fractions are not accepted, use a smaller unit".into(),
            unit => format!("unknown unit {}", super::node::Quoted(unit)),
        }));
    };
    let number = digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(*factor));
    number.ok_or_else(|| Invalid::new("too large"))
}
