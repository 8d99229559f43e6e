//! One resource by itself, as the admin API gets and the store keeps it: JSON to model, held against the configuration it is to join.

use tollgate_sdk::document::{At, Format, FromNode, Json, Quoted, Reading, Severity, suggest};

use super::raw;
use crate::model::{Config, Key, Name};

/// What is wrong with a resource, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The field: `models[0]`.
    pub path: String,
    /// What is wrong and, after a semicolon, how to mend it.
    pub message: String,
}

/// Reads a key that is to join `config`.
///
/// # Errors
/// Every mistake at once: in the document itself, and names that refer to nothing there.
pub fn read_key(body: &Json, config: &Config) -> Result<Key, Vec<Mistake>> {
    let no_file = |_: &str| Err("files are only for the configuration file".to_owned());
    let mut r = Reading::new(Format::Json, &no_file);
    let text = body.to_string();
    let node = raw::read(&text, Format::Json, &mut r);
    let key = node.and_then(|node| Key::read(&node, &At::ROOT, &mut r));
    let mut mistakes: Vec<Mistake> = r
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| Mistake {
            path: problem.path.clone(),
            message: match &problem.help {
                Some(help) => format!("{}; {help}", problem.message),
                None => problem.message.clone(),
            },
        })
        .collect();
    let Some(key) = key else {
        return Err(mistakes);
    };
    mistakes.extend(dangling(&key, config));
    match mistakes.is_empty() {
        true => Ok(key),
        false => Err(mistakes),
    }
}

fn dangling(key: &Key, config: &Config) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut check = |path: String, kind: &str, name: &Name, known: &[&str]| {
        if !known.contains(&name.as_str()) {
            let help = suggest(name.as_str(), known, &format!("{kind}s"));
            let message = format!("there is no {kind} {}; {help}", Quoted(name.as_str()));
            mistakes.push(Mistake { path, message });
        }
    };
    let gateways: Vec<&str> = config.gateways.iter().map(|g| g.name.as_str()).collect();
    let services: Vec<&str> = config.services.iter().map(|s| s.name.as_str()).collect();
    let rules = { config.rules.iter() }.filter(|rule| rule.gateway == key.gateway);
    let rules: Vec<&str> = rules.map(|rule| rule.name.as_str()).collect();
    check("gateway".into(), "gateway", &key.gateway, &gateways);
    for (index, name) in key.services.iter().enumerate() {
        check(format!("services[{index}]"), "service", name, &services);
    }
    for (index, name) in key.rules.iter().enumerate() {
        check(format!("rules[{index}]"), "rule", name, &rules);
    }
    mistakes
}
