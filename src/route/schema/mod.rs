//! JSON Schemas of a table: the files of `schemas/` and the inline ones, checked whole before they are used.
//! Offline and in linear time: no reference leaves `schemas/`, no pattern backtracks.

mod check;
mod library;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use serde_json::Value as Json;

use super::{
    problem::{Place, Problem, Source, suggest},
    source::Files,
    validator::{
        Compiled, Validator, compile,
        keywords::push_tokens,
        resources::{Resources, Spot},
    },
    yaml::{Node, Value},
};

use library::Library;
pub use library::SchemaCache;

/// A schema that is ready for use.
#[derive(Clone)]
pub struct Schema {
    /// The document, for the generated API descriptions.
    pub json: Arc<Json>,
    /// Its name in `schemas/`; `None` for an inline one.
    pub name: Option<String>,
    /// Checks a value against it.
    pub validator: Validator,
    resources: Arc<Resources>,
    spot: Spot,
}

/// What it says, not how it is checked: two that say the same look the same.
impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({:?}, {})", self.name, self.json)
    }
}

/// A schema, or a part of one, that can be looked into.
#[derive(Debug, Clone)]
pub struct Subschema<'s> {
    /// What it says.
    pub json: &'s Json,
    resources: &'s Resources,
    spot: Spot,
}

impl Schema {
    /// The whole of it.
    pub fn part(&self) -> Subschema<'_> {
        Subschema { json: &self.json, resources: &self.resources, spot: self.spot.clone() }
    }
}

impl Subschema<'_> {
    /// What stands in it under these tokens.
    pub fn inner(&self, tokens: &[&str]) -> Option<Self> {
        let mut spot = self.spot.clone();
        push_tokens(&mut spot.pointer, tokens);
        Some(Self { json: self.resources.at(&spot)?, resources: self.resources, spot })
    }

    /// What it is where its `$ref` leads to another place.
    #[must_use]
    pub fn follow(self) -> Self {
        const FARTHEST: usize = 32;
        let mut here = self;
        for _ in 0..FARTHEST {
            let Some(target) = here.json.get("$ref").and_then(Json::as_str) else { break };
            let base = here.resources.context(&here.spot).base;
            let Ok(spot) = here.resources.resolve(&base, target) else { break };
            let Some(json) = here.resources.at(&spot) else { break };
            here = Self { json, resources: here.resources, spot };
        }
        here
    }
}

/// The schema of the table itself: it stands beside the others for editors, and no route names it.
const OF_THE_TABLE: &str = "routes.schema.json";

/// Every schema file has an address under this one; nothing is ever fetched from it.
pub const BASE: &str = "file:///schemas/";

/// All schemas of a table.
pub struct Schemas {
    library: Arc<Library>,
    /// Files that a route names, or that one of those refers to.
    used: BTreeSet<String>,
    ready: HashMap<String, Option<Schema>>,
    inline: HashMap<String, Schema>,
}

impl Schemas {
    /// Reads every file of `schemas/` and checks it whole, whether it is used or not.
    pub fn load(files: &dyn Files, cache: &SchemaCache, problems: &mut Vec<Problem>) -> Self {
        let library = cache.load(files);
        problems.extend(library.problems.iter().cloned());
        Self { library, used: BTreeSet::new(), ready: HashMap::new(), inline: HashMap::new() }
    }

    /// The schema that a key of the table gives: a file's name, or an inline schema.
    pub fn resolve(&mut self, source: &Source, node: &Node, problems: &mut Vec<Problem>) -> Option<Schema> {
        match &node.value {
            Value::Text(name) => self.file(source, node.at, name, problems),
            Value::Map(_) | Value::Bool(_) => self.inline(source, node, problems),
            // Told by the grammar's check.
            _ => None,
        }
    }

    /// An inline schema. The same one is built once, wherever it stands.
    pub fn inline(&mut self, source: &Source, node: &Node, problems: &mut Vec<Problem>) -> Option<Schema> {
        let json = Arc::new(node.to_json());
        let key = json.to_string();
        if let Some(ready) = self.inline.get(&key) {
            check::duplicates(source, node, problems);
            return Some(ready.clone());
        }
        let before = problems.len();
        let mut resources = Resources::over(self.library.resources.clone());
        let document = resources.add(&format!("{BASE}.inline"), json.clone());
        let spot = Spot { document, pointer: String::new() };
        let outer = Some(self.library.compiled.clone());
        let compiled = compile(&resources, std::slice::from_ref(&spot), outer);
        check::document(source, node, &json, problems);
        check::endless(&compiled, &mut |_| Some((source, node)), problems);
        let mut refers: BTreeSet<String> = self.library.names(&compiled, document);
        for dangling in &compiled.dangling {
            refers.extend(self.library.unreadable_target(dangling));
            problems.extend(self.library.dangling(&resources, dangling, source, node));
        }
        let usable = self.mark(&refers) && !problems[before..].iter().any(Problem::is_error);
        let schema = usable.then(|| ready(json, None, Arc::new(resources), spot, &compiled))??;
        self.inline.insert(key, schema.clone());
        Some(schema)
    }

    /// Every file of `schemas/` by its address under [`BASE`].
    pub fn documents(&self) -> Arc<BTreeMap<String, Json>> {
        self.library.documents.clone()
    }

    /// Whether `schemas/` holds files that nothing names.
    pub fn warn_unused(&self, problems: &mut Vec<Problem>) {
        for (name, file) in &self.library.files {
            if self.used.contains(name) {
                continue;
            }
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
        // One that is there and can't be read has been told already.
        if self.library.unreadable.contains(name) {
            return None;
        }
        if let Some(ready) = self.ready.get(name) {
            return ready.clone();
        }
        let library = self.library.clone();
        let Some(file) = library.files.get(name) else {
            let mut problem = Problem::at(source, at, "schema-missing", format!("there is no `schemas/{name}`"));
            let known = library.files.keys().chain(&library.unreadable).map(String::as_str);
            problem.hint = suggest(name, known).or(Some("write it, or give an inline schema".into()));
            problems.push(problem);
            return None;
        };
        let usable = self.mark(&BTreeSet::from([name.to_owned()]));
        let spot = Spot { document: file.document, pointer: String::new() };
        let json = library.resources.document(file.document).1.clone();
        let schema = usable
            .then(|| ready(json, Some(name.to_owned()), library.resources.clone(), spot, &library.compiled))
            .flatten();
        self.ready.insert(name.to_owned(), schema.clone());
        schema
    }

    /// Marks files, and those that they refer to, as used; whether nothing is wrong in any of them.
    fn mark(&mut self, names: &BTreeSet<String>) -> bool {
        let mut sound = true;
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut left: Vec<&str> = names.iter().map(String::as_str).collect();
        while let Some(name) = left.pop() {
            if !seen.insert(name) {
                continue;
            }
            match self.library.files.get(name) {
                Some(file) => {
                    self.used.insert(name.to_owned());
                    sound &= file.sound;
                    left.extend(file.refers.iter().map(String::as_str));
                }
                None => sound = false,
            }
        }
        sound
    }
}

fn ready(
    json: Arc<Json>,
    name: Option<String>,
    resources: Arc<Resources>,
    spot: Spot,
    compiled: &Compiled,
) -> Option<Schema> {
    let validator = Validator::new(compiled, &spot)?;
    Some(Schema { json, name, validator, resources, spot })
}
