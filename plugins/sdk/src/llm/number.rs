//! Numbers as JSON writes them.

/// Bytes of a number that is a member's value.
pub(super) const MAX_NUMBER: usize = 1024;

/// Where in a number the scan stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

/// Whether a well-formed number is one a 64-bit float can hold.
pub(super) fn representable(raw: &[u8]) -> bool {
    if raw.len() > MAX_NUMBER {
        return false;
    }
    if raw.len() < 300 && !raw.iter().any(|b| matches!(b, b'e' | b'E')) {
        return true;
    }
    let number = std::str::from_utf8(raw)
        .ok()
        .and_then(|raw| raw.parse::<f64>().ok());
    number.is_some_and(f64::is_finite)
}

impl Number {
    #[inline]
    fn step(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Whole, b'0'..=b'9') | (Self::Minus, b'1'..=b'9') => Self::Whole,
            (Self::Minus, b'0') => Self::Zero,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Whole, b'.') => Self::Point,
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::Sign,
            (Self::Exponent | Self::Sign | Self::Power, b'0'..=b'9') => Self::Power,
            _ => return None,
        })
    }

    /// Consumes what belongs to the number, and returns what does not.
    pub(super) fn run(mut self, mut rest: &[u8]) -> (Self, &[u8]) {
        while let [byte, tail @ ..] = rest {
            match self.step(*byte) {
                Some(next) => (self, rest) = (next, tail),
                None => break,
            }
        }
        (self, rest)
    }

    /// Whether a number may end here.
    pub(super) fn complete(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Whole | Self::Fraction | Self::Power
        )
    }
}
