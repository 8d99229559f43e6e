//! What follows from a process's phase and its targets.

use super::*;

fn state(phase: Phase, changing: bool, refused: bool, targets: &Targets) -> GatewayState {
    let process = Process {
        phase,
        changing,
        refused,
        revision: 3,
    };
    process.state(&judge(&process, targets, false))
}

fn targets(services: usize, dead: &[&str], unknown: &[&str]) -> Targets {
    let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    Targets {
        services,
        dead: names(dead),
        unknown: names(unknown),
        asleep: Vec::new(),
    }
}

#[test]
fn a_gateway_is_what_its_process_and_its_targets_are() {
    use GatewayState::{Creating, Deleting, Error, Ready, Updating};
    use Phase::{Draining, Serving, Starting};
    let (well, part, dead) = (
        targets(2, &[], &[]),
        targets(2, &["a"], &[]),
        targets(2, &["a", "b"], &[]),
    );
    for (expected, phase, changing, refused, targets) in [
        (Creating, Starting, false, false, &well),
        (Creating, Starting, false, false, &dead),
        (Creating, Serving, false, false, &targets(2, &[], &["a"])),
        (Ready, Serving, false, false, &well),
        (Ready, Serving, false, false, &part),
        (Ready, Serving, false, false, &targets(0, &[], &[])),
        (Updating, Serving, true, false, &well),
        (Error, Serving, false, false, &dead),
        (Error, Serving, false, true, &well),
        (Deleting, Draining, true, true, &dead),
    ] {
        let found = state(phase, changing, refused, targets);
        assert_eq!(
            found, expected,
            "{phase:?} {changing} {refused} {targets:?}"
        );
    }
}

#[test]
fn what_is_wrong_is_named() {
    let names: Vec<String> = (0..10).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = healthy(&targets(12, &names, &[]));
    assert_eq!((found.holds, found.nowhere), (Some(false), false));
    assert!(found.message.contains("s0, s1") && found.message.contains("and 2 more"));
    assert!(!found.message.contains("s9"));
}

#[test]
fn who_drains_does_not_serve_again() {
    let book = Book::default();
    assert_eq!(book.phase(), Phase::Starting);
    book.set_ready(true);
    assert_eq!(book.phase(), Phase::Serving);
    book.set_ready(false);
    book.set_ready(true);
    assert_eq!(book.phase(), Phase::Draining);
}
