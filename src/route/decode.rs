//! From tree to typed values: each reader takes a node, tells what is wrong with it, and lets the rest be read on.

use std::time::Duration;

use super::{
    grammar::MOST,
    problem::{Place, Problem, Source, did_you_mean, suggest},
    yaml::{Key, Node, Value},
};
use crate::units;

/// A value with its place, in a source that is known from elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub at: Place,
}

/// Reads the nodes of one source and collects what is wrong with them.
pub struct Decoder<'a> {
    /// The source that the nodes come from.
    pub source: &'a Source,
    problems: &'a mut Vec<Problem>,
}

/// A mapping whose keys are checked: all known, none twice.
pub struct Fields<'n> {
    entries: Vec<(&'n Key, &'n Node)>,
    /// Where the mapping begins.
    pub at: Place,
}

impl<'n> Fields<'n> {
    /// The value of a key, if it is given.
    pub fn get(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| *node)
    }

    /// Known keys that unknown ones seem to mean.
    pub fn meant<'k>(&self, known: &'k [&'k str]) -> impl Iterator<Item = &'k str> {
        let unknown = self.entries.iter().filter(|(key, _)| !known.contains(&key.name.as_str()));
        unknown.filter_map(|(key, _)| did_you_mean(&key.name, known.iter().copied()))
    }

    /// Where a key stands, or else the mapping.
    pub fn place(&self, name: &str) -> Place {
        self.entries.iter().find(|(key, _)| key.name == name).map_or(self.at, |(key, _)| key.at)
    }
}

impl<'a> Decoder<'a> {
    /// A reader of `source`'s nodes.
    pub fn new(source: &'a Source, problems: &'a mut Vec<Problem>) -> Self {
        Self { source, problems }
    }

    /// Tells a problem; the caller may add a hint.
    pub fn problem(&mut self, at: Place, code: &'static str, message: impl Into<String>) {
        self.problems.push(Problem::at(self.source, at, code, message));
    }

    /// Tells a problem with what to do about it.
    pub fn problem_hint(
        &mut self,
        at: Place,
        code: &'static str,
        message: impl Into<String>,
        hint: Option<impl Into<String>>,
    ) {
        let mut problem = Problem::at(self.source, at, code, message);
        problem.hint = hint.map(Into::into);
        self.problems.push(problem);
    }

    fn wrong_type(&mut self, node: &Node, what: &str, wanted: &str) {
        let hint = Some(match (&node.value, wanted) {
            (Value::Null, "a mapping") => "write `{}` for an empty one",
            (Value::Null, "a list") => "write `[]` for an empty one",
            (Value::Bool(_) | Value::Number(_), "text") => "put it in quotes",
            (_, "a mapping") => "write lines of `key: value`",
            (_, "a list") => "begin each item with `- `, or put them in `[ ]`",
            (_, "true or false") => "write `true` or `false`, without quotes",
            (_, "text") => "write one text",
            _ => "write it as one value",
        });
        self.problem_hint(node.at, "wrong-type", format!("{what} must be {wanted}, not {}", node.kind()), hint);
    }

    /// A mapping with these keys and no others.
    pub fn fields<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> Option<Fields<'n>> {
        let fields = self.entries(node, what)?;
        for (key, _) in &fields.entries {
            if !known.contains(&key.name.as_str()) {
                let hint = suggest(&key.name, known.iter().copied());
                self.problem_hint(key.at, "unknown-key", format!("{what} has no key `{}`", key.name), hint);
            }
        }
        Some(fields)
    }

    /// A mapping from names of the user's choice.
    pub fn names<'n>(&mut self, node: &'n Node, what: &str) -> Vec<(&'n Key, &'n Node)> {
        self.entries(node, what).map(|fields| fields.entries).unwrap_or_default()
    }

    fn entries<'n>(&mut self, node: &'n Node, what: &str) -> Option<Fields<'n>> {
        let Value::Map(written) = &node.value else {
            self.wrong_type(node, what, "a mapping");
            return None;
        };
        let mut entries: Vec<(&Key, &Node)> = Vec::with_capacity(written.len());
        let mut seen = std::collections::HashMap::with_capacity(written.len());
        for (key, value) in written {
            if let Some(first) = seen.get(key.name.as_str()) {
                let message = format!("the key `{}` is given twice (first in line {first})", key.name);
                self.problem_hint(key.at, "duplicate-key", message, Some("keep one of them"));
                continue;
            }
            seen.insert(key.name.as_str(), key.at.line);
            entries.push((key, value));
        }
        Some(Fields { entries, at: node.at })
    }

    /// A list's items.
    pub fn list<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        if let Value::List(items) = &node.value {
            return items;
        }
        self.wrong_type(node, what, "a list");
        &[]
    }

    /// Text that is not empty.
    pub fn text(&mut self, node: &Node, what: &str) -> Option<At<String>> {
        match &node.value {
            Value::Text(text) if text.is_empty() => {
                self.problem_hint(
                    node.at,
                    "bad-value",
                    format!("{what} may not be empty"),
                    Some("write one, or delete it"),
                );
                None
            }
            _ => self.any_text(node, what),
        }
    }

    /// Text, empty too.
    pub fn any_text(&mut self, node: &Node, what: &str) -> Option<At<String>> {
        if let Value::Text(text) = &node.value {
            return Some(At { value: text.clone(), at: node.at });
        }
        self.wrong_type(node, what, "text");
        None
    }

    /// `true` or `false`.
    pub fn flag(&mut self, node: &Node, what: &str) -> Option<bool> {
        if let Value::Bool(flag) = node.value {
            return Some(flag);
        }
        self.wrong_type(node, what, "true or false");
        None
    }

    /// A whole number within bounds, both included.
    pub fn integer(&mut self, node: &Node, what: &str, least: u64, most: u64) -> Option<u64> {
        let range = if most == MOST { format!("from {least} on") } else { format!("from {least} to {most}") };
        let hint = Some(format!("write an integer {range}"));
        let Value::Number(number) = &node.value else {
            let message = format!("{what} must be an integer, not {}", node.kind());
            self.problem_hint(node.at, "wrong-type", message, hint);
            return None;
        };
        match units::whole(number) {
            Some(n) if (least..=most).contains(&n) => Some(n),
            _ => {
                self.problem_hint(node.at, "bad-value", format!("{what} can't be {number}"), hint);
                None
            }
        }
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&str, T)]) -> Option<At<T>> {
        let text = self.any_text(node, what)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(At { value: *value, at: node.at });
        }
        let hint = suggest(&text.value, words.iter().map(|(word, _)| *word));
        self.problem_hint(node.at, "bad-value", format!("{what} can't be `{}`", text.value), hint);
        None
    }

    /// A duration such as `250ms`, `2s`, `1m`.
    pub fn duration(&mut self, node: &Node, what: &str) -> Option<Duration> {
        let text = self.scalar_text(node, what, "a duration such as `2s`")?;
        match units::duration(&text) {
            Ok(duration) => Some(duration),
            Err(why) => {
                self.unit(node.at, "bad-duration", what, &text, &why, "s");
                None
            }
        }
    }

    /// A size such as `256KiB`, in bytes.
    pub fn size(&mut self, node: &Node, what: &str) -> Option<u64> {
        let text = self.scalar_text(node, what, "a size such as `256KiB`")?;
        match units::size(&text) {
            Ok(size) => Some(size),
            Err(why) => {
                self.unit(node.at, "bad-size", what, &text, &why, "B");
                None
            }
        }
    }

    /// What [`units`] says ends with what to do; for what people write most something sharper.
    fn unit(&mut self, at: Place, code: &'static str, what: &str, text: &str, why: &str, unit: &str) {
        let (why, hint) = why.strip_suffix(')').and_then(|why| why.split_once(" (")).unwrap_or((why, ""));
        let hint = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("add a unit, as in `{text}{unit}`")
        } else {
            match text.strip_suffix(['B', 'b']).and_then(|text| text.strip_suffix(['K', 'k', 'M', 'm', 'G', 'g'])) {
                Some(number) if unit == "B" && !number.is_empty() => {
                    let letter = text[number.len()..=number.len()].to_uppercase();
                    format!("did you mean `{number}{letter}iB`?")
                }
                _ => hint.to_owned(),
            }
        };
        self.problem_hint(at, code, format!("{what}: {why}"), Some(hint));
    }

    fn scalar_text(&mut self, node: &Node, what: &str, wanted: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => {
                self.wrong_type(node, what, wanted);
                None
            }
        }
    }
}
