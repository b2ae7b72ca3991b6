//! Durations and sizes as people write them, in `routes.yaml` and in settings alike.

use std::time::Duration;

/// Longest duration that is taken: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Largest size that is taken: 1 GiB.
const LARGEST: u64 = 1024 * 1024 * 1024;

/// A duration such as `250ms`, `2s`, `1m`, `1h`: more than nothing, at most a day. The error is a sentence.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration (write it as in 250ms, 2s or 1m)");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let duration = Duration::from_millis(number.checked_mul(millis).ok_or_else(wrong)?);
    if duration.is_zero() || duration > LONGEST {
        return Err(format!("`{text}` is out of range (more than nothing, at most 24h)"));
    }
    Ok(duration)
}

/// Longest age that is taken: a hundred years.
const OLDEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How long ago something is, such as `90m`, `12h` or `30d`: more than nothing, at most 36500d. The error is a sentence.
pub fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no age (write it as in 12h or 30d)");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let age = Duration::from_secs(number.checked_mul(seconds).ok_or_else(wrong)?);
    if age.is_zero() || age > OLDEST {
        return Err(format!("`{text}` is out of range (more than nothing, at most 36500d)"));
    }
    Ok(age)
}

/// A size in bytes such as `512B`, `64KiB`, `1MiB`: at least one byte, at most 1 GiB. The error is a sentence.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size (write it as in 64KiB or 1MiB)");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let bytes = match unit {
        "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "GiB" => LARGEST,
        "KB" | "MB" | "GB" | "kB" => {
            return Err(format!("`{text}` is no size: units are powers of 1024 here (B, KiB, MiB, GiB)"));
        }
        _ => return Err(wrong()),
    };
    match number.checked_mul(bytes).ok_or_else(wrong)? {
        size @ 1..=LARGEST => Ok(size),
        _ => Err(format!("`{text}` is out of range (1B to 1GiB)")),
    }
}

/// A duration written the way [`duration`] reads it.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        _ if !millis.is_multiple_of(1_000) => format!("{millis}ms"),
        _ if !millis.is_multiple_of(60_000) || millis == 0 => format!("{}s", millis / 1_000),
        _ => format!("{}m", millis / 60_000),
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [("250ms", 250), ("2s", 2_000), ("1m", 60_000), ("24h", 86_400_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        for text in
            ["", "2", "s", "0s", "-1s", "1.5s", "25h", "2 days", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["250ms", "2s", "90s", "5m"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
    }

    #[test]
    fn ages() {
        for (text, hours) in [("60m", 1), ("12h", 12), ("30d", 720), ("3600s", 1), ("36500d", 876_000)] {
            assert_eq!(age(text), Ok(Duration::from_secs(hours * 3_600)));
        }
        for text in ["", "30", "0d", "-1d", "1.5d", "30 days", "36501d", "2w", "99999999999999999999d"] {
            assert!(age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("1B", 1), ("64KiB", 65_536), ("1MiB", 1_048_576), ("1 GiB", 1_073_741_824)] {
            assert_eq!(size(text), Ok(bytes));
        }
        for text in ["", "64", "64KB", "0B", "2GiB", "-1B", "1.5MiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
