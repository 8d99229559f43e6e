//! `tollgate demo`: what it prints works as printed.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use crate::harness::{Process, until};

/// The commands among what was printed, each on one line.
fn commands(printed: &str) -> Vec<String> {
    let joined = printed.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    lines
        .filter(|line| line.starts_with("curl "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_printed_commands_work() {
    let address: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    let admin: SocketAddr = "127.0.0.1:9091".parse().unwrap();
    if let Some(taken) = [address, admin]
        .iter()
        .find(|a| TcpListener::bind(a).is_err())
    {
        println!("skipped: somebody listens on {taken}, which the demo needs");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Process::spawn(&["demo".to_owned()], folder, address, admin);
    let printed = until("the demo's greeting", || {
        assert!(demo.has_ended().is_none(), "{}", demo.read("stderr"));
        let printed = demo.read("stdout");
        printed.contains("Ctrl-C").then_some(printed)
    });
    let commands = commands(&printed);
    assert!(commands.len() >= 4, "{printed}");
    let (mut models, mut whole, mut streams, mut metrics) = (0, 0, 0, 0);
    for command in &commands {
        let output = Command::new("sh").args(["-c", command]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        if command.contains("/v1/models") {
            assert!(
                text.contains("demo/large") && text.contains("demo/small"),
                "{text}"
            );
            models += 1;
        } else if command.contains("\"stream\": true") {
            assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
            assert!(text.matches("data: ").count() > 10, "{text}");
            streams += 1;
        } else if command.contains("/v1/chat/completions") {
            let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(
                answer["choices"][0]["message"]["content"].is_string(),
                "{text}"
            );
            whole += 1;
        } else if command.contains("/metrics") {
            assert!(text.contains("tollgate_requests_total"), "{text}");
            metrics += 1;
        }
    }
    assert_eq!((models, whole, streams, metrics), (1, 1, 1, 1), "{printed}");
    demo.signal("INT");
    let (status, took) = demo.end();
    assert!(took < std::time::Duration::from_secs(3), "{took:?}");
    assert!(status.success(), "{status}");
    assert!(
        !demo.read("stderr").contains("panicked"),
        "{}",
        demo.read("stderr")
    );
}
