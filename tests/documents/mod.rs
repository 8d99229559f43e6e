//! Configuration files: broken ones and what is said about them, examples, and files made from the declarations.
//!
//! `UPDATE_GOLDEN=1` writes what is expected anew.

mod broken;
mod deployment;
mod examples;
mod foreign;
mod foreign_fields;
mod full;
mod garbage;
mod mistakes;
mod reference;

use std::fs;
use std::path::{Path, PathBuf};

use tollgate::config::{self, Format};
use tollgate::model::Config;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares with a file of the repository, or writes it when asked to.
#[track_caller]
fn compare(path: &str, actual: &str) {
    let file = repository(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, actual).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    let line = expected
        .lines()
        .zip(actual.lines())
        .position(|(a, b)| a != b);
    let line = line.unwrap_or(expected.lines().count().min(actual.lines().count()));
    assert!(
        expected == actual,
        "{path} is stale from line {}: run with UPDATE_GOLDEN=1 and look at the difference\nis:     {:?}\nshould: {:?}",
        line + 1,
        expected.lines().nth(line),
        actual.lines().nth(line),
    );
}

/// A configuration that must be accepted without a warning, with nothing in the environment.
#[track_caller]
fn parse_toml(text: &str) -> Config {
    match config::parse("test.toml", text, Format::Toml, &|_| None, &no_file) {
        Ok(loaded) => {
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
            loaded.config
        }
        Err(diagnostics) => panic!("{diagnostics}"),
    }
}

fn no_file(path: &str) -> Result<String, String> {
    Err(format!("there is no file {path}"))
}
