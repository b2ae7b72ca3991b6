//! Reading a client's JSON more strictly than usual: what two parsers could read in two ways is refused, so that
//! what was checked is what every consumer sees.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::validator::{Budget, Exhausted};

/// Levels of nesting that a body may have where its route does not say.
pub const MAX_DEPTH: usize = 64;
/// Most levels that a route can allow: readers of JSON, this one among them, have limits of their own.
pub const MAX_DEPTH_LIMIT: usize = 127;

/// Why a text is no JSON that is taken, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes, from 1 (0 at the very beginning).
    pub column: usize,
    /// A sentence.
    pub detail: String,
}

/// Parses one JSON text (RFC 8259) without duplicate keys (compared after unescaping), lone surrogates, numbers
/// outside the range of a 64-bit float, or more than `max_depth` levels.
pub fn parse(text: &[u8], max_depth: usize, budget: &mut Budget) -> Result<Result<Value, Malformed>, Exhausted> {
    if text.starts_with("\u{feff}".as_bytes()) {
        let detail = "it begins with a byte order mark (U+FEFF), which JSON does not have: send it without".to_owned();
        return Ok(Err(Malformed { line: 1, column: 1, detail }));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let meter = Meter { budget: RefCell::new(budget), exhausted: Cell::new(false) };
    let value = Strict { depth: 0, max_depth, meter: &meter }.deserialize(&mut deserializer);
    if meter.exhausted.get() {
        return Err(Exhausted);
    }
    Ok(value.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| {
        let mut detail = error.to_string();
        detail.truncate(detail.rfind(" at line ").unwrap_or(detail.len()));
        Malformed { line: error.line(), column: error.column(), detail }
    }))
}

/// Counts the values that are read: each is a step.
struct Meter<'b> {
    budget: RefCell<&'b mut Budget>,
    exhausted: Cell<bool>,
}

#[derive(Clone, Copy)]
struct Strict<'m> {
    depth: usize,
    max_depth: usize,
    meter: &'m Meter<'m>,
}

impl Strict<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == self.max_depth {
            return Err(E::custom(format_args!("more than {} levels of nesting", self.max_depth)));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn count<E: serde::de::Error>(self) -> Result<(), E> {
        self.meter.budget.borrow_mut().spend(1).map_err(|Exhausted| {
            self.meter.exhausted.set(true);
            E::custom("this takes too long")
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(inner)? {
            self.count()?;
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                let shown: String = key.chars().take(64).collect();
                return Err(A::Error::custom(format_args!("the key {shown:?} is given twice")));
            }
            self.count()?;
            let value = access.next_value_seed(inner)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Value, Malformed> {
        super::parse(text, MAX_DEPTH, &mut Budget::unlimited()).unwrap()
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        for depth in [1, MAX_DEPTH, MAX_DEPTH_LIMIT] {
            let read = |text: String| super::parse(text.as_bytes(), depth, &mut Budget::unlimited()).unwrap();
            assert!(read(nested(depth)).is_ok(), "{depth}");
            assert!(read(nested(depth + 1)).is_err(), "{depth}");
        }
        let many = format!("[{}1]", "1,".repeat(1_000));
        assert_eq!(super::parse(many.as_bytes(), 1, &mut Budget::steps(100)), Err(Exhausted));
        assert!(super::parse(many.as_bytes(), 1, &mut Budget::steps(2_000)).unwrap().is_ok());
    }

    #[test]
    fn taken() {
        for text in [r#"{"a":[1,2.5,null,true,"\ud83d\ude00"]}"#, " 1 ", "12345678901234567890123", "1e-400"] {
            let plain: Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse(text.as_bytes()).unwrap(), plain, "{text}");
        }
        let deep = format!("{}1{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(parse(deep.as_bytes()).is_ok());
    }

    #[test]
    fn refused() {
        let deep = format!("{}1{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
        let very_deep = "[".repeat(100_000);
        for text in [
            "",
            "{",
            "{} x",
            "nope",
            "1e400",
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"b":2,"a":3}}"#,
            r#""\ud800""#,
            r#""\udc00""#,
            "\u{feff}{}",
            "[1,]",
            "01",
            "NaN",
            "'a'",
            &deep,
            &very_deep,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:.40}");
        }
        assert!(parse(b"\"\xff\"").is_err());
        let error = parse(b"{\n  \"a\": nope\n}").unwrap_err();
        assert_eq!(error.line, 2);
        assert!(!error.detail.contains(" at line "), "{error:?}");
    }
}
