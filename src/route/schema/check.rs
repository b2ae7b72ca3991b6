//! What is told of a schema before it is built: its keywords one by one, each at its place.

use jsonschema::ValidationError;
use serde_json::Value as Json;

use crate::route::{
    problem::{Place, Problem, Source, did_you_mean, meant, suggest},
    validator::{
        Compiled, Pattern,
        keywords::{Holds, holds},
        resources::Spot,
    },
    yaml::{Node, Value},
};

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

/// Everything that is told of one document by itself.
pub(super) fn document(source: &Source, tree: &Node, json: &Json, problems: &mut Vec<Problem>) {
    duplicates(source, tree, problems);
    match jsonschema::meta::validator_for(json) {
        Ok(meta) => {
            for error in meta.iter_errors(json).take(10) {
                problems.push(no_schema(source, tree, json, &error));
            }
        }
        Err(_) => problems.push(
            Problem::at(
                source,
                tree.place_of("/$schema"),
                "schema-invalid",
                "this version of JSON Schema is not known",
            )
            .hint("use `https://json-schema.org/draft/2020-12/schema`"),
        ),
    }
    keywords(source, tree, json, problems);
}

/// Schemas that lead back to themselves without going into the value: checking would not end.
pub(super) fn endless<'s>(
    compiled: &Compiled,
    place: &mut dyn FnMut(&Spot) -> Option<(&'s Source, &'s Node)>,
    problems: &mut Vec<Problem>,
) {
    for spot in compiled.endless() {
        let Some((source, tree)) = place(spot) else { continue };
        let message = "this schema refers to itself without going into the value, so checking would never end";
        let at = tree.place_of(&spot.pointer);
        problems.push(
            Problem::at(source, at, "schema-invalid", message)
                .hint("refer to it from within `properties` or `items`, or delete the `$ref`"),
        );
    }
}

/// An `$id` that another schema has already.
pub(super) fn repeated_id(source: &Source, tree: &Node, spot: &Spot) -> Problem {
    let at = tree.place_of(&format!("{}/$id", spot.pointer));
    Problem::at(source, at, "schema-invalid", "another schema has this `$id` already")
        .hint("give each schema an `$id` of its own, or none")
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
fn keywords(source: &Source, tree: &Node, json: &Json, problems: &mut Vec<Problem>) {
    let draft = jsonschema::Draft::default().detect(json);
    walk(tree, &mut |key, node| match (key, &node.value) {
        ("pattern", Value::Text(regex)) => pattern(source, regex, node.at, problems),
        ("patternProperties", Value::Map(entries)) => {
            for (key, _) in entries {
                pattern(source, &key.name, key.at, problems);
            }
        }
        ("format", Value::Text(name)) if !jsonschema::options().is_known_format(draft, name) => {
            let message = format!("the format `{name}` is not known here: it describes the value, and is not checked");
            let meant = did_you_mean(name, FORMATS.iter().copied()).map(meant);
            let hint = meant.unwrap_or_else(|| "add a `pattern` where the value is to be checked".into());
            problems.push(Problem::at(source, node.at, "unknown-format", message).hint(hint).warning());
        }
        _ => {}
    });
}

/// What the meta-schema says against a schema.
fn no_schema(source: &Source, tree: &Node, json: &Json, error: &ValidationError<'_>) -> Problem {
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
    /// States that each character of a text may cost: what people write for names and numbers has hundreds.
    const MANY_STATES: usize = 10_000;
    match Pattern::new(regex) {
        None => {
            let message = "this pattern can't be matched in linear time, or is no regular expression";
            let hint = "look-around and back-references are not allowed, and repetitions are bounded by size";
            problems.push(Problem::at(source, at, "schema-pattern", message).hint(hint));
        }
        Some(pattern) if pattern.states() > MANY_STATES => {
            let message = format!("this pattern is slow on long texts: it has {} states", pattern.states());
            let hint = "don't nest repetitions with large bounds; bound the text by `maxLength`";
            problems.push(Problem::at(source, at, "slow-schema", message).hint(hint).warning());
        }
        Some(_) => {}
    }
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
        match (holds(&key.name), &value.value) {
            (Holds::Named, Value::Map(named)) => named.iter().for_each(|(_, node)| visit(node)),
            (Holds::Schemas, Value::Map(_)) => visit(value),
            (Holds::Schemas, Value::List(items)) => items.iter().for_each(&mut *visit),
            _ => {}
        }
    }
}
