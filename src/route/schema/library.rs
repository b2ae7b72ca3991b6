//! The files of `schemas/`, read and compiled together. What was made of them is kept: a table that is compiled again
//! while they say the same takes it over.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value as Json;

use super::{BASE, OF_THE_TABLE, check};
use crate::route::{
    json_tree,
    problem::{Place, Problem, Source, suggest},
    source::{Files, Refused},
    validator::{
        Compiled, Dangling, compile,
        keywords::join,
        resources::{Resources, Spot, Unresolved},
    },
    yaml::Node,
};

/// Keeps what was made of the files of `schemas/` from one compilation to the next.
#[derive(Debug, Default)]
pub struct SchemaCache(Mutex<Option<Arc<Library>>>);

impl SchemaCache {
    /// What the files say; made anew only where they say something else than before.
    pub(super) fn load(&self, files: &dyn Files) -> Arc<Library> {
        let texts: Vec<_> = files
            .schemas()
            .into_iter()
            .filter(|name| name != OF_THE_TABLE)
            .map(|name| {
                let text = files.schema(&name);
                (name, text)
            })
            .collect();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = kept.as_ref().filter(|library| library.texts == texts) {
            return library.clone();
        }
        let library = Arc::new(Library::new(texts));
        *kept = Some(library.clone());
        library
    }
}

/// All files of `schemas/`.
#[derive(Debug)]
pub(super) struct Library {
    texts: Vec<(String, Result<Source, Refused>)>,
    pub files: BTreeMap<String, File>,
    /// Files that are there and can't be used, which is told in `problems`.
    pub unreadable: BTreeSet<String>,
    pub resources: Arc<Resources>,
    pub compiled: Arc<Compiled>,
    /// Documents by their addresses under [`BASE`].
    pub documents: Arc<BTreeMap<String, Json>>,
    pub problems: Vec<Problem>,
}

#[derive(Debug)]
pub(super) struct File {
    pub source: Source,
    tree: Node,
    pub document: u32,
    /// Other files that it refers to.
    pub refers: BTreeSet<String>,
    /// Whether nothing in it is wrong.
    pub sound: bool,
}

impl Library {
    fn new(texts: Vec<(String, Result<Source, Refused>)>) -> Self {
        let (mut files, mut unreadable, mut problems) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        let (mut resources, mut documents, mut names) = (Resources::default(), BTreeMap::new(), HashMap::new());
        for (name, text) in &texts {
            let tree = match text {
                Ok(source) => json_tree::parse(source).map(|tree| (source.clone(), tree)),
                Err(refused) => Err(Box::new(cannot_read(refused))),
            };
            match tree {
                Ok((source, tree)) => {
                    let address = format!("{BASE}{name}");
                    let json = tree.to_json();
                    let document = resources.add(&address, Arc::new(json.clone()));
                    documents.insert(address, json);
                    names.insert(document, name.clone());
                    let file = File { source, tree, document, refers: BTreeSet::new(), sound: true };
                    files.insert(name.clone(), file);
                }
                Err(problem) => {
                    problems.push(*problem);
                    unreadable.insert(name.clone());
                }
            }
        }
        let roots: Vec<Spot> =
            files.values().map(|file| Spot { document: file.document, pointer: String::new() }).collect();
        let compiled = Arc::new(compile(&resources, &roots, None));
        let mut library = Self {
            texts,
            files,
            unreadable,
            resources: Arc::new(resources),
            compiled,
            documents: Arc::new(documents),
            problems,
        };
        library.check(&names);
        library
    }

    /// Tells what is wrong in each file, and notes it there.
    fn check(&mut self, names: &HashMap<u32, String>) {
        let mut told: BTreeMap<&str, Vec<Problem>> = BTreeMap::new();
        let mut refers: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (name, file) in &self.files {
            let problems = told.entry(name).or_default();
            check::document(&file.source, &file.tree, &self.resources.document(file.document).1, problems);
            refers.insert(name, self.names(&self.compiled, file.document));
        }
        let of = |document: u32| {
            let (name, file) = self.files.get_key_value(names.get(&document)?)?;
            Some((name.as_str(), file))
        };
        for dangling in &self.compiled.dangling {
            let Some((name, file)) = of(dangling.spot.document) else { continue };
            refers.entry(name).or_default().extend(self.unreadable_target(dangling));
            let problem = self.dangling(&self.resources, dangling, &file.source, &file.tree);
            told.entry(name).or_default().extend(problem);
        }
        for spot in self.resources.repeated() {
            let Some((name, file)) = of(spot.document) else { continue };
            told.entry(name).or_default().push(check::repeated_id(&file.source, &file.tree, spot));
        }
        let mut endless = Vec::new();
        let mut place = |spot: &Spot| of(spot.document).map(|(_, file)| (&file.source, &file.tree));
        check::endless(&self.compiled, &mut place, &mut endless);
        let unsound: BTreeSet<String> = told
            .iter()
            .filter(|(_, problems)| problems.iter().any(Problem::is_error))
            .map(|(name, _)| (*name).to_owned())
            .collect();
        let in_circles: BTreeSet<String> = endless.iter().map(|problem| problem.file.clone()).collect();
        let refers: BTreeMap<String, BTreeSet<String>> =
            refers.into_iter().map(|(name, refers)| (name.to_owned(), refers)).collect();
        self.problems.extend(told.into_values().flatten());
        self.problems.extend(endless);
        for (name, file) in &mut self.files {
            file.sound = !unsound.contains(name) && !in_circles.contains(&*file.source.name);
            file.refers = refers.get(name).cloned().unwrap_or_default();
        }
    }

    /// Names of the files that a document refers to.
    pub fn names(&self, compiled: &Compiled, document: u32) -> BTreeSet<String> {
        let targets = compiled.refers.range((document, 0)..=(document, u32::MAX)).map(|(_, to)| *to);
        let addresses = targets.filter(|to| *to != document).map(|to| &self.resources.document(to).0);
        addresses.filter_map(|address| address.strip_prefix(BASE)).map(str::to_owned).collect()
    }

    /// The file that a reference would lead to if it could be read; what is wrong with it is told there.
    pub fn unreadable_target(&self, dangling: &Dangling) -> Option<String> {
        let address = dangling.reference.split('#').next().unwrap_or("");
        let name = join(&dangling.base, address)?.strip_prefix(BASE)?.to_owned();
        self.unreadable.contains(&name).then_some(name)
    }

    /// What is told of a reference that leads nowhere.
    pub fn dangling(
        &self,
        resources: &Resources,
        dangling: &Dangling,
        source: &Source,
        tree: &Node,
    ) -> Option<Problem> {
        let at = tree.place_of(&format!("{}/{}", dangling.spot.pointer, dangling.keyword));
        let target = &dangling.reference;
        let (code, message, hint) = match resources.resolve(&dangling.base, target) {
            Ok(_) => return None,
            Err(Unresolved::Fragment(spot)) => {
                let names = resources.at(&spot).map(check::definitions).unwrap_or_default();
                let hint = suggest(target, names.iter().map(String::as_str));
                let hint = hint.or(Some("define it under `$defs`, as in `#/$defs/name`".into()));
                ("schema-missing", format!("`{target}` names nothing"), hint)
            }
            Err(Unresolved::Address(resolved)) => self.no_address(target, &dangling.base, &resolved)?,
        };
        let mut problem = Problem::at(source, at, code, message);
        problem.hint = hint;
        Some(problem)
    }

    /// Why no file has an address: a code, what is wrong, and what to do. `None` where it is told already.
    fn no_address(&self, target: &str, base: &str, resolved: &str) -> Option<(&'static str, String, Option<String>)> {
        let address = target.split('#').next().unwrap_or("");
        if address.contains("://") {
            let message = format!("`{address}` would have to be fetched, and schemas are used offline");
            return Some(("schema-remote", message, Some("save it in `schemas/` and refer to its file name".into())));
        }
        let leaves = address.split('/').any(|part| part == "..") && !resolved.starts_with(BASE);
        // A URL never leads above its root: what goes up too far is told by counting.
        let up = address.split('/').filter(|part| *part == "..").count();
        let deep = base.strip_prefix(BASE).map_or(0, |name| name.matches('/').count());
        if leaves || up > deep || address.starts_with('/') {
            let message = format!("`{address}` leads out of `schemas/`");
            return Some((
                "schema-outside",
                message,
                Some("copy it into `schemas/` and refer to its file name".into()),
            ));
        }
        match resolved.strip_prefix(BASE) {
            Some(name) if self.unreadable.contains(name) => None,
            Some(name) => {
                let known = self.files.keys().chain(&self.unreadable).map(String::as_str);
                let hint = suggest(name, known).or(Some("write it, or define it under `$defs`".into()));
                Some(("schema-missing", format!("there is no `schemas/{name}`"), hint))
            }
            None => Some((
                "schema-missing",
                format!("`{address}` is `{resolved}` here, for the `$id` above it, and no schema has that address"),
                Some("give that schema this `$id`, or delete the `$id`".into()),
            )),
        }
    }
}

fn cannot_read(refused: &Refused) -> Problem {
    let source = Source { name: refused.name.as_str().into(), text: "".into() };
    let message = format!("the schema can't be read: {}", refused.why);
    Problem::at(&source, Place::default(), "schema-unreadable", message)
        .hint("a schema is a file of JSON in UTF-8, in `schemas/` and of at most 1 MiB")
}
