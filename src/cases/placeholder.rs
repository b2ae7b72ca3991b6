//! What stands in an expectation for a value that is different every time: `<uuid>`, `<time>`, … alone or within text.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// Kinds of values that may stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placeholder {
    /// Whatever is there, `null` too.
    Any,
    /// Nothing is there.
    Absent,
    /// A UUID.
    Uuid,
    /// A time, RFC 3339.
    Time,
    /// Any text.
    Text,
    /// An integer; within text its digits.
    Integer,
    /// Any number.
    Number,
    /// True or false.
    Boolean,
}

/// Their names, as written between `<` and `>`.
pub(super) const NAMES: [(&str, Placeholder); 8] = [
    ("any", Placeholder::Any),
    ("absent", Placeholder::Absent),
    ("uuid", Placeholder::Uuid),
    ("time", Placeholder::Time),
    ("text", Placeholder::Text),
    ("integer", Placeholder::Integer),
    ("number", Placeholder::Number),
    ("boolean", Placeholder::Boolean),
];

/// Expected text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    /// One placeholder alone.
    Alone(Placeholder),
    /// Text with placeholders in it, or none.
    Pieces(Vec<Piece>),
}

/// A part of expected text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    Placeholder(Placeholder),
}

impl Pattern {
    /// Reads expected text; `<<` is a `<`. The error is the word in it that is no placeholder.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('<') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('<') {
                literal.push('<');
                rest = after;
                continue;
            }
            let word = rest
                .split_once('>')
                .filter(|(word, _)| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase()));
            let Some((word, after)) = word else {
                literal.push('<');
                continue;
            };
            let Some((_, placeholder)) = NAMES.iter().find(|(name, _)| *name == word) else {
                return Err(word.to_owned());
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Placeholder(*placeholder));
            rest = after;
        }
        literal.push_str(rest);
        if let ([Piece::Placeholder(alone)], true) = (pieces.as_slice(), literal.is_empty()) {
            return Ok(Self::Alone(*alone));
        }
        pieces.push(Piece::Literal(literal));
        Ok(Self::Pieces(pieces))
    }

    /// Whether a value is what is expected.
    pub(super) fn matches(&self, actual: Option<&Value>) -> bool {
        match (self, actual) {
            (Self::Alone(placeholder), actual) => placeholder.matches(actual),
            (Self::Pieces(pieces), Some(Value::String(text))) => fit(pieces, text),
            (Self::Pieces(_), _) => false,
        }
    }
}

impl Placeholder {
    fn matches(self, actual: Option<&Value>) -> bool {
        let Some(actual) = actual else { return self == Self::Absent };
        match self {
            Self::Any => true,
            Self::Absent => false,
            Self::Text => actual.is_string(),
            Self::Integer => actual.is_i64() || actual.is_u64(),
            Self::Number => actual.is_number(),
            Self::Boolean => actual.is_boolean(),
            Self::Uuid | Self::Time => actual.as_str().is_some_and(|text| self.within(text)),
        }
    }

    /// Whether a piece of text can be it.
    fn within(self, text: &str) -> bool {
        match self {
            Self::Any | Self::Text => true,
            Self::Absent => text.is_empty(),
            Self::Uuid => text.len() == 36 && Uuid::parse_str(text).is_ok(),
            Self::Time => OffsetDateTime::parse(text, &Rfc3339).is_ok(),
            Self::Integer => text.parse::<i128>().is_ok(),
            Self::Number => matches!(serde_json::from_str(text), Ok(Value::Number(_))),
            Self::Boolean => matches!(text, "true" | "false"),
        }
    }
}

fn fit(pieces: &[Piece], text: &str) -> bool {
    match pieces.split_first() {
        None => text.is_empty(),
        Some((Piece::Literal(literal), rest)) => {
            text.strip_prefix(literal.as_str()).is_some_and(|text| fit(rest, text))
        }
        Some((Piece::Placeholder(placeholder), rest)) => (0..=text.len())
            .filter(|end| text.is_char_boundary(*end))
            .any(|end| placeholder.within(&text[..end]) && fit(rest, &text[end..])),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn alone_and_within_text() {
        let id = "0193f1c2-7d3a-7c3e-9d4e-0123456789ab";
        for (pattern, actual, expected) in [
            ("<uuid>", json!(id), true),
            ("<uuid>", json!("x"), false),
            ("<uuid>", json!(1), false),
            ("orders.<uuid>.new", json!(format!("orders.{id}.new")), true),
            ("orders.<uuid>.new", json!("orders.1.new"), false),
            ("<text>.<integer>", json!("a.b.12"), true),
            ("<text>.<integer>", json!("a.b.c"), false),
            ("<time>", json!("2026-11-23T18:27:58.123456Z"), true),
            ("<time>", json!("today"), false),
            ("<any>", json!(null), true),
            ("<integer>", json!(1.5), false),
            ("<number>", json!(1.5), true),
            ("<boolean>", json!(true), true),
            ("a < b", json!("a < b"), true),
            ("<<any>", json!("<any>"), true),
            ("plain", json!("plain"), true),
            ("", json!(""), true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(Some(&actual)), expected, "{pattern} {actual}");
        }
        assert!(Pattern::parse("<absent>").unwrap().matches(None));
        assert!(!Pattern::parse("<any>").unwrap().matches(None));
        assert_eq!(Pattern::parse("<uid>"), Err("uid".into()));
    }
}
