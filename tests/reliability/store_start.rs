//! State files with which the gateway must not start: it says why, and leaves them as they were.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use rusqlite::Connection;
use serde_json::json;
use tollgate::store::{Change, Options, Sqlite, Store};

use crate::harness::{Process, free_port};

/// Starts the program with `state` as its state file, which it must refuse with these words.
#[track_caller]
fn assert_refused(state: &Path, words: &str) {
    let before = std::fs::read(state).ok();
    let folder = tempfile::tempdir().unwrap();
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (address, admin) = (local(free_port()), local(free_port()));
    let file = folder.path().join("tollgate.toml");
    let text = format!(
        "[server]\nstate = \"{}\"\n[admin]\naddress = \"{admin}\"\n[[listener]]\naddress = \"{address}\"\n[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n",
        state.display()
    );
    std::fs::write(&file, text).unwrap();
    let arguments = ["run".into(), "-c".into(), file.display().to_string()];
    let mut process = Process::spawn(&arguments, folder, address, admin);
    let (status, _) = process.end();
    let said = process.read("stderr");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("server.state"), "{said}");
    assert!(said.contains(words), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(process.read("stdout"), "");
    assert_eq!(std::fs::read(state).ok(), before, "it was touched");
}

/// A file as Tollgate leaves it, with a key in it.
fn write(path: &Path) {
    let store = Sqlite::open(path, Options::default()).unwrap();
    let changes: Vec<Change> = (0..200)
        .map(|n| Change::Put {
            kind: "key".into(),
            name: format!("key-{n}"),
            gateway: Some("main".into()),
            body: json!({"name": format!("key-{n}"), "gateway": "main", "description": "x".repeat(200)}),
        })
        .collect();
    store.apply(&changes, None).unwrap();
}

#[test]
fn a_file_that_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere").join("tollgate.db");
    assert_refused(&nowhere, "cannot be opened: its folder must exist");
    assert!(!folder.path().join("nowhere").exists());
    // A folder in its place.
    assert_refused(folder.path(), "state file");
}

#[test]
fn a_file_that_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tollgate.db");
    std::fs::write(
        &path,
        "this is a text, and a longer one than a header is".repeat(100),
    )
    .unwrap();
    assert_refused(&path, "damaged or no SQLite database");

    let good = folder.path().join("good.db");
    write(&good);
    let bytes = std::fs::read(&good).unwrap();
    // Its head is whole, and what comes after it is not, or is missing.
    for (name, damaged) in [
        (
            "overwritten.db",
            [&bytes[..4096], &vec![0xAA; bytes.len() - 4096]].concat(),
        ),
        ("cut.db", bytes[..8192].to_vec()),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, damaged).unwrap();
        assert_refused(&path, "damaged or no SQLite database");
    }
}

#[test]
fn a_file_of_a_newer_version_or_of_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let newer = folder.path().join("newer.db");
    write(&newer);
    let other = Connection::open(&newer).unwrap();
    other.pragma_update(None, "user_version", 99).unwrap();
    drop(other);
    assert_refused(&newer, "has version 99");

    let foreign = folder.path().join("foreign.db");
    let other = Connection::open(&foreign).unwrap();
    other
        .execute_batch("CREATE TABLE people (name TEXT); INSERT INTO people VALUES ('ann')")
        .unwrap();
    drop(other);
    assert_refused(&foreign, "the database of something else");
}
