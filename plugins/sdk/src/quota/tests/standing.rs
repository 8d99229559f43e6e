//! How limits stand, as headers and as lines.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use crate::quota::{Standing, Standings};

prop_compose! {
    fn standing()(limit: u64, remaining: u64, nanoseconds in 0..10_000_000_000_000_u64) -> Standing {
        Standing { limit, remaining, reset: Duration::from_nanos(nanoseconds) }
    }
}

proptest! {
    /// What a client reads is the same, written either way.
    #[test]
    fn lines_say_what_headers_say(
        requests in proptest::option::of(standing()),
        tokens in proptest::option::of(standing()),
    ) {
        let mut standings = Standings::default();
        if let Some(standing) = requests {
            standings.tell_requests(standing);
        }
        if let Some(standing) = tokens {
            standings.tell_tokens(standing);
        }
        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
        standings.put(|name, value| headers.push((name, value)));
        let lines: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()))
            .collect();
        let mut written = standings.lines();
        prop_assert_eq!(str::from_utf8(written.as_ref()).unwrap(), &lines);
        written.end();
        prop_assert_eq!(str::from_utf8(written.as_ref()).unwrap(), format!("{lines}\r\n"));
        prop_assert_eq!(standings.is_empty(), headers.is_empty());
        for name in Standing::REQUESTS.iter().chain(&Standing::TOKENS) {
            let told = headers.iter().any(|(told, _)| told == name);
            prop_assert_eq!(standings.has(name), told);
        }
        let other = HeaderName::from_static("x-ratelimit-limit-images");
        prop_assert!(!standings.has(&other));
    }
}
