//! Durations and sizes as people write them, in `routes.yaml` and in settings alike.

use std::time::Duration;

/// Units of durations, each with its milliseconds.
const TIMES: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
/// Longest duration that is taken, in milliseconds: a day.
const LONGEST: u64 = 24 * 3_600_000;
/// Units of sizes, each with its bytes.
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1024), ("MiB", 1024 * 1024), ("GiB", LARGEST)];
/// Largest size that is taken: 1 GiB.
const LARGEST: u64 = 1024 * 1024 * 1024;

/// A duration such as `250ms`, `2s`, `1m`, `1h`: more than nothing, at most a day. The error is a sentence.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration (write it as in 250ms, 2s or 1m)");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let (_, millis) = TIMES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    match number.checked_mul(*millis) {
        Some(millis @ 1..=LONGEST) => Ok(Duration::from_millis(millis)),
        _ => Err(format!("`{text}` is out of range (more than nothing, at most 24h)")),
    }
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

/// A size in bytes such as [`size`] takes, without its upper bound. The error is a sentence.
pub fn large_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size (write it as in 512MiB or 2GiB)");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(*bytes).filter(|size| *size > 0).ok_or_else(|| format!("`{text}` is out of range"))
}

/// A size in bytes such as `512B`, `64KiB`, `1MiB`: at least one byte, at most 1 GiB. The error is a sentence.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size (write it as in 64KiB or 1MiB)");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    if matches!(unit, "KB" | "MB" | "GB" | "kB" | "kb" | "mb" | "gb" | "K" | "M" | "G" | "k") {
        return Err(format!("`{text}` is no size: units are powers of 1024 here (B, KiB, MiB, GiB)"));
    }
    let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    match number.checked_mul(*bytes) {
        Some(size @ 1..=LARGEST) => Ok(size),
        _ => Err(format!("`{text}` is out of range (1B to 1GiB)")),
    }
}

/// A rate in bytes a second, such as `1KiB/s`: at least one byte, at most 1 GiB a second. The error is a sentence.
pub fn rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a rate (write it as in 1KiB/s)");
    size(text.strip_suffix("/s").ok_or_else(wrong)?.trim_end()).map_err(|_| wrong())
}

/// A regular expression (ECMA-262) of what [`duration`] takes.
pub fn duration_pattern() -> String {
    pattern(&TIMES, LONGEST)
}

/// A regular expression (ECMA-262) of what [`size`] takes.
pub fn size_pattern() -> String {
    pattern(&SIZES, LARGEST)
}

fn pattern(units: &[(&str, u64)], most: u64) -> String {
    let of = |(unit, factor): &(&str, u64)| format!("({}) *{unit}", up_to(most / factor));
    format!("^0*({})$", units.iter().map(of).collect::<Vec<_>>().join("|"))
}

/// A regular expression of the whole numbers from 1 to `most`, without leading zeros.
fn up_to(most: u64) -> String {
    let digits = most.to_string().into_bytes();
    let mut ways = Vec::new();
    let any = |count: usize| match count {
        0 => String::new(),
        1 => "[0-9]".to_owned(),
        count => format!("[0-9]{{{count}}}"),
    };
    match digits.len() {
        1 => {}
        2 => ways.push("[1-9]".to_owned()),
        length => ways.push(format!("[1-9][0-9]{{0,{}}}", length - 2)),
    }
    // As many digits as `most` has: the same up to some digit, there a smaller one, then any.
    for (at, digit) in digits.iter().enumerate() {
        let least = if at == 0 { b'1' } else { b'0' };
        if *digit > least {
            let before = String::from_utf8_lossy(&digits[..at]);
            let smaller = if *digit - 1 == least {
                char::from(least).to_string()
            } else {
                format!("[{}-{}]", char::from(least), char::from(*digit - 1))
            };
            ways.push(format!("{before}{smaller}{}", any(digits.len() - at - 1)));
        }
    }
    ways.push(most.to_string());
    ways.join("|")
}

/// A number without a fraction as an integer, `5.0` included, as JSON Schema has it.
pub fn whole(number: &serde_json::Number) -> Option<u64> {
    number.as_u64().or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..9.0e15).contains(float))?;
        format!("{float:.0}").parse().ok()
    })
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
    Some((number.parse().ok()?, unit.trim_start_matches(' ')))
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
