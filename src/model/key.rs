//! Keys: the credentials of a gateway's users.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tollgate_sdk::document::{At, FromText, Invalid, Node, Reading};
use tollgate_sdk::secret::Secret;
use tollgate_sdk::{document, text_in_document};

use super::{KeyBudget, KeyLimits, ModelPattern, Name};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

document! {
    /// A credential of a gateway's users. Exactly one of `hash` and `secret` is given; only the hash is kept.
    pub struct Key (checked) {
        /// Its name.
        #[example = "team-a"]
        name: Name,
        /// What it is for.
        #[example = "the nightly batch"]
        description: Option<String>,
        /// Labels of your own.
        labels: BTreeMap<String, String> = BTreeMap::new(),
        /// The gateway it opens.
        #[example = "main"]
        gateway: Name,
        /// The services it may use; if empty, all.
        #[example = ["qwen"]]
        services: Vec<Name> = Vec::new(),
        /// The rules it may go by; if empty, all.
        #[example = ["rule-1"]]
        rules: Vec<Name> = Vec::new(),
        /// The models it may ask for, a trailing `*` matching any rest; if empty, all.
        #[example = ["Qwen/*"]]
        models: Vec<ModelPattern> = Vec::new(),
        /// When it ends.
        expires_at: Option<Moment>,
        /// How long before its end its users are told, by the header `x-tollgate-key-expires`.
        warn_before: Duration = WEEK,
        /// How long the old secret lives after a rotation, unless that says otherwise.
        grace: Duration = Duration::from_secs(3600),
        /// How often it gets another secret by itself; only for keys that were made by `tollgate key create`.
        #[example = "720h"]
        rotate_every: Option<Duration>,
        /// The file on the gateway's machine that holds its secret, written anew with every rotation by itself.
        #[example = "/run/tollgate/team-a.key"]
        rotate_to: Option<String>,
        /// When its secret was made.
        rotated_at: Option<Moment>,
        /// Whether it opens anything.
        active: bool = true,
        /// How urgent its users' requests are where requests wait for a target: the urgent go first.
        priority: Priority = Priority::Default,
        /// Its part beside other keys of the same priority where requests wait.
        #[range(1..=1000)]
        weight: u32 = 1,
        /// How much its users may ask for: `{ rate_limiter = {…}, token_rate_limiter = {…}, concurrency_limiter = {…} }` with the settings of those plugins,
        /// or just the limits of the first: `{ global = { limit = 100, window = "1m" } }`.
        limits: KeyLimits = KeyLimits::default(),
        /// What its users may spend: the settings of the plugin `budget`.
        budget: KeyBudget = KeyBudget::default(),
        /// The part of its secret that may be seen: `tg_<id>_…`.
        #[example = "3f9ac01be277"]
        id: Option<String>,
        /// Secrets it had before, which still open it for a while.
        #[example = []]
        previous: Vec<Previous> = Vec::new(),
        /// The SHA-256 of its secret, in hexadecimal: `printf %s "$SECRET" | sha256sum`.
        hash: Option<KeyHash>,
        /// Its secret; `"${NAME}"` or `{ file = "path" }` keep it out of this file.
        #[example = "${TEAM_A_KEY}"]
        secret: Option<Secret<String>>,
    }
}

document! {
    /// How urgent requests are.
    pub enum Priority {
        /// Somebody is waiting for it.
        Interactive = "interactive",
        /// As any other.
        Default = "default",
        /// It may take a while: it goes last, but never later than half a minute for each class after it came.
        Bulk = "bulk",
    }
}

document! {
    /// A secret that a key had before.
    pub struct Previous {
        /// Its SHA-256.
        hash: KeyHash,
        /// Until when it opens the key.
        until: Moment,
    }
}

impl Key {
    /// What concerns several fields.
    fn check(mut self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        const SHORTEST: usize = 16;
        match (node.entry("hash"), node.entry("secret")) {
            (Some(_), Some(given)) => {
                let help = "keep one: `hash` keeps the secret out of this file";
                r.error(given.span, &at.field("secret"), "given beside `hash`", help);
            }
            (None, None) => {
                let help = "add one: hash = \"sha256:…\" or secret = \"${NAME}\"";
                r.error(node.span, at, "missing field `hash` (or `secret`)", help);
            }
            (None, Some(given)) => match self.secret.take() {
                Some(secret) if secret.expose().len() < SHORTEST => {
                    let message = format!("a secret of less than {SHORTEST} characters");
                    let help = "make one: openssl rand -hex 32";
                    r.error(given.span, &at.field("secret"), message, help);
                }
                // From here on nobody has the secret any more.
                Some(secret) => self.hash = Some(KeyHash::of(secret.expose().as_bytes())),
                None => {}
            },
            (Some(_), None) => {}
        }
        if let (Some(given), None) = (node.entry("rotate_every"), &self.rotate_to) {
            let help = "add where the new secrets are to be written: rotate_to = \"/run/tollgate/team-a.key\"";
            let message = "nobody would learn the new secrets";
            r.error(given.span, &at.field("rotate_every"), message, help);
        }
        self
    }
}

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// The hash of a secret.
    pub fn of(secret: &[u8]) -> KeyHash {
        KeyHash(Sha256::digest(secret).into())
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

impl FromText for KeyHash {
    const EXPECTED: &'static str = "a SHA-256";
    const EXAMPLE: &'static str =
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const PATTERN: Option<&'static str> = Some("^(sha256:)?[0-9a-fA-F]{64}$");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut hash = [0; 32];
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        let well_formed = rest.is_empty()
            && pairs.len() == hash.len()
            && hash.iter_mut().zip(pairs).all(|(byte, pair)| {
                let digit = |d: u8| char::from(d).to_digit(16);
                let [high, low] = *pair;
                match (digit(high), digit(low)) {
                    (Some(high), Some(low)) => {
                        *byte = (high * 16 + low) as u8;
                        true
                    }
                    _ => false,
                }
            });
        match well_formed {
            true => Ok(KeyHash(hash)),
            // Whoever put the secret itself here must not see it in a log.
            false => Err(Invalid {
                message: "not a SHA-256 in 64 hexadecimal digits".into(),
                help: Some("hash the secret: printf %s \"$SECRET\" | sha256sum".into()),
                secret: true,
            }),
        }
    }

    fn to_text(&self) -> String {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{digits}")
    }
}

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(jiff::Timestamp);

impl Moment {
    /// The beginning of 1970.
    pub const EPOCH: Moment = Moment(jiff::Timestamp::UNIX_EPOCH);

    /// This point in time, to the millisecond.
    ///
    /// `None` if it lies too far away to be written as a date.
    pub fn at(time: SystemTime) -> Option<Moment> {
        let stamp = jiff::Timestamp::try_from(time).ok()?;
        jiff::Timestamp::from_millisecond(stamp.as_millisecond())
            .ok()
            .map(Moment)
    }

    /// As the system's clock tells it.
    pub fn time(self) -> SystemTime {
        self.0.into()
    }
}

impl FromText for Moment {
    const EXPECTED: &'static str = "a date and time";
    const EXAMPLE: &'static str = "2031-01-01T00:00:00Z";

    fn from_text(text: &str) -> Result<Self, Invalid> {
        text.parse().map(Moment).map_err(|_| {
            Invalid::new("not a date and time with a zone")
                .help("RFC 3339, for example \"2031-01-01T00:00:00Z\"")
        })
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

text_in_document!(KeyHash, Moment);
