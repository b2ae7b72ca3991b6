//! JSON as BSON, only where nothing of it changes. Written out here because the libraries' own ways take a client's
//! `{"$oid": …}` for an instruction, and round what they cannot hold.

use std::{borrow::Cow, collections::HashSet, fmt};

use mongodb::bson::{Decimal128, RawArrayBuf, RawBson, RawDocumentBuf, raw::CStr};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Deepest nesting: servers take 100 levels, of which ours are some.
const DEEPEST: usize = 90;

/// The object as a document, when BSON holds exactly its values and a query can name each: no object with the same key
/// twice, no key with U+0000 or `.` in it or `$` before it, no lone surrogate, no number beyond 34 digits, not deeper
/// than 90 levels.
pub(super) fn exact_in_bson(text: &[u8]) -> Option<RawDocumentBuf> {
    let text = std::str::from_utf8(text).ok()?.trim_start_matches([' ', '\n', '\r', '\t']);
    match value(text, 0)? {
        RawBson::Document(document) => Some(document),
        _ => None,
    }
}

fn value(text: &str, depth: usize) -> Option<RawBson> {
    match text.as_bytes().first()? {
        b'{' | b'[' if depth == DEEPEST => None,
        b'{' => {
            let mut document = RawDocumentBuf::new();
            for (name, member) in serde_json::from_str::<Members<'_>>(text).ok()?.0 {
                let name: &CStr = name.as_ref().try_into().ok()?;
                document.append(name, value(member.get(), depth + 1)?);
            }
            Some(RawBson::Document(document))
        }
        b'[' => {
            let mut array = RawArrayBuf::new();
            for item in serde_json::from_str::<Vec<&RawValue>>(text).ok()? {
                array.push(value(item.get(), depth + 1)?);
            }
            Some(RawBson::Array(array))
        }
        b'"' => serde_json::from_str(text).ok().map(RawBson::String),
        b'n' => Some(RawBson::Null),
        b't' | b'f' => serde_json::from_str(text).ok().map(RawBson::Boolean),
        _ => number(text),
    }
}

/// The members of an object, in their order, each name once.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Members<'de>, A::Error> {
                let (mut members, mut names) = (Vec::new(), HashSet::new());
                while let Some(name) = access.next_key::<Cow<'de, str>>()? {
                    if name.starts_with('$') || name.contains(['.', '\0']) || !names.insert(name.clone()) {
                        return Err(serde::de::Error::custom("a name that no query can say"));
                    }
                    members.push((name, access.next_value()?));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// A 64-bit integer; else a double, when that writes the same digits; else a decimal of up to 34 digits.
fn number(text: &str) -> Option<RawBson> {
    if let (Ok(integer), true) = (text.parse::<i64>(), text != "-0") {
        return Some(RawBson::Int64(integer));
    }
    let double: f64 = text.parse().ok()?;
    if double.is_finite() && decimal(text)? == decimal(&format!("{double:e}"))? {
        return Some(RawBson::Double(double));
    }
    text.parse::<Decimal128>().ok().map(RawBson::Decimal128)
}

/// A number's sign, digits and exponent, the same for every way to write it.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let negative = mantissa.starts_with('-');
    let (whole, fraction) = mantissa.trim_start_matches('-').split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some((negative, String::new(), 0));
    }
    let behind = i64::try_from(digits.len() - digits.trim_end_matches('0').len()).ok()?;
    let shift = i64::try_from(fraction.len()).ok()?;
    let exponent = exponent.parse::<i64>().ok()?.checked_sub(shift)?.checked_add(behind)?;
    Some((negative, significant.to_owned(), exponent))
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{Bson, Document, doc};
    use proptest::prelude::*;

    use super::*;

    fn mirror(json: &str) -> Option<Document> {
        exact_in_bson(json.as_bytes()).map(|raw| Document::try_from(raw).unwrap())
    }

    #[test]
    fn what_bson_can_hold_is_the_same_there() {
        let long = "123456789012345678901234567890.1234";
        let json = format!(
            r#" {{"z":1,"a":[true,false,null,{{}}],"big":9223372036854775807,"bigger":9223372036854775808,"long":{long},
            "d":0.1,"e":1e400,"m":-0,"n":1.50,"s":"\u0000😀","":""}}"#
        );
        let expected = doc! {
            "z": 1_i64, "a": [true, false, Bson::Null, {}], "big": i64::MAX,
            "bigger": "9223372036854775808".parse::<Decimal128>().unwrap(),
            "long": long.parse::<Decimal128>().unwrap(), "d": 0.1, "e": "1e400".parse::<Decimal128>().unwrap(),
            "m": -0.0, "n": 1.5, "s": "\0😀", "": "",
        };
        let found = mirror(&json).unwrap();
        assert_eq!(found, expected);
        assert!(found.keys().eq(expected.keys()), "the order is kept");
        assert!(found.get_f64("m").unwrap().is_sign_negative());
    }

    #[test]
    fn what_bson_would_change_has_no_mirror() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(90), "]".repeat(90));
        for json in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"\u0000":1}"#,
            r#"{"$oid":"5f43a2b1c3d4e5f601234567"}"#,
            r#"{"a":{"$numberLong":"1"}}"#,
            r#"{"a.b":1}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1e7000}"#,
            r#"{"a":1e999999999999999999999999}"#,
            r#"{"a":12345678901234567890123456789012345678901}"#,
            &deep,
            "[1]",
            "nope",
            "",
        ] {
            assert_eq!(mirror(json), None, "{json}");
        }
        assert!(exact_in_bson(b"{\"a\":\"\xff\"}").is_none());
        assert!(mirror(&deep.replacen('[', "", 1).replacen(']', "", 1)).is_some());
    }

    proptest! {
        /// A number that has a mirror is written with the same digits by whatever it became.
        #[test]
        fn numbers(text in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,4})?") {
            let written = match number(&text) {
                Some(RawBson::Int64(integer)) => integer.to_string(),
                Some(RawBson::Double(double)) => format!("{double:e}"),
                Some(RawBson::Decimal128(decimal)) => decimal.to_string(),
                _ => return Ok(()),
            };
            prop_assert_eq!(decimal(&written), decimal(&text));
        }

        #[test]
        fn doubles_stay_doubles(double in any::<f64>().prop_filter("JSON has no NaN", |double| double.is_finite())) {
            let text = format!("{double:e}");
            match number(&text) {
                Some(RawBson::Double(found)) => prop_assert_eq!(found.to_bits(), double.to_bits()),
                Some(RawBson::Int64(integer)) => prop_assert_eq!(integer.to_string(), text),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
