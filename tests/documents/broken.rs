//! Broken files: what is said about each must let a user mend it without opening the documentation.

use std::fs;

use tollgate::config::{self, format_of};

use super::{compare, no_file, repository};

#[test]
fn what_is_said_about_broken_files() {
    let mut files: Vec<_> = fs::read_dir(repository("tests/documents/broken"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy();
        let text = fs::read_to_string(&file).unwrap();
        let env = |name: &str| (name == "SET_KEY").then(|| "sk-from-the-environment".to_owned());
        let said = config::parse(&name, &text, format_of(&file), &env, &no_file).expect_err(&name);
        let said = said.to_string();
        for secret in ["sk-", "hunter2"] {
            assert!(!said.contains(secret), "{name} tells a secret:\n{said}");
        }
        let stem = file.file_stem().unwrap().to_string_lossy();
        compare(&format!("tests/documents/broken/{stem}.txt"), &said);
    }
}
