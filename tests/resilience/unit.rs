//! What the systemd unit does to a running process: its commands, run by a shell as the service manager would.

use std::process::Command;

use super::upgrade::gone;
use crate::harness::{PROGRAM, Process, closed_address, engine, service, until};

/// The command of `ExecReload=`, for the program of this process.
fn reload(process: &Process) -> String {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/systemd/tollgate.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let mut lines = unit.lines();
    let command = lines.find_map(|line| line.strip_prefix("ExecReload=/bin/sh -c '"));
    let command = command.and_then(|rest| rest.strip_suffix('\'')).unwrap();
    let program = process.path("tollgate").display().to_string();
    command.replace("/usr/local/bin/tollgate", &program)
}

fn run(command: &str, main: u32) {
    let ran = Command::new("/bin/sh")
        .args(["-c", command])
        .env("MAINPID", main.to_string())
        .status();
    assert!(ran.unwrap().success(), "{command}");
}

#[test]
fn a_reload_notices_another_program() {
    let engine = engine();
    let process = Process::start_own(&service("m", "m", &engine.url()), &[]);
    let (command, first) = (reload(&process), process.pid());
    // The same program reads its file again, which now has another model.
    let file = process.path("tollgate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let more = format!(
        "\n[[service]]\nname = \"n\"\nmodels = [\"n\"]\ntargets = [\"http://{}\"]\n",
        closed_address()
    );
    std::fs::write(&file, text + &more).unwrap();
    run(&command, first);
    until("the file to be read", || {
        (process
            .client()
            .get("/v1/models", "")
            .text()
            .contains("\"n\""))
        .then_some(())
    });
    let serving = || process.read("tollgate.pid").trim().parse::<u32>().ok();
    assert_eq!(serving(), Some(first));
    // Another one takes over, once.
    let beside = process.path("tollgate.new");
    std::fs::copy(PROGRAM, &beside).unwrap();
    std::fs::rename(&beside, process.path("tollgate")).unwrap();
    run(&command, first);
    let second = until("another process to serve", || {
        serving().filter(|pid| *pid != first)
    });
    gone(first);
    process.client().chat("m", "").assert_ok();
    run(&command, second);
    process.client().chat("m", "").assert_ok();
    assert_eq!(serving(), Some(second));
}
