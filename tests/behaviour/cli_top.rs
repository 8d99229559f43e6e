//! `tollgate top`: one frame for pipes, a live view for people.

use serde_json::json;

use crate::harness::{Admin, Mood, Terminal};

const MOMENT: f64 = 1000.0;

/// What a gateway counts after so many requests.
fn metrics(requests: u32) -> String {
    let tokens = requests * 40;
    format!(
        "# TYPE tollgate_requests_total counter\n\
        tollgate_requests_total{{code=\"200\",gateway=\"main\",service=\"qwen\"}} {requests}\n\
        tollgate_requests_total{{code=\"200\",gateway=\"main\",service=\"alpha\"}} 5\n\
        tollgate_tokens_total{{direction=\"output\",gateway=\"main\",service=\"qwen\"}} {tokens}\n\
        tollgate_time_to_first_token_seconds_bucket{{gateway=\"main\",service=\"qwen\",le=\"0.1\"}} 0\n\
        tollgate_time_to_first_token_seconds_bucket{{gateway=\"main\",service=\"qwen\",le=\"0.3\"}} {requests}\n\
        tollgate_time_to_first_token_seconds_bucket{{gateway=\"main\",service=\"qwen\",le=\"+Inf\"}} {requests}\n\
        tollgate_in_flight{{service=\"qwen\"}} 17\ntollgate_in_flight{{service=\"alpha\"}} 0\n"
    )
}

fn busy() -> Admin {
    let admin = Admin::start();
    admin.change(|state| {
        state.metrics = (0..200).map(|n| metrics(n * 100)).collect();
        state.status = json!({"version": "9.8.7", "ready": true,
            "queues": [{"service": "qwen", "depth": 6, "waiting_for_target": 0}],
            "targets": [{"upstream": "pool", "id": "t1", "url": "http://10.0.0.1:8000", "health": "up", "breaker": "closed", "in_flight": 17, "weight": 2},
                {"upstream": "pool", "id": "t2", "url": "http://10.0.0.2:8000", "health": "down", "breaker": "open", "in_flight": 0, "weight": 1}]});
    });
    admin
}

#[test]
fn once_prints_one_plain_frame() {
    let admin = busy();
    let frame = admin.api().cli(&["top", "--once"]).done();
    assert!(!frame.contains('\u{1b}'), "{frame}");
    let lines: Vec<Vec<&str>> = frame
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        ["tollgate", "9.8.7", &admin.url(), "revision", "1", "ready"]
    );
    let row = |name: &str| {
        lines
            .iter()
            .find(|line| line.first() == Some(&name) || line.get(1) == Some(&name))
            .unwrap_or_else(|| panic!("{name}: {frame}"))
    };
    // A hundred requests more; how long that took is the machine's affair.
    let rate: f64 = row("qwen")[1].parse().unwrap();
    assert!(rate > 0.0 && rate <= MOMENT, "{frame}");
    assert_eq!(row("qwen")[5..], ["200ms", "298ms", "17", "6"]);
    assert_eq!(row("alpha")[1], "0", "{frame}");
    assert_eq!(row("alpha")[5..], ["-", "-", "0", "0"]);
    assert_eq!(
        row("t1")[2..],
        ["http://10.0.0.1:8000", "up", "closed", "17", "2", "-"]
    );
    assert_eq!(row("t2")[3..5], ["down", "open"]);
}

#[test]
fn the_view_lives_is_sorted_and_ends_with_q() {
    let admin = busy();
    let url = admin.url();
    let mut terminal = Terminal::run(&["top", "--server", &url], &[], 120);
    let shown = terminal.wait("q quit");
    assert!(shown.contains("\x1b[?1049h"), "a screen of its own");
    for text in ["REQ/S▼", "qwen", "10.0.0.2", "down"] {
        terminal.wait(text);
    }
    // The second look brings the first rates.
    terminal.wait_redrawn("200ms", 120);
    terminal.press("n");
    terminal.wait_redrawn("SERVICE▼", 120);
    terminal.press("l");
    terminal.wait_redrawn("P99▼", 70);

    // A gateway that does not answer is waited for.
    admin.set(Mood::Gone);
    terminal.wait_redrawn("no answer, asking again", 120);
    admin.change(|state| state.status["version"] = json!("9.9.9"));
    admin.set(Mood::Well);
    terminal.wait_redrawn("9.9.9", 120);
    terminal.press("q");
    assert_eq!(terminal.end(), 0);
    assert!(
        terminal.wait("\x1b[?1049l").contains("\x1b[?25h"),
        "the screen and the cursor are given back"
    );

    let mut terminal = Terminal::run(&["top", "--server", &url], &[], 120);
    terminal.wait("q quit");
    terminal.press("\u{3}");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn what_cannot_be_watched_is_said() {
    let admin = busy();
    admin
        .api()
        .cli(&["top"])
        .failed(2, &["no terminal", "--once"]);
    assert!(admin.asked().is_empty());
    admin.set(Mood::Gone);
    admin
        .api()
        .cli(&["top", "--once"])
        .failed(1, &["is the gateway running"]);
    let mut terminal = Terminal::run(&["top", "--server", &admin.url()], &[], 100);
    assert_eq!(terminal.end(), 1);
    let shown = terminal.wait("is the gateway running");
    assert!(!shown.contains("1049"), "no screen for nothing: {shown}");
}
