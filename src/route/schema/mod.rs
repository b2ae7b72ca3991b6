//! JSON Schemas of a table: the files of `schemas/` and the inline ones, checked whole before they are used.
//! Offline and in linear time: no reference leaves `schemas/`, no pattern backtracks.

mod check;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use jsonschema::{PatternOptions, Retrieve, Uri, Validator};
use serde_json::Value as Json;

use super::{
    json_tree,
    problem::{Place, Problem, Source, suggest},
    source::Files,
    yaml::{Node, Value},
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
    /// Files that are there and can't be used, which has been told.
    unreadable: BTreeSet<String>,
    /// Documents by their addresses: under [`BASE`], and by their `$id`.
    contents: Arc<BTreeMap<String, Json>>,
    /// Names of files by the `$id` that they give themselves.
    ids: BTreeMap<String, String>,
    ready: HashMap<String, Option<Schema>>,
    inline: HashMap<String, Schema>,
}

struct File {
    source: Source,
    tree: Node,
    /// Other files that it refers to.
    refers: BTreeSet<String>,
    /// Whether nothing in it is wrong.
    sound: bool,
    used: bool,
}

impl Schemas {
    /// Reads every file of `schemas/` and checks it whole, whether it is used or not.
    pub fn load(files: &dyn Files, problems: &mut Vec<Problem>) -> Self {
        let mut schemas = Self {
            files: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            contents: Arc::default(),
            ids: BTreeMap::new(),
            ready: HashMap::new(),
            inline: HashMap::new(),
        };
        let mut contents = BTreeMap::new();
        for name in files.schemas().into_iter().filter(|name| name != OF_THE_TABLE) {
            let tree = match files.schema(&name) {
                Ok(source) => json_tree::parse(&source).map(|tree| (source, tree)),
                Err(refused) => {
                    let source = Source { name: refused.name.into(), text: "".into() };
                    let message = format!("the schema can't be read: {}", refused.why);
                    let problem = Problem::at(&source, Place::default(), "schema-unreadable", message);
                    Err(Box::new(
                        problem.hint("a schema is a file of JSON in UTF-8, in `schemas/` and of at most 1 MiB"),
                    ))
                }
            };
            match tree {
                Ok((source, tree)) => {
                    let json = tree.to_json();
                    let base = check::base(&format!("{BASE}{name}"), &json);
                    if !base.starts_with(BASE) {
                        contents.insert(base.clone(), json.clone());
                        schemas.ids.insert(base, name.clone());
                    }
                    contents.insert(format!("{BASE}{name}"), json);
                    schemas
                        .files
                        .insert(name, File { source, tree, refers: BTreeSet::new(), sound: true, used: false });
                }
                Err(problem) => {
                    problems.push(*problem);
                    schemas.unreadable.insert(name);
                }
            }
        }
        schemas.contents = Arc::new(contents);
        let names: Vec<String> = schemas.files.keys().cloned().collect();
        for name in names {
            let Some(file) = schemas.files.get(&name) else { continue };
            let (source, tree) = (file.source.clone(), file.tree.clone());
            let (refers, sound) = schemas.check(&source, &tree, &format!("{BASE}{name}"), problems);
            if let Some(file) = schemas.files.get_mut(&name) {
                (file.refers, file.sound) = (refers, sound);
            }
        }
        schemas
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
        let json = node.to_json();
        let key = json.to_string();
        if let Some(ready) = self.inline.get(&key) {
            check::duplicates(source, node, problems);
            return Some(ready.clone());
        }
        let base = format!("{BASE}.inline");
        let (refers, sound) = self.check(source, node, &base, problems);
        let usable = self.mark(&refers) && sound;
        let schema = usable.then(|| self.build(source, node, json, &base, problems))??;
        self.inline.insert(key, schema.clone());
        Some(schema)
    }

    /// Every file of `schemas/` by its address under [`BASE`].
    pub fn documents(&self) -> Arc<BTreeMap<String, Json>> {
        let files = self.contents.iter().filter(|(address, _)| address.starts_with(BASE));
        Arc::new(files.map(|(address, json)| (address.clone(), json.clone())).collect())
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

    /// What a schema is where its `$ref` leads to another place; with the document that it stands in, which further
    /// references are relative to.
    pub fn follow<'s>(&'s self, mut document: &'s Json, mut here: &'s Json) -> (&'s Json, &'s Json) {
        const FARTHEST: usize = 32;
        for _ in 0..FARTHEST {
            let Some(target) = here.get("$ref").and_then(Json::as_str) else { break };
            let (address, pointer) = target.split_once('#').unwrap_or((target, ""));
            let home = if address.is_empty() {
                Some(document)
            } else {
                self.contents.get(&format!("{BASE}{address}")).or_else(|| self.contents.get(address))
            };
            let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy();
            let Some((home, next)) = home.and_then(|home| Some((home, home.pointer(&pointer)?))) else { break };
            (document, here) = (home, next);
        }
        (document, here)
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
        if self.unreadable.contains(name) {
            return None;
        }
        if let Some(ready) = self.ready.get(name) {
            return ready.clone();
        }
        let Some(file) = self.files.get(name) else {
            let mut problem = Problem::at(source, at, "schema-missing", format!("there is no `schemas/{name}`"));
            let known = self.files.keys().chain(&self.unreadable).map(String::as_str);
            problem.hint = suggest(name, known).or(Some("write it, or give an inline schema".into()));
            problems.push(problem);
            return None;
        };
        let (file_source, tree) = (file.source.clone(), file.tree.clone());
        let usable = self.mark(&BTreeSet::from([name.to_owned()]));
        let schema =
            usable.then(|| self.build(&file_source, &tree, tree.to_json(), &format!("{BASE}{name}"), problems));
        let schema = schema.flatten().map(|schema| Schema { name: Some(name.to_owned()), ..schema });
        self.ready.insert(name.to_owned(), schema.clone());
        schema
    }

    /// Marks files, and those that they refer to, as used; whether nothing is wrong in any of them.
    fn mark(&mut self, names: &BTreeSet<String>) -> bool {
        let mut sound = true;
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut left: Vec<String> = names.iter().cloned().collect();
        while let Some(name) = left.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            match self.files.get_mut(&name) {
                Some(file) => {
                    file.used = true;
                    sound &= file.sound;
                    left.extend(file.refers.iter().cloned());
                }
                None => sound = false,
            }
        }
        sound
    }

    /// Checks one document; which files it refers to, and whether nothing is wrong.
    fn check(&self, source: &Source, tree: &Node, base: &str, problems: &mut Vec<Problem>) -> (BTreeSet<String>, bool) {
        let before = problems.len();
        check::duplicates(source, tree, problems);
        let json = tree.to_json();
        let refers = self.check_references(source, tree, &json, base, problems);
        match jsonschema::meta::validator_for(&json) {
            Ok(meta) => {
                for error in meta.iter_errors(&json).take(10) {
                    problems.push(check::no_schema(source, tree, &json, &error));
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
        check::keywords(source, tree, &json, problems);
        (refers, problems.len() == before)
    }

    fn build(
        &self,
        source: &Source,
        tree: &Node,
        json: Json,
        base: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Schema> {
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
                let message = format!("this schema can't be used: {}", check::first_sentence(&error.to_string()));
                let hint = "say it in another way, or delete it";
                problems.push(Problem::at(source, place, "schema-invalid", message).hint(hint));
                None
            }
        }
    }

    /// Every `$ref` names something that is there, in `schemas/`. Gives the files that are named.
    fn check_references(
        &self,
        source: &Source,
        tree: &Node,
        json: &Json,
        base: &str,
        problems: &mut Vec<Problem>,
    ) -> BTreeSet<String> {
        let mut refers = BTreeSet::new();
        for reference in check::references(tree, base) {
            let (target, at) = (&reference.target, reference.at);
            let (address, fragment) = target.split_once('#').unwrap_or((target, ""));
            if address.starts_with("https://json-schema.org/") || address.starts_with("http://json-schema.org/") {
                continue;
            }
            let home = if address.is_empty() {
                Some(json)
            } else {
                match self.named(address, &reference.base) {
                    Ok(name) => {
                        refers.insert(name.clone());
                        self.contents.get(&format!("{BASE}{name}"))
                    }
                    Err((code, message, hint)) => {
                        let mut problem = Problem::at(source, at, code, message);
                        problem.hint = hint;
                        problems.push(problem);
                        None
                    }
                }
            };
            let Some(home) = home else { continue };
            // An anchor is looked for when the schema is built.
            if fragment.starts_with('/') && !check::leads_somewhere(home, fragment) {
                let message = format!("`{target}` names nothing");
                let mut problem = Problem::at(source, at, "schema-missing", message);
                let names = check::definitions(home);
                problem.hint = suggest(target, names.iter().map(String::as_str))
                    .or(Some("define it under `$defs`, as in `#/$defs/name`".into()));
                problems.push(problem);
            }
        }
        refers
    }

    /// The file that an address names, or why it names none: a code, what is wrong, and what to do.
    fn named(&self, address: &str, base: &str) -> Result<String, (&'static str, String, Option<String>)> {
        let resolved = url::Url::parse(base).and_then(|base| base.join(address)).map(String::from).unwrap_or_default();
        if let Some(name) = self.ids.get(&resolved) {
            return Ok(name.clone());
        }
        if address.contains("://") {
            let message = format!("`{address}` would have to be fetched, and schemas are used offline");
            return Err(("schema-remote", message, Some("save it in `schemas/` and refer to its file name".into())));
        }
        let leaves = address.split('/').any(|part| part == "..") && !resolved.starts_with(BASE);
        // A URL never leads above its root: what goes up too far is told by counting.
        let up = address.split('/').filter(|part| *part == "..").count();
        let deep = base.strip_prefix(BASE).map_or(0, |name| name.matches('/').count());
        if leaves || up > deep || address.starts_with('/') {
            let message = format!("`{address}` leads out of `schemas/`");
            return Err(("schema-outside", message, Some("copy it into `schemas/` and refer to its file name".into())));
        }
        match resolved.strip_prefix(BASE) {
            Some(name) if self.files.contains_key(name) || self.unreadable.contains(name) => Ok(name.to_owned()),
            Some(name) => {
                let known = self.files.keys().chain(&self.unreadable).map(String::as_str);
                Err((
                    "schema-missing",
                    format!("there is no `schemas/{name}`"),
                    suggest(name, known).or(Some("write it, or define it under `$defs`".into())),
                ))
            }
            None => Err((
                "schema-missing",
                format!("`{address}` is `{resolved}` here, for the `$id` above it, and no file of `schemas/` has that"),
                Some("give that file this `$id`, or delete the `$id`".into()),
            )),
        }
    }
}

/// Hands out what is loaded and nothing else.
struct Loaded(Arc<BTreeMap<String, Json>>);

impl Retrieve for Loaded {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Json, Box<dyn std::error::Error + Send + Sync>> {
        self.0.get(uri.as_str()).cloned().ok_or_else(|| "schemas are used offline".into())
    }
}
