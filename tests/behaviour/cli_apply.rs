//! `tollgate apply`, `diff` and `delete`: documents in, a plan shown, and nothing changed that was not agreed to.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Admin, Mood, Ran, Terminal, program};

pub(super) const APPLY: &str = "POST /v1/apply";

/// A folder with these files.
pub(super) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

pub(super) fn run(admin: &Admin, folder: &tempfile::TempDir, arguments: &[&str]) -> Ran {
    let environment = [
        ("TOLLGATE_SERVER", &*admin.url()),
        ("TEAM", "blue"),
        ("WEIGHT", "40"),
    ];
    program(arguments, &environment, Some(folder.path()))
}

pub(super) fn service(name: &str, weight: u64) -> String {
    format!("kind: service\nname: {name}\nweight: {weight}\n")
}

#[test]
fn the_plan_is_shown_field_by_field() {
    let admin = Admin::start();
    admin.put(
        "service",
        json!({"name": "a", "weight": 100, "models": ["m"]}),
    );
    admin.put("service", json!({"name": "same", "weight": 5}));
    let folder = folder(&[(
        "a.yaml",
        &format!(
            "{}models: [m, n]\n---\n{}---\n{}",
            service("a", 50),
            service("same", 5),
            service("new", 1)
        ),
    )]);
    let wanted = "update     service  a\n             models: [\"m\"] → [\"m\",\"n\"]\n             weight: 100 → 50\n\
        unchanged  service  same\ncreate     service  new\n1 to create, 1 to update, 1 unchanged\n";
    for arguments in [
        &["diff", "-f", "a.yaml"][..],
        &["apply", "-f", "a.yaml", "--dry-run"],
    ] {
        let ran = run(&admin, &folder, arguments);
        assert_eq!(ran.stderr, "");
        assert_eq!(ran.done(), wanted);
        let json = run(&admin, &folder, &[arguments, &["-o", "json"]].concat()).done();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            json["changes"][0]["fields"][1],
            json!({"path": "weight", "from": 100, "to": 50})
        );
    }
    assert_eq!(
        (
            admin.times(APPLY),
            &admin.resource("service", "a")["weight"]
        ),
        (0, &json!(100))
    );

    assert_eq!(
        run(&admin, &folder, &["apply", "-f", "a.yaml", "-y"]).done(),
        wanted
    );
    assert_eq!(admin.resource("service", "a")["weight"], 50);
    // What is there already is not sent again.
    let again = run(&admin, &folder, &["apply", "-f", "a.yaml", "-y"]);
    assert!(
        again.stderr.contains("nothing to change"),
        "{}",
        again.stderr
    );
    assert!(again.done().contains("3 unchanged"));
    assert_eq!(admin.times(APPLY), 1);
}

#[test]
fn nobody_to_ask_is_a_usage_error() {
    let admin = Admin::start();
    admin.put("service", json!({"name": "a"}));
    let folder = folder(&[("a.yaml", &service("b", 1))]);
    for arguments in [
        &["apply", "-f", "a.yaml"][..],
        &["apply", "-f", "-"],
        &["delete", "service", "a"],
        &["delete", "-f", "a.yaml"],
    ] {
        run(&admin, &folder, arguments).failed(2, &["nobody can be asked", "-y"]);
    }
    for arguments in [
        &["apply"][..],
        &["apply", "-y"],
        &["diff"],
        &["delete"],
        &["delete", "-y"],
        &["delete", "service"],
        &["delete", "service", "a", "-f", "a.yaml"],
        &["delete", "plugin", "cors", "-y"],
        &["delete", "target", "pool", "-y"],
    ] {
        run(&admin, &folder, arguments).failed(2, &[]);
    }
    assert!(admin.asked().is_empty(), "{:?}", admin.asked());
}

/// The same on a terminal, where somebody answers.
fn on_terminal(
    admin: &Admin,
    folder: &Path,
    more: &[(&str, &str)],
    arguments: &[&str],
) -> Terminal {
    let file = folder.join("a.yaml").display().to_string();
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|a| if *a == "a.yaml" { &*file } else { *a })
        .collect();
    let url = admin.url();
    let environment = [&[("TOLLGATE_SERVER", url.as_str())], more].concat();
    Terminal::run(&arguments, &environment, 100)
}

#[test]
fn a_terminal_is_asked_and_only_yes_is_yes() {
    let admin = Admin::start();
    let files = folder(&[(
        "a.yaml",
        &format!("{}---\n{}", service("a", 1), service("b", 1)),
    )]);
    for (answer, plain) in [("n\r", false), ("\r", true), ("nonsense\r", false)] {
        let colour: &[(&str, &str)] = if plain { &[("NO_COLOR", "1")] } else { &[] };
        let mut terminal = on_terminal(&admin, files.path(), colour, &["apply", "-f", "a.yaml"]);
        let shown = terminal.wait("Apply these 2 changes? [y/N]");
        assert_eq!(shown.contains("\x1b[32mcreate"), !plain, "{shown}");
        assert_eq!(shown.contains('\x1b'), !plain, "{shown}");
        terminal.press(answer);
        assert_eq!(terminal.end(), 1);
        terminal.wait("nothing was changed");
    }
    assert_eq!((admin.times(APPLY), admin.count()), (0, 0));
    let mut terminal = on_terminal(&admin, files.path(), &[], &["apply", "-f", "a.yaml"]);
    terminal.wait("[y/N]");
    terminal.press("y\r");
    assert_eq!(terminal.end(), 0);
    assert_eq!(admin.count(), 2);

    let delete = ["delete", "service", "a", "b"];
    for (answer, code, left) in [("n\r", 1, 2), ("Yes\r", 0, 0)] {
        let mut terminal = on_terminal(&admin, files.path(), &[], &delete);
        terminal.wait("Delete these 2? [y/N]");
        terminal.press(answer);
        assert_eq!((terminal.end(), admin.count()), (code, left));
    }
}

#[test]
fn what_somebody_else_changed_is_shown_first() {
    let admin = Admin::start();
    let files = folder(&[("a.yaml", &service("rival-1", 9))]);
    admin.change(|state| state.rivals = 1);
    let mut terminal = on_terminal(
        &admin,
        files.path(),
        &[("NO_COLOR", "1")],
        &["apply", "-f", "a.yaml"],
    );
    let shown = terminal.wait("Apply this change? [y/N]");
    assert!(shown.contains("create     service  rival-1"), "{shown}");
    terminal.press("y\r");
    terminal.wait("Somebody else has changed something");
    terminal.wait_times("[y/N]", 2);
    assert!(
        terminal.shown().contains("weight: 1 → 9"),
        "{}",
        terminal.shown()
    );
    assert_eq!(
        admin.resource("service", "rival-1")["weight"],
        1,
        "not before a second yes"
    );
    terminal.press("y\r");
    assert_eq!(terminal.end(), 0);
    assert_eq!(admin.resource("service", "rival-1")["weight"], 9);

    // Whoever does not want to be asked is told, and gets it.
    admin.change(|state| state.rivals = 2);
    let ran = run(
        &admin,
        &folder(&[("a.yaml", &service("mine", 7))]),
        &["apply", "-f", "a.yaml", "-y"],
    );
    assert_eq!(
        ran.stderr.matches("Somebody else").count(),
        2,
        "{}",
        ran.stderr
    );
    ran.done();
    assert_eq!(admin.resource("service", "mine")["weight"], 7);
    // There is an end to it.
    admin.change(|state| state.rivals = 1000);
    let ran = run(
        &admin,
        &folder(&[("a.yaml", &service("never", 7))]),
        &["apply", "-f", "a.yaml", "-y"],
    );
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("try again"), "{}", ran.stderr);
    assert_eq!(admin.resource("service", "never"), Value::Null);
}

#[test]
fn secrets_of_keys_are_shown_once() {
    let admin = Admin::start();
    let key = |name: &str| format!("kind: key\nname: {name}\ngateway: main\n");
    let files = folder(&[
        (
            "a.yaml",
            &format!("{}---\n{}hash: \"sha256:00\"\n", key("bob"), key("hashed")),
        ),
        ("b.yaml", &key("carol")),
    ]);
    let ran = run(&admin, &files, &["apply", "-f", "a.yaml", "-y"]);
    assert!(
        ran.stderr.contains("once") && !ran.stderr.contains("tg_"),
        "{}",
        ran.stderr
    );
    let shown = ran.done();
    assert!(
        shown.ends_with("KEY  SECRET\nbob  tg_bob_secret\n"),
        "{shown}"
    );
    let shown = run(&admin, &files, &["apply", "-f", "a.yaml", "-y"]).done();
    assert!(!shown.contains("tg_"), "{shown}");
    let ran = run(
        &admin,
        &files,
        &["apply", "-f", "b.yaml", "-y", "-o", "json"],
    );
    assert!(!ran.stderr.contains("tg_"), "{}", ran.stderr);
    let done: Value = serde_json::from_str(&ran.done()).unwrap();
    assert_eq!(done["changes"][0]["secret"], "tg_carol_secret");
}

#[test]
fn delete_takes_away_what_nothing_refers_to() {
    let admin = Admin::start();
    let all = "kind: upstream\nname: pool\n---\nkind: gateway\nname: main\n---\nkind: service\nname: my-a\nupstream: pool\ngateways: [main]\n---\nkind: rule\nname: r\ngateway: main\nservices: [my-a]\n";
    let files = folder(&[("all.yaml", all)]);
    run(&admin, &files, &["apply", "-f", "all.yaml", "-y"]).done();
    let refused = run(&admin, &files, &["delete", "upstreams", "pool", "-y"]);
    refused.failed(1, &["upstream pool: ", "my-a refers to it"]);
    assert_eq!(admin.count(), 4);
    // Some go, some cannot: each is told.
    let ran = run(&admin, &files, &["delete", "rule", "r", "nobody", "-y"]);
    ran.failed(1, &["deleted rule r", "There is no rule nobody"]);
    run(&admin, &files, &["apply", "-f", "all.yaml", "-y"]).done();
    // In whatever order they stand in the file.
    let ran = run(&admin, &files, &["delete", "-f", "all.yaml", "-y"]);
    assert_eq!(ran.stderr.matches("deleted ").count(), 4, "{}", ran.stderr);
    assert_eq!(ran.done(), "");
    assert_eq!(admin.count(), 0);
    run(
        &admin,
        &files,
        &["delete", "target", "pool/10.0.0.1:8000", "-y"],
    )
    .done();
    assert_eq!(
        admin.asked().last().unwrap(),
        "DELETE /v1/upstreams/pool/targets/10%2E0%2E0%2E1%3A8000"
    );
    admin.set(Mood::Gone);
    run(&admin, &files, &["delete", "service", "a", "-y"]).failed(1, &["is the gateway running"]);
}
