//! Links between the pages lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use super::repository;

/// The places on a page that can be linked, as GitHub makes them of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let titles = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    titles
        .map(|title| {
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Text without what stands in code, where brackets are no links.
fn without_code(text: &str) -> String {
    let fenced = text
        .split("\n```")
        .step_by(2)
        .collect::<Vec<_>>()
        .join("\n");
    let code = Regex::new("`[^`\n]*`").unwrap();
    code.replace_all(&fenced, "code").into_owned()
}

fn dead(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut dead = Vec::new();
    for found in link.captures_iter(&without_code(&text)) {
        let target = found[1].to_owned();
        if target.contains("://") {
            continue;
        }
        let (file, place) = target.split_once('#').unwrap_or((&target, ""));
        let to = match file {
            "" => page.to_owned(),
            file => page.parent().unwrap().join(file),
        };
        let there = to.exists()
            && (place.is_empty() || anchors(&fs::read_to_string(&to).unwrap()).contains(place));
        if !there {
            dead.push(format!("{}: {target}", page.display()));
        }
    }
    dead
}

#[test]
fn links_lead_somewhere() {
    let docs = fs::read_dir(repository("docs")).unwrap();
    let mut pages: Vec<PathBuf> = docs.map(|entry| entry.unwrap().path()).collect();
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "bench/README.md",
    ] {
        pages.push(repository(name));
    }
    let dead: Vec<String> = pages.iter().flat_map(|page| dead(page)).collect();
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn every_page_is_in_the_index() {
    let index = fs::read_to_string(repository("docs/README.md")).unwrap();
    for entry in fs::read_dir(repository("docs")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(
            name == "README.md" || index.contains(&format!("({name})")),
            "{name}"
        );
    }
}

#[test]
fn dead_links_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("a.md");
    fs::write(
        &page,
        "# One `x` two\n[a](#one-x-two) [b](a.md#none) [c](b.md) `[d](e)` [f](http://x)\n",
    )
    .unwrap();
    let dead = dead(&page);
    assert_eq!(dead.len(), 2, "{dead:?}");
}
