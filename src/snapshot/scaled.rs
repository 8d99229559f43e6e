//! How the scaling of a service stands: told by who scales it, shown by status, metrics and the admin API.

use std::time::SystemTime;

/// How many replicas there should be and are, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaled {
    /// How many there should be.
    pub desired: u32,
    /// Those that serve.
    pub ready: u32,
    /// Those that start.
    pub starting: u32,
    /// Those that finish what they have.
    pub draining: u32,
    /// Why there should be so many, in words.
    pub reason: String,
    /// When that number was last changed.
    pub changed_at: SystemTime,
    /// The metric, by its name in the configuration.
    pub metric: &'static str,
    /// What was measured of it over the window, all replicas together; none: nothing was.
    pub measured: Option<f64>,
    /// What is wrong with starting and ending them, if anything is.
    pub problem: Option<String>,
}
