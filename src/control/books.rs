//! What is done now and then for the sake of the books: budgets written down, keys tended, anomalies looked for.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use log::Level;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::Control;
use super::events::EventKind;
use crate::store::StoreError;
use crate::store::anomaly::{Anomaly, What, anomalies};

/// How often budgets are written down. So much of what was counted is lost with a process that is killed.
const BUDGETS: Duration = Duration::from_secs(1);
/// How often keys are looked at: a key is rotated so long after its time at most.
const KEYS: Duration = Duration::from_secs(1);
const HOUR: u64 = 3600;
/// Of how many hours a key's history is.
const HISTORY: u32 = 24 * 28;
/// How long an orderly end waits for the disk.
const PATIENCE: Duration = Duration::from_secs(2);

impl Control {
    /// Runs until it is dropped.
    pub async fn keep_books(self: &Arc<Self>) {
        tokio::join!(
            self.keep_budgets(),
            self.keep_tending(),
            self.keep_looking(),
            self.keep_watching(),
            self.keep_replacing()
        );
    }

    /// Writes down what there is, where that may wait: for an orderly end.
    pub async fn settle(self: Arc<Self>) {
        // It waits for the disk.
        let _ = tokio::task::spawn_blocking(move || self.close_books()).await;
    }

    /// Writes down what there is. It waits for the disk, but not for long.
    pub fn close_books(&self) {
        if let Err(error) = self.write_budgets() {
            log::error!("what budgets have counted could not be kept: {error}");
        }
        if !self.store.flush(PATIENCE) {
            log::error!("some of the usage could not be kept");
        }
    }

    async fn keep_budgets(self: &Arc<Self>) {
        let mut failed = false;
        let mut time = interval(BUDGETS);
        time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            time.tick().await;
            let control = self.clone();
            let keep = move || {
                control.write_budgets()?;
                match control.others_count_for() {
                    Some(_) => control.catch_up(),
                    None => Ok(()),
                }
            };
            let written = tokio::task::spawn_blocking(keep).await;
            let error = written.ok().and_then(Result::err);
            if let (Some(error), false) = (&error, failed) {
                log::error!("what budgets have counted cannot be kept: {error}");
            }
            failed = error.is_some();
        }
    }

    pub(super) fn write_budgets(&self) -> Result<(), StoreError> {
        let quota = &*self.registry.offers.quota;
        self.budgets.keep(&*self.store, quota)
    }

    /// Counts what earlier processes, which drain, have added to budgets.
    pub(super) fn catch_up(&self) -> Result<(), StoreError> {
        let quota = &*self.registry.offers.quota;
        self.budgets.catch_up(&*self.store, quota)
    }

    async fn keep_tending(&self) {
        let mut time = interval(KEYS);
        time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            time.tick().await;
            if !self.is_still() {
                self.tend_keys().await;
            }
        }
    }

    /// Looks at each hour a minute after its end.
    async fn keep_looking(&self) {
        loop {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let into = now.map_or(0, |now| now.as_secs() % HOUR);
            tokio::time::sleep(Duration::from_secs(HOUR + 60 - into)).await;
            self.look_for_anomalies(SystemTime::now()).await;
        }
    }

    /// Tells of keys whose last whole hour before `now` left their own history.
    pub async fn look_for_anomalies(&self, now: SystemTime) {
        let store = self.store.clone();
        let read = tokio::task::spawn_blocking(move || store.hourly(now, HISTORY)).await;
        let found = match read {
            Ok(Ok(histories)) => anomalies(&histories),
            Ok(Err(error)) => return log::error!("usage cannot be read: {error}"),
            Err(_) => return,
        };
        self.metrics.key_anomaly.reset();
        for anomaly in &found {
            self.tell(anomaly);
        }
    }

    fn is_configured(&self, gateway: &str, key: &str) -> bool {
        let snapshot = self.snapshot();
        let mut gateways = snapshot.gateways.iter();
        let keys = gateways
            .find(|known| *known.name == *gateway)
            .and_then(|gateway| gateway.authority.as_ref()?.keys());
        keys.is_some_and(|keys| keys.iter().any(|known| *known.principal.name == *key))
    }

    fn tell(&self, anomaly: &Anomaly) {
        let Anomaly { gateway, key, .. } = anomaly;
        let what = match anomaly.what {
            What::Requests => "requests",
            What::Errors => "errors",
            What::Tokens => "tokens",
        };
        // Labels come from the configuration: who a token names is only in the log.
        if self.is_configured(gateway, key) {
            let labels = &[gateway.as_str(), key.as_str(), what];
            let gauge = self.metrics.key_anomaly.with_label_values(labels);
            gauge.set(anomaly.score);
        }
        let message = format!(
            "the key {key:?} of the gateway \"{gateway}\" left its usual {what} in the last hour: {:.2} instead of about {:.2} (score {:.1})",
            anomaly.value, anomaly.usual, anomaly.score
        );
        let names = json!({
            "gateway": gateway,
            "key": key,
            "left": what,
            "value": anomaly.value,
            "usual": anomaly.usual,
            "score": anomaly.score,
        });
        self.events
            .announce(Level::Warn, EventKind::Key, &message, names);
    }
}
