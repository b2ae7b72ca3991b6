//! An OpenAPI document: its version, its references, and the place of everything in it.

use std::cell::RefCell;

use serde_json::{Map, Value as Json};

use crate::route::{
    problem::{Place, Problem, Source},
    yaml::{self, Node},
};

/// References that lead to references.
const MOST_HOPS: usize = 16;

/// A document of a version that is read.
pub struct Document {
    source: Source,
    root: Node,
    /// The whole of it.
    pub json: Json,
    /// 3.0, whose schemas are a dialect of their own; else 3.1.
    pub is_3_0: bool,
    warnings: RefCell<Vec<Problem>>,
}

impl Document {
    /// Reads a document, or says why it is none that is read.
    pub fn read(source: Source) -> Result<Self, Box<Problem>> {
        let root = yaml::parse(&source)?;
        let json = root.to_json();
        let version = match &json["openapi"] {
            Json::String(version) => version.clone(),
            Json::Number(version) => version.to_string(),
            _ => String::new(),
        };
        let is = |minor: &str| version == minor || version.starts_with(&format!("{minor}."));
        let refused = |pointer: &str, message: String, hint: &str| {
            Err(Box::new(Problem::at(&source, root.place_of(pointer), "not-openapi", message).hint(hint)))
        };
        if let Some(version) = json.get("swagger") {
            let version = version.as_str().map_or_else(|| version.to_string(), str::to_owned);
            let message = format!("this is Swagger {version}, and OpenAPI 3.0 and 3.1 are read");
            return refused("/swagger", message, "convert it first, with `npx swagger2openapi` for example");
        }
        if json.get("asyncapi").is_some() {
            return refused("/asyncapi", "this is AsyncAPI, and OpenAPI is read".into(), "name an OpenAPI document");
        }
        if version.is_empty() {
            let hint = "an OpenAPI document begins with `openapi: 3.1.0` (or 3.0.3)";
            return refused("", "this is no OpenAPI document: it has no `openapi`".into(), hint);
        }
        if !is("3.0") && !is("3.1") {
            let message = format!("this is OpenAPI {version}, and 3.0 and 3.1 are read");
            return refused("/openapi", message, "name a document of one of these versions");
        }
        if json["paths"].as_object().is_none_or(Map::is_empty) {
            return refused("/paths", "this document has no `paths`: nothing to import".into(), "add a path to it");
        }
        let is_3_0 = is("3.0");
        Ok(Self { source, root, json, is_3_0, warnings: RefCell::default() })
    }

    /// Tells what could not be taken over.
    pub fn warn(&self, pointer: &str, code: &'static str, message: impl Into<String>) {
        let place: Place = self.root.place_of(pointer);
        self.warnings.borrow_mut().push(Problem::at(&self.source, place, code, message).warning());
    }

    /// Everything that was told, by place.
    pub fn warnings(self) -> Vec<Problem> {
        let mut warnings = self.warnings.into_inner();
        warnings.sort_by_key(|problem| (problem.line, problem.column));
        warnings.dedup();
        warnings
    }

    /// What stands at a JSON Pointer.
    pub fn at(&self, pointer: &str) -> &Json {
        self.json.pointer(pointer).unwrap_or(&Json::Null)
    }

    /// The pointer of what a place stands for: itself, or what its `$ref` leads to in the end. What leads nowhere is told.
    pub fn follow(&self, pointer: &str) -> Option<String> {
        let mut here = pointer.to_owned();
        for _ in 0..MOST_HOPS {
            let Some(target) = self.at(&here).get("$ref").and_then(Json::as_str) else { return Some(here) };
            here = self.target(target, &here)?;
        }
        self.warn(pointer, "bad-reference", "references here lead to references, round and round");
        None
    }

    /// The pointer that a `$ref` names; what leads nowhere is told.
    pub fn target(&self, target: &str, at: &str) -> Option<String> {
        let place = format!("{at}/$ref");
        let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
        if !file.is_empty() {
            let message = format!("`{target}` is in another file, which is not read: it is left out");
            self.warn(&place, "other-file", message);
            return None;
        }
        let pointer = percent_encoding::percent_decode_str(fragment).decode_utf8_lossy().into_owned();
        if pointer.starts_with('/') && self.json.pointer(&pointer).is_some() {
            return Some(pointer);
        }
        self.warn(&place, "bad-reference", format!("`{target}` leads nowhere: it is left out"));
        None
    }
}

/// A JSON Pointer one step further.
pub fn join(pointer: &str, token: &str) -> String {
    format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
}
