//! Where the replicas of a service are, and what each does where its router splits requests.
//!
//! dstack knows since it starts them, here it must be said. It asks SGLang's engines what they do; here the word beside an address says it, else the
//! command of its group, else the name of its group.

use serde_json::{Value, json};
use tollgate_sdk::document::FromNode;

use super::super::Options;
use super::super::fields::{Fields, Notes, quoted};
use super::super::roles::{self, Placed};
use super::groups::Groups;
use crate::model::{Disaggregation, KvProtocol, Role};

/// What a group says of its replicas, if anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Said {
    pub(super) role: Option<Role>,
    /// Its command says the role; else its name does.
    pub(super) by_command: bool,
    pub(super) bootstrap_port: Option<u16>,
}

impl Said {
    /// Of a group's name and its commands, in which SGLang's own flags are looked for.
    pub(super) fn of(name: &str, commands: Option<&Value>) -> Said {
        let role = |word: &str| match word {
            "prefill" => Some(Role::Prefill),
            "decode" => Some(Role::Decode),
            _ => None,
        };
        let lines = { commands.and_then(Value::as_array).into_iter().flatten() };
        let lines: Vec<&str> = lines.filter_map(Value::as_str).collect();
        let by_command = flag(&lines, "--disaggregation-mode").and_then(role);
        let port = flag(&lines, "--disaggregation-bootstrap-port");
        Said {
            role: by_command.or_else(|| role(name)),
            by_command: by_command.is_some(),
            bootstrap_port: port.and_then(|port| port.parse().ok().filter(|port| *port > 0)),
        }
    }
}

/// What follows a flag among the words of a command.
fn flag<'c>(lines: &[&'c str], name: &str) -> Option<&'c str> {
    let mut words = lines.iter().flat_map(|line| line.split_whitespace());
    while let Some(word) = words.next() {
        if word == name {
            return words.next();
        }
        let value = word
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('='));
        if value.is_some() {
            return value;
        }
    }
    None
}

/// How SGLang's engines split requests.
pub(super) fn sglang() -> Disaggregation {
    roles::settings(KvProtocol::Sglang, None)
}

/// Its targets. `split`: its requests are split between them.
pub(super) fn targets(
    fields: &Fields<'_>,
    service: &str,
    port: Option<u16>,
    groups: Option<&Groups>,
    split: bool,
    options: &Options,
    notes: &mut Notes,
) -> Vec<Placed> {
    let below = |group: &String| format!("{service}/{group}");
    let mut names = vec![(service.to_owned(), Said::default())];
    names.extend({ groups.iter() }.flat_map(|groups| {
        { groups.serving.iter() }.map(|(group, said)| (below(group), said.clone()))
    }));
    let mut targets = Vec::new();
    let mut is_broken = false;
    for (name, url) in &options.targets {
        let Some((_, said)) = names.iter().find(|(known, _)| known == name) else {
            continue;
        };
        match Placed::from_text(&format!("--target {name}"), url) {
            Ok(mut placed) => {
                if split {
                    fill_in(&mut placed, said, notes);
                }
                notes.taken(&*placed.path, placed.told("among the targets"));
                targets.push(placed);
            }
            Err(message) => {
                is_broken = true;
                notes.refused(format!("--target {name}"), message);
            }
        }
    }
    left_out(service, groups, options, notes);
    if !targets.is_empty() {
        if !is_broken {
            let settings = split.then(sglang);
            let wish = "let `router` have `pd_disaggregation: true`";
            let example = give(service, groups);
            roles::check(&targets, settings.as_ref(), wish, &example, notes);
        }
    } else if split {
        let message = format!(
            "dstack asks its replicas what they do: {}",
            give(service, groups)
        );
        notes.refused(fields.path(), message);
    } else if let Some(placed) = alone(fields, service, port, notes) {
        targets.push(placed);
    }
    targets
}

/// What is not said beside the address, its group says.
fn fill_in(placed: &mut Placed, said: &Said, notes: &mut Notes) {
    if let (None, Some(role)) = (placed.role, said.role) {
        placed.role = Some(role);
        let role = role.value();
        match said.by_command {
            true => notes.adapted(
                &*placed.path,
                format!("role = {role}, by the command of its group"),
            ),
            false => notes.assumed(
                &*placed.path,
                format!("role = {role}, by the name of its group"),
            ),
        }
    }
    if placed.role == Some(Role::Prefill) {
        placed.bootstrap_port = placed.bootstrap_port.or(said.bootstrap_port);
        if placed.bootstrap_port.is_none() {
            let message = "no bootstrap_port: the engine's own setting; another is given with ,bootstrap_port=PORT";
            notes.assumed(&*placed.path, message);
        }
    }
}

/// How roles are given.
fn give(service: &str, groups: Option<&Groups>) -> String {
    let name = match groups {
        Some(_) => format!("{service}/GROUP"),
        None => service.to_owned(),
    };
    format!("--target {name}=URL,role=prefill and --target {name}=URL,role=decode")
}

/// Nothing is said: one engine on this machine, where a user would try it.
fn alone(
    fields: &Fields<'_>,
    service: &str,
    port: Option<u16>,
    notes: &mut Notes,
) -> Option<Placed> {
    let url = format!("http://127.0.0.1:{}", port.unwrap_or(8000));
    let message = format!(
        "dstack starts the replicas and knows their addresses: targets = [{}]; give them with --target {service}=URL",
        quoted(&url)
    );
    notes.assumed(fields.path(), message);
    Placed::from_text(fields.path(), &url).ok()
}

/// Addresses of groups that are not asked.
fn left_out(service: &str, groups: Option<&Groups>, options: &Options, notes: &mut Notes) {
    let behind = { groups.iter() }.flat_map(|groups| groups.behind.iter());
    let behind: Vec<String> = behind.map(|group| format!("{service}/{group}")).collect();
    for (name, _) in options
        .targets
        .iter()
        .filter(|(name, _)| behind.contains(name))
    {
        let path = format!("--target {name}");
        notes.warned(path, "left out: requests reach it by its service's router");
    }
}

/// As entries of `targets`, below this path.
pub(super) fn values(targets: &[Placed], below: &str) -> Value {
    json!(
        { targets.iter() }
            .map(|placed| placed.value(below))
            .collect::<Vec<_>>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_tells_more_than_a_name() {
        let said = |name: &str, commands: Value| {
            let said = Said::of(name, Some(&commands));
            (said.role, said.bootstrap_port)
        };
        let serve = "python -m sglang.launch_server";
        for (name, commands, expected) in [
            ("a", json!([serve]), (None, None)),
            ("decode", json!([serve]), (Some(Role::Decode), None)),
            (
                "decode",
                json!([
                    "cd x",
                    format!(
                        "{serve} \\\n  --disaggregation-mode prefill \\\n --disaggregation-bootstrap-port=7000"
                    )
                ]),
                (Some(Role::Prefill), Some(7000)),
            ),
            (
                "a",
                json!([format!(
                    "{serve} --disaggregation-mode=$MODE --disaggregation-bootstrap-port x"
                )]),
                (None, None),
            ),
            (
                "a",
                json!([format!("{serve} --disaggregation-mode")]),
                (None, None),
            ),
            ("a", json!("decode"), (None, None)),
        ] {
            assert_eq!(said(name, commands.clone()), expected, "{name} {commands}");
        }
    }
}
