//! Limits that count in tests: the engine's part of what plugins declare.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value as Json;
use tollgate_sdk::llm::usage::Usage;
use tollgate_sdk::plugin::{
    Built, By, Charge, Charged, End, Exchange, Host, Leases, Needs, Plugin, Principal, Request,
    State, Step, Verdict, charge, estimate,
};
use tollgate_sdk::quota::{Local, ManualClock, Standings};

use super::{host, plugin_on};

/// Limits that count, by a clock that the test moves.
pub(crate) struct Counting {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) quota: Arc<Local>,
}

impl Counting {
    /// From the beginning of 1970.
    pub(crate) fn new() -> Self {
        Self::at(0)
    }

    /// From so many seconds after the beginning of 1970.
    pub(crate) fn at(unix: u64) -> Self {
        let clock = Arc::new(ManualClock::at(unix));
        let quota = Arc::new(Local::with_clock(clock.clone()));
        Self { clock, quota }
    }

    /// The plugin of this name with settings that must be right, counting here.
    pub(crate) fn plugin(&self, name: &str, settings: Json) -> Built {
        let host = Host {
            quota: self.quota.clone(),
            ..host()
        };
        let plugin = plugin_on(&host, name, settings, None);
        Arc::new(Engine {
            charges: plugin.charges(),
            quota: self.quota.clone(),
            plugin,
        })
    }
}

/// A plugin with what the engine counts for it, which it keeps in the plugin's state.
struct Engine {
    plugin: Built,
    charges: Arc<[Charge]>,
    quota: Arc<Local>,
}

impl Plugin for Engine {
    fn needs(&self) -> Needs {
        let mut needs = self.plugin.needs();
        needs.request_peek |= self.charges.iter().any(Charge::reads_body);
        needs
    }

    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        if self.charges.is_empty() {
            return self.plugin.pre_request(x);
        }
        let mut counted = Counted {
            leases: x.state.take().unwrap_or_default(),
            request: x.request,
            standings: &mut x.edits.standings,
        };
        let taken = charge(&self.charges, &*self.quota, x.request.at, &mut counted);
        x.state.put(counted.leases);
        let verdict: Verdict = taken.map_err(|reached| self.plugin.refuse(&reached));
        verdict.into()
    }

    fn end(&self, state: &mut State, end: &mut End) {
        match state.get::<Leases>() {
            Some(leases) => leases.settle(end),
            None => self.plugin.end(state, end),
        }
    }
}

/// A call as limits see it.
struct Counted<'x> {
    request: Request<'x>,
    leases: Leases,
    standings: &'x mut Standings,
}

impl Charged for Counted<'_> {
    fn principal(&self) -> Option<&Principal> {
        self.request.principal
    }

    fn subject(&self, by: &By) -> Option<Cow<'_, str>> {
        by.subject(&self.request)
    }

    fn estimate(&self, default_output: u64) -> Usage {
        estimate(self.request.peek, self.request.length, default_output)
    }

    fn leases(&mut self) -> &mut Leases {
        &mut self.leases
    }

    fn standings(&mut self) -> &mut Standings {
        self.standings
    }
}
