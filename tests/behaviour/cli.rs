//! The command line as a user types it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{PROGRAM, free_port};

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn file(content: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tollgate.toml");
    std::fs::write(&path, content).unwrap();
    (folder, path.display().to_string())
}

#[test]
fn version_tells_the_version() {
    let output = run(&["version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        text(&output.stdout),
        format!("tollgate {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert!(output.stderr.is_empty());
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [
        &["nonsense"][..],
        &["run", "--nonsense"],
        &["check", "-c"],
        &[],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for verb in ["run", "demo", "check", "schema", "version"] {
        assert!(text(&output.stdout).contains(verb), "{verb}");
    }
}

/// The verbs that a help text lists.
fn verbs(path: &[&str]) -> Vec<String> {
    let help = text(&run(&[path, &["--help"]].concat()).stdout);
    let listed = help
        .split("Commands:\n")
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    let listed = listed.lines().take_while(|line| line.starts_with("  "));
    let names = listed.filter(|line| !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

#[test]
fn every_verb_has_an_example() {
    let mut paths: Vec<Vec<String>> = verbs(&[]).into_iter().map(|verb| vec![verb]).collect();
    assert!(paths.len() >= 16, "{paths:?}");
    let below = verbs(&["key"])
        .into_iter()
        .map(|verb| vec!["key".to_owned(), verb]);
    paths.extend(below);
    assert!(
        paths.contains(&vec!["key".to_owned(), "rotate".to_owned()]),
        "{paths:?}"
    );
    for path in paths {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        let call = format!("tollgate {}", path.join(" "));
        arguments.push("--help");
        let help = text(&run(&arguments).stdout);
        let example = help.split("Example").nth(1).unwrap_or_default();
        assert!(example.contains(&call), "{help}");
    }
}

#[test]
fn shells_and_readers_are_served() {
    for (shell, sign) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef tollgate"),
        ("fish", "complete -c tollgate"),
    ] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = text(&output.stdout);
        for word in [sign, "apply", "dry-run", "rotate"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(run(&["completions", "cmd"]).status.code(), Some(2));
    let page = text(&run(&["man"]).stdout);
    assert!(
        page.contains(".TH tollgate 1") && page.contains("apply"),
        "{page}"
    );
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("man1").display().to_string();
    assert_eq!(run(&["man", &into]).status.code(), Some(0));
    for name in ["tollgate", "tollgate-apply", "tollgate-key-rotate"] {
        let page = std::fs::read_to_string(format!("{into}/{name}.1")).unwrap();
        assert!(page.contains(".SH"), "{name}");
    }
    let taken = folder.path().join("file");
    std::fs::write(&taken, "").unwrap();
    let output = run(&["man", &taken.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("file"));
}

const GOOD: &str = "[[listener]]\naddress = \"127.0.0.1:8080\"\n[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\n[[service]]\nname = \"qwen\"\nmodels = [\"Qwen/Qwen3-8B\"]\ntargets = [\"http://127.0.0.1:8000\"]\n";

#[test]
fn check_accepts_what_is_right() {
    let (_folder, path) = file(GOOD);
    let output = run(&["check", "-c", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("ok"));
    assert!(output.stderr.is_empty());
}

#[test]
fn check_tells_every_mistake_at_once() {
    let bad = GOOD
        .replace("hosts", "hots")
        .replace("http://127.0.0.1:8000", "ftp://x");
    let (_folder, path) = file(&bad);
    let output = run(&["check", "-c", &path]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains(&format!("{path}:5:1: ")), "{told}");
    assert!(told.contains(&format!("{path}:10:")), "{told}");
    assert!(told.contains("hosts"), "the nearest name: {told}");
    assert!(told.contains('^'), "a caret: {told}");
    assert!(output.stdout.is_empty());
    let missing = run(&["check", "-c", "/does/not/exist.toml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("/does/not/exist.toml"));
}

#[test]
fn schema_prints_the_schema() {
    let output = run(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema["properties"]["gateway"].is_object());
}

#[test]
fn run_refuses_a_bad_file() {
    let (_folder, path) = file("[[gateway]]\nnam = \"x\"\n");
    let output = run(&["run", "-c", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("nam"),
        "{}",
        text(&output.stderr)
    );
}

/// A port that is taken is the commonest reason not to start: it is said which, and whose it was to be.
#[test]
fn run_says_which_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken
        .local_addr()
        .map(|address| (taken, address.to_string()))
        .unwrap();
    let free = format!("127.0.0.1:{}", free_port());
    for (listener, admin, whose) in [(&taken.1, &free, "listener"), (&free, &taken.1, "admin")] {
        let toml =
            GOOD.replace("127.0.0.1:8080", listener) + &format!("[admin]\naddress = \"{admin}\"\n");
        let (_folder, path) = file(&toml);
        let output = run(&["run", "-c", &path]);
        assert_eq!(output.status.code(), Some(1));
        let told = text(&output.stderr);
        assert!(told.contains(&taken.1) && told.contains(whose), "{told}");
        assert!(!told.contains("panicked"), "{told}");
    }
}

#[test]
fn secrets_are_not_told() {
    let toml = GOOD.to_owned()
        + "[[upstream]]\nname = \"p\"\ntargets = [\"http://127.0.0.1:1\"]\napi_key = \"s3cret-value\"\nnonsense = 1\n";
    let (_folder, path) = file(&toml);
    let output = run(&["check", "-c", &path]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr) + &text(&output.stdout);
    assert!(
        told.contains("nonsense") && !told.contains("s3cret"),
        "{told}"
    );
}

/// Another system's document goes in, a configuration comes out, and what became of its fields is told beside it.
#[test]
fn foreign_documents_are_converted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents/foreign/dstack");
    let convert = |name: &str| {
        let file = folder.join(name);
        Command::new(PROGRAM)
            .arg("convert")
            .arg(file)
            .output()
            .unwrap()
    };
    let mut seen = (0, 0);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(stem) = name.strip_suffix(".yaml") else {
            continue;
        };
        let read = |rest: &str| std::fs::read_to_string(folder.join(format!("{stem}.{rest}")));
        if read("options.json").is_ok() {
            continue;
        }
        let output = convert(&name);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        match read("report.txt").unwrap().contains("refused ") {
            true => {
                seen.0 += 1;
                assert_eq!(output.status.code(), Some(1), "{name}: {told}");
                assert!(
                    output.stdout.is_empty() && told.contains("refused"),
                    "{told}"
                );
            }
            false => {
                seen.1 += 1;
                assert_eq!(output.status.code(), Some(0), "{name}: {told}");
                let native = String::from_utf8_lossy(&output.stdout).into_owned();
                assert_eq!(native, read("toml").unwrap(), "{name}");
            }
        }
    }
    assert!(seen.0 > 0 && seen.1 > 0, "{seen:?}");
}

/// Where a deployment's engines are can be said; what no document has is refused.
#[test]
fn a_target_must_be_of_some_document() {
    let document = r#"{"name": "chat", "gatewayIds": ["front"], "model": {"name": "acme/chat", "bucket": "b"}}"#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chat.json");
    std::fs::write(&file, document).unwrap();
    let convert = |target: &str| {
        let file = file.to_string_lossy();
        run(&["convert", "--target", target, &file])
    };
    let output = convert("chat=http://10.0.0.1:8000");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let native = text(&output.stdout);
    assert!(native.contains("[\"http://10.0.0.1:8000\"]"), "{native}");
    let output = convert("chta=http://10.0.0.1:8000");
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("--target chta: no document has"), "{told}");
    let output = convert("chat=http://u:hunter2@10.0.0.1");
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        output.stdout.is_empty() && !told.contains("hunter2"),
        "{told}"
    );
}
