//! Engines that share requests: what each does is in no document of another system, so it is said beside the address:
//! `URL,role=prefill,bootstrap_port=8998`.

use serde_json::{Map, Value, json};
use tollgate_sdk::document::{FromNode, FromText};

use super::fields::{Notes, quoted};
use crate::model::{Disaggregation, KvProtocol, Role, Target, TargetUrl, unfit};

/// An address as it is given beside a document.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    /// What was given it with: `--local`.
    pub(super) path: String,
    pub(super) url: TargetUrl,
    pub(super) role: Option<Role>,
    pub(super) bootstrap_port: Option<u16>,
}

impl Placed {
    /// Reads an address. What is wrong with it does not show the URL, which may hold a credential.
    pub(super) fn from_text(path: &str, text: &str) -> Result<Placed, String> {
        let (mut url, mut role, mut bootstrap_port) = (text, None, None);
        while let Some((before, last)) = url.rsplit_once(',') {
            if let Some(given) = last.strip_prefix("role=") {
                let known = |known: &Role| known.value() == given;
                let found = [Role::Prefill, Role::Decode, Role::Both]
                    .into_iter()
                    .find(known);
                let told = "not a role: prefill, decode or both";
                role = Some(found.ok_or(told)?);
            } else if let Some(given) = last.strip_prefix("bootstrap_port=") {
                let port = given.parse::<u16>().ok().filter(|port| *port > 0);
                bootstrap_port = Some(port.ok_or("bootstrap_port: not a port, from 1 to 65535")?);
            } else {
                break;
            }
            url = before;
        }
        let url = TargetUrl::from_text(url);
        let url = url.map_err(|invalid| format!("not a target: {}", invalid.message))?;
        Ok(Placed {
            path: path.to_owned(),
            url,
            role,
            bootstrap_port,
        })
    }

    /// As an entry of `targets`, below this path.
    pub(super) fn value(&self, below: &str) -> Value {
        let url = format!("{}{below}", self.url);
        if self.role.is_none() && self.bootstrap_port.is_none() {
            return json!(url);
        }
        let mut table = Map::from_iter([("url".to_owned(), json!(url))]);
        if let Some(role) = self.role {
            table.insert("role".to_owned(), role.value());
        }
        if let Some(port) = self.bootstrap_port {
            table.insert("bootstrap_port".to_owned(), json!(port));
        }
        table.into()
    }

    /// What is told of it.
    pub(super) fn told(&self, among: &str) -> String {
        match self.role {
            Some(role) => format!("{among}, role = {}", role.value()),
            None => among.to_owned(),
        }
    }

    /// Refuses it, by its URL: what is given in several places has one path.
    fn refuse(&self, why: &str, notes: &mut Notes) {
        let message = format!("{}: {why}", quoted(&self.url.to_string()));
        notes.refused(&*self.path, message);
    }

    fn target(&self) -> Target {
        Target {
            role: self.role.unwrap_or(Role::Both),
            bootstrap_port: self.bootstrap_port,
            ..Target::new(self.url.clone())
        }
    }
}

/// Requests that are split in this way, as a field of an upstream.
pub(super) fn settings(protocol: KvProtocol, staged: Option<bool>) -> Disaggregation {
    Disaggregation {
        protocol,
        staged,
        min_prefill_tokens: 0,
    }
}

/// The same, as `disaggregation` of the upstream.
pub(super) fn value(settings: &Disaggregation) -> Value {
    let mut table = Map::from_iter([("protocol".to_owned(), settings.protocol.value())]);
    if let Some(staged) = settings.staged {
        table.insert("staged".to_owned(), json!(staged));
    }
    table.into()
}

/// Refuses addresses whose roles or ports do not go with how requests are split. `wish` is what turns splitting on, `example` how a role is given.
pub(super) fn check(
    placed: &[Placed],
    split: Option<&Disaggregation>,
    wish: &str,
    example: &str,
    notes: &mut Notes,
) {
    let Some(settings) = split else {
        let of_no_use = |one: &&Placed| one.role.is_some() || one.bootstrap_port.is_some();
        for one in placed.iter().filter(of_no_use) {
            let why =
                format!("a role is of no use where requests are not split: take it out, or {wish}");
            one.refuse(&why, notes);
        }
        return;
    };
    let mut is_sound = true;
    for one in placed {
        if one.role.is_none() {
            is_sound = false;
            let why = format!("it does not say whether it prefills or decodes: {example}");
            one.refuse(&why, notes);
            continue;
        }
        for wrong in unfit(&one.target(), Some(settings)) {
            is_sound = false;
            let why = format!("{}: {}; {}", wrong.field, wrong.message, wrong.help);
            one.refuse(&why, notes);
        }
    }
    let targets: Vec<Target> = placed.iter().map(Placed::target).collect();
    if is_sound && !settings.can_split(&targets) {
        let path = placed.first().map_or("", |one| &*one.path);
        let message = format!("one must prefill and another decode: {example}");
        notes.refused(path, message);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn what_it_does_follows_the_address() {
        for (text, expected) in [
            ("http://a:1", Ok(json!("http://a:1"))),
            ("http://a:1/x,y", Ok(json!("http://a:1/x,y"))),
            (
                "http://a:1,role=decode",
                Ok(json!({"url": "http://a:1", "role": "decode"})),
            ),
            (
                "http://a:1/p,bootstrap_port=7,role=prefill",
                Ok(json!({"url": "http://a:1/p", "role": "prefill", "bootstrap_port": 7})),
            ),
            (
                "http://a:1,role=both",
                Ok(json!({"url": "http://a:1", "role": "both"})),
            ),
            ("http://a:1,role=d", Err("not a role")),
            ("http://a:1,bootstrap_port=0", Err("not a port")),
            (",role=decode", Err("not a target")),
            ("http://secret@a:1,role=decode", Err("not a target")),
        ] {
            match (Placed::from_text("--local", text), expected) {
                (Ok(placed), Ok(value)) => assert_eq!(placed.value(""), value, "{text}"),
                (Err(told), Err(words)) => {
                    assert!(told.contains(words) && !told.contains("secret"), "{told}");
                }
                (got, expected) => panic!("{text}: {got:?} for {expected:?}"),
            }
        }
    }
}
