//! Everything that looks random but is not: words, identifiers, jitter, hashes.
//!
//! All of it follows from the engine's seed and the content of the request, so the same request
//! to the same engine yields the same bytes. Nothing here is meant to be hard to guess.

pub(super) use crate::random::Rng;

/// Mixes bytes into 64 bits. Long texts go four words at a time, in lanes that do not wait for each
/// other.
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = seed ^ 0x9E37_79B9_7F4A_7C15 ^ bytes.len() as u64;
    let (groups, rest) = bytes.as_chunks::<32>();
    if !groups.is_empty() {
        let mut lanes = [state, !state, state.rotate_left(17), state.rotate_left(41)];
        for group in groups {
            for (lane, word) in lanes.iter_mut().zip(group.as_chunks::<8>().0) {
                *lane = fold(*lane ^ u64::from_le_bytes(*word), 0xA076_1D64_78BD_642F);
            }
        }
        for lane in lanes {
            state = fold(state ^ lane, 0x5851_F42D_4C95_7F2D);
        }
    }
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), 0xA076_1D64_78BD_642F);
    }
    let mut last = [0u8; 8];
    for (slot, byte) in last.iter_mut().zip(rest) {
        *slot = *byte;
    }
    fold(state ^ u64::from_le_bytes(last), 0xE703_7ED1_A0B4_28DB)
}

/// Both halves of the 128-bit product.
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

const WORDS: [&str; 64] = [
    "the", "gate", "opens", "when", "a", "token", "comes", "and", "each", "request", "finds",
    "its", "way", "to", "some", "engine", "that", "waits", "for", "work", "in", "quiet", "rows",
    "of", "light", "where", "words", "are", "made", "from", "numbers", "by", "slow", "careful",
    "steps", "until", "an", "answer", "stands", "whole", "then", "it", "travels", "back", "along",
    "same", "road", "past", "keepers", "who", "count", "every", "piece", "with", "patience", "so",
    "nothing", "is", "lost", "or", "told", "twice", "at", "night",
];

/// Tokens in the pool; a power of two.
const POOL: usize = 4096;

/// A ring of pre-rendered tokens. Each token is a space and a word, so any run of tokens is a slice
/// of text that needs no escaping in JSON.
#[derive(Debug)]
pub(super) struct Pool {
    text: String,
    starts: Vec<usize>,
}

impl Pool {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut text = String::with_capacity(POOL * 6);
        let mut starts = Vec::with_capacity(POOL + 1);
        for _ in 0..POOL {
            starts.push(text.len());
            text.push(' ');
            let pick = (rng.draw() % WORDS.len() as u64) as usize;
            text.push_str(WORDS.get(pick).copied().unwrap_or("word"));
        }
        starts.push(text.len());
        Self { text, starts }
    }

    /// The k-th token of the reply to a request with this hash.
    pub(super) fn token(&self, request: u64, k: usize) -> &str {
        let at = (request as usize).wrapping_add(k) % POOL;
        self.slice(at, at + 1)
    }

    /// Appends the first `count` tokens of that reply.
    pub(super) fn append(&self, request: u64, count: usize, out: &mut Vec<u8>) {
        let mut at = request as usize % POOL;
        let mut left = count;
        while left > 0 {
            let take = left.min(POOL - at);
            out.extend_from_slice(self.slice(at, at + take).as_bytes());
            left -= take;
            at = 0;
        }
    }

    fn slice(&self, from: usize, to: usize) -> &str {
        match (self.starts.get(from), self.starts.get(to)) {
            (Some(&from), Some(&to)) => self.text.get(from..to).unwrap_or_default(),
            _ => "",
        }
    }
}

/// Appends 32 hexadecimal digits that name a request.
pub(super) fn append_id(request: u64, out: &mut Vec<u8>) {
    append_hex(request, out);
    append_hex(
        fold(request ^ 0x5851_F42D_4C95_7F2D, 0xE703_7ED1_A0B4_28DB),
        out,
    );
}

fn append_hex(value: u64, out: &mut Vec<u8>) {
    let digits: [u8; 16] = std::array::from_fn(|i| {
        let nibble = (value >> (60 - 4 * i)) as u8 & 15;
        if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + nibble - 10
        }
    });
    out.extend_from_slice(&digits);
}

/// Lower-case hexadecimal of any bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}

/// Standard base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut word = 0u32;
        for k in 0..3 {
            word = word << 8 | u32::from(group.get(k).copied().unwrap_or(0));
        }
        for k in 0..4 {
            let digit = ALPHABET
                .get((word >> (18 - 6 * k)) as usize & 63)
                .copied()
                .unwrap_or(b'A');
            text.push(if k > group.len() {
                '='
            } else {
                char::from(digit)
            });
        }
    }
    text
}

/// `%2C` and the like; what is not a valid escape stays as it is.
pub(super) fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Appends a JSON string, quotes included.
pub(super) fn append_json_string(text: &str, out: &mut Vec<u8>) {
    let plain = |b: &u8| *b >= 0x20 && *b != b'"' && *b != b'\\';
    if text.as_bytes().iter().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else if let Ok(quoted) = serde_json::to_vec(text) {
        out.extend_from_slice(&quoted);
    }
}

/// Appends a decimal number.
pub(super) fn append_number(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_words() {
        let (a, b, c) = (Pool::new(1), Pool::new(1), Pool::new(2));
        let run = |pool: &Pool| {
            let mut out = Vec::new();
            pool.append(99, 50, &mut out);
            out
        };
        assert_eq!(run(&a), run(&b));
        assert_ne!(run(&a), run(&c));
    }

    #[test]
    fn tokens_one_by_one_are_the_whole_even_past_the_end_of_the_ring() {
        let pool = Pool::new(7);
        let count = 2 * POOL + 5;
        let mut whole = Vec::new();
        pool.append(4000, count, &mut whole);
        let single: String = (0..count).map(|k| pool.token(4000, k)).collect();
        assert_eq!(String::from_utf8(whole).unwrap(), single);
    }

    #[test]
    fn hashes_depend_on_every_byte_and_on_the_length() {
        let text = vec![7u8; 100];
        for k in 0..100 {
            let mut other = text.clone();
            other[k] ^= 1;
            assert_ne!(hash(1, &text), hash(1, &other));
        }
        assert_ne!(hash(1, b""), hash(1, b"\0"));
        assert_ne!(hash(1, b"a"), hash(2, b"a"));
    }

    #[test]
    fn base64_pads() {
        assert_eq!(base64(b"f"), "Zg==");
        assert_eq!(base64(b"fo"), "Zm8=");
        assert_eq!(base64(b"foo"), "Zm9v");
        assert_eq!(hex(&[0, 255, 16]), "00ff10");
    }
}
