//! What is told of a schema before it is built: its keywords one by one, each at its place.

use jsonschema::{PatternOptions, ValidationError};
use serde_json::Value as Json;

use crate::route::{
    problem::{Place, Problem, Source, suggest},
    yaml::{Node, Value},
};

/// Keywords whose values are data, not schemas.
const DATA: [&str; 5] = ["const", "enum", "default", "examples", "example"];
/// Keywords whose values are schemas by names of the author's choice.
const NAMED: [&str; 6] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];
/// Formats that are asserted, for a suggestion.
const FORMATS: [&str; 17] = [
    "date",
    "date-time",
    "time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uri",
    "uri-reference",
    "uri-template",
    "iri",
    "iri-reference",
    "uuid",
    "json-pointer",
    "relative-json-pointer",
    "regex",
];

/// A `$ref`, with what it is relative to.
pub(super) struct Reference {
    pub target: String,
    pub at: Place,
    pub base: String,
}

/// The address that relative ones in a document are relative to: its own, or its `$id`.
pub(super) fn base(own: &str, json: &Json) -> String {
    let id = json.get("$id").and_then(Json::as_str).unwrap_or("");
    joined(own, id)
}

fn joined(base: &str, id: &str) -> String {
    let address = id.split('#').next().unwrap_or("");
    if address.is_empty() {
        return base.to_owned();
    }
    url::Url::parse(base).and_then(|base| base.join(address)).map_or_else(|_| base.to_owned(), String::from)
}

/// Every reference of a schema.
pub(super) fn references(tree: &Node, base: &str) -> Vec<Reference> {
    let mut found = Vec::new();
    collect(tree, base, &mut found);
    found
}

fn collect(node: &Node, base: &str, found: &mut Vec<Reference>) {
    let id = match &node.value {
        Value::Map(entries) => entries.iter().find(|(key, _)| key.name == "$id").map(|(_, node)| &node.value),
        _ => None,
    };
    let base = match id {
        Some(Value::Text(id)) => joined(base, id),
        _ => base.to_owned(),
    };
    each(node, &mut |key, value| {
        if let (true, Value::Text(target)) = (matches!(key, "$ref" | "$dynamicRef"), &value.value) {
            found.push(Reference { target: target.clone(), at: value.at, base: base.clone() });
        }
    });
    inner(node, &mut |node| collect(node, &base, found));
}

/// Whether a JSON Pointer, as a URL's fragment has it, leads to something.
pub(super) fn leads_somewhere(json: &Json, fragment: &str) -> bool {
    let pointer = percent_encoding::percent_decode_str(fragment).decode_utf8_lossy();
    json.pointer(&pointer).is_some()
}

/// References to the definitions of a document.
pub(super) fn definitions(json: &Json) -> Vec<String> {
    let names = |group: &str| -> Vec<String> {
        let object = json.get(group).and_then(Json::as_object);
        object.map(|object| object.keys().map(|name| format!("#/{group}/{name}")).collect()).unwrap_or_default()
    };
    [names("$defs"), names("definitions")].concat()
}

/// Patterns are matched in linear time, formats are known.
pub(super) fn keywords(source: &Source, tree: &Node, json: &Json, problems: &mut Vec<Problem>) {
    let draft = jsonschema::Draft::default().detect(json);
    walk(tree, &mut |key, node| match (key, &node.value) {
        ("pattern", Value::Text(regex)) => pattern(source, regex, node.at, problems),
        ("patternProperties", Value::Map(entries)) => {
            for (key, _) in entries {
                pattern(source, &key.name, key.at, problems);
            }
        }
        ("format", Value::Text(name)) if !jsonschema::options().is_known_format(draft, name) => {
            let mut problem =
                Problem::at(source, node.at, "schema-invalid", format!("`{name}` is no format that is checked here"));
            problem.hint = suggest(name, FORMATS.iter().copied());
            problems.push(problem);
        }
        _ => {}
    });
}

/// What the meta-schema says against a schema.
pub(super) fn no_schema(source: &Source, tree: &Node, json: &Json, error: &ValidationError<'_>) -> Problem {
    const TYPES: [&str; 7] = ["string", "number", "integer", "object", "array", "boolean", "null"];
    let pointer = error.instance_path().as_str();
    let place = tree.place_of(pointer);
    let keyword = pointer.rsplit('/').find(|token| token.parse::<usize>().is_err()).unwrap_or_default();
    let told = |message: String| Problem::at(source, place, "schema-invalid", message);
    match json.pointer(pointer) {
        Some(Json::String(word)) if keyword == "type" => {
            let mut problem = told(format!("`{word}` is no type of JSON Schema"));
            problem.hint = suggest(word, TYPES.iter().copied());
            problem
        }
        _ if keyword.is_empty() => {
            told("a schema is a mapping, or true or false".into()).hint("write `{}` to allow anything")
        }
        _ => {
            let masked = error.masked().to_string();
            let why = masked.strip_prefix("value ").unwrap_or(&masked);
            told(format!("`{keyword}` is not as JSON Schema has it: it {why}"))
                .hint(format!("correct `{keyword}`, or delete it"))
        }
    }
}

fn pattern(source: &Source, regex: &str, at: Place, problems: &mut Vec<Problem>) {
    let schema = serde_json::json!({ "pattern": regex });
    if jsonschema::options().with_pattern_options(PatternOptions::regex()).build(&schema).is_err() {
        let message = "this pattern can't be matched in linear time, or is no regular expression";
        let hint = "look-around and back-references are not allowed";
        problems.push(Problem::at(source, at, "schema-pattern", message).hint(hint));
    }
}

/// What a library says of itself after its first sentence is no help to who writes a schema.
pub(super) fn first_sentence(text: &str) -> &str {
    text.split(". ").next().unwrap_or(text)
}

/// A key given twice in a schema: JSON readers differ in which one counts.
pub(super) fn duplicates(source: &Source, node: &Node, problems: &mut Vec<Problem>) {
    match &node.value {
        Value::Map(entries) => {
            let mut seen = std::collections::HashMap::new();
            for (key, value) in entries {
                if let Some(first) = seen.insert(key.name.as_str(), key.at.line) {
                    let message = format!("the key `{}` is given twice (first in line {first})", key.name);
                    problems.push(Problem::at(source, key.at, "duplicate-key", message).hint("keep one of them"));
                }
                duplicates(source, value, problems);
            }
        }
        Value::List(items) => items.iter().for_each(|item| duplicates(source, item, problems)),
        _ => {}
    }
}

/// Visits every keyword of a schema and of those within it.
fn walk(node: &Node, visit: &mut impl FnMut(&str, &Node)) {
    each(node, visit);
    inner(node, &mut |node| walk(node, visit));
}

/// The keywords of one schema.
fn each(node: &Node, visit: &mut impl FnMut(&str, &Node)) {
    if let Value::Map(entries) = &node.value {
        for (key, value) in entries {
            visit(&key.name, value);
        }
    }
}

/// The schemas that stand in one.
fn inner(node: &Node, visit: &mut dyn FnMut(&Node)) {
    let Value::Map(entries) = &node.value else { return };
    for (key, value) in entries {
        let name = key.name.as_str();
        match &value.value {
            _ if DATA.contains(&name) => {}
            Value::Map(named) if NAMED.contains(&name) => named.iter().for_each(|(_, node)| visit(node)),
            Value::Map(_) => visit(value),
            Value::List(items) => items.iter().for_each(&mut *visit),
            _ => {}
        }
    }
}
