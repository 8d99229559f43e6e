//! The house itself: what ARCHITECTURE.md says of the tree is checked here, where a test can.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders of `src`, in dependency order; those of one line may not use each other.
const ORDER: [&[&str]; 16] = [
    &["telemetry"],
    &["model"],
    &["tls"],
    &["config"],
    &["store"],
    &["calls"],
    &["acme"],
    &["auth"],
    &["balance"],
    &["health"],
    &["snapshot"],
    &["control"],
    &["scale"],
    &["admin", "proxy"],
    &["server"],
    &["cli"],
];
/// Who may name Pingora.
const PINGORA: [&str; 4] = ["proxy", "server", "tls", "health"];
const LONGEST: usize = 500;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{folder}");
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The code of a file, without comments, tests and the text of its documentation.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text
        .split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .to_owned();
    let lines = text.lines().map(|line| match line.find("//") {
        // A URL in a string is no comment.
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The folder of `src` that a file belongs to; `""` for those at its top.
fn folder(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let mut parts = inside.components();
    let first = parts
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    if parts.next().is_some() {
        first
    } else {
        String::new()
    }
}

/// Names that follow `crate::` anywhere in the code, also in braces.
fn uses(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let word = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                _ if start && !c.is_whitespace() => {
                    found.insert(word(&group[at..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn folders_use_only_what_stands_above_them() {
    let rank = |folder: &str| ORDER.iter().position(|row| row.contains(&folder));
    let mut wrong = Vec::new();
    for path in files("src") {
        let here = folder(&path);
        if here.is_empty() {
            continue;
        }
        let Some(own) = rank(&here) else {
            panic!("src/{here} has no place in the order: give it one here and in ARCHITECTURE.md");
        };
        for used in uses(&code(&path)) {
            match rank(&used) {
                Some(_) if used == here => {}
                Some(other) if other < own => {}
                _ => wrong.push(format!("{}: crate::{used}", shown(&path))),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "against the order of folders:\n{}",
        wrong.join("\n")
    );
}

/// A map that leaves a folder out leads astray.
#[test]
fn the_map_names_every_folder() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for folder in ORDER.concat() {
        assert!(
            map.contains(&format!("{folder}/")),
            "ARCHITECTURE.md does not name {folder}/"
        );
        assert!(
            root().join("src").join(folder).is_dir(),
            "src/{folder} is gone"
        );
    }
}

#[test]
fn the_scan_sees_what_it_should() {
    let code = "use crate::a;\nuse crate::{b::{c, d}, e::f,\n g};\nlet x = crate::h::i();";
    let found: Vec<_> = uses(code).into_iter().collect();
    assert_eq!(found, ["a", "b", "e", "g", "h"]);
}

/// Code without the content of its strings: a log's target is only a word.
fn without_text(code: &str) -> String {
    code.lines()
        .map(|line| line.split('"').step_by(2).collect::<String>() + "\n")
        .collect()
}

/// Tests of a file that stand beside it.
fn is_test(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs")
}

#[test]
fn pingora_is_named_in_few_places() {
    for path in files("src") {
        let here = folder(&path);
        if !PINGORA.contains(&here.as_str()) {
            let code = without_text(&code(&path));
            assert!(!code.contains("pingora"), "{} names pingora", shown(&path));
        }
    }
    for crate_of_ours in ["plugins", "bench"] {
        for path in files(crate_of_ours) {
            // The yardstick of the benchmarks is Pingora itself.
            let measured = shown(&path).contains("bare");
            assert!(
                measured || !code(&path).contains("pingora"),
                "{}",
                shown(&path)
            );
        }
    }
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for folder in ["src", "plugins", "bench", "tests"] {
        for path in files(folder) {
            let text = fs::read_to_string(&path).unwrap();
            let tested = text
                .lines()
                .position(|line| line.starts_with("#[cfg(test)]"));
            let lines = tested.unwrap_or(text.lines().count());
            if lines > LONGEST && !is_test(&path) {
                long.push(format!("{}: {lines}", shown(&path)));
            }
        }
    }
    assert!(
        long.is_empty(),
        "over {LONGEST} lines:\n{}",
        long.join("\n")
    );
}

#[test]
fn every_file_says_what_it_is() {
    for folder in ["src", "plugins", "bench", "tests"] {
        for path in files(folder).iter().filter(|path| !is_test(path)) {
            let text = fs::read_to_string(path).unwrap();
            assert!(
                text.starts_with("//!"),
                "{} begins without a word",
                shown(path)
            );
        }
    }
}

#[test]
fn nothing_is_left_to_do() {
    let words = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!("));
    for folder in ["src", "plugins", "bench"] {
        for path in files(folder) {
            let code = code(&path);
            for word in &words {
                assert!(!code.contains(word), "{}: {word}", shown(&path));
            }
        }
    }
}

/// Nobody else has our home.
#[test]
fn no_path_of_one_machine_is_written_down() {
    let homes = ["home", "root", "Users", "work"].map(|home| format!("/{home}/"));
    let mut texts: Vec<PathBuf> = ["src", "plugins", "bench", "tests"]
        .iter()
        .flat_map(|f| files(f))
        .collect();
    for name in [
        "Cargo.toml",
        "Makefile",
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        ".ci/run",
    ] {
        texts.push(root().join(name));
    }
    for folder in ["conf", "docs"] {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        texts.extend(entries.map(|entry| entry.unwrap().path()));
    }
    for path in texts.iter().filter(|path| path.is_file()) {
        let text = fs::read_to_string(path).unwrap();
        for home in &homes {
            // A path begins there; `x/home/` is none.
            let found = text.match_indices(home.as_str()).any(|(at, _)| {
                let before = text[..at].chars().next_back();
                before.is_none_or(|c| c.is_whitespace() || "\"'`=(".contains(c))
            });
            assert!(!found, "{} has a path below {home}", shown(path));
        }
    }
}

#[test]
fn every_crate_forbids_unsafe() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = workspace.parse().unwrap();
    assert_eq!(
        manifest["workspace"]["lints"]["rust"]["unsafe_code"].as_str(),
        Some("forbid")
    );
    for member in manifest["workspace"]["members"].as_array().unwrap() {
        let member = member.as_str().unwrap();
        let text = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        assert_eq!(
            manifest["lints"]["workspace"].as_bool(),
            Some(true),
            "{member} has lints of its own"
        );
    }
}

/// One TLS library, one provider, and nothing of the system's.
#[test]
fn there_is_one_kind_of_cryptography() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for name in [
        "aws-lc-rs",
        "aws-lc-sys",
        "openssl",
        "openssl-sys",
        "native-tls",
        "boring",
        "boring-sys",
        "s2n-tls",
    ] {
        assert!(
            !lock.contains(&format!("name = \"{name}\"\n")),
            "{name} is built in"
        );
    }
    assert!(lock.contains("name = \"ring\"\n"));
}

/// Crates the design asks for by name, each a dependency of ours and not only of another's.
#[test]
fn the_crates_of_the_design_are_ours() {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    for name in [
        "pingora",
        "pingora-proxy",
        "pingora-load-balancing",
        "async-trait",
        "serde",
        "serde_json",
        "toml",
        "once_cell",
        "prometheus",
        "log",
    ] {
        assert!(dependencies.contains_key(name), "{name}");
    }
    for name in [
        "pingora",
        "pingora-core",
        "pingora-proxy",
        "pingora-load-balancing",
    ] {
        let version = manifest["workspace"]["dependencies"][name]["version"].as_str();
        assert!(
            version.is_some_and(|version| version.starts_with('=')),
            "{name} is not pinned"
        );
    }
}

#[test]
fn words_that_say_nothing_name_nothing() {
    let words = [
        "manager",
        "handler",
        "util",
        "utils",
        "helper",
        "helpers",
        "common",
        "backend",
        "cluster",
        "node",
        "endpoint",
        "middleware",
        "misc",
        "types",
    ];
    for folder in ["src", "plugins", "bench", "tests"] {
        for path in files(folder) {
            let place = shown(&path);
            let names = path
                .components()
                .map(|part| part.as_os_str().to_string_lossy().into_owned());
            for name in names.map(|name| name.trim_end_matches(".rs").to_owned()) {
                // A document is a tree, and trees have nodes.
                let tree = name == "node" && place.starts_with("plugins/sdk/src/document");
                assert!(
                    tree || !words.contains(&name.as_str()),
                    "{place} is named {name}"
                );
            }
        }
    }
}
