//! Durations as Go writes them, `1h30m`, as native ones.

/// The native text of a duration of Go's, with days besides. `None` if it is none, or finer than a millisecond.
pub(super) fn native(text: &str) -> Option<String> {
    let millis = millis(text)?;
    if is_native(text) {
        return Some(text.to_owned());
    }
    Some(match millis.is_multiple_of(1000) {
        true => format!("{}s", millis / 1000),
        false => format!("{millis}ms"),
    })
}

/// Whether it needs no conversion: one whole number with one unit.
fn is_native(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    matches!(text.get(digits..), Some("ms" | "s" | "m" | "h" | "d")) && digits > 0
}

fn millis(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0.0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .bytes()
            .take_while(|b| b.is_ascii_digit() || *b == b'.');
        let (number, after) = rest.split_at_checked(digits.count())?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at_checked(letters)?;
        let unit = match unit {
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * unit;
        rest = after;
    }
    // A hundred years: beyond it nobody meant what is written.
    (sum.fract() == 0.0 && sum <= 3.2e12).then_some(sum as u64)
}

#[cfg(test)]
mod tests {
    use super::native;

    #[test]
    fn durations_of_go_become_native() {
        for (go, ours) in [
            ("1m", Some("1m")),
            ("30s", Some("30s")),
            ("1h30m", Some("5400s")),
            ("1.5h", Some("5400s")),
            ("1m0.25s", Some("60250ms")),
            ("2d", Some("2d")),
            ("", None),
            ("5", None),
            ("m", None),
            ("1.2.3s", None),
            ("-1s", None),
            ("10us", None),
            ("é", None),
            ("9999999d", None),
        ] {
            assert_eq!(native(go).as_deref(), ours, "{go}");
        }
    }
}
