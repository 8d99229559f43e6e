//! A text to a [`Config`](crate::model::Config): the steps in their order.

use tollgate_sdk::document::{At, Format, FromNode, Node, ReadFile, Reading, Span};

use super::interpolate::{Env, interpolate};
use super::sections::{Entry, Sections, fill_names};
use super::{Diagnostics, Loaded, certificates, conflicts, masking, raw, references};
use crate::model::Config;

/// Reads a configuration. `name` is what the text is called in diagnostics, `env` the environment, and `read_file`
/// serves secrets, certificates and keys kept in files.
pub fn parse(
    name: &str,
    text: &str,
    format: Format,
    env: &Env<'_>,
    read_file: &ReadFile<'_>,
) -> Result<Loaded, Diagnostics> {
    let mut r = Reading::new(format, read_file);
    let config = read(text, format, env, read_file, &mut r);
    let failed = r.failed();
    if config.is_none() && r.problems.is_empty() {
        r.error(
            Span::default(),
            &At::ROOT,
            "nothing is configured",
            smallest(format),
        );
    }
    masking::keep_references(text, &mut r.masked);
    let (errors, warnings) = Diagnostics::new(name, text, r.problems, r.masked).split();
    match config {
        Some(config) if !failed => Ok(Loaded { config, warnings }),
        // Warnings too: who mends a file wants to know all.
        _ => Err(errors.and(&warnings)),
    }
}

fn read(
    text: &str,
    format: Format,
    env: &Env<'_>,
    read_file: &ReadFile<'_>,
    r: &mut Reading<'_>,
) -> Option<Config> {
    let Some(mut root) = raw::read(text, format, r) else {
        masking::mask_lines(text, &mut r.masked);
        return None;
    };
    if root.as_table().is_some_and(<[_]>::is_empty) {
        return None;
    }
    masking::mask_by_name(&root, &mut r.masked);
    let unfilled = interpolate(&mut root, text, env, r);
    let told = r.problems.len();
    fill_names(&mut root);
    let config = Config::read(&root, &At::ROOT, r);
    let sections = Sections::of(&root, text);
    references::check(&sections, r);
    conflicts::addresses(&root, text, &sections, r);
    conflicts::announced(&root, &sections, r);
    conflicts::check(&sections, r);
    if let Some(config) = config.as_ref().filter(|_| !r.failed()) {
        nothing_served(&root, r);
        // Everything was read, so all are in the order of the file.
        let key = |entry: &Entry<'_>| config.keys.get(entry.index).map(|key| &**key);
        conflicts::secrets(&sections, key, r);
        references::of_plugins(&sections, |entry| named_by(config, entry), r);
        certificates::check(config, &sections, read_file, r);
    }
    // What could not be filled in was told already; what it then fails to be is not its author's doing.
    let mut index = 0;
    r.problems.retain(|problem| {
        index += 1;
        index <= told || !unfilled.contains(&problem.span)
    });
    config
}

fn named_by(config: &Config, entry: &Entry<'_>) -> Vec<(usize, String)> {
    let plugins = match entry.kind {
        "gateway" => config.gateways.get(entry.index).map(|g| &g.plugins),
        "service" => config.services.get(entry.index).map(|s| &s.plugins),
        "rule" => config.rules.get(entry.index).map(|rule| &rule.plugins),
        _ => None,
    };
    references::named_by(plugins.into_iter().flatten().enumerate())
}

/// Warns of what leaves a file without effect.
fn nothing_served(root: &Node, r: &mut Reading<'_>) {
    for (kind, why) in [
        ("listener", "no listener: no request can come in"),
        ("gateway", "no gateway: every request is refused"),
    ] {
        if root.entry(kind).is_none() {
            let help = match r.format {
                Format::Toml => format!("begin one with [[{kind}]]"),
                Format::Yaml | Format::Json => format!("add the list \"{kind}\""),
            };
            r.warn(Span::default(), &At::ROOT, why, help);
        }
    }
}

fn smallest(format: Format) -> &'static str {
    match format {
        Format::Toml => "begin with [[listener]], [[gateway]] and [[service]]",
        Format::Yaml | Format::Json => "begin with the lists listener, gateway and service",
    }
}
