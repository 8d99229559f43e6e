//! `conf/full.toml`: every field at its default, made from the declarations and compared with them.

use std::fmt::Write;

use tollgate::model::{Acme, Admin, Config, KINDS, Kind, Log, Server, TABLES};
use tollgate_sdk::document::{Field, Format, Json, json};

use super::{compare, parse_toml, repository};

const HEAD: &str = "\
# Every field there is, each at its default. What is commented out has no default and shows an example.
# Made from the declarations in src/model; a test fails when it is stale (UPDATE_GOLDEN=1 makes it anew).
";

const NO_KEY: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// Fields that a resource is of no use without, so that the file also shows something that works.
fn shown(table: &str, field: &str) -> Option<Json> {
    match (table, field) {
        ("gateway", "hosts") => Some(json!(["api.example.com"])),
        ("service", "models") => Some(json!(["Qwen/Qwen3-8B"])),
        ("service", "upstream") => Some(json!("pool")),
        // The hash of nothing anybody knows.
        ("key", "hash") => Some(json!(NO_KEY)),
        _ => None,
    }
}

/// Whether a field that takes a table is by default a word instead: `queue = "off"`.
fn is_word_for_a_table(field: &Field) -> bool {
    !field.fields.is_empty() && field.default.as_ref().is_some_and(Json::is_string)
}

/// Writes one table: single values first, as TOML wants it, then tables within.
fn write_table(out: &mut String, header: &str, path: &str, fields: &[Field]) {
    writeln!(out, "\n{header}").unwrap();
    let mut nested = Vec::new();
    let mut alternatives = Vec::new();
    for field in fields {
        let is_table =
            !field.fields.is_empty() && field.default.as_ref().is_some_and(Json::is_object);
        let is_list_of_tables = !field.fields.is_empty() && field.required;
        if is_table || is_list_of_tables {
            nested.push((field, is_list_of_tables));
            continue;
        }
        let shown = shown(path, field.name);
        let mut comment = field.doc.clone();
        let words = field.schema["anyOf"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|form| form.get("const").is_some());
        let words: Vec<_> = words.map(|form| form["const"].to_string()).collect();
        if words.len() > 1 {
            write!(comment, " One of {}.", words.join(", ")).unwrap();
        }
        if let (Some(default), Some(_)) = (&field.default, &shown) {
            write!(comment, " Default: {}.", Format::Toml.value(default)).unwrap();
        }
        write_comment(out, &comment);
        let required = Some(&field.example).filter(|_| field.required);
        match shown.as_ref().or(field.default.as_ref()).or(required) {
            Some(value) => writeln!(out, "{}", Format::Toml.field(field.name, value)),
            None => writeln!(out, "# {}", Format::Toml.field(field.name, &field.example)),
        }
        .unwrap();
        if is_word_for_a_table(field) {
            alternatives.push(field);
        }
    }
    for field in alternatives {
        let path = format!("{path}.{}", field.name);
        let mut table = String::new();
        write_table(&mut table, &format!("[{path}]"), &path, &field.fields);
        let value = field.default.as_ref().unwrap_or(&field.example);
        let instead = Format::Toml.field(field.name, value);
        write!(out, "\n# In place of `{instead}`:").unwrap();
        for line in table.lines() {
            let commented = line.is_empty() || line.starts_with('#');
            writeln!(out, "{}{line}", if commented { "" } else { "# " }).unwrap();
        }
    }
    for (field, listed) in nested {
        let path = format!("{path}.{}", field.name);
        out.push('\n');
        write_comment(out, &field.doc);
        let header = if listed {
            format!("[[{path}]]")
        } else {
            format!("[{path}]")
        };
        write_table(out, &header, &path, &field.fields);
    }
}

fn write_comment(out: &mut String, text: &str) {
    let mut column = 0;
    for word in text.split_whitespace() {
        if column == 0 || column + 1 + word.chars().count() > 110 {
            out.push_str(if column == 0 { "#" } else { "\n#" });
            column = 1;
        }
        write!(out, " {word}").unwrap();
        column += 1 + word.chars().count();
    }
    out.push('\n');
}

fn made() -> String {
    let mut out = HEAD.to_owned();
    let kinds = TABLES
        .iter()
        .map(|table| (table, format!("[{}]", table.name)));
    let kinds = kinds.chain(
        KINDS
            .iter()
            .map(|kind| (kind, format!("[[{}]]", kind.name))),
    );
    for (kind, header) in kinds {
        write!(out, "\n# {}", (kind.doc)()).unwrap();
        write_table(&mut out, &header, kind.name, &(kind.fields)());
    }
    // No blank line between what a table is and its header.
    let lines: Vec<_> = out.lines().collect();
    let mut tidy = String::new();
    for (at, line) in lines.iter().enumerate() {
        let before = at
            .checked_sub(1)
            .and_then(|at| lines.get(at))
            .unwrap_or(&"");
        let after = lines.get(at + 1).unwrap_or(&"");
        if line.is_empty()
            && before.starts_with("# ")
            && after.trim_start_matches("# ").starts_with('[')
        {
            continue;
        }
        writeln!(tidy, "{line}").unwrap();
    }
    tidy
}

#[test]
fn full_toml_is_made_from_the_declarations() {
    compare("conf/full.toml", &made());
}

/// What must be given, with the values of the full file, and nothing else.
fn least() -> Config {
    parse_toml(
        r#"
        [[listener]]
        address = "127.0.0.1:8080"
        [[gateway]]
        name = "main"
        hosts = ["api.example.com"]
        [[service]]
        name = "qwen"
        models = ["Qwen/Qwen3-8B"]
        upstream = "pool"
        [[upstream]]
        name = "pool"
        targets = ["http://127.0.0.1:8000"]
        [[rule]]
        gateway = "main"
        [[key]]
        name = "team-a"
        gateway = "main"
        hash = "0000000000000000000000000000000000000000000000000000000000000000"
        "#,
    )
}

#[test]
fn full_toml_holds_the_defaults() {
    let full = parse_toml(&std::fs::read_to_string(repository("conf/full.toml")).unwrap());
    assert_eq!(full, least());
    assert_eq!(full.server, Server::default());
    assert_eq!(full.admin, Admin::default());
    assert_eq!(full.log, Log::default());
    assert_eq!(full.acme, Acme::default());
}

#[test]
fn full_toml_names_every_field() {
    let full = std::fs::read_to_string(repository("conf/full.toml")).unwrap();
    let named = |name: &str| {
        let starts = [format!("{name} = "), format!("# {name} = ")];
        let header = format!(".{name}]");
        full.lines()
            .any(|line| starts.iter().any(|s| line.starts_with(s)) || line.contains(&header))
    };
    fn check(fields: &[Field], named: &dyn Fn(&str) -> bool) {
        for field in fields {
            assert!(named(field.name), "{} is not in conf/full.toml", field.name);
            assert!(!field.doc.is_empty(), "{} is not documented", field.name);
            if field
                .default
                .as_ref()
                .is_none_or(|default| !default.is_array())
            {
                check(&field.fields, named);
            }
        }
    }
    let kinds: Vec<&Kind> = TABLES.iter().chain(&KINDS).collect();
    for kind in kinds {
        check(&(kind.fields)(), &named);
    }
}

#[test]
fn the_schema_is_current() {
    compare("conf/schema.json", &tollgate::config::schema::text());
}

#[test]
fn the_openapi_document_is_current() {
    compare("conf/openapi.json", &tollgate::admin::openapi());
}
