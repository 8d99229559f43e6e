//! Misbehaviour on demand: what one request can be told to do, and how it is written.
//!
//! The vocabulary is one table, `Faults::set`, shared by the `x-sim` request header, the control
//! interface and the library. Which requests are hit is decided in `plan`; what then happens
//! is in `exchange` and `stream`. A name that does not exist is an error, so a test cannot
//! misspell a fault and pass.

use std::str::FromStr;
use std::time::Duration;

use super::config::{parse_duration, parse_size};
use super::text::percent_decode;

/// How one request departs from normal. The default is no departure at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    /// Answer with this status and an error body; 200 serves normally.
    pub status: Option<u16>,
    /// `Retry-After` of that answer.
    pub retry_after: Option<RetryAfter>,
    /// Body of that answer, instead of an error in OpenAI's shape.
    pub body: Option<String>,
    /// Wait this long after the request was read, before the head.
    pub delay: Option<Duration>,
    /// Answer with this status as soon as the request's head is there, leaving its body unread.
    pub early: Option<u16>,
    /// Read the body no faster than this many bytes per second.
    pub slow_read: Option<u64>,
    /// End the connection before any byte of the answer.
    pub drop: Option<Cut>,
    /// What happens in the middle of the answer.
    pub after: Option<After>,
    /// Overrides the engine's time to first token.
    pub ttft: Option<Duration>,
    /// Overrides the engine's time between tokens.
    pub itl: Option<Duration>,
    /// Overrides the engine's number of tokens; the request's own limit still holds.
    pub tokens: Option<usize>,
    /// Length in bytes of each streamed token's text.
    pub chunk: Option<usize>,
    /// Each streamed token's text is the time it was sent, in nanoseconds since 1970.
    pub stamp: bool,
    /// Report the request body's SHA-256 and length in response headers.
    pub hash: bool,
    /// Answer any path as `/sim/hash` does: with what was received.
    pub echo: bool,
    /// Overrides whether a streamed reply's head waits for the first token.
    pub late_head: Option<bool>,
}

/// A fault that strikes after `chunks` tokens of a streamed reply. Of a reply in one piece, 0 leaves
/// the head alone and anything more leaves the head and half of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// How many tokens get through.
    pub chunks: usize,
    /// What happens then.
    pub action: Midway,
}

/// How an answer can fail after it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Midway {
    /// Send nothing more and keep the connection until the client leaves.
    Stall,
    /// End the connection.
    Cut(Cut),
    /// Send an event that is not JSON, then go on.
    BreakEvent,
    /// Break the transfer coding (HTTP/1.1) or the stream (HTTP/2), then end the connection.
    BreakFraming,
}

/// Two ways a connection ends without a proper end of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// TCP FIN, as when a process dies. On HTTP/2 only the stream ends (`INTERNAL_ERROR`).
    Close,
    /// TCP RST. On HTTP/2 the whole connection goes.
    Reset,
}

/// The value of a `Retry-After` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryAfter {
    /// Delay in seconds.
    Seconds(u64),
    /// An HTTP date this many seconds from now.
    Date(u64),
    /// Any text, to be sent as it is.
    Text(String),
}

impl Faults {
    /// Sets one fault by its name in `x-sim`.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let after = |action| -> Result<Option<After>, String> {
            Ok(Some(After {
                chunks: number(value)?,
                action,
            }))
        };
        match name.replace('_', "-").as_str() {
            "status" => self.status = Some(status(value)?),
            "retry-after" => self.retry_after = Some(RetryAfter::read(value)?),
            "body" => self.body = Some(percent_decode(value)),
            "delay" => self.delay = Some(parse_duration(value)?),
            "early" => self.early = Some(status(value)?),
            "slow-read" => {
                let rate = parse_size(value.strip_suffix("/s").unwrap_or(value))?;
                self.slow_read = Some(rate.max(1));
            }
            "drop" => {
                self.drop = Some(match value {
                    "" | "true" | "close" => Cut::Close,
                    "reset" => Cut::Reset,
                    _ => return Err(format!("drop is `close` or `reset`, not `{value}`")),
                });
            }
            "stall-after" => self.after = after(Midway::Stall)?,
            "close-after" => self.after = after(Midway::Cut(Cut::Close))?,
            "reset-after" => self.after = after(Midway::Cut(Cut::Reset))?,
            "malformed-after" => self.after = after(Midway::BreakEvent)?,
            "garbage-after" => self.after = after(Midway::BreakFraming)?,
            "ttft" => self.ttft = Some(parse_duration(value)?),
            "itl" => self.itl = Some(parse_duration(value)?),
            "tokens" => self.tokens = Some(number(value)?),
            "chunk" => self.chunk = Some(parse_size(value)? as usize),
            "stamp" => self.stamp = switch(value)?,
            "hash" => self.hash = switch(value)?,
            "echo" => self.echo = switch(value)?,
            "late-head" => self.late_head = Some(switch(value)?),
            _ => return Err(format!("`{name}` is not a fault of the simulated engine")),
        }
        Ok(())
    }

    /// These faults, and for all they leave open, those of `other`.
    pub fn or(self, other: Self) -> Self {
        Self {
            status: self.status.or(other.status),
            retry_after: self.retry_after.or(other.retry_after),
            body: self.body.or(other.body),
            delay: self.delay.or(other.delay),
            early: self.early.or(other.early),
            slow_read: self.slow_read.or(other.slow_read),
            drop: self.drop.or(other.drop),
            after: self.after.or(other.after),
            ttft: self.ttft.or(other.ttft),
            itl: self.itl.or(other.itl),
            tokens: self.tokens.or(other.tokens),
            chunk: self.chunk.or(other.chunk),
            stamp: self.stamp || other.stamp,
            hash: self.hash || other.hash,
            echo: self.echo || other.echo,
            late_head: self.late_head.or(other.late_head),
        }
    }
}

/// Reads the `x-sim` header: `status=429, retry-after=2`.
impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut faults = Self::default();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let (name, value) = item.split_once('=').unwrap_or((item, ""));
            faults.set(name.trim(), value.trim())?;
        }
        Ok(faults)
    }
}

impl RetryAfter {
    fn read(value: &str) -> Result<Self, String> {
        if let Some(seconds) = value.strip_prefix("date:") {
            return number(seconds).map(Self::Date);
        }
        Ok(value
            .parse()
            .map_or_else(|_| Self::Text(percent_decode(value)), Self::Seconds))
    }
}

fn status(value: &str) -> Result<u16, String> {
    value
        .parse()
        .ok()
        .filter(|status| (200..=599).contains(status))
        .ok_or_else(|| format!("`{value}` is not a final HTTP status"))
}

fn number<T: FromStr>(value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("`{value}` is not a number"))
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("`{value}` is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_into_faults() {
        let faults: Faults = "status=429, retry-after=date:2,body=a%2Cb%"
            .parse()
            .unwrap();
        assert_eq!(faults.status, Some(429));
        assert_eq!(faults.retry_after, Some(RetryAfter::Date(2)));
        assert_eq!(faults.body.as_deref(), Some("a,b%"));
        let faults: Faults = "slow-read=64KiB/s, stamp, drop=reset, reset-after=3"
            .parse()
            .unwrap();
        assert_eq!(faults.slow_read, Some(65536));
        assert!(faults.stamp && !faults.hash);
        assert_eq!(faults.drop, Some(Cut::Reset));
        let after = After {
            chunks: 3,
            action: Midway::Cut(Cut::Reset),
        };
        assert_eq!(faults.after, Some(after));
        let soon: Faults = "retry-after=soon".parse().unwrap();
        assert_eq!(soon.retry_after, Some(RetryAfter::Text("soon".into())));
        assert_eq!("".parse(), Ok(Faults::default()));
    }

    #[test]
    fn mistakes_are_named() {
        for bad in [
            "statsu=500",
            "status=99",
            "status=abc",
            "delay=5x",
            "drop=maybe",
            "hash=2",
        ] {
            assert!(bad.parse::<Faults>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_wins_and_the_second_fills_in() {
        let header: Faults = "status=500".parse().unwrap();
        let plan: Faults = "status=429, delay=1s, hash".parse().unwrap();
        let both = header.or(plan);
        assert_eq!((both.status, both.hash), (Some(500), true));
        assert_eq!(both.delay, Some(Duration::from_secs(1)));
    }
}
