//! How many replicas there should be: a function of what was measured, what is wanted and what was decided before. It knows no clock but the one
//! it is told, so that days can be replayed.
//!
//! How many are *wanted* follows Kubernetes' horizontal autoscaler: what is measured of all replicas, divided by what one is to have, rounded up;
//! of times, the present number times measured by wanted. What is within a tenth of what is wanted changes nothing. Whether that is *done* is
//! decided by time: more (or fewer) must have been wanted without a break for the delay of that direction, and then as many come as were wanted at
//! the least (or, of fewer, at the most) in that time. So a delay counts from the moment at which the intent began, whatever was done before.

use std::time::Duration;

use crate::model::Scaling;

/// How far what is measured may be from what is wanted, as a part of it.
const TOLERANCE: f64 = 0.1;
/// At most this many more at once, where doubling would be fewer.
const STEP: u32 = 4;

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Of the metric over the window: of all replicas together or, of times, their mean. None: there was nothing to measure.
    pub value: Option<f64>,
    /// Requests that came within the window.
    pub came: u64,
    /// Requests being served or waiting at this moment.
    pub in_flight: u64,
    /// Replicas that serve at this moment.
    pub ready: u32,
}

/// What is remembered from one decision to the next.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    desired: u32,
    intent: Option<Intent>,
    reason: String,
}

/// What is wanted, and has been for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Intent {
    more: bool,
    since: Duration,
    /// The one that was closest to what there is.
    mildest: u32,
}

/// A decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// How many there should be.
    pub desired: u32,
    /// Whether that is another number than before.
    pub changed: bool,
    /// Why there should be so many.
    pub reason: String,
}

impl Memory {
    /// There are so many now, for this reason.
    pub fn beginning(desired: u32, reason: impl Into<String>) -> Memory {
        Memory {
            desired,
            intent: None,
            reason: reason.into(),
        }
    }

    /// How many there should be as decided last.
    pub fn desired(&self) -> u32 {
        self.desired
    }
}

/// Decides at `now`, which only ever grows.
pub fn decide(
    scaling: &Scaling,
    measured: &Measured,
    memory: &mut Memory,
    now: Duration,
) -> Decision {
    if memory.desired < scaling.min || memory.desired > scaling.max {
        let bound = memory.desired.clamp(scaling.min, scaling.max);
        let reason = format!("between {} and {} are allowed", scaling.min, scaling.max);
        return settle(memory, bound, reason);
    }
    if memory.desired == 0 && (measured.came > 0 || measured.in_flight > 0) {
        // Whoever waits has nobody: there is nothing to be sure of.
        let first = wanted(scaling, measured, 0).clamp(1, STEP.min(scaling.max));
        return settle(
            memory,
            first,
            "there were none, and a request came".to_owned(),
        );
    }
    let wanted = wanted(scaling, measured, memory.desired).clamp(scaling.min, scaling.max);
    if wanted == memory.desired {
        memory.intent = None;
        return unchanged(memory);
    }
    let intent = intend(memory, wanted, now);
    let delay = match intent.more {
        true => scaling.up_delay,
        false => scaling.down_delay,
    };
    if now.saturating_sub(intent.since) < delay {
        return unchanged(memory);
    }
    let next = bounded(memory.desired, intent.mildest);
    let reason = explain(
        scaling,
        measured,
        memory.desired,
        next,
        intent.mildest,
        delay,
    );
    let decision = settle(memory, next, reason);
    if next != intent.mildest {
        // The rest of it is for when this can be seen in what is measured.
        let since = (now + scaling.window).saturating_sub(delay);
        memory.intent = Some(Intent { since, ..intent });
    }
    decision
}

/// How many replicas what was measured asks for, `present` being there; the bounds aside.
fn wanted(scaling: &Scaling, measured: &Measured, present: u32) -> u32 {
    // As long as somebody is served or came a moment ago, there is something to do.
    let least = u32::from(measured.in_flight > 0 || measured.came > 0);
    let Some(value) = measured.value else {
        return match scaling.is_shared() {
            true => least,
            // Without an answer nothing is known, unless it is that nobody asked.
            false => present * least,
        };
    };
    let of_present = value / scaling.target;
    let ratio = match (scaling.is_shared(), present) {
        (true, 0) => return whole(of_present).max(least),
        (true, present) => of_present / f64::from(present),
        (false, _) => of_present,
    };
    if (ratio - 1.0).abs() <= TOLERANCE {
        return present.max(least);
    }
    if !scaling.is_shared() {
        let starting = measured.ready < present;
        if ratio > 1.0 && starting {
            // What is measured does not know of those that start.
            return present;
        }
        return whole(f64::from(present.max(1)) * ratio).max(least) * least;
    }
    whole(of_present).max(least)
}

/// Rounded up, in bounds.
fn whole(number: f64) -> u32 {
    // What is a whole number but for the last digits of a division is that number. A cast of what is too large is the largest.
    (number - 1e-9).ceil().max(0.0) as u32
}

fn intend(memory: &mut Memory, wanted: u32, now: Duration) -> Intent {
    let more = wanted > memory.desired;
    let intent = match memory.intent {
        Some(intent) if intent.more == more => Intent {
            mildest: match more {
                true => intent.mildest.min(wanted),
                false => intent.mildest.max(wanted),
            },
            ..intent
        },
        _ => Intent {
            more,
            since: now,
            mildest: wanted,
        },
    };
    memory.intent = Some(intent);
    intent
}

/// One step from `from` towards `to`: at most twice as many or four more, whichever is more, and at most half of them fewer.
fn bounded(from: u32, to: u32) -> u32 {
    let most = from.saturating_mul(2).max(from.saturating_add(STEP));
    let least = from / 2;
    to.clamp(least, most)
}

fn settle(memory: &mut Memory, desired: u32, reason: String) -> Decision {
    *memory = Memory::beginning(desired, reason);
    Decision {
        changed: true,
        ..unchanged(memory)
    }
}

fn unchanged(memory: &Memory) -> Decision {
    Decision {
        desired: memory.desired,
        changed: false,
        reason: memory.reason.clone(),
    }
}

fn explain(
    scaling: &Scaling,
    measured: &Measured,
    from: u32,
    to: u32,
    wanted: u32,
    delay: Duration,
) -> String {
    let window = scaling.window.as_secs();
    let what = match (scaling.metric, measured.value) {
        (_, None) => format!("nothing came for {window} s"),
        (metric, Some(value)) if scaling.is_shared() => format!(
            "{} is {value:.1} over {window} s, {} for each replica",
            metric.word(),
            scaling.target
        ),
        (metric, Some(value)) => format!(
            "{} is {value:.3} s over {window} s instead of {} s",
            metric.word(),
            scaling.target
        ),
    };
    let direction = if to > from { "more" } else { "fewer" };
    let waited = match delay.is_zero() {
        true => String::new(),
        false => format!(" for {} s", delay.as_secs()),
    };
    let step = match to == wanted {
        true => String::new(),
        false => format!(", {to} in one step"),
    };
    format!("{what}: {wanted} wanted, {direction} than {from}{waited}{step}")
}
