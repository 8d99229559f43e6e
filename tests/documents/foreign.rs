//! Documents of other systems: what each becomes, and what is said of every field.
//!
//! Every folder of `foreign` is one system. `NAME.yaml` or `NAME.json` is a document, `NAME.options.json` what is said beside it on the
//! command line, if anything is; `NAME.report.txt` and `NAME.toml` are what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tollgate::config::foreign::{self, Converted, Options};
use tollgate::config::{self, Format, format_of};

use super::foreign_fields::untold;
use super::{compare, no_file, repository};

const FOLDER: &str = "tests/documents/foreign";
/// What stands in the documents where secrets do.
const SECRETS: [&str; 4] = ["not-a-real", "not-real", "sk-", "hunter2"];

#[test]
fn what_becomes_of_foreign_documents() {
    let mut systems: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for (shown, file) in documents() {
        let (system, name) = shown.split_once('/').unwrap();
        check(system, &file, &shown);
        let [seeds, others] = systems.entry(system.to_owned()).or_default();
        match name.starts_with("seed-") {
            true => *seeds += 1,
            false => *others += 1,
        }
    }
    assert_eq!(systems.len(), 4, "{systems:?}");
    let enough = |[seeds, others]: &[usize; 2]| *seeds >= 1 && *others >= 5;
    assert!(systems.values().all(enough), "{systems:?}");
}

/// Every document, with its system and name.
pub(super) fn documents() -> Vec<(String, PathBuf)> {
    let folders = sorted(&repository(FOLDER)).into_iter();
    let files = folders
        .flat_map(|folder| sorted(&folder))
        .filter(|file| is_document(file));
    let shown = |file: &Path| format!("{}/{}", name_of(file.parent().unwrap()), name_of(file));
    files.map(|file| (shown(&file), file)).collect()
}

pub(super) fn read(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap();
    let document = foreign::read(&name_of(file), &text, format_of(file));
    document.unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn is_document(file: &Path) -> bool {
    let name = name_of(file);
    (name.ends_with(".json") || name.ends_with(".yaml")) && !name.ends_with(".options.json")
}

fn check(system: &str, file: &Path, shown: &str) {
    let document = read(file);
    let converted = foreign::convert(&document, &options(file))
        .unwrap_or_else(|| panic!("{shown} is not recognised"));
    let dialect = converted.dialect.to_string().to_lowercase();
    assert_eq!(dialect, system, "{shown}");

    let report: String = { converted.notes.iter() }
        .map(|note| format!("{note}\n"))
        .collect();
    let native = converted.to_toml();
    let stem = file.file_stem().unwrap().to_string_lossy();
    let beside = |name: &str| format!("{FOLDER}/{system}/{stem}.{name}");
    compare(&beside("report.txt"), &report);
    compare(&beside("toml"), &native);

    for secret in SECRETS {
        assert!(
            !report.contains(secret),
            "{shown} tells a secret:\n{report}"
        );
    }
    assert_eq!(untold(&document, &converted), [""; 0], "{shown}");
    if !converted.is_refused()
        && let Err(wrong) = is_accepted(&native, &converted)
    {
        panic!("{shown}:\n{wrong}");
    }
}

pub(super) fn options(document: &Path) -> Options {
    let Ok(text) = fs::read_to_string(document.with_extension("options.json")) else {
        return Options::default();
    };
    let given: Value = serde_json::from_str(&text).unwrap();
    let text = |name: &str| given[name].as_str().map(str::to_owned);
    let pairs = |name: &str| -> Vec<(String, String)> {
        let all = given[name].as_object().into_iter().flatten();
        all.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
            .collect()
    };
    let list = |name: &str| -> Vec<String> {
        let all = given[name].as_array().into_iter().flatten();
        all.map(|value| value.as_str().unwrap().to_owned())
            .collect()
    };
    Options {
        gateway: text("gateway"),
        project: text("project"),
        targets: pairs("targets"),
        local: list("local"),
        flags: pairs("flags").into_iter().collect(),
        qualified: given["qualified"] == true,
    }
}

/// What is not refused is read as if it had been written by hand, beside what the document names and does not hold.
pub(super) fn is_accepted(native: &str, converted: &Converted) -> Result<(), String> {
    let named = |kind: &str, field: &str| -> BTreeSet<String> {
        let of_kind = converted
            .resources
            .iter()
            .filter(|resource| resource.kind == kind);
        let values = of_kind.filter_map(|resource| resource.body.get(field));
        let each = values.flat_map(|value| match value {
            Value::Array(items) => items.clone(),
            one => vec![one.clone()],
        });
        let name = |value: Value| {
            value
                .get("name")
                .unwrap_or(&value)
                .as_str()
                .map(str::to_owned)
        };
        each.filter_map(name).collect()
    };
    let missing = |kind: &str, places: &[(&str, &str)]| -> Vec<String> {
        let wanted = places.iter().flat_map(|(kind, field)| named(kind, field));
        let here = named(kind, "name");
        wanted
            .filter(|name| !here.contains(name))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    };
    let mut text = native.to_owned();
    let gateways = missing(
        "gateway",
        &[
            ("service", "gateways"),
            ("rule", "gateway"),
            ("key", "gateway"),
        ],
    );
    for (index, name) in gateways.iter().enumerate() {
        text += &format!("[[gateway]]\nname = \"{name}\"\nhosts = [\"{index}.example\"]\n\n");
    }
    let target = "targets = [\"http://127.0.0.1:1\"]\n\n";
    for name in missing("service", &[("rule", "services")]) {
        text += &format!("[[service]]\nname = \"{name}\"\n{target}");
    }
    for name in missing("upstream", &[("service", "upstream")]) {
        text += &format!("[[upstream]]\nname = \"{name}\"\n{target}");
    }
    if native.contains("certificate = \"acme\"") {
        text += "[acme]\nterms_agreed = true\n[server]\nstate = \"memory\"\n";
    }
    if named("listener", "name").is_empty() {
        text += "[[listener]]\naddress = \"127.0.0.1:8080\"\n";
    }
    match config::parse("result", &text, Format::Toml, &|_| None, &no_file) {
        Ok(_) => Ok(()),
        Err(diagnostics) => Err(format!("{diagnostics}\n{text}")),
    }
}
