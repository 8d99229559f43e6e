//! Plugins and the end of an exchange: what it came to is settled at once, and what may take its time runs off the exchange's way.

use std::sync::Arc;

use prometheus::IntCounter;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tollgate_sdk::plugin::{End, Outcome, Stage, Step, Tokens};

use super::call::{Ended, unpanicked, waited};
use super::{Active, Running};
use crate::proxy::exchange::Exchange;

/// How many exchanges may be in their `post_response` stage at once.
const MOST: usize = 1024;

/// Where `post_response` stages run, so many at once.
pub(in crate::proxy) struct Afterwards {
    places: Arc<Semaphore>,
    dropped: IntCounter,
}

impl Afterwards {
    pub(in crate::proxy) fn new(dropped: IntCounter) -> Afterwards {
        Afterwards {
            places: Arc::new(Semaphore::new(MOST)),
            dropped,
        }
    }
}

/// What it came to is known at `now`: limits are settled, and plugins told. Done once, as early as possible: a client that has its answer finds what it held given back.
pub(in crate::proxy) fn finish(x: &mut Exchange, now: Instant) {
    if x.plugins.is_none() && x.leases.is_empty() {
        return;
    }
    let mut end = End {
        status: x.final_status(),
        tokens: x
            .usage()
            .map(|(usage, estimated)| Tokens { usage, estimated }),
        at: Some(now.into_std()),
        cost: None,
    };
    x.leases.settle(&end);
    let Some(mut running) = x.plugins.take() else {
        return;
    };
    if running.outcome.is_none() {
        tell_all(&mut running, &mut end);
        x.cost = end.cost;
        if !running.later {
            return;
        }
        running.outcome = Some(Box::new(outcome(x, end, now)));
    }
    x.plugins = Some(running);
}

fn tell_all(running: &mut Running, end: &mut End) {
    for active in &mut running.actives {
        let Active {
            chain, link, state, ..
        } = active;
        let Some(link) = chain.links.get(*link) else {
            continue;
        };
        if unpanicked(|| link.plugin.end(state, end)).is_none() {
            link.errors.inc();
            log::error!("the plugin {} panicked at the end", link.name);
        }
    }
}

/// Runs the `post_response` stages, if there are any, where they delay nobody.
pub(in crate::proxy) fn after(x: &mut Exchange, afterwards: &Afterwards) {
    let Some(mut running) = x.plugins.take() else {
        return;
    };
    let wanted = |active: &mut Active| {
        active
            .link()
            .is_some_and(|link| link.stages.has(Stage::PostResponse))
    };
    running.actives.retain(wanted);
    if running.actives.is_empty() {
        return;
    }
    let Ok(place) = afterwards.places.clone().try_acquire_owned() else {
        return afterwards.dropped.inc();
    };
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(async move {
            run(*running).await;
            drop(place);
        })),
        Err(_) => afterwards.dropped.inc(),
    }
}

async fn run(running: Running) {
    let Running {
        mut actives,
        outcome,
        ..
    } = running;
    let outcome = outcome.unwrap_or_default();
    for active in &mut actives {
        let Active {
            chain, link, state, ..
        } = active;
        let Some(link) = chain.links.get(*link) else {
            continue;
        };
        let ended = match unpanicked(|| link.plugin.post_response(state, &outcome)) {
            Some(Step::Done(verdict)) => Ended::Verdict(verdict),
            Some(Step::Wait(work)) => waited(work, link.timeout).await,
            None => Ended::Broken("panicked"),
        };
        if let Ended::Broken(how) = ended {
            link.errors.inc();
            log::error!("the plugin {} {how} after an exchange", link.name);
        }
    }
}

fn outcome(x: &Exchange, end: End, now: Instant) -> Outcome {
    Outcome {
        status: end.status,
        service: x.offer.as_ref().map(|offer| offer.service.name.clone()),
        model: x.asked_model().cloned(),
        tokens: end.tokens,
        duration: now.saturating_duration_since(x.started),
        first_byte: x
            .first_byte
            .map(|at| at.saturating_duration_since(x.started)),
        cost: end.cost,
    }
}
