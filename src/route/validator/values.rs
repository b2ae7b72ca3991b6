//! Values of JSON as JSON Schema compares them: numbers by what they are worth, objects without order.

use std::{
    cmp::Ordering,
    hash::{BuildHasher, Hash, Hasher, RandomState},
};

use serde_json::{Number, Value};

use super::budget::{Budget, Exhausted};

/// Whether two values are the same.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare(a, b) == Ordering::Equal,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Compares two numbers by what they are worth, exactly.
pub fn compare(a: &Number, b: &Number) -> Ordering {
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(a), None) => compare_mixed(a, float(b)),
        (None, Some(b)) => compare_mixed(b, float(a)).reverse(),
        (None, None) => float(a).partial_cmp(&float(b)).unwrap_or(Ordering::Equal),
    }
}

fn integer(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or_default()
}

/// Beyond this every float is larger than any 64-bit integer.
const FAR: f64 = 1e30;

#[allow(clippy::cast_possible_truncation, reason = "cut off on purpose, within the range of the target")]
fn compare_mixed(integer: i128, float: f64) -> Ordering {
    if float >= FAR {
        return Ordering::Less;
    }
    if float <= -FAR {
        return Ordering::Greater;
    }
    let whole = float.trunc();
    integer.cmp(&(whole as i128)).then_with(|| 0.0.partial_cmp(&(float - whole)).unwrap_or(Ordering::Equal))
}

/// Whether a number has no fraction.
pub fn is_whole(number: &Number) -> bool {
    integer(number).is_some() || float(number).fract() == 0.0
}

/// Whether a number is a multiple of another, by their decimal digits and exactly.
pub fn is_multiple(number: &Number, of: &Number) -> bool {
    let (Some((digits, exponent)), Some((of_digits, of_exponent))) = (decimal(number), decimal(of)) else {
        return false;
    };
    if digits == 0 || of_digits == 0 {
        return digits == 0;
    }
    if exponent >= of_exponent {
        let mut rest = digits % of_digits;
        let mut factor = 10 % of_digits;
        let mut power = exponent - of_exponent;
        while power > 0 {
            if power % 2 == 1 {
                rest = rest * factor % of_digits;
            }
            factor = factor * factor % of_digits;
            power /= 2;
        }
        return rest == 0;
    }
    // Digits end in no zero: they are a multiple of no power of ten beyond what the other's digits bring.
    let power = u32::try_from(of_exponent - exponent).unwrap_or(u32::MAX);
    let whole = 10_u128.checked_pow(power).and_then(|power| power.checked_mul(of_digits));
    whole.is_some_and(|whole| digits % whole == 0)
}

/// Digits, at most twenty of them, and the power of ten that they are multiplied with.
fn decimal(number: &Number) -> Option<(u128, i32)> {
    let text = number.to_string();
    let text = text.trim_start_matches('-');
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut exponent: i32 = exponent.parse().ok()?;
    exponent -= i32::try_from(fraction.len()).ok()?;
    let digits: String = [whole, fraction].concat();
    let significant = digits.trim_end_matches('0');
    exponent += i32::try_from(digits.len() - significant.len()).ok()?;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some((0, 0));
    }
    Some((significant.parse().ok()?, exponent))
}

/// Whether no two items are the same; in time that grows with their size, not with its square.
pub fn unique(items: &[Value], budget: &mut Budget) -> Result<bool, Exhausted> {
    if items.len() < 2 {
        return Ok(true);
    }
    // A key of its own for each array: whoever sends the items can't choose what collides.
    let state = RandomState::new();
    let mut sums = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let mut hasher = state.build_hasher();
        hash(item, &state, &mut hasher, budget)?;
        sums.push((hasher.finish(), index));
    }
    budget.spend(items.len() as u64)?;
    sums.sort_unstable();
    // What has the same sum is the same, but for a coincidence.
    for same in sums.chunk_by(|a, b| a.0 == b.0) {
        for (at, (_, index)) in same.iter().enumerate() {
            for (_, other) in &same[at + 1..] {
                budget.spend(1)?;
                if equal(&items[*index], &items[*other]) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

fn hash(value: &Value, state: &RandomState, hasher: &mut impl Hasher, budget: &mut Budget) -> Result<(), Exhausted> {
    budget.spend(1)?;
    match value {
        Value::Null => 0_u8.hash(hasher),
        Value::Bool(flag) => flag.hash(hasher),
        Value::Number(number) => hash_number(number, hasher),
        Value::String(text) => {
            budget.spend(text.len() as u64 / 64)?;
            text.hash(hasher);
        }
        Value::Array(items) => {
            (1_u8, items.len()).hash(hasher);
            for item in items {
                hash(item, state, hasher, budget)?;
            }
        }
        Value::Object(members) => {
            // Sums of members, so that their order does not matter.
            let mut sum = 0_u64;
            for (name, member) in members {
                let mut inner = state.build_hasher();
                name.hash(&mut inner);
                hash(member, state, &mut inner, budget)?;
                sum = sum.wrapping_add(inner.finish());
            }
            (2_u8, members.len(), sum).hash(hasher);
        }
    }
    Ok(())
}

/// Alike for the same number as an integer and as a float, and apart for all others.
#[allow(clippy::cast_possible_truncation, reason = "within the range of the target")]
fn hash_number(number: &Number, hasher: &mut impl Hasher) {
    let float = float(number);
    match integer(number) {
        Some(integer) => integer.hash(hasher),
        None if float.fract() == 0.0 && float.abs() < FAR => (float as i128).hash(hasher),
        None => float.to_bits().hash(hasher),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_worth_what_they_are() {
        let number = |text: &str| serde_json::from_str::<Number>(text).unwrap();
        for (a, b, expected) in [
            ("1", "1.0", Ordering::Equal),
            ("9007199254740993", "9007199254740992.0", Ordering::Greater),
            ("18446744073709551615", "1.8446744073709552e19", Ordering::Less),
            ("-1", "-1.5", Ordering::Greater),
            ("0", "-0.0", Ordering::Equal),
            ("5", "1e300", Ordering::Less),
            ("-9223372036854775808", "-1e300", Ordering::Greater),
        ] {
            assert_eq!(compare(&number(a), &number(b)), expected, "{a} {b}");
            assert_eq!(compare(&number(b), &number(a)), expected.reverse(), "{b} {a}");
        }
        for (a, of, expected) in [
            ("0.0075", "0.0001", true),
            ("0.00751", "0.0001", false),
            ("1e308", "0.123456789", false),
            ("1e308", "0.5", true),
            ("0", "0.3", true),
            ("-9", "3", true),
            ("4.5", "1.5", true),
            ("35", "1.5", false),
            ("12391239123", "1e-8", true),
            ("9007199254740993", "2", false),
            ("1e-300", "1", false),
            ("10", "100", false),
            ("1.0", "1", true),
        ] {
            assert_eq!(is_multiple(&number(a), &number(of)), expected, "{a} {of}");
        }
    }

    #[test]
    fn items_are_told_apart() {
        let unique = |value: Value| super::unique(value.as_array().unwrap(), &mut Budget::unlimited()).unwrap();
        assert!(!unique(json!([1, 1.0])));
        assert!(!unique(json!([{ "a": 1, "b": 2 }, { "b": 2.0, "a": 1 }])));
        assert!(unique(json!([{ "a": 1, "b": 2 }, { "a": 2, "b": 1 }, 1, true, "1", null, [], {}, [[]], 0, false])));
        assert!(!unique(json!([0, -0.0])));
        let nested: Value = (0..20_000).map(|n| json!([[n], []])).collect();
        let mut budget = Budget::steps(200_000);
        assert_eq!(super::unique(nested.as_array().unwrap(), &mut budget), Ok(true));
    }
}
