//! `docs/errors.md`: every error of Tollgate's own.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use tollgate_sdk::codes;
use tollgate_sdk::llm::dialect::{Dialect, error_body};

use super::{MADE, cell, prose};
use crate::documents::{compare, repository};

const HEAD: &str = "\
What Tollgate answers itself, when it does not pass on an upstream's answer. Every such answer has a `code` that stays the same; the `message` may change. The code is the
label of `tollgate_rejections_total` and stands as `error` in the access line, beside it as `cause` what happened, which clients are not told. `x-request-id` of an answer is the
`request_id` of its line.

With OpenAI's API an error looks like this; `/v1/messages` has Anthropic's shape, gRPC a `grpc-status`:
";

const TAIL: &str = "\
An upstream's own errors pass as they are: 4xx at once, 5xx and 429 when retries, the queue and fallbacks did not help. A stream that breaks off after its first byte ends with
an event `data: {\"error\": …}` of one of these codes and a broken connection. `499` in metrics and in the access log is no answer: the client left first.
";

fn made() -> String {
    let mut out = format!("# Errors\n\n{MADE}\n\n{HEAD}\n");
    let known = &codes::MODEL_NOT_FOUND;
    let kind = Dialect::OpenAi.error_type(known.status, known.name);
    let message = "The model `gpt-9` does not exist or you do not have access to it.";
    let body = error_body(Dialect::OpenAi, kind, known.name, message, Some("model"));
    write!(out, "```json\n{body}\n```\n\n").unwrap();
    out += "| status | code | when | what to do |\n|---|---|---|---|\n";
    for code in codes::ALL {
        let (when, remedy) = (cell(&prose(code.when)), cell(&prose(code.remedy)));
        writeln!(
            out,
            "| {} | `{}` | {when} | {remedy} |",
            code.status, code.name
        )
        .unwrap();
    }
    write!(out, "\n{TAIL}").unwrap();
    out
}

#[test]
fn the_page_is_current() {
    compare("docs/errors.md", &made());
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.contains("tests") {
            continue;
        } else if path.is_dir() {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// Plugins write some statuses beside a code; what they write must be known here. A status below 400 is no error.
#[test]
fn plugins_have_no_codes_of_their_own() {
    let mut files = Vec::new();
    sources(&repository("plugins/src"), &mut files);
    let mut seen = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for after in code
            .split("efusal::new(")
            .skip(1)
            .chain(code.split("(refusal(").skip(1))
        {
            let arguments = after.split(')').next().unwrap();
            let status = arguments.split(',').next().unwrap().trim();
            let named = arguments.split('"').nth(1);
            if let (Some(named), false) = (named, status.starts_with('2')) {
                seen += 1;
                let known = codes::ALL.iter().any(|code| code.name == named);
                assert!(known, "{}: {named} is not in codes.rs", file.display());
            }
        }
    }
    assert!(seen >= 2, "{seen}");
}
