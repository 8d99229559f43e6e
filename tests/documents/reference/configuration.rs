//! `docs/configuration.md`: every table, kind and field.

use std::fmt::Write;

use tollgate::model::{KINDS, TABLES};

use super::{MADE, Tables, anchor, prose, rows_of};
use crate::documents::compare;

const HEAD: &str = "\
A configuration is one file of TOML, or of YAML or JSON of the same shape. `tollgate check -c FILE` says everything that is wrong with it. The tables `server`, `admin`,
`log` and `acme` are about the process; of `listener`, `gateway`, `service`, `upstream`, `rule` and `key` there may be several. [`conf/full.toml`](../conf/full.toml) has the
same fields as a file to copy from, and [`conf/examples/`](../conf/examples) shows what they are good for.

- **Environment**: `${NAME}` and `${NAME:-default}` stand for values of the environment, anywhere in a value.
- **Secrets** may also be written `{ file = \"path\" }`: the file's text, without the last line break.
- **Durations** are `\"1500ms\"`, `\"30s\"`, `\"5m\"`, `\"24h\"` or `\"7d\"`; **sizes** `\"64KiB\"` or `\"32MiB\"`.
- **Names** are 1 to 63 lower-case letters, digits, `.`, `_` and `-`, and begin with a letter or digit.
- A field that is not known is an error that names the nearest one that is.
";

fn made() -> String {
    let mut out = format!("# Configuration\n\n{MADE}\n\n{HEAD}\nThe tables:\n\n");
    let kinds = TABLES.iter().map(|kind| (kind, format!("[{}]", kind.name)));
    let several = KINDS
        .iter()
        .map(|kind| (kind, format!("[[{}]]", kind.name)));
    let kinds: Vec<_> = kinds.chain(several).collect();
    for (kind, header) in &kinds {
        let doc = prose(&(kind.doc)());
        writeln!(out, "- [`{header}`](#{}): {doc}", anchor(header)).unwrap();
    }
    let mut tables = Tables::default();
    for (kind, header) in kinds {
        write!(out, "\n## `{header}`\n\n{}\n\n", prose(&(kind.doc)())).unwrap();
        tables.write(&mut out, kind.name, &rows_of(&(kind.fields)()));
        let later = (kind.later)();
        if !later.is_empty() {
            let later: Vec<_> = later.iter().map(|name| format!("`{name}`")).collect();
            writeln!(out, "\nFor a later version: {}.", later.join(", ")).unwrap();
        }
    }
    out
}

#[test]
fn the_page_is_current() {
    compare("docs/configuration.md", &made());
}
