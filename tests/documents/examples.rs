//! Every example is accepted without a warning. That each boots is tested where the gateway is.

use std::fs;
use std::path::PathBuf;

use tollgate::config;

use super::repository;
use crate::harness::load_example;

fn files() -> Vec<PathBuf> {
    let examples = fs::read_dir(repository("conf/examples")).unwrap();
    let mut files: Vec<_> = examples.map(|entry| entry.unwrap().path()).collect();
    files.extend([
        repository("conf/tollgate.toml"),
        repository("conf/full.toml"),
    ]);
    files.sort();
    files
}

#[test]
fn examples_are_accepted() {
    let files = files();
    assert!(files.len() > 8, "{files:?}");
    for file in files {
        let (_folder, loaded) = load_example(&file);
        let loaded = loaded.unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }
}

#[test]
fn formats_say_the_same() {
    let load = |path: &str| config::load(&repository(path)).unwrap().config;
    let toml = load("conf/tollgate.toml");
    assert_eq!(toml, load("conf/examples/smallest.yaml"));
    assert_eq!(toml, load("conf/examples/smallest.json"));
}
