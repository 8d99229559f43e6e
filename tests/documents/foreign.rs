//! Documents of other systems: what each becomes, and what is said of every field.
//!
//! Every folder of `foreign` is one system. `NAME.yaml` or `NAME.json` is a document, `NAME.options.json` what is said beside it on the
//! command line, if anything is; `NAME.report.txt` and `NAME.toml` are what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tollgate::config::foreign::{self, Converted, Fate, Options};
use tollgate::config::{self, Format, format_of};

use super::{compare, no_file, repository};

const FOLDER: &str = "tests/documents/foreign";
/// What stands in the documents where secrets do.
const SECRETS: [&str; 4] = ["not-a-real", "not-real", "sk-", "hunter2"];

#[test]
fn what_becomes_of_foreign_documents() {
    let mut systems = BTreeMap::new();
    for folder in sorted(&repository(FOLDER)) {
        let system = name_of(&folder);
        for document in sorted(&folder).iter().filter(|file| is_document(file)) {
            check(&system, document);
            *systems.entry(system.clone()).or_insert(0) += 1;
        }
    }
    assert!(systems.len() >= 2, "{systems:?}");
    assert!(systems.values().all(|count| *count >= 6), "{systems:?}");
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

fn check(system: &str, file: &Path) {
    let shown = format!("{system}/{}", name_of(file));
    let text = fs::read_to_string(file).unwrap();
    let document = foreign::read(&shown, &text, format_of(file));
    let document = document.unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
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
    every_field_is_told(&document, &converted, &shown);
    if !converted.is_refused() {
        is_accepted(&native, &converted, &shown);
    }
}

fn options(document: &Path) -> Options {
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
    }
}

/// Nothing is dropped in silence: something is said of each field of the document, or of each of a list, unless it is refused as a whole.
fn every_field_is_told(document: &Value, converted: &Converted, shown: &str) {
    let mut paths = Vec::new();
    match document {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let fields = item.as_object().into_iter().flat_map(Map::keys);
                paths.extend(fields.map(|name| format!("[{index}].{name}")));
            }
        }
        one => paths.extend(one.as_object().into_iter().flat_map(Map::keys).cloned()),
    }
    for path in paths {
        let told = converted.notes.iter().any(|note| {
            let rest = note.path.strip_prefix(&path);
            let itself = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
            // What is refused anywhere is not used at all.
            let whole = path.rsplit_once('.').map_or("", |(whole, _)| whole);
            itself || (note.fate == Fate::Refused && note.path.starts_with(whole))
        });
        assert!(told, "{shown}: nothing is said of {path}");
    }
}

/// What is not refused is read as if it had been written by hand, beside the gateways that the document names and does not hold.
fn is_accepted(native: &str, converted: &Converted, shown: &str) {
    let bodies = |kind: &str| -> Vec<&Map<String, Value>> {
        let of_kind = converted
            .resources
            .iter()
            .filter(|resource| resource.kind == kind);
        of_kind.map(|resource| &resource.body).collect()
    };
    let named: BTreeSet<&str> = bodies("gateway")
        .into_iter()
        .filter_map(|body| body["name"].as_str())
        .collect();
    let services = bodies("service");
    let lists = services
        .iter()
        .flat_map(|body| body.get("gateways")?.as_array())
        .flatten();
    let others = ["rule", "key"].map(bodies).concat();
    let single = others.iter().filter_map(|body| body.get("gateway"));
    let wanted: BTreeSet<&str> = lists.chain(single).filter_map(Value::as_str).collect();
    let mut text = native.to_owned();
    for (index, name) in wanted.difference(&named).enumerate() {
        text += &format!("[[gateway]]\nname = \"{name}\"\nhosts = [\"{index}.example\"]\n\n");
    }
    if bodies("listener").is_empty() {
        text += "[[listener]]\naddress = \"127.0.0.1:8080\"\n";
    }
    if let Err(diagnostics) = config::parse(shown, &text, Format::Toml, &|_| None, &no_file) {
        panic!("{shown}:\n{diagnostics}\n{text}");
    }
}
