//! A first look at a text: the few places where one of many beginnings may stand, found without looking at every byte.
//!
//! All beginnings are cut to the length of the shortest, the window. Of the text every few bytes a gram of up to four is looked up, so far apart that each
//! window holds one of them; where the gram is one of a window's, the window around it is compared by its hash. It errs on one
//! side only: a place it does not tell of has no beginning. Letter case makes no difference.
//!
//! Source: R. M. Karp and M. O. Rabin, "Efficient randomized pattern-matching algorithms", IBM Journal 31(2), 1987, for hashed windows;
//! E. Sutinen and J. Tarhio, "On using q-gram locations in approximate string matching", ESA 1995, for samples at a distance.

/// The longest gram: it is read as one word.
const MAX_GRAM: usize = 4;
/// The most places of a gram in its window: they are bits of a byte.
const MAX_STEP: usize = 8;
/// The longest window. It may be longer than what grams are looked for in: the more of it is compared, the fewer places are told of.
const MAX_WINDOW: usize = 16;
/// Bits of what a gram or a window is known by.
const HASH_BITS: u32 = 16;

/// What is known of the beginnings.
#[derive(Debug)]
pub(super) struct Grams {
    /// Keeps the bytes of a word that are of a gram.
    gram: u32,
    /// How far apart grams are looked at.
    step: usize,
    /// Keeps the bytes of four words that are of a window.
    window: u128,
    /// Where in windows a gram stands: one bit for each distance from the window's beginning.
    places: Vec<u8>,
    /// Which windows there are.
    known: Vec<bool>,
}

impl Grams {
    /// `None` if there are no beginnings or one is empty.
    pub(super) fn new(beginnings: &[impl AsRef<[u8]>]) -> Option<Self> {
        let lengths = beginnings.iter().map(|begins| begins.as_ref().len());
        let shortest = lengths.min().filter(|shortest| *shortest > 0)?;
        let gram = shortest.min(MAX_GRAM);
        let step = (shortest - gram + 1).min(MAX_STEP);
        let mut grams = Self {
            gram: u32::MAX >> (8 * (MAX_GRAM - gram)),
            step,
            window: u128::MAX >> (8 * MAX_WINDOW.saturating_sub(shortest)),
            places: vec![0; 1 << HASH_BITS],
            known: vec![false; 1 << HASH_BITS],
        };
        for begins in beginnings {
            let begins = begins.as_ref();
            for place in 0..step {
                let at = grams.gram_at(begins.get(place..).unwrap_or_default());
                if let Some(places) = grams.places.get_mut(at) {
                    *places |= 1 << place;
                }
            }
            let at = grams.window_at(begins);
            if let Some(known) = grams.known.get_mut(at) {
                *known = true;
            }
        }
        Some(grams)
    }

    /// Tells, in order, of every place where a beginning may stand; what it is told there may end it.
    pub(super) fn each<E>(
        &self,
        text: &[u8],
        mut found: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let gram = self.gram_at(rest);
            let places = self.places.get(gram).copied().unwrap_or_default();
            if places != 0 {
                self.windows(text, at, places, &mut found)?;
            }
            at += self.step;
            rest = rest.get(self.step..).unwrap_or_default();
        }
        Ok(())
    }

    /// Tells of those windows around the gram at `at` that are known, in order.
    fn windows<E>(
        &self,
        text: &[u8],
        at: usize,
        mut places: u8,
        found: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(place) = places.checked_ilog2() {
            places ^= 1 << place;
            let start = at.wrapping_sub(place as usize);
            let Some(window) = text.get(start..) else {
                continue;
            };
            if self.known.get(self.window_at(window)) == Some(&true) {
                found(start)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn gram_at(&self, text: &[u8]) -> usize {
        let gram = match text.first_chunk() {
            Some(gram) => u32::from_le_bytes(*gram),
            None => u32::from_le_bytes(padded(text)),
        };
        let folded = (gram | 0x2020_2020) & self.gram;
        (folded.wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)) as usize
    }

    fn window_at(&self, text: &[u8]) -> usize {
        let window = match text.first_chunk() {
            Some(window) => u128::from_le_bytes(*window),
            None => u128::from_le_bytes(padded(text)),
        };
        let folded = (window | 0x2020_2020_2020_2020_2020_2020_2020_2020) & self.window;
        let [low, high] = [folded as u64, (folded >> 64) as u64];
        let mixed =
            low.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ high.wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
        (mixed >> (64 - HASH_BITS)) as usize
    }
}

/// A text that is too short for a word, as one.
#[cold]
fn padded<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut word = [0; N];
    for (to, from) in word.iter_mut().zip(text) {
        *to = *from;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(beginnings: &[&str], text: &str) -> Vec<usize> {
        let mut places = Vec::new();
        let grams = Grams::new(beginnings).unwrap();
        let told = grams.each(text.as_bytes(), |at| {
            places.push(at);
            Ok::<(), ()>(())
        });
        assert_eq!(told, Ok(()));
        places
    }

    #[test]
    fn no_beginning_is_overlooked() {
        let all = [
            "zzzzzzzzzzzzzzzzzzzz",
            "abcdefghijk",
            "straße",
            "abcab",
            "aaaa",
            "c++",
            "ab",
            "ä",
            "x",
        ];
        for count in 1..=all.len() {
            let beginnings = &all[..count];
            for begins in beginnings {
                for before in 0..20 {
                    for after in ["", "b", "bbbbbbbbbbbbbbbb"] {
                        let text = format!("{}{begins}{after}", "a".repeat(before));
                        assert!(places(beginnings, &text).contains(&before), "{text}");
                        let text = text.to_ascii_uppercase();
                        assert!(places(beginnings, &text).contains(&before), "{text}");
                    }
                }
            }
        }
    }

    #[test]
    fn clean_texts_are_passed_over() {
        for text in [
            "",
            "se",
            "secret",
            "a long and harmless text about forbearance",
            "forbid",
        ] {
            assert!(places(&["forbidden", "secrets"], text).is_empty(), "{text}");
        }
    }

    #[test]
    fn what_is_empty_begins_nothing() {
        assert!(Grams::new(&[] as &[&str]).is_none());
        assert!(Grams::new(&["abc", ""]).is_none());
    }
}
