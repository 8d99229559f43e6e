//! Replicas live on while everything about them changes: a file that is read again, a process that takes over, one that is killed.

use serde_json::Value;

use super::upgrade::{gone, upgrade};
use crate::harness::{
    CHAT, Process, engines, is_running, post, processes, scaled, stands, streamed, until,
};

fn one(told: &Value) -> bool {
    told["ready"] == 1
}

#[test]
fn a_reload_keeps_replicas_and_takes_new_bounds() {
    let text = scaled(
        "min = 1\nmax = 3\ntarget = 9.0",
        &engines(3, "0", "--tokens 1000"),
        "",
    );
    let process = Process::start(&text);
    let api = process.api();
    stands(&api, "a replica", one);
    let before = processes(&api);
    let mut stream = process.client();
    stream.send(post(CHAT, "x-sim: itl=20ms\r\n", streamed("qwen", 200)));
    assert_eq!(stream.head().unwrap().status, 200);
    let file = process.path("tollgate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("min = 1\n", "min = 2\n")).unwrap();
    let told = stands(&api, "two replicas", |told| told["ready"] == 2);
    assert!(
        told["reason"].as_str().unwrap().contains("between 2 and 3"),
        "{told}"
    );
    assert!(
        processes(&api).contains(&before[0]),
        "the first one lives on"
    );
    // A service that is scaled no longer has no replicas; what they had comes to its end.
    let text = std::fs::read_to_string(&file).unwrap();
    let (head, rest) = text.split_once("[service.scaling]").unwrap();
    let rest = rest.split_once("\n[").map_or("", |(_, rest)| rest);
    let head = head.replace("targets = []", "targets = [\"http://127.0.0.1:9\"]");
    let running = processes(&api);
    std::fs::write(&file, format!("{head}\n[{rest}")).unwrap();
    until("its targets to leave", || {
        processes(&api).is_empty().then_some(())
    });
    let text = stream.rest_of_stream();
    assert!(
        text.ends_with(b"data: [DONE]\n\n"),
        "cut: {}",
        String::from_utf8_lossy(&text)
    );
    for (_, pid) in running {
        until("replicas to end", || (!is_running(pid)).then_some(()));
    }
}

/// Who takes over goes on with the replicas that there are, and ends them in the end.
#[test]
fn replicas_outlive_a_change_of_processes() {
    let text = scaled("min = 1\nmax = 1\ntarget = 9.0", &engines(1, "0", ""), "");
    let process = Process::start_own(&text, &[]);
    let api = process.api();
    stands(&api, "a replica", one);
    let before = processes(&api);
    let old = process.pid();
    upgrade(&process);
    gone(old);
    stands(&api, "the replica to be found", one);
    assert_eq!(processes(&api), before);
    assert!(is_running(before[0].1), "it lives on");
    process.client().chat("qwen", "").assert_ok();
    let new = process.read("tollgate.pid");
    let ended = std::process::Command::new("kill").arg(new.trim()).status();
    assert!(ended.unwrap().success());
    until("the replica to end", || {
        (!is_running(before[0].1)).then_some(())
    });
}

/// Nobody could end its replica; the next process finds it.
#[test]
fn a_killed_process_is_followed_by_one_that_finds_its_replicas() {
    let text = scaled("min = 1\nmax = 1\ntarget = 9.0", &engines(1, "0", ""), "");
    let text = format!("[server]\nstate = \"./tollgate.db\"\n{text}");
    let mut process = Process::start(&text);
    stands(&process.api(), "a replica", one);
    let before = processes(&process.api());
    process.signal("KILL");
    process.end();
    assert!(is_running(before[0].1), "there was nobody to end it");
    process.restart();
    stands(&process.api(), "the replica to be found", one);
    assert_eq!(processes(&process.api()), before);
    process.client().chat("qwen", "").assert_ok();
    process.signal("KILL");
    process.end();
    let killed = std::process::Command::new("kill")
        .args(["-9", &before[0].1.to_string()])
        .status();
    assert!(killed.unwrap().success());
    process.restart();
    let another = |told: &Value| one(told) && processes(&process.api()) != before;
    stands(&process.api(), "another one in its place", another);
    process.client().chat("qwen", "").assert_ok();
    let after = processes(&process.api());
    process.signal("TERM");
    process.end();
    assert!(!is_running(after[0].1), "it lives on");
}
