//! How limits stand, as clients are told: by headers of an answer, or by the lines that these are when it is written.

use std::sync::LazyLock;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// How a limit stands for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The limit, or the burst.
    pub limit: u64,
    /// What is left of it now.
    pub remaining: u64,
    /// When all of it is back, if nothing more is used.
    pub reset: Duration,
}

impl Standing {
    /// The names that OpenAI uses for requests: the limit, what remains, and the reset.
    pub const REQUESTS: [HeaderName; 3] = [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-reset-requests"),
    ];
    /// Its names for tokens.
    pub const TOKENS: [HeaderName; 3] = [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ];

    /// For the client, by these names: the reset in whole seconds, not too early.
    pub fn put(&self, names: [HeaderName; 3], put: &mut impl FnMut(HeaderName, HeaderValue)) {
        for (name, value) in names.into_iter().zip(self.values()) {
            put(name, number(value));
        }
    }

    /// What stands before the numbers of such headers where an HTTP/1 head is written.
    const REQUEST_LINES: [Text; 3] = [
        Text::of(b"x-ratelimit-limit-requests: "),
        Text::of(b"\r\nx-ratelimit-remaining-requests: "),
        Text::of(b"\r\nx-ratelimit-reset-requests: "),
    ];
    const TOKEN_LINES: [Text; 3] = [
        Text::of(b"x-ratelimit-limit-tokens: "),
        Text::of(b"\r\nx-ratelimit-remaining-tokens: "),
        Text::of(b"\r\nx-ratelimit-reset-tokens: "),
    ];

    /// One function for both, not one inside each who calls it: what runs once in a request costs by its size.
    #[inline(never)]
    fn write(&self, texts: &[Text; 3], lines: &mut Lines) {
        let mut digits = itoa::Buffer::new();
        for (text, value) in texts.iter().zip(self.values()) {
            lines.put(text);
            lines.push(digits.format(value).as_bytes());
        }
        lines.push(b"\r\n");
    }

    fn values(&self) -> [u64; 3] {
        let begun = u64::from(self.reset.subsec_nanos() > 0);
        let reset = self.reset.as_secs().saturating_add(begun);
        [self.limit, self.remaining, reset]
    }

    /// The same as a list.
    pub fn headers(&self, names: [HeaderName; 3]) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::with_capacity(names.len());
        self.put(names, &mut |name, value| headers.push((name, value)));
        headers
    }
}

/// How limits stand: one of requests, and one of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standings {
    requests: Option<Standing>,
    tokens: Option<Standing>,
}

impl Standings {
    /// Tells how a limit of requests stands. Of several the one counts of which least is left.
    pub fn tell_requests(&mut self, standing: Standing) {
        tell(&mut self.requests, standing);
    }

    /// Tells how a limit of tokens stands.
    pub fn tell_tokens(&mut self, standing: Standing) {
        tell(&mut self.tokens, standing);
    }

    /// What others were told beside this.
    pub fn tell_all(&mut self, others: &Standings) {
        if let Some(requests) = others.requests {
            self.tell_requests(requests);
        }
        if let Some(tokens) = others.tokens {
            self.tell_tokens(tokens);
        }
    }

    /// Whether nothing is told.
    pub fn is_empty(&self) -> bool {
        self.requests.is_none() && self.tokens.is_none()
    }

    /// As headers: each is put by itself, since to hand on lists of them costs more than to make them.
    pub fn put(&self, mut put: impl FnMut(HeaderName, HeaderValue)) {
        if let Some(requests) = &self.requests {
            requests.put(Standing::REQUESTS, &mut put);
        }
        if let Some(tokens) = &self.tokens {
            tokens.put(Standing::TOKENS, &mut put);
        }
    }

    /// The same headers as lines of an HTTP/1 head, each with its line break: they cost a tenth of what they cost in a map.
    pub fn lines(&self) -> Lines {
        let mut lines = Lines::default();
        if let Some(requests) = &self.requests {
            requests.write(&Standing::REQUEST_LINES, &mut lines);
        }
        if let Some(tokens) = &self.tokens {
            tokens.write(&Standing::TOKEN_LINES, &mut lines);
        }
        lines
    }

    /// Whether a header is one of them.
    pub fn has(&self, name: &HeaderName) -> bool {
        let Some(rest) = name.as_str().strip_prefix("x-ratelimit-") else {
            return false;
        };
        let Some((what, of)) = rest.split_once('-') else {
            return false;
        };
        let told = match of {
            "requests" => self.requests.is_some(),
            "tokens" => self.tokens.is_some(),
            _ => false,
        };
        told && ["limit", "remaining", "reset"].contains(&what)
    }
}

/// As many bytes as the lines of two standings have at most, and the empty line after a head; and what a text is longer than it says.
const LONGEST: usize = 2 * 3 * 56 + 2 + Text::ROOM;

/// A text that is copied with what is left of its room: that many bytes at once, without a look at how many it has.
struct Text {
    bytes: [u8; Text::ROOM],
    len: usize,
}

impl Text {
    const ROOM: usize = 40;

    const fn of(text: &[u8]) -> Text {
        let mut bytes = [0; Text::ROOM];
        let (room, _) = bytes.split_at_mut(text.len());
        room.copy_from_slice(text);
        Text {
            bytes,
            len: text.len(),
        }
    }
}

/// Lines of an HTTP/1 head. On the stack: memory that was freed by another request is not in the cache any more, and would cost more than writing them does.
pub struct Lines {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            bytes: [0; LONGEST],
            len: 0,
        }
    }
}

impl Lines {
    /// The head's end.
    pub fn end(&mut self) {
        self.push(b"\r\n");
    }

    fn put(&mut self, text: &Text) {
        let room = { self.bytes.get_mut(self.len..) }.and_then(<[u8]>::first_chunk_mut);
        if let Some(room) = room {
            *room = text.bytes;
            self.len += text.len;
        }
    }

    /// There is room for all that is ever pushed.
    fn push(&mut self, text: &[u8]) {
        let end = self.len + text.len();
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(text);
            self.len = end;
        }
    }
}

impl AsRef<[u8]> for Lines {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

fn tell(place: &mut Option<Standing>, standing: Standing) {
    if place.is_none_or(|told| standing.remaining <= told.remaining) {
        *place = Some(standing);
    }
}

/// A number as a header. The small ones, which most are, are there already.
fn number(value: u64) -> HeaderValue {
    static SMALL: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
        let mut digits = String::new();
        let ends: Vec<usize> = (0..=3600)
            .map(|number| {
                digits += &number.to_string();
                digits.len()
            })
            .collect();
        // One text for all of them, for as long as the process lives: copies of them are not counted.
        let digits: &'static str = Box::leak(digits.into_boxed_str());
        let begins = std::iter::once(0).chain(ends.iter().copied());
        let texts = begins
            .zip(&ends)
            .filter_map(|(from, to)| digits.get(from..*to));
        texts.map(HeaderValue::from_static).collect()
    });
    let small = usize::try_from(value).ok().and_then(|at| SMALL.get(at));
    small.cloned().unwrap_or_else(|| {
        let mut digits = itoa::Buffer::new();
        // In one piece of memory of its own size, which the conversion from a number would not be.
        HeaderValue::from_str(digits.format(value)).unwrap_or_else(|_| value.into())
    })
}
