//! Which service serves an exchange: its own first, then its fallbacks, each once.
//!
//! Changing the service changes everything that is the service's: alias and body, time limits, retries, path prefix of
//! the targets, credential. What the client sent stays.

use std::sync::Arc;

use tokio::time::Instant;
use tollgate_sdk::llm::splice::Edits;

use super::exchange::{Exchange, InFlight};
use super::stream::Meter;
use crate::health::Standing;
use crate::snapshot::{Offer, Route, Service, Target};

impl Exchange {
    /// Takes the way that was decided on.
    pub(super) fn take_route(&mut self, route: Route) {
        self.target_path = route.path;
        self.rule = route.rule;
        let own = &route.offer.service.chain;
        let own = (!own.links.is_empty()).then(|| own.clone());
        self.chains = [own, route.chain];
        self.preserve_host = route.preserve_host;
        self.rule_fallback = route.fallback;
        self.timeouts = route.timeouts;
        route.offer.service.state.budget.deposit(route.retry.budget);
        self.retry = Some(route.retry);
        self.first = Some(route.offer.clone());
        self.enter(route.offer);
    }

    /// Makes this the service that serves.
    fn enter(&mut self, offer: Arc<Offer>) {
        self.in_flight = Some(InFlight::hold(&offer.metrics.handles().in_flight));
        self.retries = 0;
        self.tried.clear();
        self.split = None;
        self.offer = Some(offer);
    }

    /// Counts the request as asked of its service, if what is asked may scale something.
    pub(super) fn arrives(&self) {
        let service = self.offer.as_ref().map(|offer| &offer.service);
        let Some(service) = service.filter(|service| service.counts_demand()) else {
            return;
        };
        service.state.demand.came();
        if service.scaling().is_some() && service.upstream.targets.is_empty() {
            // Once one is to start there is nothing to hurry for.
            let scaled = service.state.scaled.load();
            if scaled.as_ref().is_none_or(|scaled| scaled.desired == 0) {
                service.state.demand.wake();
            }
        }
    }

    /// Goes on with the present targets of a service that is scaled: those of the request's own revision may have ended since, and what it waits for
    /// stands in none that was before.
    pub(super) fn renew(&mut self) {
        let (Some(offer), Some(gateway)) = (&self.offer, &self.gateway) else {
            return;
        };
        if offer.service.scaling().is_none() {
            return;
        }
        let snapshot = self.account.control.snapshot();
        let Some(present) = snapshot.offer(&gateway.name, &offer.service.name) else {
            return;
        };
        let (old, new) = (&offer.service.upstream, &present.service.upstream);
        // A pair of targets is known by its places among those that it was chosen from.
        let is_pair = old.disaggregation.is_some() && !old.targets.is_empty();
        if is_pair || Arc::ptr_eq(old, new) {
            return;
        }
        let tried = self.tried.iter().filter_map(|index| {
            let label = &old.targets.get(*index)?.label;
            new.targets.iter().position(|target| target.label == *label)
        });
        self.tried = tried.collect();
        self.offer = Some(present.clone());
    }

    /// Puts the service's alias and the wish for usage into the body.
    pub(super) fn splice_body(&mut self) {
        let meters = self
            .offer
            .as_ref()
            .is_some_and(|offer| offer.service.meters());
        let Some(peek) = self.peek.as_ref().filter(|_| meters) else {
            self.plan = Meter::None;
            self.body.splice(Edits::default());
            self.split_anew();
            return;
        };
        let edits = Edits::plan(peek, self.alias(), self.reports_usage);
        self.plan = Meter::Planned {
            strip: edits.usage_injected(),
        };
        self.body.splice(edits);
        self.split_anew();
    }

    /// The next service of the chain that may be able to serve, if there is one.
    fn next_in_chain(&self, now: Instant) -> Option<(usize, Arc<Offer>)> {
        let gateway = self.gateway.as_ref()?;
        let first = self.first.as_ref()?;
        let chain = self.rule_fallback.iter().chain(&first.fallback);
        for (place, index) in chain.enumerate().skip(self.passed) {
            let Some(offer) = gateway.router.offer(*index) else {
                continue;
            };
            let earlier = self.rule_fallback.iter().chain(&first.fallback).take(place);
            let known = Arc::ptr_eq(offer, first) || earlier.into_iter().any(|i| i == index);
            if !known && can_serve(&offer.service, now) {
                return Some((place + 1, offer.clone()));
            }
        }
        None
    }

    /// Whether there is a queue or a fallback beside the service's own targets.
    pub(super) fn has_other_ways(&self) -> bool {
        self.first.as_ref().is_some_and(|first| {
            first.service.queue.is_some()
                || first.service.scaling().is_some()
                || !first.fallback.is_empty()
                || !self.rule_fallback.is_empty()
        })
    }

    /// Whether another service could serve, and the request can be sent to it.
    pub(super) fn has_fallback(&self) -> bool {
        self.replayable && self.next_in_chain(Instant::now()).is_some()
    }

    /// Goes on to the next service that may be able to serve. `reason` is the metric's.
    pub(super) fn fall_back(&mut self, reason: &'static str) -> bool {
        if !self.replayable {
            return false;
        }
        let Some((passed, offer)) = self.next_in_chain(Instant::now()) else {
            return false;
        };
        if let Some(from) = &self.offer {
            from.metrics.fell_back(&offer.metrics, reason);
        }
        self.passed = passed;
        let total = self.timeouts.total;
        self.timeouts = offer.service.timeouts.clone();
        // The client's patience does not begin anew.
        self.timeouts.total = total;
        self.retry = Some(offer.service.retry.clone());
        self.enter(offer);
        self.arrives();
        self.splice_body();
        true
    }
}

/// Whether any target may be tried: one that is down, open or cooling would only cost an attempt.
fn can_serve(service: &Service, now: Instant) -> bool {
    let now = now.into_std();
    let upstream = &service.upstream;
    let stands = |target: &Target| {
        let reachable = target.url.is_local() || target.state.resolved();
        let standing = target.health.standing(now);
        reachable && (standing.share().is_some() || standing == Standing::Unchecked)
    };
    match &upstream.disaggregation {
        Some(split) => split.can_serve(&upstream.targets, stands),
        None => upstream.targets.iter().any(stands),
    }
}
