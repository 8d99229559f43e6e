//! The file read again while traffic flows: on SIGHUP, by `tollgate reload`, and because it has changed.

use std::process::{Command, Output};

use crate::harness::{
    CHAT, Client, PROGRAM, Process, Upstream, engine_with, post, service, streamed, until,
};

fn config(process: &Process, text: &str) {
    // Written beside and moved, as editors and Kubernetes do.
    let (file, beside) = (process.path("tollgate.toml"), process.path("new.toml"));
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, &file).unwrap();
}

fn reload(process: &Process) -> Output {
    Command::new(PROGRAM)
        .args(["reload", "--server", &format!("http://{}", process.admin)])
        .env_remove("TOLLGATE_TOKEN")
        .output()
        .unwrap()
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn limited(limit: u32) -> String {
    format!(
        "plugins = [{{ name = \"rate_limiter\", settings = {{ limits = {{ global = {{ limit = {limit}, window = \"1h\" }} }} }} }}]\n"
    )
}

#[test]
fn services_come_change_and_go_and_what_was_counted_stays() {
    let (one, two) = (Upstream::obliging(), Upstream::obliging());
    let first = service("a", "a", &one.url()) + &limited(3);
    let process = Process::run(&first);
    let whole = process.read("tollgate.toml");
    let mut client = process.client();
    client.chat("a", "").assert_ok();
    client.chat("a", "").assert_ok();
    assert_eq!(client.chat("b", "").status, 404);

    let both = whole.replace(&first, &(first.clone() + &service("b", "b", &two.url())));
    config(&process, &both);
    let (out, _) = said(&reload(&process));
    assert!(out.contains("service b: created"), "{out}");
    client.chat("b", "").assert_ok();
    // Two of three were used before, and the reload gave none of them back.
    client.chat("a", "").assert_ok();
    client
        .chat("a", "")
        .assert_refused(429, "rate_limit_exceeded");

    config(&process, &whole.replace(&one.url(), &two.url()));
    let (out, _) = said(&reload(&process));
    assert!(
        out.contains("service a: updated") && out.contains("service b: deleted"),
        "{out}"
    );
    assert_eq!(client.chat("b", "").status, 404);
    client
        .chat("a", "")
        .assert_refused(429, "rate_limit_exceeded");

    let (out, _) = said(&reload(&process));
    assert_eq!(out, "nothing has changed\n");
}

#[test]
fn a_file_with_a_mistake_changes_nothing() {
    let upstream = Upstream::obliging();
    let process = Process::run(&service("a", "a", &upstream.url()));
    let whole = process.read("tollgate.toml");
    config(&process, &whole.replace("models = ", "modells = "));
    let output = reload(&process);
    assert_eq!(output.status.code(), Some(1));
    let (_, told) = said(&output);
    assert!(
        told.contains("modells") && told.contains("did you mean"),
        "{told}"
    );
    process.client().chat("a", "").assert_ok();
    until("the refusal to be counted", || {
        let metrics = Client::connect(process.admin).get("/metrics", "").text();
        metrics
            .contains("tollgate_config_reloads_total{result=\"refused\"}")
            .then_some(())
    });
}

/// By itself and by a signal, with a stream open all the time.
#[test]
fn the_file_is_watched_and_streams_go_on() {
    let engine = engine_with(|config| config.itl = std::time::Duration::from_millis(50));
    let first = service("a", "a", &engine.url());
    let process = Process::run(&first);
    let whole = process.read("tollgate.toml");
    let mut stream = process.client();
    stream.send(post(CHAT, "", streamed("a", 100)));
    assert_eq!(stream.head().unwrap().status, 200);

    let more = |name: &str| first.clone() + &service(name, name, &engine.url());
    config(&process, &whole.replace(&first, &more("watched")));
    until("the file to be noticed", || {
        (process.client().chat("watched", "").status == 200).then_some(())
    });
    config(&process, &whole.replace(&first, &more("signalled")));
    process.signal("HUP");
    until("the signal to be obeyed", || {
        (process.client().chat("signalled", "").status == 200).then_some(())
    });
    assert_eq!(process.client().chat("watched", "").status, 404);

    // Its service is gone from the file meanwhile; it came before that.
    config(
        &process,
        &whole.replace(&first, &service("other", "other", &engine.url())),
    );
    reload(&process);
    assert_eq!(process.client().chat("a", "").status, 404);
    let mut text = Vec::new();
    while let Some(chunk) = stream.chunk().unwrap() {
        text.extend(chunk);
    }
    assert!(String::from_utf8_lossy(&text).ends_with("data: [DONE]\n\n"));
}

/// What only a new process can change is told of and left alone.
#[test]
fn some_things_wait_for_a_restart() {
    let upstream = Upstream::obliging();
    let process = Process::run(&service("a", "a", &upstream.url()));
    let whole = process.read("tollgate.toml");
    let changed = whole.replace("./access.log", "./elsewhere.log")
        + "[server]\nthreads = 3\nmax_body = \"1KiB\"\n";
    config(&process, &changed);
    let output = reload(&process);
    let (out, told) = said(&output);
    assert!(out.contains("server: updated"), "{out}");
    for field in ["server.threads", "log"] {
        assert!(
            told.contains(&format!("only a restart brings into force: {field}")),
            "{told}"
        );
    }
    let body = crate::harness::padded("a", 4_000);
    assert_eq!(process.client().post(CHAT, body).status, 413);
}
