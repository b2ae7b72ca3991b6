//! Schemas of a document as JSON Schema 2020-12, each that is referred to as a file of its own.

use std::collections::BTreeMap;

use jsonschema::{Draft, PatternOptions};
use serde_json::{Map, Value as Json, json};

use super::document::{Document, join};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Formats of OpenAPI's own: they say how a value is stored, and check nothing.
const OF_OPENAPI: [&str; 9] =
    ["int32", "int64", "float", "double", "byte", "binary", "password", "base64", "base64url"];

/// Keywords whose value is a mapping of schemas, a list of them, or one.
const MAPS: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
const LISTS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const ONES: [&str; 12] = [
    "items",
    "additionalProperties",
    "not",
    "contains",
    "propertyNames",
    "if",
    "then",
    "else",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
    "additionalItems",
];

/// The schemas of a table in the making.
pub struct Schemas<'d> {
    doc: &'d Document,
    /// File name by the pointer that it is made from.
    names: BTreeMap<String, String>,
    /// What is named and not made yet.
    waiting: Vec<(String, String)>,
    files: BTreeMap<String, Json>,
}

impl<'d> Schemas<'d> {
    /// None yet.
    pub fn new(doc: &'d Document) -> Self {
        Self { doc, names: BTreeMap::new(), waiting: Vec::new(), files: BTreeMap::new() }
    }

    /// The file of the schema at a pointer; one that is only a reference is its target's. `name` is for one that has none.
    pub fn file(&mut self, pointer: &str, name: &str) -> Option<String> {
        let target = self.doc.follow(pointer)?;
        let name = if target == pointer { name.to_owned() } else { named(&target) };
        Some(self.file_of(&target, &name))
    }

    fn file_of(&mut self, pointer: &str, name: &str) -> String {
        if let Some(file) = self.names.get(pointer) {
            return file.clone();
        }
        let slug: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
        let slug = slug.trim_matches(['-', '.']);
        // `routes.schema.json` is the table's own; and there are file systems on which `Pet` and `pet` are one.
        let slug = if slug.is_empty() || slug.eq_ignore_ascii_case("routes.schema") { "schema" } else { slug };
        let mut file = format!("{slug}.json");
        let mut number = 2;
        while self.names.values().any(|taken| taken.eq_ignore_ascii_case(&file)) {
            file = format!("{slug}-{number}.json");
            number += 1;
        }
        self.names.insert(pointer.to_owned(), file.clone());
        self.waiting.push((pointer.to_owned(), file.clone()));
        file
    }

    /// All files by name. What refers to each other, in circles too, is there.
    pub fn finish(mut self) -> BTreeMap<String, Json> {
        while let Some((pointer, file)) = self.waiting.pop() {
            let converted = self.convert(self.doc.at(&pointer), &pointer);
            let mut schema = Map::from_iter([("$schema".to_owned(), DIALECT.into())]);
            match converted {
                Json::Object(members) => schema.extend(members),
                Json::Bool(false) => drop(schema.insert("not".into(), json!({}))),
                _ => {}
            }
            let mut schema = Json::Object(schema);
            self.repair(&mut schema, &pointer);
            self.files.insert(file, schema);
        }
        self.files
    }

    /// A schema as 2020-12 has it.
    pub fn convert(&mut self, schema: &Json, pointer: &str) -> Json {
        let Json::Object(written) = schema else {
            return if schema.is_boolean() { schema.clone() } else { Json::Bool(true) };
        };
        let reference = written.get("$ref").and_then(Json::as_str);
        if let (Some(target), true) = (reference, self.doc.is_3_0) {
            // In 3.0 what stands beside a `$ref` is not there.
            return self.reference(target, pointer).unwrap_or_else(|| json!({}));
        }
        let mut out = Map::new();
        for (key, value) in written {
            self.keyword(key, value, &join(pointer, key), pointer, &mut out);
        }
        // 3.0 has these flags, and there are documents of 3.1 that still do.
        exclusive(&mut out, written, "exclusiveMinimum", "minimum");
        exclusive(&mut out, written, "exclusiveMaximum", "maximum");
        if written.get("nullable") == Some(&Json::Bool(true)) {
            out = nullable(out);
        }
        one_way_only(&mut out, written);
        Json::Object(out)
    }

    /// The same without what stands in other schemas: combinations and items stay as they are written.
    pub fn convert_shallow(&mut self, schema: &Json, pointer: &str) -> Json {
        let (mut own, mut inner) = (schema.clone(), Map::new());
        if let Some(members) = own.as_object_mut() {
            for key in ["anyOf", "oneOf", "allOf", "items"] {
                inner.extend(members.shift_remove(key).map(|value| (key.to_owned(), value)));
            }
        }
        let mut converted = self.convert(&own, pointer);
        if let Some(members) = converted.as_object_mut() {
            members.extend(inner);
        }
        converted
    }

    fn reference(&mut self, target: &str, pointer: &str) -> Option<Json> {
        let target = self.doc.target(target, pointer)?;
        let file = self.file_of(&target, &named(&target));
        Some(json!({ "$ref": file }))
    }

    fn keyword(&mut self, key: &str, value: &Json, at: &str, schema: &str, out: &mut Map<String, Json>) {
        let doc = self.doc;
        let mut put = |key: &str, value: Json| drop(out.insert(key.to_owned(), value));
        match (key, value) {
            ("$ref", Json::String(target)) => {
                if let Some(Json::Object(reference)) = self.reference(target, schema) {
                    out.extend(reference);
                }
            }
            ("nullable" | "exclusiveMinimum" | "exclusiveMaximum", Json::Bool(_))
            | ("discriminator" | "xml" | "externalDocs" | "$schema", _) => {}
            (key, _) if key.starts_with("x-") => {}
            ("$id" | "$dynamicRef" | "$recursiveRef" | "$vocabulary", _) => {
                doc.warn(at, "left-out", format!("`{key}` is left out: schemas name each other by file here"));
            }
            ("example", example) => put("examples", json!([example])),
            ("examples", Json::Object(_)) => {}
            ("format", Json::String(format)) if OF_OPENAPI.contains(&format.as_str()) => {}
            ("format", Json::String(format)) if !is_known_format(format) => {
                doc.warn(at, "left-out", format!("the format `{format}` is not known and is left out"));
                put("$comment", format!("left out: format {format}").into());
            }
            ("pattern", Json::String(pattern)) if !is_linear(pattern) => {
                let message = "this pattern can't be matched in linear time and is left out";
                doc.warn(at, "left-out", message);
                put("$comment", format!("left out: pattern {pattern}").into());
            }
            ("items", Json::Array(_)) => {
                let items = self.list(value, at);
                out.insert("prefixItems".into(), items);
            }
            (key, Json::Object(members)) if MAPS.contains(&key) => {
                let mut converted = Map::new();
                for (name, member) in members {
                    if key == "patternProperties" && !is_linear(name) {
                        let message = "this pattern can't be matched in linear time and is left out";
                        doc.warn(&join(at, name), "left-out", message);
                        continue;
                    }
                    converted.insert(name.clone(), self.convert(member, &join(at, name)));
                }
                out.insert(key.to_owned(), converted.into());
            }
            (key, Json::Array(_)) if LISTS.contains(&key) => {
                let converted = self.list(value, at);
                out.insert(key.to_owned(), converted);
            }
            (key, Json::Object(_)) if ONES.contains(&key) => {
                let converted = self.convert(value, at);
                out.insert(key.to_owned(), converted);
            }
            (key, value) => put(key, value.clone()),
        }
    }

    fn list(&mut self, schemas: &Json, at: &str) -> Json {
        let schemas = schemas.as_array().map(Vec::as_slice).unwrap_or_default();
        schemas.iter().enumerate().map(|(index, schema)| self.convert(schema, &join(at, &index.to_string()))).collect()
    }

    /// Takes away what no JSON Schema has, so that the rest can be used.
    pub fn repair(&self, schema: &mut Json, pointer: &str) {
        const MOST: usize = 200;
        for _ in 0..MOST {
            let Ok(meta) = jsonschema::meta::validator_for(schema) else { return };
            let Some((at, why)) = meta
                .iter_errors(schema)
                .next()
                .map(|error| (error.instance_path().to_string(), error.masked().to_string()))
            else {
                return;
            };
            self.doc.warn(
                &format!("{pointer}{at}"),
                "left-out",
                format!("this is no JSON Schema and is left out: {why}"),
            );
            let (parent, token) = at.rsplit_once('/').unwrap_or(("", ""));
            let token = token.replace("~1", "/").replace("~0", "~");
            match schema.pointer_mut(parent) {
                Some(Json::Object(members)) if !at.is_empty() => drop(members.shift_remove(&token)),
                Some(Json::Array(items)) if token.parse::<usize>().is_ok_and(|index| index < items.len()) => {
                    items.remove(token.parse().unwrap_or_default());
                }
                _ => *schema = json!({}),
            }
        }
    }
}

fn is_linear(pattern: &str) -> bool {
    jsonschema::options().with_pattern_options(PatternOptions::regex()).build(&json!({ "pattern": pattern })).is_ok()
}

fn is_known_format(format: &str) -> bool {
    jsonschema::options().is_known_format(Draft::default(), format)
}

/// A name for what stands at a pointer: `Pet`, `Pet.properties.name`.
fn named(pointer: &str) -> String {
    let name = pointer.strip_prefix("/components/schemas/").unwrap_or(pointer.trim_start_matches('/'));
    name.replace("~1", "-").replace('/', ".")
}

/// A flag says that a bound is excluded.
fn exclusive(out: &mut Map<String, Json>, written: &Map<String, Json>, flag: &str, bound: &str) {
    if written.get(flag) == Some(&Json::Bool(true))
        && let Some(value) = out.shift_remove(bound)
    {
        out.insert(flag.to_owned(), value);
    }
}

/// A flag says that `null` is a value too.
fn nullable(mut schema: Map<String, Json>) -> Map<String, Json> {
    if let Some(Json::Array(values)) = schema.get_mut("enum")
        && !values.contains(&Json::Null)
    {
        values.push(Json::Null);
    }
    let combines = LISTS.iter().any(|key| schema.contains_key(*key)) || schema.contains_key("$ref");
    match schema.get_mut("type") {
        Some(kind @ Json::String(_)) => {
            *kind = json!([kind.take(), "null"]);
            schema
        }
        None if combines => Map::from_iter([("anyOf".to_owned(), json!([schema, { "type": "null" }]))]),
        _ => schema,
    }
}

/// What is only in requests, or only in answers, can't be required of both.
fn one_way_only(out: &mut Map<String, Json>, written: &Map<String, Json>) {
    let Some(properties) = written.get("properties") else { return };
    let one_way = |name: &Json| {
        let property = name.as_str().and_then(|name| properties.get(name));
        property.is_some_and(|property| property["readOnly"] == true || property["writeOnly"] == true)
    };
    if let Some(Json::Array(required)) = out.get_mut("required") {
        required.retain(|name| !one_way(name));
        if required.is_empty() {
            out.shift_remove("required");
        }
    }
}
