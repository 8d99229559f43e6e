//! `tollgate apply`, `diff` and `delete`: documents in, a plan shown, and nothing changed that was not agreed to.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Admin, Mood, Ran, Terminal, program, program_with};

const PLAN: &str = "POST /v1/plan";
const APPLY: &str = "POST /v1/apply";

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn run(admin: &Admin, folder: &tempfile::TempDir, arguments: &[&str]) -> Ran {
    let environment = [
        ("TOLLGATE_SERVER", &*admin.url()),
        ("TEAM", "blue"),
        ("WEIGHT", "40"),
    ];
    program(arguments, &environment, Some(folder.path()))
}

fn service(name: &str, weight: u64) -> String {
    format!("kind: service\nname: {name}\nweight: {weight}\n")
}

#[test]
fn documents_of_every_shape_are_applied() {
    let admin = Admin::start();
    let folder = folder(&[
        (
            "10.toml",
            "[log]\nlevel = \"info\"\n[[upstream]]\nname = \"pool\"\napi_key = { file = \"secret.txt\" }\ntargets = [\"http://10.0.0.1:1\"]\n[[rule]]\ngateway = \"main\"\npath = \"/a\"\n",
        ),
        (
            "20.yaml",
            "---\nkind: gateway\nname: main\nlabels: {team: \"${TEAM}\"}\n---\n# nothing but this\n---\ntype: service\nname: typed\nweight: \"${WEIGHT}\"\nupstream: pool\n",
        ),
        (
            "30.yml",
            "- kind: service\n  name: listed\n  type: openai\n  labels: {price: \"$${5}\"}\n",
        ),
        (
            "40.json",
            "{\"items\": [{\"kind\": \"key\", \"name\": \"bob\", \"gateway\": \"main\", \"managed_by\": \"api\", \"revision\": 3}]}",
        ),
        ("secret.txt", "sk-of-a-file\n"),
        ("notes.md", "# not a document\n"),
    ]);
    let ran = run(&admin, &folder, &["apply", "-f", ".", "-y"]);
    assert!(
        ran.stderr.contains("./10.toml:1:2: warning: log: left out"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("applied: revision "), "{}", ran.stderr);
    let shown = ran.done();
    for line in [
        "create     upstream  pool",
        "create     rule      rule-1",
        "create     service   typed",
        "6 to create",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    assert_eq!(admin.count(), 6);
    assert_eq!(
        admin.resource("upstream", "pool")["api_key"],
        "sk-of-a-file"
    );
    assert_eq!(
        admin.resource("gateway", "main")["labels"],
        json!({"team": "blue"})
    );
    let typed = admin.resource("service", "typed");
    assert_eq!((&typed["weight"], typed.get("type")), (&json!(40), None));
    let listed = admin.resource("service", "listed");
    assert_eq!(
        (&listed["type"], &listed["labels"]["price"]),
        (&json!("openai"), &json!("${5}"))
    );
    // One file may refer to another: they go together.
    assert_eq!((admin.times(PLAN), admin.times(APPLY)), (1, 1));

    // From standard input, whatever the format.
    for (input, name) in [
        (service("a", 1), "a"),
        ("[[service]]\nname = \"b\"\n".to_owned(), "b"),
        ("[{\"kind\":\"service\",\"name\":\"c\"}]".to_owned(), "c"),
    ] {
        let ran = program_with(
            &["apply", "-f", "-", "-y", "--server", &admin.url()],
            &[],
            None,
            &input,
        );
        ran.done();
        assert_eq!(admin.resource("service", name)["name"], name, "{input}");
    }
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
fn every_mistake_is_told_at_its_place() {
    let admin = Admin::start();
    let files = folder(&[
        (
            "a.yaml",
            "kind: service\nname: a\napi_key: s3cret\n---\nkind: servise\nname: b\n---\nname: c\n---\nkind: listener\nname: d\n",
        ),
        (
            "b.toml",
            "[[upstream]]\nname = \"p\"\napi_key = \"${UNSET_HERE}\"\n[[upstream]]\nname = \"q\"\napi_key = { file = \"nowhere.txt\" }\n[[upstream]]\nweight = 1\n[[gatway]]\n",
        ),
        ("c.json", "{\"kind\": "),
        (
            "d.yaml",
            "kind: key\nname: k\nsecret: s3cret\n  nonsense: 1\n",
        ),
    ]);
    let ran = run(
        &admin,
        &files,
        &[
            "apply",
            "-f",
            "a.yaml",
            "b.toml",
            "-f",
            "c.json",
            "d.yaml",
            "missing.yaml",
            "-y",
        ],
    );
    ran.failed(
        1,
        &[
            "a.yaml:5:7: kind: there is no kind \"servise\"",
            "did you mean \"service\"?",
            "a.yaml:8:1: it is not said which kind",
            "a.yaml:10:7: kind: listeners are not applied",
            "b.toml:3:12: upstream[0].api_key: the environment variable UNSET_HERE is not set",
            "b.toml:6:",
            "there is no file nowhere.txt",
            "upstream[2]: missing field `name`",
            "gatway: unknown section",
            "c.json:1:",
            "d.yaml:4:",
            "missing.yaml: there is no such file",
            "^",
        ],
    );
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
    run(
        &admin,
        &folder(&[("x.yaml", "# nothing\n")]),
        &["apply", "-f", "x.yaml", "-y"],
    )
    .failed(1, &["no resource"]);
    run(&admin, &folder(&[]), &["apply", "-f", ".", "-y"]).failed(1, &["no document"]);
    run(
        &admin,
        &folder(&[("x.yaml", "just text\n")]),
        &["apply", "-f", "x.yaml", "-y"],
    )
    .failed(1, &["expected a resource"]);
    assert!(admin.asked().is_empty(), "{:?}", admin.asked());

    // What only the gateway knows to be wrong is shown where it was typed, too.
    let files = folder(&[
        ("a.yaml", &service("a", 1)),
        (
            "b.yaml",
            "kind: service\nname: b\n---\nkind: service\nname: c\nweight: heavy\n",
        ),
    ]);
    let ran = run(&admin, &files, &["apply", "-f", ".", "-y"]);
    ran.failed(
        1,
        &[
            "./b.yaml:6:9: service.c.weight: expected a whole number",
            "weight: heavy",
            "        ^^^^^",
            "help: for example: 100",
            "There are 1 mistakes",
        ],
    );
    assert_eq!((admin.count(), admin.times(APPLY)), (0, 0));

    admin.set(Mood::Gone);
    run(&admin, &files, &["apply", "-f", "a.yaml", "-y"]).failed(1, &["is the gateway running"]);
}

#[test]
fn foreign_documents_are_converted_with_a_report() {
    let admin = Admin::start();
    let files = folder(&[
        (
            "gateway.yaml",
            "type: gateway\nname: edge\nbackend: aws\nregion: eu-west-1\ndomain: example.com\n---\ntype: service\nname: chat\nport: 8000\nmodel: m\ngateway: edge\n",
        ),
        ("bad.yaml", "type: task\nname: t\ncommands: [x]\n"),
        ("own.yaml", &service("own", 1)),
    ]);
    let ran = run(
        &admin,
        &files,
        &[
            "apply",
            "-f",
            "gateway.yaml",
            "own.yaml",
            "--target",
            "chat=http://10.0.0.1:8000",
            "-y",
        ],
    );
    assert!(
        ran.stderr.contains("gateway.yaml: dstack, ") && ran.stderr.contains("backend"),
        "{}",
        ran.stderr
    );
    assert!(ran.done().contains("5 to create"));
    assert_eq!(admin.resource("gateway", "edge")["domain"], "example.com");
    assert_eq!(admin.resource("service", "own")["weight"], 1);
    assert_eq!(
        admin.resource("service", "chat")["gateways"],
        json!(["edge"])
    );
    assert!(
        admin
            .resource("upstream", "chat")
            .to_string()
            .contains("http://10.0.0.1:8000")
    );
    let before = admin.asked().len();
    let ran = run(
        &admin,
        &files,
        &["apply", "-f", "bad.yaml", "own.yaml", "-y"],
    );
    ran.failed(1, &["bad.yaml: dstack", "refused"]);
    assert_eq!(admin.asked().len(), before, "nothing is sent");
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
