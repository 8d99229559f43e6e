//! The admin API's unix socket: for its owner alone, who then needs no token; and nothing in its place is destroyed.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use serde_json::Value;

use crate::harness::{PATIENCE, Process, closed_address, program, service, until};

const TOKEN: &str = "admin-token-0123456789";

fn toml(socket: &str) -> String {
    let target = format!("http://{}", closed_address());
    format!("[admin]\naddress = \"$ADMIN\"\ntoken = \"{TOKEN}\"\nsocket = \"{socket}\"\n")
        + &service("a", "a", &target)
}

/// Status and body of a request over the socket.
fn ask(socket: &Path, request: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (line, body) = request.split_once('\n').unwrap_or((request, ""));
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

#[test]
fn its_owner_needs_no_token_and_others_cannot_open_it() {
    let mut process = Process::start(&toml("./admin.sock"));
    let socket = process.path("admin.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(ask(&socket, "GET /v1/keys").0, 200);
    let (status, body) = ask(
        &socket,
        "POST /v1/keys\n{\"name\":\"k\",\"gateway\":\"main\"}",
    );
    assert_eq!(status, 201, "{body}");
    assert_eq!(ask(&socket, "GET /nothing").0, 404);
    // Over the network the token is asked for as ever.
    assert_eq!(process.api().get("/v1/keys").status, 401);
    let uid = {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(&socket).unwrap().uid()
    };
    let who = until("the line of the write", || {
        let log = process.read("stderr");
        let mut lines = log
            .lines()
            .filter_map(|l| serde_json::from_str::<Value>(l).ok());
        lines.find(|line| line["target"] == "audit")
    });
    assert_eq!(who["who"], format!("socket:{uid}"));
    process.signal("TERM");
    assert!(process.end().0.success());
    assert!(!socket.exists(), "it is left behind");
    let left = std::fs::read_dir(socket.parent().unwrap()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().starts_with(".tg-")),
        "{left:?}"
    );
}

#[test]
fn who_was_killed_leaves_a_socket_that_is_replaced() {
    let mut process = Process::start(&toml("./admin.sock"));
    let socket = process.path("admin.sock");
    process.signal("KILL");
    process.end();
    assert!(socket.exists() && UnixStream::connect(&socket).is_err());
    process.restart();
    assert_eq!(ask(&socket, "GET /v1/keys").0, 200);
    process.signal("INT");
    process.end();
    assert!(!socket.exists(), "it is left behind");
}

/// The process does not start, and says why.
#[track_caller]
fn refuse_to_start(socket: &Path, told: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (listener, admin) = (closed_address(), closed_address());
    let text = toml(&socket.display().to_string()).replace("$ADMIN", &admin.to_string())
        + &format!(
            "[server]\nstate = \"memory\"\n[[listener]]\naddress = \"{listener}\"\n[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n"
        );
    std::fs::write(folder.path().join("t.toml"), text).unwrap();
    let ran = program(&["run", "-c", "t.toml"], &[], Some(folder.path()));
    ran.failed(1, &["admin.socket", told]);
}

#[test]
fn what_somebody_uses_or_is_no_socket_stays() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live.sock");
    let listener = UnixListener::bind(&live).unwrap();
    refuse_to_start(&live, "another process answers");
    assert!(UnixStream::connect(&live).is_ok());
    drop(listener);
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    refuse_to_start(&file, "no socket");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    refuse_to_start(&folder.path().join("none/admin.sock"), "No such file");
}

#[test]
fn a_path_that_cannot_be_one_is_a_mistake_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    for (path, told) in [
        ("", "empty"),
        ("/run/", "folder"),
        (&*"x".repeat(120), "too long"),
    ] {
        std::fs::write(&file, format!("[admin]\nsocket = \"{path}\"\n")).unwrap();
        let ran = program(&["check", "-c", "t.toml"], &[], Some(folder.path()));
        ran.failed(1, &["admin.socket", told]);
    }
}
