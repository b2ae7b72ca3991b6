//! Whether a document can stand beside its text as a value of a database's own, without a difference. What can't has
//! no mirror: the text is the truth, and a mirror that lies is worse than none.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

/// Largest power of ten whose digits a database may be asked to write out.
const LARGEST_EXPONENT: u32 = 300;

/// The text, when PostgreSQL's `jsonb` holds exactly its value: valid UTF-8, no object with the same key twice, no
/// U+0000, no lone surrogate, no number that only an exponent makes writable, not deeper than 128 levels.
pub(super) fn exact_in_jsonb(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?;
    serde_json::from_str::<Exact>(text).ok()?;
    has_small_exponents(text).then_some(text)
}

/// Looks at numbers outside strings alone.
fn has_small_exponents(text: &str) -> bool {
    let mut in_string = false;
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                bytes.next();
            }
            // `true` and `false` have an e too, and no digit after it.
            b'e' | b'E' if !in_string => {
                if matches!(bytes.peek(), Some(b'+' | b'-')) {
                    bytes.next();
                }
                let mut exponent = 0_u32;
                while let Some(digit) = bytes.peek().filter(|digit| digit.is_ascii_digit()) {
                    exponent = exponent.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
                    bytes.next();
                }
                if exponent > LARGEST_EXPONENT {
                    return false;
                }
            }
            _ => {}
        }
    }
    true
}

/// A value that is read through and forgotten.
struct Exact;

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

fn text<E: de::Error>(text: &str) -> Result<(), E> {
    if text.contains('\0') { Err(E::custom("U+0000")) } else { Ok(()) }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Exact;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Exact, E> {
        Ok(Exact)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Exact, E> {
        Ok(Exact)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Exact, E> {
        Ok(Exact)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Exact, E> {
        Ok(Exact)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Exact, E> {
        Ok(Exact)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Exact, E> {
        text(value).map(|()| Exact)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Exact, A::Error> {
        while items.next_element::<Exact>()?.is_some() {}
        Ok(Exact)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Exact, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            text(&name)?;
            members.next_value::<Exact>()?;
            if !names.insert(name) {
                return Err(de::Error::custom("the same key twice"));
            }
        }
        Ok(Exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jsonb_would_change_has_no_mirror() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for (text, exact) in [
            (r#"{"a":1,"b":[true,false,null,"e999"],"$oid":"x","a.b":1e300}"#, true),
            ("123456789012345678901234567890.000000000000000000000000000001", true),
            (r#"{"a":1,"a":2}"#, false),
            (r#"{"a":1,"\u0061":2}"#, false),
            (r#""\u0000""#, false),
            (r#"{"\u0000":1}"#, false),
            (r#""\ud800""#, false),
            ("1e400", false),
            ("1e-400", false),
            (r#"["\"",1E-400]"#, false),
            (r#"["\\",1E-40]"#, true),
            (&deep, false),
            ("nope", false),
        ] {
            assert_eq!(exact_in_jsonb(text.as_bytes()).is_some(), exact, "{text}");
        }
        assert!(exact_in_jsonb(b"\"\xff\"").is_none());
    }
}
