//! The tokens an answer reports: what counts as which, and how to find them in a JSON answer.
//!
//! It knows the words of OpenAI (completions, embeddings, responses) and of Anthropic (messages), not the
//! prices. An answer is never made to fail by what stands in it: anything odd just means no usage.
//! Streams are read by [`stream`](super::stream).

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Number;

/// Bytes of a `usage` value.
const MAX_USAGE: usize = 8192;

/// Tokens of one exchange.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt, those from a cache included (also where the dialect counts them apart).
    pub input: u64,
    /// Of `input`, those read from the engine's cache.
    pub cached: u64,
    /// Generated.
    pub output: u64,
}

/// Finds the usage in a JSON answer that arrives in chunks.
///
/// It looks for the key alone, not for the structure around it: inside a JSON string a quote is always escaped, so
/// `"usage"` is only found where a key or a whole string stands. Of several objects under that key the last counts, which
/// in every known dialect is the answer's own. That is some fifty times faster than walking the document.
#[derive(Debug, Default)]
pub struct JsonUsage {
    /// The last bytes of what came, in which the key may have begun.
    carry: [u8; KEY.len() - 1],
    /// What follows a key whose value has not come to its end.
    open: Option<Vec<u8>>,
    found: Option<Usage>,
}

const KEY: &[u8] = b"\"usage\"";

static FIND_KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(KEY));

impl JsonUsage {
    /// Ready for the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the answer.
    pub fn push(&mut self, chunk: &[u8]) {
        if let Some(mut open) = self.open.take() {
            // Seldom: a value that came in pieces.
            open.extend_from_slice(chunk);
            return self.go_on(&open);
        }
        match self.across(chunk) {
            Some(after) => self.go_on(after),
            None => self.scan(chunk),
        }
    }

    /// Looks for keys, from one value to the next: what stands within a value is not the answer's own.
    fn scan(&mut self, mut rest: &[u8]) {
        while let Some(at) = FIND_KEY.find(rest) {
            self.carry = Default::default();
            let after = rest.get(at + KEY.len()..).unwrap_or_default();
            let Some(left) = self.value(after) else {
                return;
            };
            rest = left;
        }
        self.keep(rest);
    }

    fn go_on(&mut self, after_key: &[u8]) {
        self.carry = Default::default();
        if let Some(left) = self.value(after_key) {
            self.scan(left);
        }
    }

    /// What was found, also if the answer broke off after it.
    pub fn finish(self) -> Option<Usage> {
        self.found
    }

    /// What follows a key that began in an earlier chunk and ends in this one.
    fn across<'c>(&self, chunk: &'c [u8]) -> Option<&'c [u8]> {
        let mut seam = [0; 2 * (KEY.len() - 1)];
        let (before, after) = seam.split_at_mut(KEY.len() - 1);
        before.copy_from_slice(&self.carry);
        for (to, from) in after.iter_mut().zip(chunk) {
            *to = *from;
        }
        let at = seam.windows(KEY.len()).position(|window| window == KEY)?;
        chunk.get(at + KEY.len() - self.carry.len()..)
    }

    fn keep(&mut self, chunk: &[u8]) {
        let n = self.carry.len();
        match chunk.last_chunk::<{ KEY.len() - 1 }>() {
            Some(last) => self.carry = *last,
            None => {
                self.carry.rotate_left(chunk.len());
                let (_, end) = self.carry.split_at_mut(n - chunk.len());
                end.copy_from_slice(chunk);
            }
        }
    }

    /// Reads what follows a key. Returns where to look on; `None` if it is kept until more has come.
    fn value<'a>(&mut self, after: &'a [u8]) -> Option<&'a [u8]> {
        let seen = after.get(..MAX_USAGE).unwrap_or(after);
        match read(seen) {
            Read::Whole(tally, left) => {
                self.found = tally.usage().or(self.found);
                after.get(seen.len() - left..)
            }
            Read::Cut if after.len() < MAX_USAGE => {
                self.open = Some(after.to_vec());
                None
            }
            Read::Cut | Read::Odd => Some(after),
        }
    }
}

/// What follows a key.
enum Read {
    /// A usage object, and so many bytes after it.
    Whole(Tally, usize),
    /// Something that has not come to its end.
    Cut,
    /// Something else.
    Odd,
}

fn read(after: &[u8]) -> Read {
    let value = after.trim_ascii_start();
    let value = match value.split_first() {
        None => return Read::Cut,
        Some((b':', value)) => value,
        Some(_) => return Read::Odd,
    };
    if let Some((tally, left)) = plain_tally(value) {
        return Read::Whole(tally, left.len());
    }
    let mut values = serde_json::Deserializer::from_slice(value).into_iter::<Tally>();
    match values.next() {
        Some(Ok(tally)) => Read::Whole(tally, value.len() - values.byte_offset()),
        Some(Err(error)) if !error.is_eof() && !ends_in_number(value) => Read::Odd,
        _ => Read::Cut,
    }
}

/// Whether it ends in a number that must go on: the parser takes such a one for a wrong one. With a digit more it is merely unfinished.
fn ends_in_number(value: &[u8]) -> bool {
    matches!(value.last(), Some(b'-' | b'+' | b'.' | b'e' | b'E')) && {
        let longer = [value, b"0"].concat();
        serde_json::from_slice::<Tally>(&longer).is_err_and(|error| error.is_eof())
    }
}

/// Reads a usage object as engines write it: plain keys, each once, whole numbers, nulls, and details one level deeper.
/// Anything else is left to the general parser (`None`), which knows all of JSON and takes six times as long. With it comes what follows.
fn plain_tally(object: &[u8]) -> Option<(Tally, &[u8])> {
    let mut tally = Tally::default();
    let mut seen: [&[u8]; 16] = [b""; 16];
    let mut slots = seen.iter_mut();
    let mut rest = object.strip_prefix(b"{")?;
    let mut details: Option<&[u8]> = None;
    loop {
        let after = rest.trim_ascii_start().strip_prefix(b"\"")?;
        let (key, after) = after.split_at_checked(memchr::memchr(b'"', after)?)?;
        let after = after.strip_prefix(b"\"")?.trim_ascii_start();
        let value = after.strip_prefix(b":")?.trim_ascii_start();
        if key.is_empty() || !key.iter().all(|b| b.is_ascii_lowercase() || *b == b'_') {
            return None;
        }
        if details.is_none() {
            *slots.next()? = key;
        }
        rest = match value {
            [b'{', inner @ ..] if details.is_none() => {
                details = Some(key);
                rest = inner;
                continue;
            }
            [b'0', b'0'..=b'9', ..] => return None,
            [b'0'..=b'9', ..] => {
                let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
                let (number, after) = value.split_at_checked(digits)?;
                let number = std::str::from_utf8(number).ok()?.parse::<u64>().ok()?;
                tally.set(details, key, number)?;
                after
            }
            _ if details.is_some() => return None,
            _ => value.strip_prefix(b"null")?,
        };
        loop {
            let (first, after) = rest.trim_ascii_start().split_first()?;
            rest = after;
            match (first, details) {
                (b',', _) => break,
                (b'}', Some(_)) => details = None,
                (b'}', None) => {
                    let keys = seen.split(|key| key.is_empty()).next().unwrap_or_default();
                    let twice = |(i, key): (usize, &&[u8])| keys.iter().take(i).any(|k| k == key);
                    return (!keys.iter().enumerate().any(twice)).then_some((tally, rest));
                }
                _ => return None,
            }
        }
    }
}

/// What `usage` objects say, in any dialect; those of one stream are added up by [`merge`](Self::merge).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tally {
    prompt_tokens: Option<Number>,
    completion_tokens: Option<Number>,
    total_tokens: Option<Number>,
    prompt_tokens_details: Option<Details>,
    input_tokens: Option<Number>,
    output_tokens: Option<Number>,
    input_tokens_details: Option<Details>,
    cache_read_input_tokens: Option<Number>,
    cache_creation_input_tokens: Option<Number>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<Number>,
}

impl Tally {
    /// Notes a number under its key, or under the key of the details it stands in; `None` if one is there already.
    fn set(&mut self, details: Option<&[u8]>, key: &[u8], number: u64) -> Option<()> {
        let number = Some(Number::from(number));
        let Some(details) = details else {
            match key {
                b"prompt_tokens" => self.prompt_tokens = number,
                b"completion_tokens" => self.completion_tokens = number,
                b"total_tokens" => self.total_tokens = number,
                b"input_tokens" => self.input_tokens = number,
                b"output_tokens" => self.output_tokens = number,
                b"cache_read_input_tokens" => self.cache_read_input_tokens = number,
                b"cache_creation_input_tokens" => self.cache_creation_input_tokens = number,
                // A number where details are expected is for the general parser to refuse.
                b"prompt_tokens_details" | b"input_tokens_details" => return None,
                _ => {}
            }
            return Some(());
        };
        let place = match details {
            b"prompt_tokens_details" => &mut self.prompt_tokens_details,
            b"input_tokens_details" => &mut self.input_tokens_details,
            // An object where a number is expected, likewise.
            b"prompt_tokens"
            | b"completion_tokens"
            | b"total_tokens"
            | b"input_tokens"
            | b"output_tokens"
            | b"cache_read_input_tokens"
            | b"cache_creation_input_tokens" => return None,
            _ => return Some(()),
        };
        let place = place.get_or_insert_default();
        if key == b"cached_tokens" {
            if place.cached_tokens.is_some() {
                return None;
            }
            place.cached_tokens = number;
        }
        Some(())
    }

    /// Lets what `later` says replace what this says.
    pub(super) fn merge(&mut self, later: Tally) {
        fn take<T>(ours: &mut Option<T>, later: Option<T>) {
            if later.is_some() {
                *ours = later;
            }
        }
        take(&mut self.prompt_tokens, later.prompt_tokens);
        take(&mut self.completion_tokens, later.completion_tokens);
        take(&mut self.total_tokens, later.total_tokens);
        take(&mut self.prompt_tokens_details, later.prompt_tokens_details);
        take(&mut self.input_tokens, later.input_tokens);
        take(&mut self.output_tokens, later.output_tokens);
        take(&mut self.input_tokens_details, later.input_tokens_details);
        take(
            &mut self.cache_read_input_tokens,
            later.cache_read_input_tokens,
        );
        take(
            &mut self.cache_creation_input_tokens,
            later.cache_creation_input_tokens,
        );
    }

    /// The sum of it; `None` if no token was mentioned.
    pub(super) fn usage(&self) -> Option<Usage> {
        let output = count(&self.completion_tokens).or(count(&self.output_tokens));
        let read = count(&self.cache_read_input_tokens);
        let written = count(&self.cache_creation_input_tokens);
        let input = count(&self.prompt_tokens).or_else(|| {
            // Anthropic counts cached tokens apart from `input_tokens`, the others within.
            let apart = read.unwrap_or(0).saturating_add(written.unwrap_or(0));
            count(&self.input_tokens).map(|input| input.saturating_add(apart))
        });
        // Rerankers report a total only.
        let total =
            || count(&self.total_tokens).map(|total| total.saturating_sub(output.unwrap_or(0)));
        let input = input.or_else(total);
        if input.is_none() && output.is_none() {
            return None;
        }
        let details = self
            .prompt_tokens_details
            .as_ref()
            .or(self.input_tokens_details.as_ref());
        let cached = details
            .and_then(|details| count(&details.cached_tokens))
            .or(read);
        let input = input.unwrap_or(0);
        Some(Usage {
            input,
            cached: cached.unwrap_or(0).min(input),
            output: output.unwrap_or(0),
        })
    }
}

fn count(number: &Option<Number>) -> Option<u64> {
    let number = number.as_ref()?;
    number
        .as_u64()
        .or_else(|| number.as_f64().filter(|n| *n >= 0.0).map(|n| n as u64))
}

/// What one event of a stream may say of usage.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Chunk {
    choices: Option<Vec<IgnoredAny>>,
    usage: Option<Tally>,
    /// Anthropic's `message_start`.
    message: Option<Holder>,
    /// The responses API's `response.completed`.
    response: Option<Holder>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Holder {
    usage: Option<Tally>,
}

/// The usage in one event's data.
pub(super) struct Reported {
    pub(super) tally: Tally,
    /// Whether the event is there for the usage alone: `choices` is there and empty.
    pub(super) alone: bool,
}

/// Reads the usage out of one event's data.
pub(super) fn in_event(data: &[u8]) -> Option<Reported> {
    let chunk: Chunk = serde_json::from_slice(data).ok()?;
    let alone = chunk.choices.is_some_and(|choices| choices.is_empty()) && chunk.usage.is_some();
    let holder = || {
        chunk
            .message
            .or(chunk.response)
            .and_then(|holder| holder.usage)
    };
    let tally = chunk.usage.or_else(holder)?;
    Some(Reported { tally, alone })
}
