//! Values that must not be seen: credentials in the configuration and on requests.
//!
//! A [`Secret`] prints `***` however it is formatted, has no `Serialize`, compares without telling where two values
//! differ, and is wiped from memory when dropped.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// A value that is shown to nobody; [`expose`](Self::expose) is the only way in, and easy to search for.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Hides `value`.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself, for the one place that must send or compare it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T: Zeroize> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T: Zeroize + AsRef<[u8]>> PartialEq for Secret<T> {
    /// Looks at every byte, so that the time taken tells the length only.
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.0.as_ref(), other.0.as_ref());
        let differing = ours.iter().zip(theirs).fold(0, |sum, (a, b)| sum | (a ^ b));
        ours.len() == theirs.len() && differing == 0
    }
}

impl<T: Zeroize + AsRef<[u8]>> Eq for Secret<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_nothing_and_still_compares() {
        let secret = Secret::new("hunter2".to_string());
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret, Secret::new("hunter2".to_string()));
        assert_ne!(secret, Secret::new("hunter3".to_string()));
        assert_ne!(secret, Secret::new("hunter22".to_string()));
        assert_eq!(secret.expose(), "hunter2");
    }
}
