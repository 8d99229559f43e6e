//! Chains of plugins: TrustGate's entries as native ones.
//!
//! It owns which plugins there are on both sides. Their settings are read here by the plugins themselves, so that what is wrong with them is
//! said at its place in the foreign document.

use serde_json::{Value, json};
use tollgate_plugins::BUILTINS;
use tollgate_sdk::document::{At, Format, FromNode, Key, Node, Reading, Severity, Span, suggest};
use tollgate_sdk::plugin::{Kind, Stage};

use super::super::fields::quoted;
use super::fields::{Body, Fields, Report, join};
use super::settings;

/// TrustGate's plugins that Tollgate has not, and why or what instead.
const MISSING: [(&str, &str); 14] = [
    ("toxicity_openai", "a hosted check"),
    ("toxicity_azure", "a hosted check"),
    ("bedrock_guardrail", "a hosted check"),
    ("neuraltrust_guardrail", "a hosted check"),
    ("neuraltrust_jailbreak", "a hosted check"),
    ("neuraltrust_toxicity", "a hosted check"),
    ("neuraltrust_moderation", "a hosted check"),
    ("injection_protection", "patterns of attacks"),
    ("code_sanitation", "patterns of code"),
    ("bot_detector", "a judgement of clients"),
    ("anomaly_detector", "a judgement of clients"),
    ("contextual_security", "a judgement of clients"),
    ("semantic_cache", "a cache by meaning"),
    ("trustlens", "a hosted record"),
];

const KNOWN: [&str; 10] = [
    "id",
    "name",
    "enabled",
    "stage",
    "priority",
    "parallel",
    "settings",
    "level",
    "type",
    "description",
];

/// A chain as a list, or as a map from the plugins' names as some revisions send it.
pub(super) fn chain(value: &Value, path: &str, report: &mut Report) -> Vec<Value> {
    let mut entries = Vec::new();
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                entries.extend(entry(item, &format!("{path}[{index}]"), None, report));
            }
        }
        Value::Object(items) => {
            if !items.is_empty() {
                report.adapted(path, "a map of plugins; here a list, ordered by priority");
            }
            for (name, item) in items {
                entries.extend(entry(item, &join(path, name), Some(name), report));
            }
        }
        _ => report.refused(path, "a list of plugins is expected here"),
    }
    once_per_limiter(entries, path, report)
}

/// Whether a chain counts: it must then not be repeated in several rules, each of which would count for itself.
pub(super) fn counts(chain: &[Value]) -> bool {
    let counting = ["rate_limiter", "token_rate_limiter"];
    chain.iter().any(|entry| {
        let name = entry.get("name").and_then(Value::as_str);
        name.is_some_and(|name| counting.contains(&name))
            && entry.get("enabled") != Some(&json!(false))
    })
}

/// TrustGate lists its token limiter at two stages; here one entry reserves and settles.
fn once_per_limiter(entries: Vec<Value>, path: &str, report: &mut Report) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for entry in entries {
        let limiter = entry.get("name") == Some(&json!("token_rate_limiter"));
        let same = |other: &&Value| {
            other.get("name") == entry.get("name") && other.get("settings") == entry.get("settings")
        };
        if limiter && kept.iter().any(|other| same(&other)) {
            report.adapted(
                path,
                "one `token_rate_limiter` both reserves and settles; the second is the same",
            );
        } else {
            kept.push(entry);
        }
    }
    kept
}

fn entry(value: &Value, path: &str, key: Option<&str>, report: &mut Report) -> Option<Value> {
    let fields = Fields::open(value, path, &KNOWN, report)?;
    let Some(name) = fields.text("name", report).or(key) else {
        report.refused(path, "a plugin needs a `name`");
        return None;
    };
    let enabled = fields.bool("enabled", report);
    let off = enabled == Some(false);
    let Some(kind) = BUILTINS.iter().find(|kind| kind.name == name) else {
        unknown(name, off, &fields, report);
        return None;
    };
    if fields.get("name").is_some() {
        report.taken(&fields.at("name"), format!("the plugin `{name}`"));
    }
    let mut body = Body::new();
    body.insert("name".into(), name.into());
    match enabled {
        Some(enabled) => {
            report.taken(&fields.at("enabled"), "`enabled`");
            if !enabled {
                body.insert("enabled".into(), false.into());
            }
        }
        None => report.assumed(&fields.at("enabled"), "it runs"),
    }
    stage(kind, &fields, &mut body, report);
    order(&fields, &mut body, report);
    fields.warn(
        &["id", "type", "description"],
        "only for the record",
        report,
    );
    fields.warn(&["level"], "the chain it stands in says it", report);
    if !own_settings(kind, off, &fields, &mut body, report) {
        return None;
    }
    Some(body.into())
}

fn unknown(name: &str, off: bool, fields: &Fields<'_>, report: &mut Report) {
    let missing = MISSING.iter().find(|(missing, _)| *missing == name);
    if off {
        let message = format!(
            "{} is not there in Tollgate; left out, since it is not enabled",
            quoted(name)
        );
        return report.warned(&fields.path, message);
    }
    let message = match missing {
        Some((_, what)) => format!(
            "`{name}` is not there in Tollgate ({what}); take it out or write `\"enabled\": false`; `external_api` can ask a check of your own"
        ),
        None => {
            let known = BUILTINS.iter().map(|kind| kind.name);
            let known: Vec<&str> = known.chain(MISSING.map(|(name, _)| name)).collect();
            format!(
                "there is no such plugin; {}",
                suggest(name, &known, "plugins")
            )
        }
    };
    report.refused(&fields.path, message);
}

fn stage(kind: &Kind, fields: &Fields<'_>, body: &mut Body, report: &mut Report) {
    let Some(text) = fields.text("stage", report) else {
        return;
    };
    let path = fields.at("stage");
    let word = |stage: &Stage| stage.value().as_str().unwrap_or_default().to_owned();
    let can: Vec<String> = kind.stages.iter().map(word).collect();
    if can.iter().any(|stage| stage == text) {
        report.taken(&path, "`stage`");
        body.insert("stage".into(), text.into());
    } else if kind.name == "token_rate_limiter" && text == "post_response" {
        report.adapted(
            &path,
            "it reserves before the request and settles after the answer by itself",
        );
    } else {
        let message = format!(
            "`{}` does not run in that stage; it runs in: {}",
            kind.name,
            can.join(", ")
        );
        report.refused(&path, message);
    }
}

fn order(fields: &Fields<'_>, body: &mut Body, report: &mut Report) {
    if let Some(priority) = fields.number("priority", report) {
        match priority {
            0..=999 => {
                report.taken(&fields.at("priority"), "`priority`");
                body.insert("priority".into(), priority.into());
            }
            _ => report.refused(&fields.at("priority"), "from 0 to 999"),
        }
    }
    if let Some(parallel) = fields.bool("parallel", report) {
        report.taken(
            &fields.at("parallel"),
            "`parallel`, among those of its priority",
        );
        if parallel {
            body.insert("parallel".into(), true.into());
        }
    }
}

/// Whether the entry can stand: its settings are right, or do not matter because it is off.
fn own_settings(
    kind: &Kind,
    off: bool,
    fields: &Fields<'_>,
    body: &mut Body,
    report: &mut Report,
) -> bool {
    let path = fields.at("settings");
    let empty = Body::new();
    let given = match fields.get("settings") {
        Some(_) => fields.table("settings", report),
        None => Some(&empty),
    };
    let Some(given) = given else { return false };
    let mut said = Report::default();
    let settings: Value = settings::adapt(kind.name, given, &path, &mut said).into();
    for (severity, at, message) in problems(kind, &settings) {
        let at = match at.as_str() {
            "" => path.clone(),
            at => join(&path, at),
        };
        match severity {
            Severity::Error => said.refused(&at, message),
            _ => said.warned(&at, message),
        }
    }
    let wrong = said
        .notes
        .iter()
        .any(|note| note.fate == super::super::Fate::Refused);
    if wrong && off {
        report.warned(
            &fields.path,
            "its settings would not be accepted; left out, since it is not enabled",
        );
        return false;
    }
    report.notes.append(&mut said.notes);
    if settings
        .as_object()
        .is_some_and(|settings| !settings.is_empty())
    {
        body.insert("settings".into(), settings);
    }
    true
}

/// What the plugin itself has to say about its settings.
fn problems(kind: &Kind, settings: &Value) -> Vec<(Severity, String, String)> {
    let no_file = |_: &str| Err("files are only for the configuration file".to_owned());
    let mut r = Reading::new(Format::Json, &no_file);
    (kind.read)(&node(settings), &At::ROOT, &mut r);
    let problems = r.problems.into_iter();
    problems
        .map(|problem| {
            let message = match &problem.help {
                Some(help) => format!("{}; {help}", problem.message),
                None => problem.message,
            };
            (problem.severity, problem.path, message)
        })
        .collect()
}

fn node(value: &Value) -> Node {
    use tollgate_sdk::document::Value as Tree;
    let span = Span::default();
    let tree = match value {
        Value::Null => Tree::Null,
        Value::Bool(flag) => Tree::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Tree::Int(number),
            None => Tree::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Tree::String(text.clone()),
        Value::Array(items) => Tree::List(items.iter().map(node).collect()),
        Value::Object(entries) => {
            let entry = |(name, value): (&String, &Value)| {
                let text = name.clone();
                (Key { span, text }, node(value))
            };
            Tree::Table(entries.iter().map(entry).collect())
        }
    };
    Node::new(span, tree)
}
