//! No secret reaches a log, in any test: what the gateway logs at its most talkative is searched, whatever the test is about.
//!
//! Searched for are the secrets of every configuration that a test starts with, those that the admin API issued, and whatever looks like a key or
//! a token. A hit fails the test that holds the gateway.

use std::sync::{Mutex, Once, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// What must be seen nowhere.
static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Where something was seen all the same.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Fields of a configuration whose values are secrets.
const FIELDS: [&str; 5] = ["secret", "api_key", "token", "encryption_key", "hmac_key"];
/// Shorter ones are found in words.
const SHORTEST: usize = 8;

/// Begins to read the log.
pub(super) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A test that reads the log by itself goes without.
        if log::set_logger(&Search).is_ok() {
            log::set_max_level(LevelFilter::Trace);
        }
    });
}

/// Takes note of the secrets of a configuration.
pub(super) fn learn_from(toml: &str) {
    for (before, value) in toml.split('"').zip(toml.split('"').skip(1)).step_by(2) {
        let field = before.trim_end().trim_end_matches('=').trim_end();
        if FIELDS.iter().any(|name| field.ends_with(name)) {
            learn(value);
        }
    }
}

/// Takes note of a secret.
pub(crate) fn learn(secret: &str) {
    if secret.len() < SHORTEST || secret.starts_with("${") {
        return;
    }
    let mut secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    if !secrets.iter().any(|known| known == secret) {
        secrets.push(secret.to_owned());
    }
}

/// Looks for secrets in something that was written.
pub(super) fn search(what: &str, text: &str) {
    let secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = secrets.iter().any(|secret| text.contains(secret));
    if known || is_telling(text) {
        let line = text.lines().find(|line| {
            is_telling(line) || secrets.iter().any(|secret| line.contains(secret.as_str()))
        });
        let told = format!("{what}: {}", line.unwrap_or(text));
        SEEN.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(told);
    }
}

/// Whether it has something that looks like an issued key or a signed token.
fn is_telling(text: &str) -> bool {
    let hex = |text: &str| text.bytes().take_while(u8::is_ascii_hexdigit).count();
    let key = |after: &str| {
        let id = hex(after);
        let rest = after.get(id..).and_then(|rest| rest.strip_prefix('_'));
        id >= 4 && rest.is_some_and(|rest| hex(rest) >= 32)
    };
    let private = text.contains("PRIVATE KEY-----");
    text.split("tg_").skip(1).any(key) || text.contains("eyJhbGciOi") || private
}

/// Fails if any was seen.
#[track_caller]
pub(super) fn assert_none() {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(seen.is_empty(), "secrets were written: {seen:?}");
}

struct Search;

impl Log for Search {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        of.target().starts_with("tollgate") || of.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = format!("{} {}", record.target(), record.args());
        let _ = record.key_values().visit(&mut Values(&mut line));
        search("the log", &line);
    }

    fn flush(&self) {}
}

struct Values<'l>(&'l mut String);

impl<'kvs> log::kv::VisitSource<'kvs> for Values<'_> {
    fn visit_pair(
        &mut self,
        key: log::kv::Key<'kvs>,
        value: log::kv::Value<'kvs>,
    ) -> Result<(), log::kv::Error> {
        self.0.push_str(&format!(" {key}={value}"));
        Ok(())
    }
}

#[test]
fn secrets_are_found() {
    let key = format!("tg_00c0ffee1234_{}", "ab".repeat(32));
    assert!(is_telling(&format!("got {key}.")));
    assert!(is_telling("Bearer eyJhbGciOiJFUzI1NiJ9.e30.x"));
    assert!(!is_telling("tg_main is a key's name"));
    learn_from(
        "[admin]\ntoken = \"admin-token-1\"\n[[upstream]]\nname = \"not-this\"\napi_key=\"sk-up-1234\"",
    );
    let secrets = SECRETS.lock().unwrap().clone();
    assert!(secrets.contains(&"admin-token-1".to_owned()), "{secrets:?}");
    assert!(secrets.contains(&"sk-up-1234".to_owned()), "{secrets:?}");
    assert!(!secrets.contains(&"not-this".to_owned()), "{secrets:?}");
}
