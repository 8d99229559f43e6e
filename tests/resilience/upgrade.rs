//! One process takes over from another: what is open lives on, what is counted is known, and what is broken changes nothing.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    CHAT, Client, H2Client, PROGRAM, Process, Ran, Reply, Upstream, bearer, chat, engine,
    is_running, post, runtime, service, streamed, until,
};

const GATEWAY: &str = "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n";

/// Runs the verb; the numbers of the old and the new process.
#[track_caller]
pub(super) fn upgrade(process: &Process) -> (u32, u32) {
    let told = process.api().cli(&["upgrade"]).done();
    let numbers: Vec<u32> = told.split_whitespace().flat_map(str::parse).collect();
    assert!(numbers.len() >= 2, "{told}");
    assert_eq!(told.lines().count(), 2, "{told}");
    (numbers[1], numbers[0])
}

/// Waits for a process's end, and tells how long that took.
#[track_caller]
pub(super) fn gone(pid: u32) -> Duration {
    let start = Instant::now();
    until("the old process to end", || {
        (!is_running(pid)).then_some(())
    });
    start.elapsed()
}

fn code(reply: &Reply) -> String {
    reply.json()["error"]["code"].as_str().unwrap().to_owned()
}

/// A program that waits for the file `go` and then is the real one.
fn hesitant() -> String {
    format!(
        "#!/bin/sh\necho $$ > hesitant\nwhile [ ! -e go ]; do sleep 0.02; done\nexec {PROGRAM} \"$@\"\n"
    )
}

#[test]
fn open_streams_live_on_in_the_old_process() {
    let engine = engine();
    let mut process = Process::start_own(&service("m", "m", &engine.url()), &[]);
    let mut client = process.client();
    client.send(post(CHAT, "x-sim: itl=50ms\r\n", streamed("m", 60)));
    let mut stream = client.head().unwrap();
    client.chunk().unwrap();
    let h2 = runtime().block_on(H2Client::connect(process.address));
    let mut other = h2.open("POST", CHAT, &[("x-sim", "itl=50ms")], false);
    other.send(streamed("m", 50), true).unwrap();
    let mut h2_stream = other.head().unwrap();
    let mut kept = process.client();
    assert_ne!(kept.chat("m", "").header("connection"), Some("close"));

    let (old, new) = upgrade(&process);
    assert_eq!(old, process.pid());
    assert!(process.has_ended().is_none(), "it has open streams");
    assert_eq!(
        process.read("tollgate.pid").trim(),
        new.to_string(),
        "the number of whoever serves"
    );
    // What the old one has open is told to go, not cut.
    let last = kept.chat("m", "");
    last.assert_ok();
    assert_eq!(last.header("connection"), Some("close"));
    assert!(process.has_ended().is_none());
    process.client().chat("m", "").assert_ok();
    for (reply, what) in [(&mut h2_stream, "HTTP/2"), (&mut stream, "HTTP/1.1")] {
        match what {
            "HTTP/2" => other.body(reply).unwrap(),
            _ => client.body(reply).unwrap(),
        }
        reply.assert_ok();
        let text = reply.text();
        assert!(text.ends_with("data: [DONE]\n\n"), "{what}: {text}");
    }
    let took = gone(old);
    assert!(took < Duration::from_secs(5), "nothing was left: {took:?}");
    let (status, _) = process.end();
    assert!(status.success(), "{status}");
    assert!(is_running(new));
    assert!(!process.read("stderr").contains("panicked"));
}

#[test]
fn a_signal_hands_over_too() {
    let upstream = Upstream::obliging();
    let mut process = Process::start_own(&service("m", "m", &upstream.url()), &[]);
    process.signal("QUIT");
    let (status, _) = process.end();
    assert!(status.success(), "{status}: {}", process.read("stderr"));
    assert_ne!(
        process.read("tollgate.pid").trim(),
        process.pid().to_string()
    );
    assert!(process.is_ready());
    process.client().chat("m", "").assert_ok();
}

/// A limit is none if an upgrade begins it anew.
#[test]
fn limits_go_on_where_they_were() {
    let upstream = Upstream::obliging();
    let limits = "plugins = [{ name = \"rate_limiter\", settings = { limits = { per_ip = { limit = 10, window = \"1h\" } } } }]\n";
    let slow = "rate_limits = [{ prefix = \"/\", key = \"ip\", rps = 0.017, burst = 3 }]\n";
    let toml = GATEWAY.to_owned()
        + "auth = \"none\"\n"
        + limits
        + &service("window", "window", &upstream.url())
        + &service("bucket", "bucket", &upstream.url())
        + slow;
    let process = Process::start_own(&toml, &[]);
    let ask = |model: &str| process.client().chat(model, "").status;
    assert_eq!([ask("window"), ask("bucket"), ask("bucket")], [200; 3]);
    upgrade(&process);
    assert_eq!(
        [ask("bucket"), ask("bucket"), ask("bucket")],
        [200, 200, 429]
    );
    upgrade(&process);
    assert_eq!(ask("bucket"), 429);
    // The window has counted these, too.
    let left = (0..10).take_while(|_| ask("window") == 200).count();
    assert_eq!(left, 3);
    upgrade(&process);
    assert_eq!(ask("window"), 429);
}

/// What is gone with its process is told to the next one, keys and budgets alike.
#[test]
fn state_in_memory_is_handed_over() {
    let body = r#"{"usage":{"prompt_tokens":40,"completion_tokens":0}}"#;
    let length = body.len();
    let upstream = Upstream::replying(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    ));
    let toml = GATEWAY.to_owned() + &service("m", "m", &upstream.url());
    let process = Process::start_own(&toml, &[]);
    let budget = json!({"unit": "tokens", "limit": 100.0, "default_output": 0});
    let key = json!({"name": "ann", "gateway": "main", "budget": budget});
    let created = process.api().ask("POST", "/v1/keys", &key);
    assert_eq!(created.status, 201, "{}", created.text());
    let secret = created.json()["secret"].as_str().unwrap().to_owned();
    let ask = || process.client().chat("m", &bearer(&secret)).status;
    // What another system's scripts made is gone with it as well.
    let theirs = json!({"name": "theirs", "subdomain": "theirs"});
    let made = process.api().ask("POST", "/api/v1/gateways", &theirs);
    assert_eq!(made.status, 201, "{}", made.text());
    let revision = || process.api().get("/v1/status").json()["revision"].as_u64();
    let before = revision();
    assert_eq!([ask(), ask()], [200, 200]);
    upgrade(&process);
    assert!(revision() > before, "{before:?} {:?}", revision());
    let theirs = process.api().get("/api/v1/gateways").json();
    assert_eq!(theirs["count"], 1, "{theirs}");
    assert_eq!(ask(), 200);
    upgrade(&process);
    assert_eq!(ask(), 429);
    assert_eq!(process.client().chat("m", "").status, 401);
}

/// Whatever is wrong with the new one, the old one serves, and says why there is no new one.
#[test]
fn a_broken_program_leaves_the_old_one_serving() {
    let upstream = Upstream::obliging();
    let process = Process::start_own(&service("m", "m", &upstream.url()), &[]);
    let mut kept = process.client();
    kept.chat("m", "").assert_ok();
    let mut fails = |what: &str, told: &[&str]| {
        let ran: Ran = process.api().cli(&["upgrade", "--patience", "1500ms"]);
        ran.failed(1, &[&["the old process goes on"], told].concat());
        let number = process.read("tollgate.pid");
        assert_eq!(number.trim(), process.pid().to_string(), "{what}");
        assert!(process.is_ready(), "{what}");
        let reply = kept.chat("m", "");
        reply.assert_ok();
        assert_ne!(reply.header("connection"), Some("close"), "{what}");
        process.client().chat("m", "").assert_ok();
        // Nothing is held still any more.
        let key = json!({"name": what, "gateway": "main"});
        let made = process.api().ask("POST", "/v1/keys", &key);
        assert_eq!(made.status, 201, "{what}: {}", made.text());
        assert!(process.api().cli(&["reload"]).code == 0, "{what}");
    };
    process.replace_program("#!/bin/sh\necho 'out of luck' >&2\nexit 7\n");
    fails("crash", &["exit status: 7", "out of luck"]);
    // It and what it has started are ended.
    process.replace_program("#!/bin/sh\nsleep 1000 & echo $! > sleeper; echo waiting >&2; wait\n");
    fails("hang", &["not ready within 1.5s", "waiting"]);
    let sleeper = process.read("sleeper").trim().parse().unwrap();
    assert!(!is_running(sleeper), "it was left behind");
    process.replace_program("#!/bin/sh\nread -r line\necho '{' >&0\n");
    fails("nonsense", &[]);
    process.replace_program("not a program");
    fails("nothing", &["cannot be started"]);
    process.restore_program();
    let file = process.path("tollgate.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("models", "modles")).unwrap();
    let ran = process.api().cli(&["upgrade"]);
    ran.failed(1, &["modles", "tollgate.toml", "exit status: 1"]);
    std::fs::write(&file, &good).unwrap();
    // A listener's address that is not to be had.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!(
        "\n[[listener]]\nname = \"more\"\naddress = \"{}\"\n",
        taken.local_addr().unwrap()
    );
    std::fs::write(&file, good + &more).unwrap();
    let ran = process.api().cli(&["upgrade"]);
    ran.failed(1, &["cannot listen on", "listener more"]);
    drop(taken);
    kept.chat("m", "").assert_ok();
    // And when all is well, it works, with one listener more.
    upgrade(&process);
    process.client().chat("m", "").assert_ok();
}

#[test]
fn two_upgrades_at_once_are_refused_and_changes_wait() {
    let upstream = Upstream::obliging();
    let process = Process::start_own(&service("m", "m", &upstream.url()), &[]);
    process.replace_program(&hesitant());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| upgrade(&process));
        let key = |name: &str| json!({"name": name, "gateway": "main"});
        let mut tries = 0;
        let refused = until("changes to be refused", || {
            tries += 1;
            let name = format!("key{tries}");
            let reply = process.api().ask("POST", "/v1/keys", &key(&name));
            (reply.status != 201).then_some(reply)
        });
        assert_eq!(refused.status, 503);
        assert_eq!(code(&refused), "handing_over");
        assert!(refused.header("retry-after").is_some());
        let again = process.api().ask("POST", "/v1/upgrade", &Value::Null);
        assert_eq!(again.status, 409, "{}", again.text());
        assert_eq!(code(&again), "handing_over");
        let reload = process.api().ask("POST", "/v1/reload", &Value::Null);
        assert_eq!(reload.status, 503, "{}", reload.text());
        assert_eq!(process.api().get("/v1/keys").status, 200);
        process.client().chat("m", "").assert_ok();
        assert!(!first.is_finished());
        std::fs::write(process.path("go"), "").unwrap();
        let (old, new) = first.join().unwrap();
        assert_eq!(old, process.pid());
        let made = process.api().ask("POST", "/v1/keys", &key("afterwards"));
        assert_eq!(made.status, 201, "{}", made.text());
        assert!(is_running(new));
    });
}

/// Told to end, it ends, whoever was about to take over.
#[test]
fn sigterm_ends_an_upgrade() {
    let upstream = Upstream::obliging();
    let mut process = Process::start_own(&service("m", "m", &upstream.url()), &[]);
    process.replace_program(&hesitant());
    process.signal("QUIT");
    let new = until("the upgrade to begin", || {
        process.read("hesitant").trim().parse().ok()
    });
    process.signal("TERM");
    let (status, _) = process.end();
    assert!(status.success(), "{status}");
    std::fs::write(process.path("go"), "").unwrap();
    gone(new);
    assert_eq!(process.admin_status("/readyz"), None);
    assert!(Client::try_connect(process.address).is_err());
}

/// A service manager may start the new process itself; it finds the old one by its socket.
#[test]
fn a_process_that_somebody_else_started_takes_over() {
    let upstream = Upstream::obliging();
    let toml = "[server]\nupgrade_socket = \"./run/upgrade.sock\"\n".to_owned()
        + &service("m", "m", &upstream.url());
    let mut process = Process::start_own(&toml, &[]);
    let mode = |path: &str| process.path(path).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("run"), 0o700);
    let old = process.pid();
    let mut other = process.beside(&["run", "-c", "tollgate.toml", "--upgrade"]);
    let (status, _) = process.end();
    assert!(status.success(), "{status}: {}", process.read("stderr"));
    assert!(!is_running(old));
    assert!(process.is_ready());
    process.client().chat("m", "").assert_ok();
    assert_eq!(process.read("tollgate.pid").trim(), other.pid().to_string());
    // And so does the next.
    let next = process.beside(&["run", "-c", "tollgate.toml", "--upgrade"]);
    other.end();
    process.client().chat("m", "").assert_ok();
    assert_eq!(process.read("tollgate.pid").trim(), next.pid().to_string());
}

#[test]
fn a_folder_that_others_can_enter_is_refused() {
    let upstream = Upstream::obliging();
    let folder = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let toml = format!(
        "[server]\nstate = \"memory\"\nupgrade_socket = \"{}\"\n[admin]\naddress = \"127.0.0.1:{}\"\n{GATEWAY}auth = \"none\"\n",
        folder.path().join("u.sock").display(),
        crate::harness::free_port(),
    ) + &service("m", "m", &upstream.url());
    let file = folder.path().join("t.toml");
    std::fs::write(&file, toml).unwrap();
    let file = file.display().to_string();
    let ran = crate::harness::program(&["run", "-c", &file], &[], None);
    ran.failed(1, &["server.upgrade_socket", "0700"]);
    let ran = crate::harness::program(&["run", "-c", &file, "--upgrade"], &[], None);
    ran.failed(1, &["cannot take over"]);
}

/// What is asked while nobody can answer is told so.
#[test]
fn what_cannot_be_replaced_says_so() {
    let upstream = Upstream::obliging();
    let gateway = crate::harness::Gateway::start(&service("m", "m", &upstream.url()));
    let refused = gateway.api().ask("POST", "/v1/upgrade", &Value::Null);
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert_eq!(code(&refused), "not_replaceable");
    for wrong in [json!({"patience": 5}), json!({"patience": "1h"})] {
        let refused = gateway.api().ask("POST", "/v1/upgrade", &wrong);
        assert_eq!(refused.status, 400, "{}", refused.text());
    }
    let mut client = gateway.client();
    client.send(post(CHAT, "", chat("m")));
    client.reply().assert_ok();
}
