//! Numbers as text, without a call or an allocation for each of them: this is most of what keeping a record takes.

/// A record as text. It has room for eleven numbers, however large.
pub(super) struct Line {
    bytes: [u8; 256],
    end: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; 256],
            end: 0,
        }
    }
}

impl Line {
    pub(super) fn byte(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.end) {
            *place = byte;
            self.end += 1;
        }
    }

    /// A number without its sign, and what follows it.
    pub(super) fn put(&mut self, number: i64, after: u8) {
        self.number(number.unsigned_abs());
        self.byte(after);
    }

    pub(super) fn put_or_null(&mut self, number: Option<i64>) {
        match number {
            Some(number) => self.put(number, b','),
            None => b"null,".iter().for_each(|byte| self.byte(*byte)),
        }
    }

    #[inline]
    fn number(&mut self, number: u64) {
        if number < 10 {
            self.byte(b'0' | number as u8);
        } else if number < EIGHT {
            let digits = digits(number);
            // Zeros in front are left out.
            self.eight(digits, digits.trailing_zeros() / 8);
        } else {
            self.number_of_more(number);
        }
    }

    #[cold]
    fn number_of_more(&mut self, number: u64) {
        self.number(number / EIGHT);
        self.eight(digits(number % EIGHT), 0);
    }

    /// Digits as text, but for some in front.
    fn eight(&mut self, digits: u64, without: u32) {
        let text = (digits | 0x3030_3030_3030_3030) >> (without * 8);
        if let Some(room) = self
            .bytes
            .get_mut(self.end..)
            .and_then(<[u8]>::first_chunk_mut)
        {
            *room = text.to_le_bytes();
            self.end = (self.end + 8).saturating_sub(without as usize);
        }
    }

    pub(super) fn text(&self) -> &[u8] {
        self.bytes.get(..self.end).unwrap_or_default()
    }
}

/// One more than the largest number of eight digits.
const EIGHT: u64 = 100_000_000;

/// The eight digits of a number, one in each byte, the first in the lowest. All of them at once: halves of four, then pairs, then digits. A
/// quotient by a hundred or ten is a product, exact for numbers of that size.
#[inline]
fn digits(number: u64) -> u64 {
    // None of this overflows; to have it looked at takes longer than to do it.
    let split = |high: u64, all: u64, by: u64, width: u32| {
        high | all.wrapping_sub(high.wrapping_mul(by)) << width
    };
    let fours = split(number / 10_000, number, 10_000, 32);
    let high = (fours.wrapping_mul(10_486) >> 20) & 0x0000_007f_0000_007f;
    let pairs = split(high, fours, 100, 16);
    let high = (pairs.wrapping_mul(103) >> 10) & 0x000f_000f_000f_000f;
    split(high, pairs, 10, 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_others_write_them() {
        let near = (0..20).flat_map(|n| {
            let power = 10_u64.pow(n);
            [power - 1, power, power + 1, power / 2]
        });
        for number in near.chain(0..100_000).chain([u64::MAX, i64::MAX as u64]) {
            let mut line = Line::default();
            line.number(number);
            assert_eq!(line.text(), number.to_string().as_bytes());
        }
        let mut line = Line::default();
        for _ in 0..11 {
            line.put(i64::MIN, b',');
        }
        assert_eq!(line.text(), "9223372036854775808,".repeat(11).as_bytes());
    }
}
