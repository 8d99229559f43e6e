//! Documents on the command line: of every shape and of other systems, filled in where the client is; every mistake at its place.

use serde_json::json;

use super::cli_apply::{APPLY, folder, run, service};
use crate::harness::{Admin, Mood, program_with};

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
    assert_eq!((admin.times("POST /v1/plan"), admin.times(APPLY)), (1, 1));

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
