//! YAML (and so JSON) text as a tree that remembers where each key and value stands, duplicate keys included.
//! Everything after this works on the tree, so that one mistake never hides another.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::problem::{Place, Problem, Source};

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// Where it begins.
    pub at: Place,
}

/// A YAML value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing, or `null`.
    Null,
    /// `true` or `false` (not `yes`, `on`, …: YAML 1.2).
    Bool(bool),
    /// A whole number or not.
    Number(serde_json::Number),
    /// Text.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping as written: in order, and with duplicate keys.
    Map(Vec<(Key, Node)>),
}

/// A mapping's key with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// The key.
    pub name: String,
    /// Where it begins.
    pub at: Place,
}

impl Node {
    /// What kind of value it is, for a sentence.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(number) if number.is_f64() => "a number",
            Value::Number(_) => "an integer",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// The same without places; of duplicate keys the last.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(flag) => (*flag).into(),
            Value::Number(number) => serde_json::Value::Number(number.clone()),
            Value::Text(text) => text.clone().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => serde_json::Value::Object(
                entries.iter().map(|(key, node)| (key.name.clone(), node.to_json())).collect(),
            ),
        }
    }

    /// Where the value stands that a JSON Pointer (RFC 6901) names, or the last part of the way that is there.
    pub fn place_of(&self, pointer: &str) -> Place {
        let mut here = self;
        let mut at = self.at;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = match &here.value {
                Value::Map(entries) => entries.iter().rev().find(|(key, _)| key.name == token).map(|(key, node)| {
                    // A scalar is pointed at itself; for a mapping or list its key says more.
                    (node, if matches!(node.value, Value::Map(_) | Value::List(_)) { key.at } else { node.at })
                }),
                Value::List(items) => token.parse::<usize>().ok().and_then(|index| items.get(index)).map(|n| (n, n.at)),
                _ => None,
            };
            let Some((node, place)) = next else { break };
            here = node;
            at = place;
        }
        at
    }
}

/// Reads one document. The only problems are those that leave no tree: syntax, an alias bomb, too deep nesting.
pub fn parse(source: &Source) -> Result<Node, Box<Problem>> {
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_documents: 1,
            // What a file of 1 MiB can hold; aliases make little more of it.
            max_nodes: 1_100_000,
            max_events: 2_200_000,
            max_depth: 64,
            max_aliases: 1_000,
            max_anchors: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 200_000 },
    };
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    match serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options) {
        Ok(spanned) => Ok(Node { at: place(spanned.referenced), value: spanned.value }),
        Err(error) => {
            let error = error.without_snippet();
            let at = error.location().map_or_else(Place::default, place);
            let mut message = error.to_string();
            // The place is told before the sentence already.
            if let Some(end) = message.find(" at line ") {
                message.truncate(end);
            }
            let (message, hint) = unreadable(&message);
            Err(Box::new(Problem::at(source, at, "syntax", message).hint(hint)))
        }
    }
}

/// What a reader of YAML says, and what to do about it.
fn unreadable(error: &str) -> (String, &'static str) {
    /// Words of the library's message, ours where its own say too little, and what to do.
    const KNOWN: [(&str, Option<&str>, &str); 11] = [
        ("alias", Some("the aliases (`*name`) stand for more than a table can hold"), "write out what they stand for"),
        (
            "Documents {",
            Some("a table is one document, and here a second one begins"),
            "delete the `---`, or `include` it as a file",
        ),
        (
            "Depth {",
            Some("this is nested more than 64 levels deep"),
            "no table needs that: look for a bracket too many",
        ),
        (
            "budget breached",
            Some("this is more than a table can hold"),
            "split it: `include` takes routes from other files",
        ),
        ("tab", None, "indent with blanks"),
        ("mapping values are not allowed", None, "put text that holds `: ` into quotes, or check the indentation"),
        ("did not find expected ','", None, "close the `{` or `[` before this place, or put a comma"),
        ("flow", None, "close the `{` or `[` before this place, or put a comma"),
        ("block", None, "check the indentation: what belongs together begins in the same column"),
        ("quoted", None, "close the quotes before this place"),
        ("anchor", None, "write out what `*name` stands for, or mark it with `&name` before"),
    ];
    let known = KNOWN.iter().find(|(words, ..)| error.contains(words));
    let hint = known.map_or("look at this place, and at what comes just before it", |(.., hint)| hint);
    let message = match known.and_then(|(_, message, _)| *message) {
        Some(message) => message.to_owned(),
        None => format!("this is no YAML that can be read: {error}"),
    };
    (message, hint)
}

fn place(location: serde_saphyr::Location) -> Place {
    let number = |n: u64| u32::try_from(n.max(1)).unwrap_or(u32::MAX);
    Place { line: number(location.line()), column: number(location.column()) }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
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

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Value, E> {
        serde_json::Number::from_i128(number)
            .map(Value::Number)
            .ok_or_else(|| E::custom("this integer does not fit into 64 bits"))
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<Value, E> {
        serde_json::Number::from_u128(number)
            .map(Value::Number)
            .ok_or_else(|| E::custom("this integer does not fit into 64 bits"))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| E::custom("infinity and NaN are no values here"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Value>>()? {
            items.push(Node { at: place(item.referenced), value: item.value });
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = access.next_entry::<Spanned<String>, Spanned<Value>>()? {
            entries.push((
                Key { at: place(key.referenced), name: key.value },
                Node { at: place(value.referenced), value: value.value },
            ));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        parse(&Source { name: "t.yaml".into(), text: text.into() }).unwrap()
    }

    #[test]
    fn places_and_duplicates_are_kept() {
        let node = tree("a: 1\nb:\n  - x: yes\n  - {y: 'ü', z: 2}\na: 3\n");
        let Value::Map(entries) = &node.value else { panic!("{node:?}") };
        let keys: Vec<_> = entries.iter().map(|(key, _)| (key.name.as_str(), key.at.line, key.at.column)).collect();
        assert_eq!(keys, [("a", 1, 1), ("b", 2, 1), ("a", 5, 1)]);
        assert_eq!(node.place_of("/b/1/z"), Place { line: 4, column: 17 });
        assert_eq!(node.to_json()["b"][0]["x"], "yes");
    }

    #[test]
    fn json_is_read_too() {
        let node = tree("{\n\t\"type\": \"object\",\n\t\"minimum\": 1.5,\n\t\"n\": null, \"big\": 9007199254740993}");
        assert_eq!(node.place_of("/minimum"), Place { line: 3, column: 13 });
        assert_eq!(node.to_json()["big"], 9_007_199_254_740_993_u64);
    }

    #[test]
    fn bombs_and_garbage_are_one_problem() {
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                    d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e]\n";
        for text in [bomb, "a: [", "a: b: c", &"[".repeat(10_000), "a: 1\n---\nb: 2", "? [a]\n: b"] {
            let source = Source { name: "t.yaml".into(), text: text.into() };
            let problem = parse(&source).expect_err(text);
            assert_eq!(problem.code, "syntax");
        }
    }
}
