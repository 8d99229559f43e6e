//! Scaling: how many replicas serve a service, by what is measured, and where requests wait while there is none.

use std::time::Duration;

use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading, json};

use super::health::refuse_zero;
use super::{Actuator, Role, Switch};

/// The longest window: what is remembered of a service is one slot for each of its seconds.
const LONGEST_WINDOW: Duration = Duration::from_secs(3600);

document! {
    /// How many replicas serve a service, and who starts and ends them.
    pub struct Scaling (default checked) {
        /// The fewest replicas; with 0, a service that nobody asks has none.
        #[range(0..=10000)]
        min: u32 = 0,
        /// The most replicas.
        #[range(1..=10000)]
        max: u32 = 8,
        /// Which of the targets are counted and are started, where the upstream has `disaggregation`; "both" are all.
        role: Role = Role::Both,
        /// What is measured.
        metric: ScalingMetric = ScalingMetric::InFlight,
        /// How much of that one replica is to have; of "ttft" and "itl", how many seconds they are to take.
        target: f64 = 8.0,
        /// Over how long it is measured, an hour at most.
        window: Duration = Duration::from_secs(60),
        /// How long more must be needed before there are more; the first one after none starts at once.
        up_delay: Duration = Duration::from_secs(30),
        /// How long fewer must be enough before there are fewer.
        down_delay: Duration = Duration::from_secs(600),
        /// How long a replica that is to end may finish what it has; it gets nothing new, and ends as soon as it has nothing.
        grace: Duration = Duration::from_secs(600),
        /// Where requests wait that no replica can take; "off" refuses them at once.
        hold: Switch<Hold> = Switch::On(Hold::default()),
        /// Who starts and ends replicas; "none" only tells how many there should be.
        actuator: Actuator = Actuator::None,
    }
}

document! {
    /// What is measured of a service.
    pub enum ScalingMetric {
        /// Requests being served or waiting, for each replica.
        InFlight = "in_flight",
        /// Requests that come in a second, for each replica.
        Rps = "rps",
        /// Requests that wait, for each replica.
        Queue = "queue",
        /// Seconds until the first token, on average.
        Ttft = "ttft",
        /// Seconds between tokens, on average.
        Itl = "itl",
        /// Tokens read and written in a second, for each replica.
        Tokens = "tokens",
    }
}

document! {
    /// Where requests wait that no replica can take.
    pub struct Hold (default checked) {
        /// How many requests may wait; the next is refused at once.
        #[range(1..=100000)]
        size: u32 = 1000,
        /// How long a request may wait.
        max_wait: Duration = Duration::from_secs(300),
        /// Whether requests wait even if a fallback could serve them.
        before_fallback: bool = false,
    }
}

impl Hold {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        refuse_zero([("max_wait", self.max_wait)], node, at, r);
        self
    }
}

impl Scaling {
    /// Whether targets of this role are its replicas.
    pub fn concerns(&self, role: Role) -> bool {
        self.role == Role::Both || self.role == role
    }

    /// Whether what is measured is divided among the replicas. The other metrics, times, tell how far too few or too many there are.
    pub fn is_shared(&self) -> bool {
        !matches!(self.metric, ScalingMetric::Ttft | ScalingMetric::Itl)
    }

    /// What concerns several fields.
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        refuse_zero([("window", self.window)], node, at, r);
        if let (true, Some(given)) = (self.window > LONGEST_WINDOW, node.entry("window")) {
            let help = "up to \"1h\"";
            r.error(given.span, &at.field("window"), "too long", help);
        }
        if let (true, Some(given)) = (self.target <= 0.0, node.entry("target")) {
            let help = format!("for example: {}", r.format.field("target", &json!(8.0)));
            r.error(given.span, &at.field("target"), "must be above 0", help);
        }
        if let (true, Some(given)) = (self.min > self.max, node.entry("min")) {
            let help = format!("up to `max`, which is {}", self.max);
            r.error(given.span, &at.field("min"), "above `max`", help);
        }
        if let (Actuator::Exec(exec), Some(given)) = (&self.actuator, node.entry("actuator")) {
            let ports = exec.ports.count();
            if ports < self.max {
                let message = format!("{ports} ports for up to {} replicas", self.max);
                let help = "give as many ports as `max`, for example \"9000-9007\" for 8";
                let at = at.field("actuator");
                r.error(given.span, &at.field("ports"), message, help);
            }
        }
        self
    }
}
