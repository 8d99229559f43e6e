//! The numbers that batches of events bear: which is the next, which was heard already, and what is missing between two.

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It follows the one before.
    Apply,
    /// It was heard.
    Skip,
    /// Batches from this number up to it are missing; then it follows.
    Missing(u64),
    /// Nothing was heard before.
    First,
    /// Whoever tells began anew: the numbers go back.
    Anew,
}

/// How far one engine's batches were heard.
#[derive(Debug, Default)]
pub struct Sequence {
    last: Option<u64>,
    /// Up to here batches were repeated, so that they may come once more.
    repeated: Option<u64>,
}

impl Sequence {
    /// Another connection: what was repeated before comes over it no more.
    pub fn reconnected(&mut self) {
        self.repeated = None;
    }

    /// What to do with the batch of this number. It counts as heard, whatever comes of it.
    pub fn next(&mut self, number: u64) -> Step {
        if self.repeated.is_some_and(|repeated| number <= repeated) {
            return Step::Skip;
        }
        self.repeated = None;
        let last = self.last.replace(number);
        match last {
            Some(last) if number > last => match last + 1 {
                next if next == number => Step::Apply,
                next => Step::Missing(next),
            },
            Some(_) => Step::Anew,
            None => Step::First,
        }
    }

    /// Batches up to this one were heard by being repeated.
    pub fn repeated(&mut self, number: u64) {
        let far = self.last.map_or(number, |last| last.max(number));
        (self.last, self.repeated) = (Some(far), Some(far));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_followed() {
        let mut heard = Sequence::default();
        assert_eq!(heard.next(3), Step::First);
        assert_eq!((heard.next(4), heard.next(5)), (Step::Apply, Step::Apply));
        assert_eq!(heard.next(9), Step::Missing(6));
        assert_eq!(heard.next(10), Step::Apply);
        assert_eq!((heard.next(0), heard.next(1)), (Step::Anew, Step::Apply));
        assert_eq!(
            (heard.next(1), heard.next(u64::MAX)),
            (Step::Anew, Step::Missing(2))
        );
        assert_eq!(heard.next(0), Step::Anew);
    }

    #[test]
    fn what_was_repeated_is_skipped_over_the_same_connection() {
        let mut heard = Sequence::default();
        assert_eq!(heard.next(4), Step::First);
        heard.repeated(6);
        assert_eq!((heard.next(5), heard.next(6)), (Step::Skip, Step::Skip));
        assert_eq!(heard.next(7), Step::Apply);
        heard.repeated(9);
        heard.reconnected();
        assert_eq!(heard.next(0), Step::Anew);
    }
}
