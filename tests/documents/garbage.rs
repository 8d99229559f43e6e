//! No text makes reading panic, and no diagnostic fails to be shown.

use super::repository;
use document::check_document as survives;
use proptest::prelude::*;
use routes::check_routes;

#[path = "../../fuzz/checks/document.rs"]
mod document;
#[path = "../../fuzz/checks/kept.rs"]
mod kept;
#[path = "../../fuzz/checks/routes.rs"]
mod routes;

#[test]
fn what_fuzzing_kept() {
    let kept = |target| kept::kept(env!("CARGO_MANIFEST_DIR"), target);
    for text in kept("config") {
        if let Ok(text) = String::from_utf8(text) {
            survives(&text);
        }
    }
    kept("routes").iter().for_each(|bytes| check_routes(bytes));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn anything_like_a_document(text in r#"([a-z.]{1,4}( ?[=:] ?|\n)|[\[\]{}"',*&!|>$\-]|\$\{[A-Z]{0,3}|[0-9]{1,4}[a-z]{0,2}|é|\t| |\r?\n){0,80}"#) {
        survives(&text);
    }

    #[test]
    fn the_full_file_with_parts_replaced(cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..40usize, ".{0,6}"), 1..4)) {
        let full = std::fs::read_to_string(repository("conf/full.toml")).unwrap();
        let mut chars: Vec<char> = full.chars().collect();
        for (at, length, with) in cuts {
            let at = at.index(chars.len());
            let end = (at + length).min(chars.len());
            chars.splice(at..end, with.chars());
        }
        survives(&chars.into_iter().collect::<String>());
    }

    #[test]
    fn the_full_file_with_a_value_replaced(at in any::<prop::sample::Index>(), value in r#"(-?[0-9]{1,20}|"[^"\n]{0,8}"|\[\]|\{ a = 1 \}|\["\$\{X\}"\]|true|1e400|1979-05-27)"#) {
        let full = std::fs::read_to_string(repository("conf/full.toml")).unwrap();
        let lines: Vec<_> = full.lines().collect();
        let values: Vec<_> = (0..lines.len()).filter(|at| lines[*at].contains(" = ")).collect();
        let chosen = values[at.index(values.len())];
        let mut text = String::new();
        for (at, line) in lines.iter().enumerate() {
            let line = line.strip_prefix("# ").filter(|_| at == chosen).unwrap_or(line);
            match line.split_once(" = ") {
                Some((name, _)) if at == chosen => text.push_str(&format!("{name} = {value}\n")),
                _ => text.push_str(&format!("{line}\n")),
            }
        }
        survives(&text);
    }

    #[test]
    fn requests_go_where_a_reference_says(bytes in prop::collection::vec(any::<u8>(), 1..600)) {
        check_routes(&bytes);
    }
}
