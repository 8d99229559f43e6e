//! An issuer's keys: read from a file or fetched, kept, and read again in time.
//!
//! Invariants: there is one fetch at a time, and never one within [`GAP`] of the last but for the first set ([`FIRST_GAP`]); the old set
//! serves until there is a new one. A key is taken for one algorithm only, which follows from the key and not from any token.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::Request;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use tollgate_sdk::document::FromText;
use tollgate_sdk::plugin::Http;
use tollgate_sdk::quota::Clock;

use super::flight::Flight;
use super::{Outside, nanoseconds};
use crate::model::{KeyHash, KeySource};

/// How often a set is fetched while it is used.
const PERIOD: Duration = Duration::from_secs(300);

/// The shortest time between two fetches, and how often a file is looked at.
const GAP: Duration = Duration::from_secs(10);

/// The shortest time between two fetches while there is no set.
const FIRST_GAP: Duration = Duration::from_secs(1);

/// How long a fetch may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long after the beginning of a fetch requests wait for it.
const WAIT: Duration = Duration::from_secs(2);

/// How long one waits that comes later, or when the last fetch failed: what is well answers at once, and what hangs shall not hold up everybody.
const SHORT_WAIT: Duration = Duration::from_millis(100);

/// Bytes of a set.
const LARGEST: usize = 1 << 20;

/// Keys of a set; what comes after them is passed over.
const MOST_KEYS: usize = 100;

/// Keys that can verify.
pub(super) struct KeySet {
    /// The same for the same bytes.
    pub(super) version: KeyHash,
    pub(super) keys: Vec<Verifier>,
}

/// A key with the one algorithm it is for.
pub(super) struct Verifier {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

impl KeySet {
    /// Reads a JSON Web Key Set (RFC 7517). Keys that are for something else, or cannot be read, are passed over, as it says in section 5.
    fn parse(text: &[u8]) -> Result<KeySet, String> {
        let set: serde_json::Value =
            serde_json::from_slice(text).map_err(|error| format!("it is no JSON: {error}"))?;
        let keys = set.get("keys").and_then(|keys| keys.as_array());
        let keys = keys.ok_or("it has no list `keys`")?.iter().take(MOST_KEYS);
        let keys: Vec<Verifier> = keys.filter_map(Verifier::parse).collect();
        if keys.is_empty() {
            return Err("it has no key for RS256, ES256 or EdDSA".into());
        }
        let version = KeyHash::of(text);
        Ok(KeySet { version, keys })
    }
}

impl Verifier {
    fn parse(key: &serde_json::Value) -> Option<Verifier> {
        let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let (algorithm, named) = match (&jwk.algorithm, key.kind()) {
            (AlgorithmParameters::RSA(_), DecodingKeyKind::RsaModulusExponent { n, .. }) => {
                let significant = n.iter().skip_while(|byte| **byte == 0).count();
                // RFC 7518, 3.3: 2048 bits or more; beyond 4096 they only cost.
                (256..=512).contains(&significant).then_some(())?;
                (Algorithm::RS256, KeyAlgorithm::RS256)
            }
            // The lengths are checked here since not everybody who uses the bytes does.
            (AlgorithmParameters::EllipticCurve(ec), DecodingKeyKind::SecretOrDer(point)) => {
                (ec.curve == EllipticCurve::P256 && point.len() == 65).then_some(())?;
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            (AlgorithmParameters::OctetKeyPair(pair), DecodingKeyKind::SecretOrDer(point)) => {
                (pair.curve == EllipticCurve::Ed25519 && point.len() == 32).then_some(())?;
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            _ => return None,
        };
        let common = jwk.common;
        let fits = common.key_algorithm.is_none_or(|given| given == named)
            && common
                .public_key_use
                .is_none_or(|given| given == PublicKeyUse::Signature)
            && common
                .key_operations
                .is_none_or(|given| given.contains(&KeyOperations::Verify));
        fits.then_some(Verifier {
            id: common.key_id,
            algorithm,
            key,
        })
    }
}

/// The keys of one source, in all revisions.
pub(super) struct Jwks {
    source: KeySource,
    http: Arc<dyn Http>,
    clock: Arc<dyn Clock>,
    set: ArcSwapOption<KeySet>,
    /// When the set is fetched again, if it is used then.
    due: AtomicU64,
    fetching: Mutex<Fetching>,
}

#[derive(Default)]
struct Fetching {
    flight: Option<Flight<()>>,
    /// When the last fetch began.
    began: Option<u64>,
    /// Whether the last one failed.
    failed: bool,
    /// The file as it was read last: when it was changed, and its length.
    read: Option<(SystemTime, u64)>,
}

impl Jwks {
    /// The keys of this source, with what an earlier revision fetched.
    pub(super) fn new(source: &KeySource, outside: &Outside) -> Arc<Self> {
        let what = format!("{source:?}");
        let hash = KeyHash::of(what.as_bytes()).to_text();
        outside
            .kept
            .keep(&format!("auth/jwks/{hash}").into(), || Jwks {
                source: source.clone(),
                http: outside.http.clone(),
                clock: outside.clock.clone(),
                set: ArcSwapOption::empty(),
                due: AtomicU64::new(0),
                fetching: Mutex::default(),
            })
    }

    /// The keys there are; begins to fetch them again if it is time.
    pub(super) fn current(self: &Arc<Self>) -> Option<Arc<KeySet>> {
        let set = self.set.load_full()?;
        if self.clock.now() >= self.due.load(Ordering::Acquire) {
            let _ = self.begin();
        }
        Some(set)
    }

    /// The keys there are, or those that are fetched now.
    pub(super) async fn first(self: &Arc<Self>) -> Option<Arc<KeySet>> {
        if let Some(set) = self.current() {
            return Some(set);
        }
        self.fetch().await;
        self.set.load_full()
    }

    /// Fetches the keys, or waits for whoever does, but not for long; nothing if that was done just before.
    pub(super) async fn fetch(self: &Arc<Self>) {
        if let Some(flight) = self.begin() {
            let wait = self.patience();
            let _ = tokio::time::timeout(wait, flight.wait()).await;
        }
    }

    /// How long to wait for the fetch under way.
    fn patience(&self) -> Duration {
        let fetching = self.fetching();
        let now = self.clock.now();
        let age = now.saturating_sub(fetching.began.unwrap_or(now));
        match fetching.failed {
            true => SHORT_WAIT,
            false => WAIT
                .saturating_sub(Duration::from_nanos(age))
                .max(SHORT_WAIT),
        }
    }

    /// The fetch under way, begun if it may.
    fn begin(self: &Arc<Self>) -> Option<Flight<()>> {
        let mut fetching = self.fetching();
        let under_way = fetching.flight.as_ref().filter(|flight| !flight.is_over());
        if let Some(flight) = under_way {
            return Some(flight.clone());
        }
        let now = self.clock.now();
        let gap = match self.set.load().is_some() {
            true => GAP,
            false => FIRST_GAP,
        };
        let rests = |began: u64| now.saturating_sub(began) < nanoseconds(gap);
        if fetching.began.is_some_and(rests) {
            return None;
        }
        let this = self.clone();
        fetching.flight = Flight::begin(async move { this.renew().await });
        if fetching.flight.is_some() {
            fetching.began = Some(now);
            self.due
                .store(now.saturating_add(nanoseconds(GAP)), Ordering::Release);
        }
        fetching.flight.clone()
    }

    /// Fetches the keys and puts them in place of the old ones.
    async fn renew(&self) {
        let fetched = match &self.source {
            KeySource::Url(url) => self.download(url.as_str()).await.map(Some),
            KeySource::File(path) => self.read(path.clone()).await,
        };
        let parsed = fetched.and_then(|text| text.map(|text| KeySet::parse(&text)).transpose());
        match parsed {
            Ok(set) => {
                let period = match self.source {
                    KeySource::Url(_) => PERIOD,
                    KeySource::File(_) => GAP,
                };
                let due = self.clock.now().saturating_add(nanoseconds(period));
                self.due.store(due, Ordering::Release);
                if let Some(set) = set {
                    self.set.store(Some(Arc::new(set)));
                }
                self.fetching().failed = false;
            }
            Err(why) => {
                // Told once, not every ten seconds.
                if !std::mem::replace(&mut self.fetching().failed, true) {
                    log::warn!(
                        "the keys of tokens cannot be had from {}: {why}",
                        self.place()
                    );
                }
            }
        }
    }

    async fn download(&self, url: &str) -> Result<Bytes, String> {
        let request = Request::get(url).header(http::header::ACCEPT, "application/json");
        let request = request.body(Bytes::new());
        let request = request.map_err(|error| error.to_string())?;
        let answer = self.http.call(request, PATIENCE, LARGEST).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.status().is_success() {
            true => Ok(answer.into_body()),
            false => Err(format!("the answer is {}", answer.status().as_u16())),
        }
    }

    /// Reads the file, unless it is as it was.
    async fn read(&self, path: String) -> Result<Option<Bytes>, String> {
        let before = self.fetching().read;
        let read = tokio::task::spawn_blocking(move || read_changed(&path, before)).await;
        let read = read.map_err(|_| "reading broke off")?;
        let Some((mark, text)) = read.map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        self.fetching().read = Some(mark);
        Ok(Some(text))
    }

    fn fetching(&self) -> std::sync::MutexGuard<'_, Fetching> {
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the log.
    fn place(&self) -> &str {
        match &self.source {
            KeySource::Url(url) => url.authority(),
            KeySource::File(path) => path,
        }
    }
}

/// A mark by which a change of a file is seen, and its text.
type Marked = ((SystemTime, u64), Bytes);

/// The file, unless it is still what was read before.
fn read_changed(path: &str, before: Option<(SystemTime, u64)>) -> std::io::Result<Option<Marked>> {
    let about = std::fs::metadata(path)?;
    let mark = (about.modified()?, about.len());
    if before == Some(mark) {
        return Ok(None);
    }
    if !about.is_file() || about.len() > LARGEST as u64 {
        return Err(std::io::Error::other("it is no file of at most 1 MiB"));
    }
    Ok(Some((mark, std::fs::read(path)?.into())))
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Jwks").field(&self.source).finish()
    }
}
