//! JSON Schemas of a table: the files of `schemas/` and the inline ones, checked whole before they are used.
//! Offline and in linear time: no reference leaves `schemas/`, no pattern backtracks.

use std::{collections::BTreeMap, fmt, sync::Arc};

use jsonschema::{PatternOptions, Retrieve, Uri, Validator};
use serde_json::Value as Json;

use super::{
    problem::{Place, Problem, Source, suggest},
    source::Files,
    yaml::{self, Node, Value},
};

/// A schema that is ready for use.
#[derive(Clone)]
pub struct Schema {
    /// The document, for the generated API descriptions.
    pub json: Arc<Json>,
    /// Its name in `schemas/`; `None` for an inline one.
    pub name: Option<String>,
    /// Checks a value against it.
    pub validator: Arc<Validator>,
}

/// What it says, not how it is checked: two that say the same look the same.
impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({:?}, {})", self.name, self.json)
    }
}

/// The schema of the table itself: it stands beside the others for editors, and no route names it.
const OF_THE_TABLE: &str = "routes.schema.json";

/// Every schema file has an address under this one; nothing is ever fetched from it.
pub const BASE: &str = "file:///schemas/";

/// All schemas of a table.
pub struct Schemas {
    files: BTreeMap<String, File>,
    contents: Arc<BTreeMap<String, Json>>,
    ready: BTreeMap<String, Option<Schema>>,
}

struct File {
    source: Source,
    tree: Node,
    used: bool,
}

impl Schemas {
    /// Reads every file of `schemas/`. One that is no JSON is a problem, whether it is used or not.
    pub fn load(files: &dyn Files, problems: &mut Vec<Problem>) -> Self {
        let mut loaded = BTreeMap::new();
        for name in files.schemas().into_iter().filter(|name| name != OF_THE_TABLE) {
            let source = match files.schema(&name) {
                Ok(source) => source,
                Err(refused) => {
                    let source = Source { name: refused.name.into(), text: "".into() };
                    let message = format!("the schema can't be read: {}", refused.why);
                    problems.push(Problem::at(&source, Place::default(), "schema-unreadable", message));
                    continue;
                }
            };
            // JSON first, for its sharper errors; then the tree, for places.
            if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&source.text) {
                let place = Place { line: to_u32(error.line()), column: to_u32(error.column()) };
                let mut why = error.to_string();
                why.truncate(why.rfind(" at line ").unwrap_or(why.len()));
                problems.push(Problem::at(&source, place, "schema-invalid", format!("this is not JSON: {why}")));
                continue;
            }
            match yaml::parse(&source) {
                Ok(tree) => {
                    duplicates(&source, &tree, problems);
                    loaded.insert(name, File { source, tree, used: false });
                }
                Err(problem) => problems.push(Problem { code: "schema-invalid", ..*problem }),
            }
        }
        let contents = loaded.iter().map(|(name, file)| (format!("{BASE}{name}"), file.tree.to_json())).collect();
        Self { files: loaded, contents: Arc::new(contents), ready: BTreeMap::new() }
    }

    /// The schema that a key of the table gives: a file's name, or an inline schema.
    pub fn resolve(&mut self, source: &Source, node: &Node, problems: &mut Vec<Problem>) -> Option<Schema> {
        match &node.value {
            Value::Text(name) => self.file(source, node.at, name, problems),
            Value::Map(_) | Value::Bool(_) => self.inline(source, node, problems),
            _ => {
                let message = format!("a schema is a file's name or a mapping, not {}", node.kind());
                problems.push(Problem::at(source, node.at, "wrong-type", message));
                None
            }
        }
    }

    /// An inline schema.
    pub fn inline(&mut self, source: &Source, node: &Node, problems: &mut Vec<Problem>) -> Option<Schema> {
        duplicates(source, node, problems);
        self.build(source, node, node.to_json(), &format!("{BASE}.inline"), problems)
    }

    /// Every file of `schemas/` by its address under [`BASE`].
    pub fn documents(&self) -> Arc<BTreeMap<String, Json>> {
        self.contents.clone()
    }

    /// Whether `schemas/` holds files that nothing names.
    pub fn warn_unused(&self, problems: &mut Vec<Problem>) {
        for file in self.files.values().filter(|file| !file.used) {
            problems.push(
                Problem::at(&file.source, Place::default(), "unused-schema", "nothing names this schema")
                    .hint("name it in a route's `body.schema`, or delete it")
                    .warning(),
            );
        }
    }

    fn file(&mut self, source: &Source, at: Place, name: &str, problems: &mut Vec<Problem>) -> Option<Schema> {
        if name.contains("://") {
            let problem = Problem::at(source, at, "schema-remote", "a schema can't be fetched from elsewhere");
            problems.push(problem.hint("save it in `schemas/` and give its file name"));
            return None;
        }
        if name.starts_with('/') || name.split('/').any(|part| part == "..") {
            let problem = Problem::at(source, at, "schema-outside", "a schema must stand in `schemas/`");
            problems.push(problem.hint("give its name in there, as in `message.json`"));
            return None;
        }
        if let Some(ready) = self.ready.get(name) {
            return ready.clone();
        }
        let Some(file) = self.files.get_mut(name) else {
            let mut problem = Problem::at(source, at, "schema-missing", format!("there is no `schemas/{name}`"));
            problem.hint = suggest(name, self.files.keys().map(String::as_str));
            // One that is there and is not JSON has been told already.
            if !problems.iter().any(|p| p.file.ends_with(&format!("schemas/{name}"))) {
                problems.push(problem);
            }
            return None;
        };
        file.used = true;
        let (file_source, tree) = (file.source.clone(), file.tree.clone());
        let base = format!("{BASE}{name}");
        let schema = self
            .build(&file_source, &tree, tree.to_json(), &base, problems)
            .map(|schema| Schema { name: Some(name.to_owned()), ..schema });
        self.ready.insert(name.to_owned(), schema.clone());
        schema
    }

    fn build(
        &mut self,
        source: &Source,
        tree: &Node,
        json: Json,
        base: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Schema> {
        let before = problems.len();
        self.check_references(source, tree, base, problems);
        if problems.len() > before {
            return None;
        }
        if let Ok(meta) = jsonschema::meta::validator_for(&json) {
            for error in meta.iter_errors(&json).take(10) {
                let place = tree.place_of(error.instance_path().as_str());
                let message = format!("this is no valid JSON Schema: {}", error.masked());
                problems.push(Problem::at(source, place, "schema-invalid", message));
            }
        }
        check_patterns(source, tree, problems);
        if problems.len() > before {
            return None;
        }
        let built = jsonschema::options()
            .with_base_uri(base)
            .with_retriever(Loaded(self.contents.clone()))
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            .with_pattern_options(PatternOptions::regex())
            .build(&json);
        match built {
            Ok(validator) => Some(Schema { json: Arc::new(json), name: None, validator: Arc::new(validator) }),
            Err(error) => {
                let place = tree.place_of(error.instance_path().as_str());
                problems.push(Problem::at(
                    source,
                    place,
                    "schema-invalid",
                    format!("this schema can't be used: {}", first_sentence(&error.to_string())),
                ));
                None
            }
        }
    }

    /// Every `$ref` names something that is there, in `schemas/`.
    fn check_references(&mut self, source: &Source, tree: &Node, base: &str, problems: &mut Vec<Problem>) {
        let mut references = Vec::new();
        walk(tree, &mut |key, node| {
            if let (true, Value::Text(target)) = (matches!(key, "$ref" | "$dynamicRef"), &node.value) {
                references.push((target.clone(), node.at));
            }
        });
        for (target, at) in references {
            let (address, _) = target.split_once('#').unwrap_or((&target, ""));
            if address.is_empty()
                || address.starts_with("https://json-schema.org/")
                || address.starts_with("http://json-schema.org/")
            {
                continue;
            }
            let resolved = url::Url::parse(base).and_then(|base| base.join(address));
            let resolved = resolved.map(String::from).unwrap_or_default();
            if address.contains("://") {
                let message = format!("`{target}` would have to be fetched, and schemas are used offline");
                problems.push(
                    Problem::at(source, at, "schema-remote", message)
                        .hint("save it in `schemas/` and refer to its file name"),
                );
            } else if address.split('/').any(|part| part == "..") && !resolved.starts_with(BASE)
                || address.starts_with('/')
            {
                let message = format!("`{target}` leads out of `schemas/`");
                problems.push(Problem::at(source, at, "schema-outside", message));
            } else if let Some(file) = resolved.strip_prefix(BASE).and_then(|name| self.files.get_mut(name)) {
                file.used = true;
            } else {
                let mut problem = Problem::at(source, at, "schema-missing", format!("there is no `schemas/{address}`"));
                problem.hint = suggest(address, self.files.keys().map(String::as_str));
                problems.push(problem);
            }
        }
    }
}

/// Every pattern is one that is matched in linear time.
fn check_patterns(source: &Source, tree: &Node, problems: &mut Vec<Problem>) {
    let mut patterns = Vec::new();
    walk(tree, &mut |key, node| match (key, &node.value) {
        ("pattern", Value::Text(pattern)) => patterns.push((pattern.clone(), node.at)),
        ("patternProperties", Value::Map(entries)) => {
            patterns.extend(entries.iter().map(|(key, _)| (key.name.clone(), key.at)));
        }
        _ => {}
    });
    for (pattern, at) in patterns {
        let schema = serde_json::json!({ "pattern": pattern });
        let built = jsonschema::options().with_pattern_options(PatternOptions::regex()).build(&schema);
        if built.is_err() {
            problems.push(
                Problem::at(
                    source,
                    at,
                    "schema-pattern",
                    "this pattern can't be matched in linear time, or is no regular expression",
                )
                .hint("look-around and back-references are not allowed"),
            );
        }
    }
}

/// What a library says of itself after its first sentence is no help to who writes a schema.
fn first_sentence(text: &str) -> &str {
    text.split(". ").next().unwrap_or(text)
}

/// A key given twice in a schema: JSON readers differ in which one counts.
fn duplicates(source: &Source, node: &Node, problems: &mut Vec<Problem>) {
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

/// Visits every key of a schema that can hold a keyword; values under `const`, `enum`, `default`, `examples` are data.
fn walk(node: &Node, visit: &mut impl FnMut(&str, &Node)) {
    match &node.value {
        Value::Map(entries) => {
            for (key, value) in entries {
                if matches!(key.name.as_str(), "const" | "enum" | "default" | "examples" | "example") {
                    continue;
                }
                visit(&key.name, value);
                walk(value, visit);
            }
        }
        Value::List(items) => items.iter().for_each(|item| walk(item, visit)),
        _ => {}
    }
}

/// Hands out what is loaded and nothing else.
struct Loaded(Arc<BTreeMap<String, Json>>);

impl Retrieve for Loaded {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Json, Box<dyn std::error::Error + Send + Sync>> {
        self.0.get(uri.as_str()).cloned().ok_or_else(|| "schemas are used offline".into())
    }
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n.max(1)).unwrap_or(u32::MAX)
}
