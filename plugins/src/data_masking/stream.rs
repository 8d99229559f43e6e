//! Masking a stream of server-sent events whose texts are pieces of longer ones.
//!
//! Every text that grows (of a choice, of a tool's arguments) has a channel, told by its path and the indexes on it; what is masked is the
//! channel's text, not the event's. Of each event goes on what cannot become something any more; what is held back goes on with a later event,
//! or, when its text ends, with a copy of the last event that had some of it. Events stay well-formed and in order, and everything of them that
//! is not text stays as it was.

use std::ops::Range;
use std::sync::Arc;

use memchr::memchr;

use super::body;
use super::mask::{Growing, Masker};
use crate::json::{self, Kind, Step, Visit};

/// The longest event.
const MAX_EVENT: usize = 1 << 20;
/// The most texts that grow at once.
const MAX_CHANNELS: usize = 512;

/// An event is longer, or a stream has more texts, than can be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// One stream.
pub(super) struct EventStream {
    masker: Arc<Masker>,
    /// What came of an event whose end has not.
    open: Vec<u8>,
    channels: Vec<Channel>,
}

/// One text that grows.
struct Channel {
    key: String,
    text: Growing,
    /// An event without texts that what is held can be put into, and where.
    carrier: Carrier,
}

#[derive(Clone, Default)]
struct Carrier {
    event: Option<String>,
    data: String,
    at: usize,
}

impl EventStream {
    pub(super) fn new(masker: Arc<Masker>) -> Self {
        Self {
            masker,
            open: Vec::new(),
            channels: Vec::new(),
        }
    }

    /// Takes the next bytes and returns those that go on.
    pub(super) fn push(&mut self, chunk: &[u8], end: bool) -> Result<String, TooLong> {
        // Where lines were looked for before, none ends.
        let mut searched = self.open.len();
        self.open.extend_from_slice(chunk);
        let open = std::mem::take(&mut self.open);
        let mut out = String::new();
        let mut start = 0;
        let mut line = open
            .get(..searched)
            .and_then(|seen| memchr::memrchr(b'\n', seen))
            .map_or(0, |at| at + 1);
        while let Some(len) = memchr(b'\n', open.get(searched..).unwrap_or_default()) {
            let after = searched + len + 1;
            let content = open.get(line..after).unwrap_or_default();
            if matches!(content, b"\n" | b"\r\n") {
                self.event(open.get(start..after).unwrap_or_default(), &mut out)?;
                start = after;
            }
            (line, searched) = (after, after);
        }
        let rest = open.get(start..).unwrap_or_default();
        if end {
            self.last(rest, &mut out)?;
        } else if rest.len() > MAX_EVENT {
            return Err(TooLong);
        } else {
            self.open = rest.to_vec();
        }
        Ok(out)
    }

    /// What the stream ends with, which may lack its last line's end or have lines of the oldest kind.
    fn last(&mut self, rest: &[u8], out: &mut String) -> Result<(), TooLong> {
        let text = String::from_utf8_lossy(rest)
            .replace("\r\n", "\n")
            .replace('\r', "\n");
        for event in text.split("\n\n").filter(|event| !event.trim().is_empty()) {
            self.event(format!("{}\n\n", event.trim_end()).as_bytes(), out)?;
        }
        self.flush("", out);
        Ok(())
    }

    /// One event, from its first line to the blank one.
    fn event(&mut self, event: &[u8], out: &mut String) -> Result<(), TooLong> {
        let event = String::from_utf8_lossy(event);
        let data: Vec<_> = event.lines().filter_map(data_of).collect();
        let data = match data.as_slice() {
            [] => {
                out.push_str(&event);
                return Ok(());
            }
            [line] => (*line).to_owned(),
            lines => lines.join("\n"),
        };
        let Some(texts) = Texts::of(&data) else {
            // The word at the end, or a stream that is not JSON.
            self.flush("", out);
            match self.masker.whole(&data) {
                Some(masked) => write_event(&event, &masked, out),
                None => out.push_str(&event),
            }
            return Ok(());
        };
        let masked = self.mask(&event, &data, &texts, out)?;
        match masked {
            Some(masked) => write_event(&event, &masked, out),
            None => out.push_str(&event),
        }
        Ok(())
    }

    /// The data with its texts masked, or `None` if it stays; first goes on what is held of texts that this event ends.
    fn mask(
        &mut self,
        event: &str,
        data: &str,
        texts: &Texts<'_>,
        out: &mut String,
    ) -> Result<Option<String>, TooLong> {
        let mut edits: Vec<(Range<usize>, String)> = texts
            .spelled
            .iter()
            .map(|range| (range.clone(), "null".into()))
            .collect();
        for (range, text) in &texts.whole {
            let masked = self.masker.whole(text);
            edits.extend(masked.map(|masked| (range.clone(), json::quote(&masked))));
        }
        let pieces: Vec<_> = texts
            .pieces
            .iter()
            .map(|piece| (texts.key(&piece.path), piece))
            .collect();
        let mut emptied = edits.clone();
        emptied.extend(
            texts
                .pieces
                .iter()
                .map(|piece| (piece.range.clone(), "\"\"".to_owned())),
        );
        emptied.sort_by_key(|(range, _)| range.start);
        for (key, piece) in &pieces {
            let ends = texts
                .ends
                .iter()
                .any(|ended| key.starts_with(ended.as_str()));
            let masker = Arc::clone(&self.masker);
            let channel = self.channel(key)?;
            let goes_on = channel.text.push(&masker, &piece.text, ends);
            if goes_on != piece.text {
                edits.push((piece.range.clone(), json::quote(&goes_on)));
            }
            if channel.text.holds() {
                channel.carrier = Carrier::new(event, data, &emptied, &piece.range);
            }
        }
        for ended in &texts.ends {
            self.flush(ended, out);
        }
        edits.sort_by_key(|(range, _)| range.start);
        Ok(match edits.is_empty() {
            true => None,
            false => Some(json::splice(data, &edits)),
        })
    }

    fn channel(&mut self, key: &str) -> Result<&mut Channel, TooLong> {
        let known = self.channels.iter().position(|channel| channel.key == key);
        if known.is_none() {
            if self.channels.len() >= MAX_CHANNELS {
                return Err(TooLong);
            }
            self.channels.push(Channel {
                key: key.to_owned(),
                text: Growing::default(),
                carrier: Carrier::default(),
            });
        }
        let at = known.unwrap_or(self.channels.len() - 1);
        self.channels.get_mut(at).ok_or(TooLong)
    }

    /// What is held of the texts whose keys begin like this goes on, each with an event of its own.
    fn flush(&mut self, ended: &str, out: &mut String) {
        for channel in &mut self.channels {
            if !channel.key.starts_with(ended) || !channel.text.holds() {
                continue;
            }
            let rest = channel.text.push(&self.masker, "", true);
            if !rest.is_empty() {
                channel.carrier.write(&rest, out);
            }
        }
    }
}

impl Carrier {
    /// The event with every text emptied; what is held goes where `range` was.
    fn new(
        event: &str,
        data: &str,
        emptied: &[(Range<usize>, String)],
        range: &Range<usize>,
    ) -> Self {
        let before = emptied
            .iter()
            .take_while(|(other, _)| other.start < range.start);
        let shorter: usize = before.clone().map(|(other, _)| other.len()).sum();
        let longer: usize = before.map(|(_, with)| with.len()).sum();
        let name = event.lines().find(|line| line.starts_with("event:"));
        Self {
            event: name.map(str::to_owned),
            data: json::splice(data, emptied),
            at: range.start + longer - shorter,
        }
    }

    fn write(&self, text: &str, out: &mut String) {
        let quoted = json::quote(text);
        let data = json::splice(&self.data, &[(self.at..self.at + 2, quoted)]);
        if let Some(event) = &self.event {
            out.push_str(event);
            out.push('\n');
        }
        write_data(&data, out);
        out.push('\n');
    }
}

/// The value of a line of data.
fn data_of(line: &str) -> Option<&str> {
    let value = line.strip_prefix("data")?;
    match value.strip_prefix(':') {
        Some(value) => Some(value.strip_prefix(' ').unwrap_or(value)),
        None => value.is_empty().then_some(value),
    }
}

/// An event with other data, where its data stood.
fn write_event(event: &str, data: &str, out: &mut String) {
    let mut written = false;
    for line in event.lines() {
        if data_of(line).is_none() {
            out.push_str(line);
            out.push('\n');
        } else if !std::mem::replace(&mut written, true) {
            write_data(data, out);
        }
    }
}

fn write_data(data: &str, out: &mut String) {
    for line in data.split('\n') {
        out.push_str("data: ");
        out.push_str(line);
        out.push('\n');
    }
}

/// What stands in the data of one event.
#[derive(Default)]
struct Texts<'a> {
    data: &'a str,
    pieces: Vec<Piece>,
    /// Texts that are not pieces.
    whole: Vec<(Range<usize>, String)>,
    /// What spells texts out.
    spelled: Vec<Range<usize>>,
    /// Indexes, by the path of what they are the index of.
    indexes: Vec<(String, &'a str)>,
    /// Paths of choices that end.
    finished: Vec<String>,
    /// The keys of texts that end begin like one of these.
    ends: Vec<String>,
    kind: String,
}

struct Piece {
    path: String,
    range: Range<usize>,
    text: String,
}

impl<'a> Texts<'a> {
    /// `None` if the data is no JSON.
    fn of(data: &'a str) -> Option<Self> {
        let mut texts = Self {
            data,
            ..Self::default()
        };
        json::walk(data, &mut texts).ok()?;
        // The outer indexes last: to replace a step does not move those before it.
        texts
            .indexes
            .sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        texts.ends = texts
            .finished
            .iter()
            .map(|path| texts.key_path(path))
            .collect();
        let closing = ["stop", "done", "completed", "incomplete", "failed", "error"];
        if closing.iter().any(|word| texts.kind.ends_with(word)) {
            texts.ends.push(String::new());
        }
        Some(texts)
    }

    /// A path in which places in arrays are replaced by the indexes their elements give.
    fn key_path(&self, path: &str) -> String {
        let mut key = path.to_owned();
        for (of, index) in self.indexes.iter().filter(|(of, _)| !of.is_empty()) {
            if let Some(rest) = key
                .strip_prefix(of.as_str())
                .filter(|rest| rest.starts_with('/'))
            {
                let outer = of.rsplit_once('/').map_or("", |(outer, _)| outer);
                key = format!("{outer}/{index}{rest}");
            }
        }
        key
    }

    /// What tells a text from the others of its stream.
    fn key(&self, path: &str) -> String {
        let mut key = self.key_path(path);
        for (_, index) in self.indexes.iter().filter(|(of, _)| of.is_empty()) {
            key.push('#');
            key.push_str(index);
        }
        key.push('#');
        key.push_str(&self.kind);
        key
    }

    fn text(&mut self, path: &[Step<'a>], range: Range<usize>) {
        let text = json::decode(self.data.get(range.clone()).unwrap_or_default());
        if let [Step::Key(key)] = path
            && key == "type"
        {
            self.kind = text.into_owned();
        } else if let [outer @ .., Step::Key(key)] = path
            && key == "finish_reason"
        {
            self.finished.push(joined(outer) + "/");
        } else if !body::is_text(path, &text) {
        } else if is_piece(path) {
            self.pieces.push(Piece {
                path: joined(path),
                range,
                text: text.into_owned(),
            });
        } else {
            self.whole.push((range, text.into_owned()));
        }
    }
}

impl<'a> Visit<'a> for Texts<'a> {
    fn enter(&mut self, path: &[Step<'a>]) -> bool {
        !body::is_spelled(path)
    }

    fn leaf(&mut self, path: &[Step<'a>], kind: Kind, range: Range<usize>) {
        match kind {
            Kind::Text => self.text(path, range),
            Kind::Object | Kind::Array => self.spelled.push(range),
            Kind::Number => {
                if let [outer @ .., Step::Key(key)] = path
                    && matches!(
                        &**key,
                        "index" | "output_index" | "content_index" | "summary_index"
                    )
                {
                    let index = self.data.get(range).unwrap_or_default();
                    self.indexes.push((joined(outer), index));
                }
            }
            Kind::Word => {}
        }
    }
}

/// Whether a text is a piece of a longer one: below `delta`, of a choice's `text`, or of the other engines' tokens.
fn is_piece(path: &[Step<'_>]) -> bool {
    let key = |step: &Step<'_>, name: &str| matches!(step, Step::Key(key) if key == name);
    // Sources come whole, each in an event of its own, also below `delta`.
    let sources = ["citation", "citations", "annotation", "annotations"];
    if path.iter().any(|step| key(step, "delta")) {
        let of_source = |step| sources.iter().any(|name| key(step, name));
        return !path.iter().any(of_source);
    }
    match path {
        [choices, Step::Index(_), text] => key(choices, "choices") && key(text, "text"),
        [token, text] => key(token, "token") && key(text, "text"),
        [completion] => key(completion, "completion"),
        _ => false,
    }
}

/// A path as text; what begins alike lies within.
fn joined(path: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in path {
        text.push('/');
        match step {
            Step::Key(key) => text.push_str(key),
            Step::Index(index) => text.push_str(&index.to_string()),
        }
    }
    text
}
