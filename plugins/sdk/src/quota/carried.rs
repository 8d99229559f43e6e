//! What limits that time gives back have counted, as one process tells it to the next.
//!
//! Two processes have no clock in common, so times are told as ages. What is on its way meanwhile makes an age too short, never too long:
//! nothing counts for less time than it should.

use serde::{Deserialize, Serialize};

/// What somebody has used of a limit lately.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    /// The limit's identity.
    pub limit: Box<str>,
    /// Who used it.
    pub who: Box<str>,
    /// What, by what rule.
    pub recent: Recent,
}

/// What was used, as the rule counts it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recent {
    /// Of a sliding window.
    Window {
        /// The most that is admitted.
        limit: u64,
        /// The window's length, in nanoseconds.
        length: u64,
        /// How long ago, in nanoseconds, and how much; the oldest first.
        admitted: Vec<(u64, u64)>,
    },
    /// Of a bucket.
    Bucket {
        /// What comes back in a second.
        rate: f64,
        /// What can be had at once.
        burst: u64,
        /// In how many nanoseconds it is full again.
        full_in: u64,
    },
}
