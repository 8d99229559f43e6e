//! `tollgate get`: what a running gateway has, as a table, JSON or YAML, once or again and again.

use std::process::ExitCode;
use std::time::Duration;

use axum::http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::cells::{NUMBERS, cells};
use super::ending::{Ended, end};
use super::kind::{Kind, KindParser};
use super::remote::{Api, Refused, Remote};
use super::table::columns_within;
use super::terminal::{Screen, say, width};
use super::yaml;

/// How often a watched list is asked for.
const PERIOD: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(super) struct Asked {
    /// What is listed; also plural or shortened, as far as it is clear.
    #[arg(value_parser = KindParser)]
    kind: Kind,
    /// Only this one; of targets, all of an upstream, or UPSTREAM/ID.
    name: Option<String>,
    /// How it is shown.
    #[arg(short, long, default_value = "table")]
    output: Output,
    /// Show it again whenever it has changed, until interrupted.
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// With more columns.
    Wide,
    /// For programs, as the gateway says it.
    Json,
    /// Documents that `tollgate apply` takes back.
    Yaml,
}

pub(super) fn run(asked: &Asked) -> ExitCode {
    end(get(asked))
}

fn get(asked: &Asked) -> Result<(), Ended> {
    let api = asked.remote.open()?;
    if !asked.watch {
        return say(&asked.text(&api)?);
    }
    let mut screen = Screen::new();
    loop {
        match asked.text(&api) {
            Ok(text) => screen.show(&text)?,
            // A gateway that is started anew is waited for; what it refuses, it will refuse again.
            Err(Trouble::Refused(refused)) if refused.status.is_none() => screen.trouble(&refused),
            Err(trouble) => return Err(trouble.into()),
        }
        std::thread::sleep(PERIOD);
    }
}

/// Why there is nothing to show.
enum Trouble {
    Refused(Refused),
    Missing(String),
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        Trouble::Refused(refused)
    }
}

impl From<Trouble> for Ended {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(refused) => refused.into(),
            Trouble::Missing(message) => Ended::Failed(message),
        }
    }
}

impl Asked {
    fn text(&self, api: &Api) -> Result<String, Trouble> {
        let things = self.things(api)?;
        Ok(match self.output {
            Output::Table | Output::Wide => {
                let (heads, rows) = cells(self.kind, &things, self.output == Output::Wide);
                columns_within(&heads, &NUMBERS, &rows, width())
            }
            Output::Json => match (&self.name, things.as_slice()) {
                (Some(_), [one]) => format!("{one:#}\n"),
                _ => format!("{:#}\n", Value::Array(things)),
            },
            Output::Yaml => {
                let documents = things.iter().map(|thing| self.document(thing));
                documents.collect::<Vec<_>>().join("---\n")
            }
        })
    }

    /// What is asked for, in order.
    fn things(&self, api: &Api) -> Result<Vec<Value>, Trouble> {
        let mut things = match self.kind {
            Kind::Plugin => plugins(api)?,
            Kind::Target => list(&api.ask(Method::GET, "/v1/status", None)?, "targets"),
            Kind::Certificate => list(&api.ask(Method::GET, "/v1/status", None)?, "certificates"),
            kind => return self.resources(kind, api),
        };
        if let Some(name) = &self.name {
            things.retain(|thing| self.is_meant(thing, name));
            if things.is_empty() {
                let what = self.kind.name();
                return Err(Trouble::Missing(format!("there is no {what} {name}")));
            }
        }
        sort(&mut things);
        Ok(things)
    }

    fn is_meant(&self, thing: &Value, name: &str) -> bool {
        let of = |field: &str| thing.get(field).and_then(Value::as_str).unwrap_or_default();
        match self.kind {
            Kind::Target => {
                of("upstream") == name || format!("{}/{}", of("upstream"), of("id")) == name
            }
            _ => of("name") == name,
        }
    }

    fn resources(&self, kind: Kind, api: &Api) -> Result<Vec<Value>, Trouble> {
        let path = format!("/v1/{}s", kind.name());
        let mut things = match &self.name {
            None => list(&api.ask(Method::GET, &path, None)?, "items"),
            Some(name) => {
                let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
                vec![api.ask(Method::GET, &format!("{path}/{name}"), None)?]
            }
        };
        if kind == Kind::Gateway && matches!(self.output, Output::Table | Output::Wide) {
            let status = api.ask(Method::GET, "/v1/status", None)?;
            things.iter_mut().for_each(|gateway| join(gateway, &status));
        }
        sort(&mut things);
        Ok(things)
    }

    /// A document that can be applied: without what the gateway only tells.
    fn document(&self, thing: &Value) -> String {
        let mut document = Map::new();
        if self.kind.is_resource() {
            document.insert("kind".into(), self.kind.name().into());
        }
        let told = ["kind", "managed_by", "revision"];
        for (name, value) in thing.as_object().into_iter().flatten() {
            if !self.kind.is_resource() || !told.contains(&name.as_str()) {
                document.insert(name.clone(), value.clone());
            }
        }
        yaml::document(&document)
    }
}

fn list(answer: &Value, name: &str) -> Vec<Value> {
    let items = answer.get(name).and_then(Value::as_array);
    items.cloned().unwrap_or_default()
}

/// Adds what the gateway's status says: how it stands, and what it offers.
fn join(gateway: &mut Value, status: &Value) {
    let gateways = list(status, "gateways");
    let own = gateways
        .iter()
        .find(|known| known.get("name") == gateway.get("name"));
    let (Some(own), Some(fields)) = (own, gateway.as_object_mut()) else {
        return;
    };
    for name in ["status", "services"] {
        if let Some(value) = own.get(name) {
            fields.insert(name.to_owned(), value.clone());
        }
    }
}

/// Every entry of every chain, with what it belongs to.
fn plugins(api: &Api) -> Result<Vec<Value>, Refused> {
    let mut found = Vec::new();
    for kind in [Kind::Gateway, Kind::Service, Kind::Rule] {
        let answer = api.ask(Method::GET, &format!("/v1/{}s", kind.name()), None)?;
        for owner in list(&answer, "items") {
            let name = owner
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            for mut entry in list(&owner, "plugins") {
                // In a chain the name alone stands for an entry.
                if entry.is_string() {
                    entry = json!({"name": entry});
                }
                if let Some(fields) = entry.as_object_mut() {
                    fields.insert("of".into(), format!("{} {name}", kind.name()).into());
                }
                found.push(entry);
            }
        }
    }
    Ok(found)
}

fn sort(things: &mut [Value]) {
    let of = |thing: &Value, field: &str| {
        let text = thing.get(field).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    things
        .sort_by_cached_key(|thing| ["upstream", "name", "id", "of"].map(|field| of(thing, field)));
}
