//! Durations and counts as dstack writes them.

use serde_json::Value;

/// Seconds: a whole number, alone or with a unit: `90`, `5m`.
pub(super) fn seconds(value: &Value) -> Option<u64> {
    // Longer than a century is a slip, and would not fit everywhere.
    let longest = 100 * 366 * 86_400;
    if let Some(seconds) = value.as_u64() {
        return Some(seconds).filter(|seconds| *seconds <= longest);
    }
    let text = value.as_str()?.trim();
    let (digits, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let scale = match unit.trim() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    { digits.parse::<u64>() }
        .ok()?
        .checked_mul(scale)
        .filter(|seconds| *seconds <= longest)
}

/// How durations are written here, in their largest whole unit.
pub(super) fn duration(seconds: u64) -> String {
    let units = [(3600, "h"), (60, "m")];
    let whole = { units.iter() }.find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// How many replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// So many.
    Fixed(u64),
    /// From so many to so many.
    Range(u64, u64),
}

/// `2`, `"2"`, `1..4`, `..4`; a range of one number is that number.
pub(super) fn count(value: &Value) -> Result<Count, String> {
    let wrong = || "expected a number or a range, such as 2, 1..4 or ..4".to_owned();
    if let Some(number) = value.as_u64() {
        return Ok(Count::Fixed(number));
    }
    let text = value.as_str().ok_or_else(wrong)?.trim();
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
    let Some((min, max)) = text.split_once("..") else {
        return number(text).map(Count::Fixed);
    };
    if max.trim().is_empty() {
        return Err("a range needs its end, such as 1..4".into());
    }
    let min = match min.trim() {
        "" => 0,
        min => number(min)?,
    };
    match number(max)? {
        max if max < min => Err(format!("the range ends below its beginning, {min}")),
        max if max == min => Ok(Count::Fixed(max)),
        max => Ok(Count::Range(min, max)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations() {
        for (value, expected) in [
            (json!(90), Some(90)),
            (json!("90"), Some(90)),
            (json!("5m"), Some(300)),
            (json!("2h"), Some(7200)),
            (json!("1w"), Some(604_800)),
            (json!("0s"), Some(0)),
            (json!(-1), None),
            (json!(1.5), None),
            (json!("1.5s"), None),
            (json!("5 minutes"), None),
            (json!("m"), None),
            (json!("99999999999999999999s"), None),
            (json!("9999999999999999w"), None),
            (json!(u64::MAX), None),
            (json!(null), None),
        ] {
            assert_eq!(seconds(&value), expected, "{value}");
        }
        let written: Vec<String> = [0, 1, 90, 300, 7200, 86_400].map(duration).into();
        assert_eq!(written, ["0s", "1s", "90s", "5m", "2h", "24h"]);
    }

    #[test]
    fn counts() {
        for (value, expected) in [
            (json!(1), Some(Count::Fixed(1))),
            (json!("2"), Some(Count::Fixed(2))),
            (json!("3..3"), Some(Count::Fixed(3))),
            (json!("0..10"), Some(Count::Range(0, 10))),
            (json!("..4"), Some(Count::Range(0, 4))),
            (json!("1.."), None),
            (json!("4..1"), None),
            (json!("a"), None),
            (json!(-1), None),
            (json!(1.5), None),
            (json!({"min": 1}), None),
        ] {
            assert_eq!(count(&value).ok(), expected, "{value}");
        }
    }
}
