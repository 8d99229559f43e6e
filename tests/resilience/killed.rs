//! A process that is killed: what it had answered is still known, but for its last second.

use std::time::{Duration, Instant};

use crate::harness::{Process, Upstream, service};

/// So long before the kill is what must be there.
const LOST_AT_MOST: Duration = Duration::from_secs(1);

#[test]
fn at_most_a_second_of_usage_is_lost() {
    let upstream = Upstream::obliging();
    let toml =
        "[server]\nstate = \"./tollgate.db\"\n".to_owned() + &service("a", "a", &upstream.url());
    let mut process = Process::start(&toml);
    let requests = |process: &Process| -> usize {
        let usage = process.api().get("/v1/usage?by=service").json();
        let items = usage["items"].as_array().unwrap().iter();
        let count = items.map(|item| item["requests"].as_u64().unwrap() as usize);
        count.sum()
    };
    let mut before = 0;
    for round in 0..2 {
        let mut answered = Vec::new();
        let mut client = process.client();
        let start = Instant::now();
        // A steady pace, over the borders of several writes.
        while start.elapsed() < Duration::from_millis(2_300) {
            client.chat("a", "").assert_ok();
            answered.push(Instant::now());
            std::thread::sleep(Duration::from_millis(5));
        }
        let killed = Instant::now();
        process.signal("KILL");
        process.end();
        process.restart();
        let old = answered.iter().filter(|at| **at + LOST_AT_MOST < killed);
        let (old, all) = (old.count(), answered.len());
        assert!(old > 20, "too few to tell: {old}");
        let kept = requests(&process) - before;
        assert!(
            (old..=all).contains(&kept),
            "round {round}: {kept} of {old} to {all}"
        );
        before += kept;
    }
}

/// What was counted is not counted again, and counting goes on where it was.
#[test]
fn at_most_a_second_of_a_budget_is_lost() {
    let body = r#"{"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let length = body.len();
    let upstream = Upstream::replying(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    ));
    const LIMIT: usize = 100_000;
    let budget = format!(
        "{{ name = \"budget\", settings = {{ limit = {LIMIT}.0, unit = \"tokens\", by = \"global\", default_output = 0 }} }}"
    );
    let toml = "[server]\nstate = \"./tollgate.db\"\n".to_owned()
        + &format!(
            "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\nplugins = [{budget}]\n"
        )
        + &service("a", "a", &upstream.url());
    let mut process = Process::start(&toml);
    let mut answered = Vec::new();
    let mut client = process.client();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2_800) {
        client.chat("a", "").assert_ok();
        answered.push(Instant::now());
        std::thread::sleep(Duration::from_millis(5));
    }
    let killed = Instant::now();
    process.signal("KILL");
    process.end();
    let file = rusqlite::Connection::open(process.path("tollgate.db")).unwrap();
    let used: i64 = { &file }
        .query_row("SELECT sum(used) FROM counter", [], |row| row.get(0))
        .unwrap();
    // Each took two tokens; one may have been under way, at its estimate.
    let old = answered
        .iter()
        .filter(|at| **at + 2 * LOST_AT_MOST < killed);
    let (least, most) = (2 * old.count(), 2 * answered.len() + 100);
    assert!(least > 20, "too few to tell: {least}");
    let used = used as usize;
    assert!(
        (least..=most).contains(&used),
        "{used} of {least} to {most}"
    );
    drop(file);
    process.restart();
    process.client().chat("a", "").assert_ok();
}
