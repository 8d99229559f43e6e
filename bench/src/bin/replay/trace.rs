//! Traces: who asked when, for how much, and what of it others had asked before.
//!
//! The format is Mooncake's: one JSON object a line, `{"timestamp": ms, "input_length": tokens, "output_length": tokens,
//! "hash_ids": [one for each block of 512 tokens of the prompt, the last one partial]}`. An id stands for a block and all
//! before it. Traces that are made up are in `synthetic`.

use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;

/// Tokens in one block.
pub(crate) const BLOCK: u64 = 512;
/// How many mistakes of one file are told.
const TOLD: usize = 10;

/// One request of a trace.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Line {
    /// Milliseconds after the first request.
    pub(crate) timestamp: f64,
    /// Tokens of the prompt.
    pub(crate) input_length: u64,
    /// Tokens of the reply.
    pub(crate) output_length: u64,
    /// The prompt's blocks.
    pub(crate) hash_ids: Vec<u64>,
}

impl Line {
    /// What keeps it from being a request.
    fn mistake(&self) -> Option<String> {
        let blocks = self.input_length.div_ceil(BLOCK);
        if !(self.timestamp.is_finite() && self.timestamp >= 0.0) {
            Some(format!(
                "timestamp: {} is not a time after 0",
                self.timestamp
            ))
        } else if self.input_length == 0 || self.output_length == 0 {
            Some("input_length and output_length are at least 1".to_owned())
        } else if blocks != self.hash_ids.len() as u64 {
            Some(format!(
                "hash_ids: {} ids, but {} tokens are {blocks} blocks of {BLOCK}",
                self.hash_ids.len(),
                self.input_length
            ))
        } else {
            None
        }
    }
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Line>> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(named)?;
    parse(BufReader::new(file)).map_err(named)
}

/// Reads lines. Of a bad trace it tells every mistake, up to ten, by its line.
fn parse(text: impl BufRead) -> io::Result<Vec<Line>> {
    let (mut lines, mut mistakes) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let read = serde_json::from_str::<Line>(&line).map_err(|error| error.to_string());
        match read.and_then(|line| line.mistake().map_or(Ok(line), Err)) {
            Ok(line) => lines.push(line),
            Err(mistake) => mistakes.push(format!("line {}: {mistake}", number + 1)),
        }
    }
    if let Some(more) = mistakes.len().checked_sub(TOLD).filter(|more| *more > 0) {
        mistakes.truncate(TOLD);
        mistakes.push(format!("and {more} more lines"));
    }
    if mistakes.is_empty() && lines.is_empty() {
        mistakes.push("no requests".to_owned());
    }
    if mistakes.is_empty() {
        Ok(lines)
    } else {
        let text = mistakes.join("\n");
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_order_and_more_fields_are_let_pass() {
        let text = "{\"timestamp\": 0, \"input_length\": 600, \"output_length\": 3, \"hash_ids\": [0, 7]}\n\n\
            {\"timestamp\": 3000, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [0], \"chat_id\": 4}\n";
        let lines = parse(text.as_bytes()).unwrap();
        let first = Line {
            timestamp: 0.0,
            input_length: 600,
            output_length: 3,
            hash_ids: vec![0, 7],
        };
        assert_eq!((lines.len(), lines.first()), (2, Some(&first)));
    }

    #[test]
    fn every_mistake_is_told_by_its_line() {
        let text = "{\"timestamp\": 0, \"input_length\": 600, \"output_length\": 3, \"hash_ids\": [0]}\n\
            not json\n\
            {\"timestamp\": -1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [0]}\n\
            {\"timestamp\": 1, \"input_length\": 1, \"output_length\": 0, \"hash_ids\": [0]}\n";
        let error = parse(text.as_bytes()).unwrap_err().to_string();
        let told: Vec<&str> = error.lines().collect();
        assert_eq!(told.len(), 4, "{error}");
        for (line, word) in told
            .iter()
            .zip(["2 blocks", "expected", "timestamp", "output_length"])
        {
            assert!(line.contains(word), "{line}");
        }
        assert!(parse("\n".as_bytes()).is_err());
        let many = "[]\n".repeat(25);
        let error = parse(many.as_bytes()).unwrap_err().to_string();
        assert!(error.ends_with("and 15 more lines"), "{error}");
    }
}
