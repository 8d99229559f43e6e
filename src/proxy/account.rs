//! Phase 8: what it came to: metrics and the access line.
//!
//! Runs once for every exchange, from `logging` or, when that was never reached, when the exchange is dropped.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use tokio::time::Instant;

use super::disaggregate;
use super::exchange::Exchange;
use super::plugins::{self, Afterwards};
use crate::control::Control;
use crate::control::events::Events;
use crate::store::{Store, UsageRecord};
use crate::telemetry::{AccessLog, GatewayMetrics, Metrics, Owned, logger};

/// Where exchanges are accounted.
pub(crate) struct Account {
    metrics: Arc<Metrics>,
    /// Of requests to hosts that no gateway has.
    stray: Owned<GatewayMetrics>,
    access: AccessLog,
    /// What is in force.
    pub(super) control: Arc<Control>,
    store: Arc<dyn Store>,
    /// Where turns of targets are told.
    pub(super) events: Arc<Events>,
    afterwards: Afterwards,
    /// Exchanges that have not ended.
    pub(super) open: Arc<AtomicUsize>,
}

impl Account {
    pub(crate) fn new(access: AccessLog, control: &Arc<Control>) -> Account {
        let metrics = control.metrics().clone();
        Account {
            afterwards: Afterwards::new(metrics.plugins_dropped.clone()),
            stray: GatewayMetrics::of(&metrics, &"".into()),
            metrics,
            access,
            control: control.clone(),
            store: control.store().clone(),
            events: control.events().clone(),
            open: Arc::default(),
        }
    }

    /// Whether anybody reads the access log.
    pub(super) fn tells(&self) -> bool {
        self.access.on()
    }

    /// Takes an exchange out of the books: it is not a client's.
    pub(super) fn leave_out(x: &mut Exchange) {
        if !std::mem::replace(&mut x.accounted, true) {
            x.account.open.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Settles an exchange, once.
    pub(super) fn settle(&self, x: &mut Exchange) {
        if std::mem::replace(&mut x.accounted, true) {
            return;
        }
        self.open.fetch_sub(1, Ordering::AcqRel);
        disaggregate::release(x);
        x.status = x.final_status();
        if let Some(alarm) = &x.alarm {
            alarm.end(x.status == 499);
        }
        if x.client_left || x.status == 499 {
            x.client_left = true;
            self.metrics.client_disconnects.inc();
        }
        let now = Instant::now();
        give_back(x, now);
        plugins::after(x, &self.afterwards);
        let gateway = x.gateway.as_ref();
        let gateway = gateway.map_or(&self.stray, |gateway| &gateway.metrics);
        match &x.offer {
            Some(offer) => self.count(x, &offer.metrics, now),
            None => gateway.unserved(x.status),
        }
        if let Some(code) = x.error_code {
            gateway.rejected(code);
        }
        // Strangers leave no records: there is no end to them.
        if x.key.is_some() || x.offer.is_some() {
            self.store.record(record(x, now));
        }
        if self.access.on() {
            self.access.write(line(x, now));
        }
    }

    fn count(&self, x: &Exchange, offer: &crate::telemetry::OfferMetrics, now: Instant) {
        let handles = offer.handles();
        offer.answered(x.status);
        handles.duration.observe((now - x.started).as_secs_f64());
        if let Some(asked) = x.asked {
            let ours = asked
                .saturating_duration_since(x.started)
                .saturating_sub(x.body_wait);
            handles.overhead.observe(ours.as_secs_f64());
        }
        if let Some((usage, _)) = x.usage() {
            handles.input.inc_by(usage.input);
            handles.cached.inc_by(usage.cached);
            handles.output.inc_by(usage.output);
        }
    }
}

/// Nobody has anything more to do for it, as of `now`: what it held is given back. As early as that is known, and before the client
/// can see it: who has its answer finds room.
pub(super) fn give_back(x: &mut Exchange, now: Instant) {
    x.attempt = None;
    x.in_flight = None;
    plugins::finish(x, now);
}

fn record(x: &Exchange, now: Instant) -> UsageRecord {
    static NONE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));
    let or_none = |name: Option<&Arc<str>>| name.unwrap_or(&NONE).clone();
    let duration = now.saturating_duration_since(x.started);
    let (usage, estimated) = x.usage().unwrap_or_default();
    UsageRecord {
        at: x.at,
        gateway: or_none(x.gateway.as_ref().map(|gateway| &gateway.name)),
        key: or_none(x.key.as_ref().map(|key| &key.principal.name)),
        service: or_none(x.offer.as_ref().map(|offer| &offer.service.name)),
        model: or_none(x.asked_model()),
        status: x.status,
        input: usage.input,
        cached: usage.cached,
        output: usage.output,
        estimated,
        duration,
        first_byte: x
            .first_byte
            .map(|at| at.saturating_duration_since(x.started)),
        cost: x.cost,
    }
}

/// One JSON line. Field order is for reading, not a promise.
fn line(x: &Exchange, now: Instant) -> Vec<u8> {
    let mut line = Vec::with_capacity(384);
    let gateway = x.gateway.as_ref().map_or("", |gateway| &gateway.name);
    let service = x.offer.as_ref().map_or("", |offer| &offer.service.name);
    let target = x.attempt_label();
    let micros = |from: Instant| now.saturating_duration_since(from).as_micros();
    let _ = write!(
        line,
        r#"{{"time":"{}","request_id":{},"client":"{}","gateway":"{gateway}","service":"{service}","#,
        logger::now(),
        quoted(x.request_id.as_str()),
        x.client,
    );
    if let Some(key) = &x.key {
        // Whoever a token speaks of has the name that its issuer gave.
        let _ = write!(line, r#""key":{},"#, quoted(&key.principal.name));
    }
    let _ = write!(
        line,
        r#""method":{},"path":{},"#,
        quoted(&x.method),
        quoted(&x.path)
    );
    if let Some(model) = x.peek.as_ref().and_then(|peek| peek.model.as_ref()) {
        let _ = write!(line, r#""model":{},"#, quoted(&model.value));
    }
    let _ = write!(
        line,
        r#""status":{},"attempts":{},"target":{},"#,
        x.status,
        x.attempts,
        quoted(target)
    );
    if let Some(code) = x.error_code {
        let _ = write!(line, r#""error":"{code}","#);
    }
    if let Some(cause) = &x.cause {
        let _ = write!(line, r#""cause":{},"#, quoted(cause));
    }
    if let Some(first) = x.first_byte {
        let _ = write!(
            line,
            r#""first_byte_ms":{:.3},"#,
            first.saturating_duration_since(x.started).as_secs_f64() * 1e3
        );
    }
    if let Some((by, prefill, decode)) = disaggregate::told(x) {
        let _ = write!(line, r#""prefill":{},"#, quoted(by));
        for (name, took) in [("prefill_ms", prefill), ("decode_ms", decode)] {
            if let Some(took) = took {
                let _ = write!(line, r#""{name}":{took:.3},"#);
            }
        }
    }
    if let Some((usage, estimated)) = x.usage() {
        let _ = write!(
            line,
            r#""input_tokens":{},"cached_tokens":{},"output_tokens":{},"estimated":{estimated},"#,
            usage.input, usage.cached, usage.output
        );
    }
    let _ = writeln!(
        line,
        r#""duration_ms":{:.3}}}"#,
        micros(x.started) as f64 / 1e3
    );
    line
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
