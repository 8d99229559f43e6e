//! Where documents come from: files, folders and standard input; and one text as the documents it holds.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use saphyr_parser::{Event, Parser};
use serde_json::Value;

use crate::config::{Format, format_of};

/// A text with what it is called, and the folder to which files that it names are relative.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) format: Format,
    text: String,
}

pub(super) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Every text below these paths, in their order; those of a folder by name, not of folders in it.
pub(super) fn find(paths: &[PathBuf]) -> Vec<Result<Source, String>> {
    let mut found = Vec::new();
    for path in paths {
        if is_stdin(path) {
            found.push(stdin());
        } else if path.is_dir() {
            match documents_of(path) {
                Ok(files) => found.extend(files.iter().map(|file| of_file(file))),
                Err(wrong) => found.push(Err(wrong)),
            }
        } else {
            found.push(of_file(path));
        }
    }
    found
}

fn documents_of(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let shown = folder.display();
    let unreadable = |error: io::Error| format!("{shown}: cannot be read: {error}");
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let extension = path
            .extension()
            .map(|extension| extension.to_string_lossy());
        let known = matches!(extension.as_deref(), Some("toml" | "yaml" | "yml" | "json"));
        if known && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(format!(
            "{shown}: no document in it; they end in .toml, .yaml, .yml or .json"
        )),
        false => Ok(files),
    }
}

fn of_file(path: &Path) -> Result<Source, String> {
    let name = path.display().to_string();
    let text = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{name}: there is no such file"),
        _ => format!("{name}: cannot be read: {error}"),
    })?;
    let text =
        String::from_utf8(text).map_err(|_| format!("{name}: not UTF-8; save it as UTF-8"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    Ok(Source {
        folder: folder.to_owned(),
        format: format_of(path),
        name,
        text,
    })
}

fn stdin() -> Result<Source, String> {
    let name = "standard input";
    let mut text = String::new();
    let read = io::stdin().lock().read_to_string(&mut text);
    read.map_err(|error| format!("{name}: cannot be read: {error}"))?;
    Ok(Source {
        name: name.to_owned(),
        folder: PathBuf::from("."),
        format: guess(&text),
        text,
    })
}

/// The format of a text whose name tells nothing. What is no JSON and no TOML is YAML.
fn guess(text: &str) -> Format {
    let begins = text.trim_start();
    if begins.starts_with(['{', '[']) && serde_json::from_str::<Value>(text).is_ok() {
        return Format::Json;
    }
    if text.parse::<toml::Table>().is_ok() {
        return Format::Toml;
    }
    // A mistake is best explained in the words of what was meant.
    let first = { text.lines().map(str::trim) }.find(|l| !l.is_empty() && !l.starts_with('#'));
    match first {
        Some(line) if line.starts_with("[[") => Format::Toml,
        Some(line) if line.starts_with('{') => Format::Json,
        Some(line) if line.contains(" = ") && !line.contains(": ") => Format::Toml,
        _ => Format::Yaml,
    }
}

impl Source {
    /// The documents of the text. What is before a document is kept as empty lines, so that places stay true.
    pub(super) fn parts(&self) -> Vec<String> {
        if self.format != Format::Yaml {
            return vec![self.text.clone()];
        }
        let starts = later_documents(&self.text);
        let mut bounds = vec![0];
        bounds.extend(starts);
        let ends = bounds.iter().skip(1).copied().chain([self.text.len()]);
        let pairs = bounds.iter().copied().zip(ends);
        pairs
            .map(|(start, end)| {
                let before = self.text.get(..start).unwrap_or_default();
                let mut part = "\n".repeat(before.matches('\n').count());
                part += self.text.get(start..end).unwrap_or_default();
                part
            })
            .collect()
    }
}

/// The bytes at which the second and later YAML documents begin, as far as the syntax is right.
fn later_documents(text: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    for event in Parser::new_from_str(text) {
        match event {
            Ok((Event::DocumentStart(_), place)) => starts.push(place.start.index()),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let byte = |char: usize| {
        text.char_indices()
            .nth(char)
            .map_or(text.len(), |(at, _)| at)
    };
    starts.into_iter().skip(1).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<String> {
        let source = Source {
            name: String::new(),
            folder: PathBuf::new(),
            format: Format::Yaml,
            text: text.to_owned(),
        };
        source.parts()
    }

    #[test]
    fn documents_of_a_text_keep_their_lines() {
        assert_eq!(parts("a: 1\n"), ["a: 1\n"]);
        assert_eq!(parts(""), [""]);
        assert_eq!(
            parts("---\na: ü\n---\nb: 2\n"),
            ["---\na: ü\n", "\n\n---\nb: 2\n"]
        );
        // What looks like a document's start may be text.
        assert_eq!(parts("a: |\n  ---\n  x\n").len(), 1);
        // A mistake is left to who reads the part.
        assert_eq!(parts("a: 1\n---\nb: [\n").len(), 2);
    }

    #[test]
    fn formats_are_told_apart_by_their_text() {
        for (text, format) in [
            ("{\"kind\": \"key\"}", Format::Json),
            ("[{\"kind\": \"key\"}]", Format::Json),
            ("# x\n[[service]]\nname = \"a\"\n", Format::Toml),
            ("[[service]]\nname = a\n", Format::Toml),
            ("name = \"a\n", Format::Toml),
            ("kind: key\nname: a\n", Format::Yaml),
            ("- kind: key\n", Format::Yaml),
            ("{\"kind\": }", Format::Json),
        ] {
            assert_eq!(guess(text), format, "{text}");
        }
    }
}
