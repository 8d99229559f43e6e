//! The pages of `docs/`, walked: files are written, commands run, and what they print is what the page shows.
//!
//! Every page has a folder and a shell of its own. The well-known addresses a page uses (`127.0.0.1:8080` and so on) are replaced by free ones, the
//! same everywhere on the page, before it is read.

mod links;
mod markdown;
mod output;
mod shell;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;

use regex::Regex;

use crate::harness::{Client, PATIENCE, PROGRAM, free_port, get, sdk_folder};
use markdown::{Step, What, steps};
use output::difference;
use shell::Shell;

macro_rules! pages {
    ($($test:ident)*) => {
        /// The pages that are walked.
        const WALKED: &[&str] = &[$(stringify!($test)),*];
        $(
            #[test]
            fn $test() {
                let page = page_of(stringify!($test));
                walk(&page, &fs::read_to_string(repository(&page)).unwrap());
            }
        )*
    };
}

pages! {
    first_model
    cache_aware
    keys_and_limits
    fallback
    canary
    disaggregation
    observability
    operations
    migrate_from_dstack
    migrate_from_trustgate
    migrate_from_coreweave
    migrate_from_llumnix
    from_demo_to_production
    admin_api
    scaling
    tls
}

/// Made from the code, or without anything to do.
const OTHERS: [&str; 7] = [
    "README",
    "cli",
    "configuration",
    "convert",
    "errors",
    "metrics",
    "plugins",
];
/// Where the admin listener and the engine are when nobody says.
const ADMIN: &str = "9091";
const ENGINE: &str = "8000";

fn page_of(test: &str) -> String {
    format!("docs/{}.md", test.replace('_', "-"))
}

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_page_is_walked() {
    let mut missing = Vec::new();
    for entry in fs::read_dir(repository("docs")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let page = name.trim_end_matches(".md");
        if !OTHERS.contains(&page) && !WALKED.contains(&page.replace('-', "_").as_str()) {
            missing.push(name);
        }
    }
    assert!(
        missing.is_empty(),
        "not walked by tests/behaviour/pages: {missing:?}"
    );
}

/// A page being walked.
struct Walk {
    page: String,
    folder: tempfile::TempDir,
    ports: BTreeMap<String, u16>,
    shell: Shell,
    /// How the last command ended.
    status: i32,
}

fn walk(page: &str, text: &str) {
    let (text, ports) = moved(text);
    let steps = steps(&text).unwrap_or_else(|wrong| panic!("{page}:{wrong}"));
    assert!(!steps.is_empty(), "{page} has nothing to do");
    let folder = tempfile::tempdir().unwrap();
    let mut walk = Walk {
        shell: shell(folder.path(), &ports),
        page: page.to_owned(),
        folder,
        ports,
        status: 0,
    };
    for (at, step) in steps.iter().enumerate() {
        walk.step(step, steps.get(at + 1));
    }
}

/// Replaces the ports of this machine's addresses by free ones.
fn moved(text: &str) -> (String, BTreeMap<String, u16>) {
    let address = Regex::new(r"\b(127\.0\.0\.1|localhost):([0-9]{4,5})\b").unwrap();
    let mut ports: BTreeMap<String, u16> = [ADMIN, ENGINE]
        .map(|port| (port.to_owned(), free_port()))
        .into();
    for found in address.captures_iter(text) {
        ports.entry(found[2].to_owned()).or_insert_with(free_port);
    }
    let text = address.replace_all(text, |found: &regex::Captures<'_>| {
        format!("{}:{}", &found[1], ports[&found[2]])
    });
    // In documents of others an address is cut in two.
    let field = Regex::new(r#"\b(port"?: )([0-9]{4,5})\b"#).unwrap();
    let text = field.replace_all(&text, |found: &regex::Captures<'_>| {
        let moved = ports.get(&found[2]).map(u16::to_string);
        format!("{}{}", &found[1], moved.unwrap_or(found[2].to_owned()))
    });
    (text.into_owned(), ports)
}

fn shell(folder: &Path, ports: &BTreeMap<String, u16>) -> Shell {
    let bin = folder.join("bin");
    for made in [&bin, &folder.join("work")] {
        fs::create_dir(made).unwrap();
    }
    for (name, program) in [
        ("tollgate", PROGRAM),
        ("tollgate-engine", env!("CARGO_BIN_EXE_tollgate-engine")),
    ] {
        symlink(program, bin.join(name)).unwrap();
    }
    let others = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{}:{others}", bin.display(), sdk_folder().display());
    let variables = [
        ("PATH", path),
        (
            "TOLLGATE_SERVER",
            format!("http://127.0.0.1:{}", ports[ADMIN]),
        ),
        ("NO_PROXY", "127.0.0.1,localhost".to_owned()),
    ];
    Shell::start(folder, &variables)
}

impl Walk {
    fn step(&mut self, step: &Step, next: Option<&Step>) {
        let place = format!("{}:{}", self.page, step.line);
        match &step.what {
            What::File { name, text, added } => self.write(name, text, *added),
            What::Python(text) => {
                self.write("step.py", text, false);
                self.command(&place, "python step.py", &[], false);
            }
            What::Command { text, shown } => {
                let asked = next.is_some_and(
                    |next| matches!(&next.what, What::Command { text, .. } if text == "echo $?\n"),
                );
                self.command(&place, text.trim_end(), shown, asked);
            }
        }
    }

    fn write(&self, name: &str, text: &str, added: bool) {
        let file = self.folder.path().join("work").join(name);
        let before = match added {
            true => fs::read_to_string(&file).unwrap() + "\n",
            false => String::new(),
        };
        let mut text = before + text;
        // The admin listener's default address is shared by everybody on this machine.
        if text.contains("[[listener]]") && !text.contains("[admin]") {
            text += &format!("\n[admin]\naddress = \"127.0.0.1:{}\"\n", self.ports[ADMIN]);
        }
        fs::write(file, text).unwrap();
    }

    /// Runs a command and compares. One whose status the page asks for next may fail.
    fn command(&mut self, place: &str, text: &str, shown: &[String], may_fail: bool) {
        if let Some(command) = text.strip_suffix('&') {
            return self.background(place, command.trim_end());
        }
        let begun = std::time::Instant::now();
        loop {
            let ran = match text {
                "echo $?" => shell::Ran {
                    status: 0,
                    printed: format!("{}\n", self.status),
                },
                _ => {
                    { self.shell.run(text) }.unwrap_or_else(|why| panic!("{place}: {text}\n{why}"))
                }
            };
            let failed = ran.status != 0 && !may_fail;
            let differs = if shown.is_empty() {
                None
            } else {
                difference(shown, &ran.printed)
            };
            // What is read may be written a moment later.
            if (failed || differs.is_some()) && only_reads(text) && begun.elapsed() < PATIENCE {
                std::thread::sleep(std::time::Duration::from_millis(20));
                continue;
            }
            let (status, printed) = (ran.status, ran.printed);
            let background = self.shell.background();
            assert!(
                !failed,
                "{place}: {text}\nended with {status}:\n{printed}\nin the background:\n{background}"
            );
            if let Some(line) = differs {
                panic!(
                    "{place}: {text}\ndid not print: {line}\nbut:\n{printed}\nin the background:\n{background}"
                );
            }
            self.status = status;
            return;
        }
    }

    fn background(&mut self, place: &str, command: &str) {
        let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let words: Vec<&str> = command.split_whitespace().collect();
        let after = |flag: &str| {
            let at = words.iter().position(|word| *word == flag)?;
            words.get(at + 1)?.parse::<SocketAddr>().ok()
        };
        let started = if words.contains(&"tollgate-engine") {
            let address = after("--address").unwrap_or(local(self.ports[ENGINE]));
            let ready = || TcpStream::connect(address).is_ok();
            self.shell.start_background(command, ready)
        } else {
            let admin = local(self.ports[ADMIN]);
            let ready = || {
                let client = Client::try_connect(admin).ok();
                let asked = client.and_then(|mut client| {
                    client.try_send(&get("/readyz", "")).ok()?;
                    client.try_reply().ok()
                });
                asked.is_some_and(|reply| reply.status == 200)
            };
            self.shell.start_background(command, ready)
        };
        if let Err(why) = started {
            panic!("{place}: {command}\nended at once:\n{why}");
        }
    }
}

/// Whether a command asks for what is written down in the background, and changes nothing.
fn only_reads(command: &str) -> bool {
    let reads = [
        "tail ",
        "cat ",
        "grep ",
        "tollgate usage",
        "tollgate key list",
    ];
    let metrics = command.starts_with("curl ") && command.contains("/metrics");
    metrics || reads.iter().any(|begin| command.starts_with(begin))
}

#[test]
fn addresses_are_moved_alike() {
    let (text, ports) =
        moved("a 127.0.0.1:8080 b localhost:8080/x c 10.0.0.1:8080 d 127.0.0.1:9091");
    let (listener, admin) = (ports["8080"], ports["9091"]);
    assert_ne!(listener, admin);
    assert_eq!(
        text,
        format!(
            "a 127.0.0.1:{listener} b localhost:{listener}/x c 10.0.0.1:8080 d 127.0.0.1:{admin}"
        )
    );
}

#[test]
fn a_page_that_is_wrong_is_told_where() {
    for (text, told) in [
        (
            "```console\n$ echo one\ntwo\n```\n",
            "page:2: echo one\ndid not print: two\nbut:\none",
        ),
        ("```sh\ntrue\nfalse\n```\n", "page:3: false\nended with 1"),
        (
            "```console\n$ false\n$ echo $?\n0\n```\n",
            "page:3: echo $?\ndid not print: 0\nbut:\n1",
        ),
        (
            "```sh\ntollgate run -c none.toml &\n```\n",
            "page:2: tollgate run -c none.toml\nended at once:\nnone.toml",
        ),
        ("```sh\nexit 3\n```\n", "page:2: exit 3\n"),
        ("```python\nraise ValueError(7)\n```\n", "ValueError: 7"),
        ("```toml\na = \n```\n", "page:2: TOML parse error"),
        ("no blocks\n", "page has nothing to do"),
    ] {
        let failed = std::panic::catch_unwind(|| walk("page", text)).expect_err(text);
        let said = failed.downcast_ref::<String>().unwrap();
        assert!(said.contains(told), "{text}\n{said}");
    }
}

#[test]
fn what_holds_in_one_step_holds_in_the_next() {
    let text = "```toml title=\"a.txt\"\nx = 1\n```\n```sh\nVALUE=seven\ncd ..\n```\n```toml append=\"a.txt\"\ny = 2\n```\n```console\n$ cat work/a.txt; echo $VALUE\nx = 1\n…\ny = 2\nseven\n```\n";
    walk("page", text);
}
