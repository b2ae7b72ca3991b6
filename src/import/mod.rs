//! From an OpenAPI document to a table and its schemas. What comes out has passed the compiler: what would not is left as a
//! comment, and told.
//!
//! Reading order: [`document`], [`schemas`] and [`params`], [`operations`], [`write`](mod@write).

mod document;
mod operations;
mod params;
mod schemas;
mod write;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use document::{Document, join};
use schemas::Schemas;
use serde_json::Value as Json;
use write::Skeleton;

use crate::route::{
    compile::compile,
    problem::{Problem, Severity, Source},
    source::{Files, MAX_FILE, Refused, Unreadable},
};

/// A table and its schemas, ready to be written.
#[derive(Debug)]
pub struct Imported {
    /// `routes.yaml`
    pub table: String,
    /// Files of `schemas/` by name.
    pub schemas: BTreeMap<String, String>,
    /// Routes in the table.
    pub routes: usize,
    /// What could not be taken over as it is.
    pub warnings: Vec<Problem>,
}

/// Where routes go when one of them would take a path of the gateway's own.
const ASIDE: &str = "/api";

/// Imports a document. The error is what keeps it from being imported at all.
pub fn import(source: Source) -> Result<Imported, Vec<Problem>> {
    let name = source.name.clone();
    let doc = Document::read(source).map_err(|problem| vec![*problem])?;
    let mut schemas = Schemas::new(&doc);
    let operations = operations::read(&doc, &mut schemas);
    beside(&doc);
    let mut skeleton = Skeleton::new(&doc, &name, operations.drafts, operations.left_out);
    skeleton.base_path = base_path(&doc);
    let mut files: BTreeMap<String, String> =
        schemas.finish().iter().map(|(name, schema)| (name.clone(), pretty(schema))).collect();
    // Every round takes something away that the compiler refuses, so there is an end.
    for _ in 0..=skeleton.routes.len() + files.len() + 2 {
        let table = skeleton.write();
        if table.text.len() as u64 > MAX_FILE && skeleton.shorten() {
            doc.warn("/paths", "left-out", "the table would be larger than 1 MiB: descriptions are left out");
            continue;
        }
        let compiled = compile(&InMemory { table: &table.text, schemas: &files });
        let errors: Vec<Problem> = compiled.problems.into_iter().filter(|p| p.severity == Severity::Error).collect();
        if errors.is_empty() {
            let used = used(&skeleton, &files);
            files.retain(|name, _| used.contains(name));
            let routes = skeleton.routes.iter().filter(|(_, why)| why.is_none()).count();
            return Ok(Imported { table: table.text, schemas: files, routes, warnings: doc.warnings() });
        }
        if errors.iter().any(|error| error.code == "reserved-path") && !skeleton.base_path.starts_with(ASIDE) {
            doc.warn(
                "/servers",
                "changed",
                format!("a path would be one of the gateway's own: all begin with {ASIDE} here"),
            );
            skeleton.base_path.insert_str(0, ASIDE);
            continue;
        }
        if !amend(&doc, &mut skeleton, &table.lines, &mut files, &errors) {
            return Err(errors);
        }
    }
    Err(vec![])
}

/// Takes away what the first rounds of errors are about; whether there was anything to take away.
fn amend(
    doc: &Document,
    skeleton: &mut Skeleton,
    lines: &[std::ops::Range<usize>],
    files: &mut BTreeMap<String, String>,
    errors: &[Problem],
) -> bool {
    let mut amended = false;
    for error in errors {
        if let Some(text) = error.file.strip_prefix("schemas/").and_then(|name| files.get_mut(name)) {
            let emptied = pretty(&serde_json::json!({ "$comment": format!("left out: {}", error.message) }));
            if *text != emptied {
                *text = emptied;
                doc.warn(
                    "/components/schemas",
                    "left-out",
                    format!("{} takes anything: {}", error.file, error.message),
                );
                amended = true;
            }
            continue;
        }
        let at = lines.iter().position(|lines| lines.contains(&(error.line as usize)));
        if let Some((draft, why @ None)) = at.and_then(|at| skeleton.routes.get_mut(at)) {
            doc.warn(
                &draft.pointer,
                "left-out",
                format!("{} {} is left out: {}", draft.method, draft.path, error.message),
            );
            *why = Some(error.message.clone());
            amended = true;
        }
    }
    amended
}

/// Schemas that routes name, and those that these refer to.
fn used(skeleton: &Skeleton, files: &BTreeMap<String, String>) -> BTreeSet<String> {
    fn references(schema: &Json, found: &mut Vec<String>) {
        match schema {
            Json::Object(members) => {
                found.extend(members.get("$ref").and_then(Json::as_str).map(str::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Json::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let mut used = BTreeSet::new();
    let in_force = skeleton.routes.iter().filter(|(_, why)| why.is_none()).map(|(draft, _)| draft);
    let named =
        |draft: &operations::Draft| [draft.body.as_ref().and_then(|body| body.schema.clone()), draft.reply.clone()];
    let mut waiting: Vec<String> = in_force.flat_map(named).flatten().collect();
    while let Some(name) = waiting.pop() {
        if let Some(text) = files.get(&name)
            && used.insert(name)
        {
            references(&serde_json::from_str(text).unwrap_or_default(), &mut waiting);
        }
    }
    used
}

/// Tells what a document may have beside its operations, and a table has not.
fn beside(doc: &Document) {
    for (key, what) in [("webhooks", "webhooks are not"), ("security", "who may send what is not")] {
        if !doc.at(&join("", key)).is_null() {
            doc.warn(&join("", key), "left-out", format!("{what} the gateway's business: left out"));
        }
    }
    let schemes = "/components/securitySchemes";
    if !doc.at(schemes).is_null() {
        doc.warn(schemes, "left-out", "the gateway asks for no credentials: put something in front of it that does");
    }
}

/// The path of the first server, with its variables' defaults.
fn base_path(doc: &Document) -> String {
    let url = doc.at("/servers/0/url").as_str().unwrap_or_default();
    let mut url = Cow::from(url);
    if let Some(variables) = doc.at("/servers/0/variables").as_object() {
        for (name, variable) in variables {
            url = url.replace(&format!("{{{name}}}"), variable["default"].as_str().unwrap_or_default()).into();
        }
    }
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => &url,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let literal = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(c))
    };
    if path.is_empty() {
        return String::new();
    }
    if path.strip_prefix('/').is_some_and(|path| path.split('/').all(literal)) {
        return path.to_owned();
    }
    doc.warn("/servers/0/url", "left-out", format!("`{path}` can't be a base path"));
    String::new()
}

fn pretty(schema: &Json) -> String {
    format!("{}\n", crate::json::indented(&schema.to_string()))
}

/// A table that is written nowhere yet.
struct InMemory<'a> {
    table: &'a str,
    schemas: &'a BTreeMap<String, String>,
}

impl Files for InMemory<'_> {
    fn table(&self) -> Result<Source, Refused> {
        source("routes.yaml".into(), self.table)
    }

    fn include(&self, _: &str) -> Result<Vec<Source>, Refused> {
        Ok(Vec::new())
    }

    fn schema(&self, name: &str) -> Result<Source, Refused> {
        let text = self.schemas.get(name).ok_or_else(|| Refused { name: name.to_owned(), why: Unreadable::Missing })?;
        source(format!("schemas/{name}"), text)
    }

    fn schemas(&self) -> Vec<String> {
        self.schemas.keys().cloned().collect()
    }
}

/// A text of a size that can be read again.
fn source(name: String, text: &str) -> Result<Source, Refused> {
    if text.len() as u64 > MAX_FILE {
        return Err(Refused { name, why: Unreadable::TooLarge });
    }
    Ok(Source { name: name.into(), text: text.into() })
}
