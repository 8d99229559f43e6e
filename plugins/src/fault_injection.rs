//! `fault_injection`: breaks a share of the exchanges on purpose, so that an operator sees what clients, limits and `on_error` make of it.
//!
//! It owns which exchanges are struck: a hash of the request's id decides, so that a repeated id meets the same fate.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading};
use tollgate_sdk::plugin::{
    Builds, Built, Exchange, Host, Needs, Outcome, Plugin, Refusal, ResponseHead, Stage, State,
    Step, Verdict,
};

document! {
    /// Breaks a share of the exchanges on purpose, in the stage its entry names. For tests and drills.
    pub struct FaultInjection (checked) {
        /// What is done.
        #[example = "refuse"]
        fault: Fault,
        /// To what share of the exchanges, 0 to 1.
        share: f64 = 1.0,
        /// With which status, where it refuses.
        #[range(400..=599)]
        status: u16 = 503,
        /// For how long, where it delays.
        delay: Duration = Duration::from_secs(1),
    }
}

document! {
    /// What is done.
    pub enum Fault {
        /// The exchange is refused.
        Refuse = "refuse",
        /// It is delayed; stages of the answer, which cannot wait, pass.
        Delay = "delay",
        /// The plugin breaks down.
        Panic = "panic",
    }
}

impl FaultInjection {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        if let (false, Some(given)) = ((0.0..=1.0).contains(&self.share), node.entry("share")) {
            r.error(
                given.span,
                &at.field("share"),
                "out of range",
                "from 0 to 1",
            );
        }
        self
    }
}

impl Builds for FaultInjection {
    const NAME: &'static str = "fault_injection";
    const STAGES: &'static [Stage] = &[
        Stage::PreRequest,
        Stage::PostRequest,
        Stage::PreResponse,
        Stage::PostResponse,
    ];
    const APART: bool = true;

    fn build(&self, _: &Host) -> Built {
        Arc::new(self.clone())
    }
}

/// Left for the later stages: this exchange is struck.
struct Struck;

impl FaultInjection {
    fn strikes(&self, id: &str) -> bool {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        // The upper bits as a number from 0 to 1.
        ((hash >> 11) as f64 / (1_u64 << 53) as f64) < self.share
    }

    fn strike(&self) -> Verdict {
        match self.fault {
            Fault::Refuse => Err(Refusal::new(
                self.status,
                "fault_injected",
                "A fault was injected here.",
            )),
            Fault::Delay => Ok(()),
            Fault::Panic => break_down(),
        }
    }

    fn strike_in_time(&self) -> Step<'_> {
        match self.fault {
            Fault::Delay => Step::Wait(Box::pin(async {
                tokio::time::sleep(self.delay).await;
                Ok(())
            })),
            Fault::Refuse | Fault::Panic => self.strike().into(),
        }
    }
}

#[allow(clippy::panic, reason = "it is what was asked for")]
fn break_down() -> ! {
    panic!("a fault was injected")
}

impl Plugin for FaultInjection {
    fn needs(&self) -> Needs {
        Needs {
            chunks: self.fault == Fault::Panic,
            waiting: self.fault == Fault::Delay,
            ..Needs::default()
        }
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        match self.strikes(x.request.id()) {
            true => self.strike_in_time(),
            false => Step::PASS,
        }
    }

    fn post_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        self.pre_request(x)
    }

    fn pre_response(&self, x: &mut Exchange<'_>, _: &mut ResponseHead<'_>) -> Verdict {
        match (self.strikes(x.request.id()), self.fault) {
            (false, _) => Ok(()),
            (true, Fault::Panic) => {
                // Later, in the middle of the answer.
                x.state.put(Struck);
                Ok(())
            }
            (true, _) => self.strike(),
        }
    }

    fn chunk(&self, state: &mut State, chunk: Bytes, _: bool) -> Result<Bytes, Refusal> {
        match state.get::<Struck>() {
            Some(Struck) => break_down(),
            None => Ok(chunk),
        }
    }

    fn post_response<'a>(&'a self, _: &'a mut State, _: &'a Outcome) -> Step<'a> {
        self.strike_in_time()
    }
}
