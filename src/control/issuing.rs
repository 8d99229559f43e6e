//! Certificates that are ordered: which gateways want one for which names, and the orders in the background.
//!
//! One process orders at a time: one that hands over stops, also an order that is under way, and one that takes over begins once it serves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use log::Level;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::Control;
use super::conditions::{ConditionKind, Found};
use super::events::EventKind;
use crate::acme::{Challenges, Issuer, OrderState, Outcome, Standing, Wanted};
use crate::model::{Certificate, Config, Proof, StateStore};
use crate::snapshot::Snapshot;

/// How often it is looked whether an order is due.
const LOOK: Duration = Duration::from_millis(250);
/// How often certificates that have ended are forgotten.
const TIDY: Duration = Duration::from_secs(3600);

/// The gateways that want a certificate, with all the names that lead to them.
pub(super) fn wanted(snapshot: &Snapshot, config: &Config) -> Vec<Wanted> {
    let (acme, in_file) = (
        &config.acme,
        matches!(config.server.state, StateStore::File(_)),
    );
    let by_record = matches!(acme.challenge, Proof::Dns01 { .. });
    let gateways = snapshot.gateways.iter().enumerate();
    let ordered = gateways.filter(|(_, g)| g.document.certificate == Certificate::Ordered);
    let wanted = ordered.map(|(index, gateway)| {
        let mut names: BTreeSet<String> = snapshot.hosts.of(index).collect();
        // One for all its services, so that a new one needs no new order.
        let domain = gateway.document.domain.as_ref().filter(|_| by_record);
        names.extend(domain.map(|domain| format!("*.{domain}")));
        let names = without_covered(names);
        let mut obstacles = acme.obstacles(&gateway.document, in_file);
        if names.is_empty() && obstacles.is_empty() {
            let message = "none of its hosts leads to it".to_owned();
            obstacles.push((message, "name others"));
        }
        let told = { obstacles.iter() }.map(|(message, help)| format!("{message}; {help}"));
        let told: Vec<String> = told.collect();
        Wanted {
            gateway: gateway.name.clone(),
            names: names.into(),
            obstacle: (!told.is_empty()).then(|| told.join("; ")),
        }
    });
    wanted.collect()
}

/// Leaves out names that a wildcard among them stands for.
fn without_covered(names: BTreeSet<String>) -> Vec<String> {
    let is_covered = |name: &str| {
        let rest = name.split_once('.').filter(|(first, _)| *first != "*");
        rest.is_some_and(|(_, rest)| names.contains(&format!("*.{rest}")))
    };
    let left = names.iter().filter(|name| !is_covered(name)).cloned();
    left.collect()
}

impl Control {
    /// The answers to challenges of authorities that are under way.
    pub fn challenges(&self) -> &Arc<Challenges> {
        self.issuer.challenges()
    }

    /// How a gateway's order stands; `None` if it wants no certificate, or nobody has looked yet.
    pub fn order(&self, gateway: &str) -> Option<Standing> {
        self.issuer.standing(gateway)
    }

    /// Orders certificates and renews them. Runs until it is dropped.
    pub async fn keep_issuing(self: &Arc<Self>) {
        let mut orders: JoinSet<()> = JoinSet::new();
        let (mut time, mut tidy) = (interval(LOOK), interval(TIDY));
        time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = (0, Vec::new());
        loop {
            let tidies = tokio::select! {
                _ = time.tick() => false,
                _ = tidy.tick() => true,
            };
            if self.is_still() || self.is_handed_over() || !self.is_ready() {
                // Whoever takes over answers what authorities ask from now on.
                orders.abort_all();
                while orders.join_next().await.is_some() {}
                continue;
            }
            while orders.try_join_next().is_some() {}
            self.look_for_orders(&mut known, tidies).await;
            for job in self.issuer.due(orders.len()) {
                let control = self.clone();
                orders.spawn(async move {
                    if let Some(outcome) = job.carry_out().await {
                        control.tell_of_order(&outcome);
                    }
                });
            }
        }
    }

    /// `known` is who wanted one in which revision.
    async fn look_for_orders(self: &Arc<Self>, known: &mut (u64, Vec<Wanted>), tidies: bool) {
        let snapshot = self.snapshot();
        // Never older than the snapshot.
        let resources = self.resources();
        let config = resources.config().clone();
        if known.0 != snapshot.revision {
            *known = (snapshot.revision, wanted(&snapshot, &config));
        }
        let wanted = known.1.clone();
        if wanted.is_empty() && !self.issuer.is_busy() {
            return;
        }
        let issuer = self.issuer.clone();
        // It may wait for the disk.
        let looked = tokio::task::spawn_blocking(move || {
            issuer.look(&wanted, &config.acme);
            if tidies {
                issuer.tidy(&config.acme);
            }
        });
        if looked.await.is_err() {
            log::error!("nobody could look whose certificate is due");
        }
    }

    fn tell_of_order(&self, outcome: &Outcome) {
        let Outcome {
            gateway,
            names,
            result,
        } = outcome;
        let hosts = names.join(", ");
        let (level, message, fields) = match result {
            Ok(until) => {
                let until = Timestamp::from_second(*until).map(|at| at.to_string());
                let until = until.unwrap_or_default();
                let message = format!(
                    "the gateway {gateway} has a certificate for {hosts}, good until {until}"
                );
                let fields = json!({"gateway": &**gateway, "result": "ok", "expires_at": until});
                (Level::Info, message, fields)
            }
            Err((why, next)) => {
                let next = written(*next);
                let message = format!(
                    "the gateway {gateway} gets no certificate for {hosts}: {why}; tried again at {next}"
                );
                let fields = json!({"gateway": &**gateway, "result": "failed", "next_at": next});
                (Level::Error, message, fields)
            }
        };
        self.events
            .announce(level, EventKind::Certificate, &message, fields);
    }
}

/// A time as it is shown, to the second.
pub(super) fn written(at: SystemTime) -> String {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| "…".into(), |at| at.to_string())
}

/// What holds of a gateway's order.
pub(super) fn condition(standing: &Standing) -> Found {
    let word = match standing.state {
        OrderState::Waiting => "OrderWaiting",
        OrderState::Ordering => "Ordering",
        OrderState::Issued => "Issued",
        OrderState::Failed => "OrderFailed",
        OrderState::Blocked => "OrderBlocked",
    };
    let stays = match standing.has_certificate {
        true => "The certificate that is there goes on being shown.",
        false => "There is no certificate yet.",
    };
    let next = standing.next.map(written).unwrap_or_default();
    let why = standing.reason.as_deref().unwrap_or_default();
    let message = match standing.state {
        OrderState::Issued => format!("The certificate is there, and is renewed after {next}."),
        OrderState::Waiting | OrderState::Ordering => format!("It is ordered. {stays}"),
        OrderState::Failed => format!("{why}. It is ordered again at {next}. {stays}"),
        OrderState::Blocked => format!("{why}. {stays}"),
    };
    // While it is renewed there is one.
    let holds = match standing.state {
        OrderState::Issued => true,
        OrderState::Waiting | OrderState::Ordering => standing.has_certificate,
        OrderState::Failed | OrderState::Blocked => false,
    };
    Found::new(ConditionKind::CertificateIssued, Some(holds), word, message)
}

/// What is ordered for whom, with what was kept shown already: for a start.
pub(super) fn recall(issuer: &Issuer, snapshot: &Snapshot, config: &Config) {
    let wanted = wanted(snapshot, config);
    if !wanted.is_empty() {
        issuer.look(&wanted, &config.acme);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_makes_names_below_it_needless() {
        let names = [
            "*.a.example",
            "a.example",
            "x.a.example",
            "x.y.a.example",
            "b.example",
        ];
        let names = names.map(str::to_owned).into();
        let left = ["*.a.example", "a.example", "b.example", "x.y.a.example"];
        assert_eq!(without_covered(names), left);
    }
}
