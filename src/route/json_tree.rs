//! JSON text as the same tree that YAML becomes, so that a schema's mistakes have places too. A reader of its own: what
//! YAML makes of JSON differs in corners (surrogate pairs, long keys).

use serde::de::IgnoredAny;

use super::{
    problem::{Place, Problem, Source},
    yaml::{Key, Node, Value},
};

/// Reads one JSON text (RFC 8259), at most 128 levels deep. The only problem is the first that leaves no tree.
pub fn parse(source: &Source) -> Result<Node, Box<Problem>> {
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let line = text.split('\n').nth(error.line().saturating_sub(1)).unwrap_or("");
        // Bytes become characters.
        let column = String::from_utf8_lossy(&line.as_bytes()[..error.column().min(line.len())]).chars().count();
        let mut why = error.to_string();
        why.truncate(why.rfind(" at line ").unwrap_or(why.len()));
        let place = Place { line: to_u32(error.line()), column: to_u32(column) };
        let before = line.chars().take(column.saturating_sub(1)).filter(|c| !c.is_whitespace()).last();
        let closes = line.chars().nth(column.saturating_sub(1)).is_some_and(|c| matches!(c, '}' | ']'));
        let hint = if before == Some(',') && closes { "delete the comma before it" } else { HINT };
        return Err(wrong(source, place, &why, hint));
    }
    let mut reader = Reader { text, at: 0, place: Place::default() };
    reader.value().map_err(|(place, why)| wrong(source, place, why, HINT))
}

const HINT: &str = "JSON has double quotes, no comments, and no comma after the last item";

fn wrong(source: &Source, place: Place, why: &str, hint: &str) -> Box<Problem> {
    Box::new(Problem::at(source, place, "schema-invalid", format!("this is not JSON: {why}")).hint(hint))
}

/// What a value that is written well can still not be, and where.
type Unusable = (Place, &'static str);

/// Goes over a text that is known to be JSON.
struct Reader<'t> {
    text: &'t str,
    at: usize,
    place: Place,
}

impl Reader<'_> {
    fn value(&mut self) -> Result<Node, Unusable> {
        self.blanks();
        let at = self.place;
        let value = match self.peek() {
            b'{' => {
                let mut entries = Vec::new();
                self.items(b'}', |reader| {
                    let at = reader.place;
                    let key = Key { name: reader.string()?, at };
                    reader.blanks();
                    reader.advance(1);
                    entries.push((key, reader.value()?));
                    Ok(())
                })?;
                Value::Map(entries)
            }
            b'[' => {
                let mut items = Vec::new();
                self.items(b']', |reader| {
                    items.push(reader.value()?);
                    Ok(())
                })?;
                Value::List(items)
            }
            b'"' => Value::Text(self.string()?),
            _ => {
                let rest = &self.text[self.at..];
                let end = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
                self.advance(end);
                match serde_json::from_str(&rest[..end]) {
                    Ok(serde_json::Value::Bool(flag)) => Value::Bool(flag),
                    Ok(serde_json::Value::Number(number)) => Value::Number(number),
                    Ok(serde_json::Value::Null) => Value::Null,
                    _ => return Err((at, "this number is out of range")),
                }
            }
        };
        Ok(Node { value, at })
    }

    /// What stands between a bracket and the one that closes it.
    fn items(&mut self, close: u8, mut item: impl FnMut(&mut Self) -> Result<(), Unusable>) -> Result<(), Unusable> {
        self.advance(1);
        loop {
            self.blanks();
            match self.peek() {
                0 => return Ok(()),
                byte if byte == close => {
                    self.advance(1);
                    return Ok(());
                }
                b',' => self.advance(1),
                _ => item(self)?,
            }
        }
    }

    fn string(&mut self) -> Result<String, Unusable> {
        let at = self.place;
        let rest = &self.text[self.at..];
        let mut escaped = false;
        let end = rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        let end = end.map_or(rest.len(), |end| end + 2);
        self.advance(end);
        serde_json::from_str(&rest[..end]).map_err(|_| (at, "this text holds half a surrogate pair"))
    }

    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.advance(1);
        }
    }

    fn advance(&mut self, bytes: usize) {
        let end = (self.at + bytes).min(self.text.len());
        for c in self.text[self.at..end].chars() {
            if c == '\n' {
                self.place = Place { line: self.place.line + 1, column: 1 };
            } else {
                self.place.column += 1;
            }
        }
        self.at = end;
    }
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Node, Box<Problem>> {
        parse(&Source { name: "s.json".into(), text: text.into() })
    }

    #[test]
    fn places() {
        let node = read("\u{feff}{\n\t\"ü\": [1, {\"a\\\"b\": \"\\ud83d\\ude00\"}],\n  \"n\": -1.5e3 }").unwrap();
        assert_eq!(node.to_json(), serde_json::json!({"ü": [1, {"a\"b": "😀"}], "n": -1500.0}));
        assert_eq!(node.place_of("/ü/1/a\"b"), Place { line: 2, column: 20 });
        assert_eq!(node.place_of("/n"), Place { line: 3, column: 8 });
        for (text, line, column) in [("{\n \"ü\": }", 2, 7), ("{}}", 1, 3), ("[1e999]", 1, 2), (r#"["\ud800"]"#, 1, 2)]
        {
            let problem = read(text).unwrap_err();
            assert_eq!((problem.line, problem.column), (line, column), "{text} {}", problem.message);
        }
    }

    proptest! {
        #[test]
        fn the_tree_is_what_json_says(text in "[\\[\\]{}\",:0-9a-z\\\\ \\n]{0,40}", json in any_json()) {
            let written = serde_json::to_string_pretty(&json).unwrap();
            prop_assert_eq!(read(&written).unwrap().to_json(), json);
            let expected = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(read(&text).is_ok(), expected);
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
            ]
        })
    }
}
