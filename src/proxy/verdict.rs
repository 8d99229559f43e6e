//! What becomes of a failed attempt: another target, another service, or the client hears of it.

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;
use log::Level;
use serde_json::json;
use tokio::time::Instant;

use super::exchange::Exchange;
use crate::control::events::EventKind;
use crate::health::{Failure, Ticket, Turn};
use crate::model::RetryOn;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Try another target of the same service.
    Retry,
    /// Wait in the service's queue, or try another service.
    Elsewhere,
    /// Nothing is left to try.
    Final,
}

/// Shortest and longest time a target may tell us to wait.
const WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// Judges an attempt that failed before anything reached the client, and tells the target's health.
pub(super) fn judge(x: &mut Exchange, failure: Failure) -> Verdict {
    x.failure = Some(failure);
    if is_over(x) {
        // Whoever was asked last is not to blame for the time that others took.
        return Verdict::Final;
    }
    blame(x, failure);
    if !x.replayable {
        return Verdict::Final;
    }
    if failure == Failure::Status(429) {
        let queues = x
            .offer
            .as_ref()
            .is_some_and(|offer| offer.service.queue.is_some());
        return match queues || x.has_fallback() {
            true => Verdict::Elsewhere,
            false => Verdict::Final,
        };
    }
    if may_retry(x, failure) {
        if let Some(offer) = &x.offer {
            offer.metrics.retried(reason(failure));
        }
        x.tried
            .extend(x.attempt.as_ref().map(|attempt| attempt.target));
        x.retries += 1;
        return Verdict::Retry;
    }
    match x.has_fallback() {
        true => Verdict::Elsewhere,
        false => Verdict::Final,
    }
}

/// Tells the target's health that it failed. What the client did, and 429, never comes here as such.
pub(super) fn blame(x: &mut Exchange, failure: Failure) {
    let turn = x
        .attempt
        .as_mut()
        .and_then(|attempt| attempt.ticket.failed(failure, Instant::now().into_std()));
    if turn == Some(Turn::Opened) {
        let index = x.attempt.as_ref().map_or(0, |attempt| attempt.target);
        let how = format!("opened: {}", reason(failure));
        tell(x, index, Level::Warn, "open", &how);
    }
}

/// Tells the target's health that it answered, at `now`.
pub(super) fn praise(x: &mut Exchange, now: Instant) {
    if let Some(mut attempt) = x.attempt.take() {
        praise_for(x, attempt.target, &mut attempt.ticket, now);
        x.attempt = Some(attempt);
    }
}

/// The same of the target at an index, which was asked beside another.
pub(super) fn praise_for(x: &Exchange, index: usize, ticket: &mut Ticket, now: Instant) {
    if ticket.succeeded(now.into_std()) == Some(Turn::Closed) {
        tell(x, index, Level::Info, "closed", "closed");
    }
}

/// A breaker turned: rare, and told without waiting.
fn tell(x: &Exchange, index: usize, level: Level, breaker: &str, how: &str) {
    let upstream = x.offer.as_ref().map(|offer| &offer.service.upstream);
    let Some((upstream, target)) = upstream.and_then(|u| Some((u, u.targets.get(index)?))) else {
        return;
    };
    let names = json!({"upstream": &*upstream.name, "target": &*target.label, "breaker": breaker});
    let message = format!("the breaker of {} {how}", target.label);
    x.account
        .events
        .announce(level, EventKind::Breaker, &message, names);
}

/// The target asked for patience: nobody asks it before that is over.
pub(super) fn cool(x: &mut Exchange, headers: &HeaderMap) {
    x.retry_after = retry_after(headers, jiff::Timestamp::now());
    if let (Some(wait), Some((upstream, index))) = (x.retry_after, super::peer::target(x))
        && let Some(target) = upstream.targets.get(index)
    {
        target.health.cool((Instant::now() + wait).into_std());
    }
}

/// How long an answer says to wait, in seconds or until a date, within bounds.
fn retry_after(headers: &HeaderMap, now: jiff::Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => {
            Duration::from_secs_f64(seconds.min(WAIT.1.as_secs_f64()))
        }
        Ok(_) => return None,
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(at.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.clamp(WAIT.0, WAIT.1))
}

pub(super) fn is_over(x: &Exchange) -> bool {
    x.timeouts
        .total
        .is_some_and(|total| x.started.elapsed() >= total)
}

fn may_retry(x: &Exchange, failure: Failure) -> bool {
    let Some(retry) = &x.retry else {
        return false;
    };
    let covered = retry.on.iter().any(|on| match failure {
        Failure::Connect | Failure::Reset | Failure::Protocol => *on == RetryOn::Connect,
        Failure::Timeout => *on == RetryOn::Timeout,
        Failure::Status(status) => on.covers(status),
    });
    covered
        && x.retries < retry.attempts
        && x.offer.as_ref().is_some_and(|offer| {
            offer
                .service
                .state
                .budget
                .withdraw(Instant::now().into_std())
        })
}

/// The metric's word for it.
pub(super) fn reason(failure: Failure) -> &'static str {
    match failure {
        Failure::Connect => "connect",
        Failure::Reset => "reset",
        Failure::Timeout => "timeout",
        Failure::Protocol => "protocol",
        Failure::Status(429) => "429",
        Failure::Status(_) => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_seconds_and_as_a_date_within_bounds() {
        let now: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        for (text, want) in [
            ("2", Some(2_000)),
            ("0", Some(100)),
            ("0.5", Some(500)),
            ("86400", Some(60_000)),
            ("Fri, 02 Jan 2026 03:04:08 GMT", Some(3_000)),
            ("Fri, 02 Jan 2026 03:00:00 GMT", Some(100)),
            ("soon", None),
            ("-1", None),
            ("NaN", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            let wait = retry_after(&headers, now).map(|wait| wait.as_millis());
            assert_eq!(wait, want, "{text}");
        }
    }
}
