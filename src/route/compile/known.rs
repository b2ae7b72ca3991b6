//! What the templates of a route can name.

use serde_json::Value as Json;

use crate::route::{
    file::RouteFile,
    params::{Kind, Params},
    problem::suggest,
    table::{Body, Segment},
    template::From,
};

/// Keywords that may allow anything: what can't be ruled out is let through.
const OPEN: [&str; 9] = [
    "$ref",
    "$dynamicRef",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "patternProperties",
    "unevaluatedProperties",
    "dependentSchemas",
];

/// What a template of a route can name.
pub(super) struct Known<'a> {
    pub written: &'a RouteFile,
    pub path: &'a Params,
    pub query: &'a Params,
    pub header: &'a Params,
    pub body: Option<&'a Body>,
    pub segments: Option<&'a [Segment]>,
}

/// What is wrong, and what to do about it.
type Wrong = (String, Option<String>);

impl Known<'_> {
    /// Whether a reference names something that can become text.
    pub fn check(&self, from: &From) -> Result<(), Wrong> {
        let (params, written, name, group) = match from {
            From::Id | From::Route => return Ok(()),
            From::Body(path) => return self.check_body(path),
            From::Path(name) => (self.path, &self.written.path_params, name, "path"),
            From::Query(name) => (self.query, &self.written.query_params, name, "query"),
            From::Header(name) => (self.header, &self.written.header_params, name, "header"),
        };
        if let Some(param) = params.0.iter().find(|param| param.name == *name) {
            if matches!(param.kind, Kind::Array(_)) {
                let hint = "name another parameter: which of several values would it be?".to_owned();
                return Err((format!("`{{{from}}}` is a list, and a list can't become text"), Some(hint)));
            }
            return Ok(());
        }
        // What is declared and wrong is told where it stands; so is what the path has and nobody declares.
        let declared = written.iter().any(|(key, _)| key.name == *name || key.name.eq_ignore_ascii_case(name));
        let in_path = |segments: &[Segment]| {
            segments.iter().any(|s| matches!(s, Segment::Param(n) | Segment::Rest(n) if n == name))
        };
        if declared || (group == "path" && self.segments.is_none_or(in_path)) {
            return Ok(());
        }
        let hint = suggest(name, params.0.iter().map(|param| param.name.as_str()));
        let hint = hint.or(Some(match group {
            "path" => format!("put `{{{name}}}` into the path and declare it under `params.path`"),
            group => format!("declare it under `params.{group}`"),
        }));
        Err((format!("`{{{from}}}`: this route has no {group} parameter `{name}`"), hint))
    }

    fn check_body(&self, path: &[String]) -> Result<(), Wrong> {
        let shown = path.join(".");
        let Some(body) = self.body else {
            return Err((format!("`{{body.{shown}}}`: this route takes no body"), Some("give it `body:`".into())));
        };
        if !body.json {
            let message = format!("`{{body.{shown}}}`: a body of type `{}` has no fields", body.content_type);
            return Err((message, Some("name a parameter instead, or take JSON".into())));
        }
        let Some(schema) = &body.schema else { return Ok(()) };
        let mut here = schema.part();
        for name in path {
            here = here.follow();
            if OPEN.iter().any(|key| here.json.get(*key).is_some()) {
                return Ok(());
            }
            if let Some(kinds) = kinds(here.json)
                && !kinds.contains(&"object")
            {
                let message =
                    format!("`{{body.{shown}}}`: `{name}` is looked for in what is of type {}", kinds.join(" or "));
                return Err((message, Some("name a field that the schema has".into())));
            }
            let properties = here.json.get("properties").and_then(Json::as_object);
            let Some(next) = here.inner(&["properties", name]).or_else(|| here.inner(&["additionalProperties"])) else {
                return Ok(());
            };
            if next.json == &Json::Bool(false) {
                let hint = properties.and_then(|properties| suggest(name, properties.keys().map(String::as_str)));
                let hint = hint.or(Some("add it to the schema's `properties`, or name another field".into()));
                return Err((format!("`{{body.{shown}}}`: the schema rules out `{name}`"), hint));
            }
            here = next;
        }
        let here = here.follow();
        if here.json == &Json::Bool(false) {
            return Err((format!("`{{body.{shown}}}`: the schema rules it out"), Some("name another field".into())));
        }
        match kinds(here.json) {
            Some(kinds) if kinds.iter().all(|kind| matches!(*kind, "object" | "array" | "null")) => {
                let message = format!("`{{body.{shown}}}` is of type {} and can't become text", kinds.join(" or "));
                Err((message, Some("name a field that is text, a number or a boolean".into())))
            }
            _ => Ok(()),
        }
    }
}

/// The types that a schema names, if it names any.
fn kinds(schema: &Json) -> Option<Vec<&str>> {
    match schema.get("type")? {
        Json::String(kind) => Some(vec![kind]),
        Json::Array(kinds) => Some(kinds.iter().filter_map(Json::as_str).collect()),
        _ => None,
    }
}
