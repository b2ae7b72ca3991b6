//! JSON Schemas as components of one document, in the words of 2020-12: every file of `schemas/` that is named becomes a component, and every
//! reference, whether by file, pointer, `$anchor` or `$id`, becomes a pointer within the document.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};
use url::Url;

use super::dialect::{newer, newer_pointer};
use crate::route::schema::{BASE, Schema};

/// Where components stand, in OpenAPI and in AsyncAPI alike.
pub const AT: &str = "#/components/schemas/";

/// Drafts in which nothing counts beside a `$ref`, as their `$schema` names them.
const LONE_REFERENCES: [&str; 4] = ["draft-03", "draft-04", "draft-06", "draft-07"];

/// Keywords whose value is a map of names to schemas.
pub(super) const MAPS: [&str; 6] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];
/// Keywords whose value is data, not a schema.
pub(super) const DATA: [&str; 8] =
    ["const", "enum", "default", "examples", "example", "required", "dependentRequired", "$vocabulary"];

/// The components of a document, as they are found.
pub struct Components<'t> {
    files: &'t BTreeMap<String, Json>,
    names: BTreeMap<String, String>,
    taken: BTreeSet<String>,
    ready: Map<String, Json>,
}

/// The document that is being rewritten.
struct Document<'t> {
    root: &'t Json,
    /// Name of its component; `None` for a schema without references into itself, which may stand anywhere.
    component: Option<String>,
    /// Pointers to the schemas in it that have an address of their own (`$id`).
    resources: Vec<(String, String)>,
    /// Whether nothing counts beside a reference.
    lone_references: bool,
}

/// Where in a document a schema stands: the resource that it belongs to.
#[derive(Clone)]
struct Here {
    base: Url,
    /// Pointer to the resource's root.
    resource: String,
}

impl<'t> Components<'t> {
    /// None yet; `reserved` names are not given to anyone.
    pub fn new<'n>(files: &'t BTreeMap<String, Json>, reserved: impl IntoIterator<Item = &'n str>) -> Self {
        let taken = reserved.into_iter().map(str::to_owned).collect();
        Self { files, names: BTreeMap::new(), taken, ready: Map::new() }
    }

    /// A component of our own.
    pub fn add(&mut self, name: &str, schema: Json) {
        self.ready.insert(name.to_owned(), schema);
    }

    /// A table's schema: a reference to its component, or itself. `owner` names the component of an inline schema that
    /// refers to its own parts.
    pub fn schema(&mut self, schema: &'t Schema, owner: &str) -> Json {
        if let Some(name) = &schema.name {
            return reference(&self.file(&format!("{BASE}{name}")), "");
        }
        let Ok(base) = Url::parse(&format!("{BASE}.inline")) else { return Json::Bool(true) };
        let component = refers_to_itself(&schema.json).then(|| self.free(owner));
        let document = Document::new(&schema.json, component.clone(), &base);
        let rewritten = self.rewrite(&schema.json, &document, "", &Here { base, resource: String::new() });
        match component {
            Some(name) => {
                self.ready.insert(name.clone(), newer(&rewritten));
                reference(&name, "")
            }
            None => newer(&rewritten),
        }
    }

    /// All of them.
    pub fn ready(&self) -> &Map<String, Json> {
        &self.ready
    }

    /// The component of a schema file.
    fn file(&mut self, address: &str) -> String {
        if let Some(name) = self.names.get(address) {
            return name.clone();
        }
        let file = address.strip_prefix(BASE).unwrap_or(address);
        let name = self.free(file.strip_suffix(".json").unwrap_or(file));
        // Named before it is rewritten: it may refer to itself.
        self.names.insert(address.to_owned(), name.clone());
        if let (Some(root), Ok(base)) = (self.files.get(address), Url::parse(address)) {
            let document = Document::new(root, Some(name.clone()), &base);
            let schema = self.rewrite(root, &document, "", &Here { base, resource: String::new() });
            self.ready.insert(name.clone(), newer(&schema));
        }
        name
    }

    /// A component's name like `wish` that nobody has.
    fn free(&mut self, wish: &str) -> String {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let wish: String = wish.chars().map(|c| if fits(c) { c } else { '.' }).collect();
        let names = std::iter::once(wish.clone()).chain((2..).map(|n| format!("{wish}_{n}")));
        let name = names.into_iter().find(|name| !self.taken.contains(name)).unwrap_or(wish);
        self.taken.insert(name.clone());
        name
    }

    fn rewrite(&mut self, schema: &Json, document: &Document<'_>, pointer: &str, here: &Here) -> Json {
        let Json::Object(keywords) = schema else { return schema.clone() };
        let here = here.within(keywords, pointer);
        let lone = document.lone_references && keywords.get("$ref").is_some_and(Json::is_string);
        let mut out = Map::new();
        for (keyword, value) in keywords.iter().filter(|(keyword, _)| !lone || *keyword == "$ref") {
            let at = format!("{pointer}/{}", token(keyword));
            let value = match (keyword.as_str(), value) {
                (
                    "$id" | "$schema" | "$anchor" | "$dynamicAnchor" | "$recursiveAnchor",
                    Json::String(_) | Json::Bool(_),
                ) => {
                    continue;
                }
                // A dynamic reference is told as what it is without an extension.
                ("$ref" | "$dynamicRef" | "$recursiveRef", Json::String(target)) => {
                    let Some(target) = self.target(target, document, &here) else { continue };
                    out.insert("$ref".into(), target.into());
                    continue;
                }
                (keyword, value) if DATA.contains(&keyword) => value.clone(),
                (keyword, Json::Object(named)) if MAPS.contains(&keyword) => {
                    let schemas = named.iter().map(|(name, schema)| {
                        (name.clone(), self.rewrite(schema, document, &format!("{at}/{}", token(name)), &here))
                    });
                    Json::Object(schemas.collect())
                }
                (_, Json::Array(schemas)) => schemas
                    .iter()
                    .enumerate()
                    .map(|(index, schema)| self.rewrite(schema, document, &format!("{at}/{index}"), &here))
                    .collect(),
                (_, value) => self.rewrite(value, document, &at, &here),
            };
            out.insert(keyword.clone(), value);
        }
        Json::Object(out)
    }

    /// What a reference is within the whole document; `None` for one to a metaschema, which means any schema.
    fn target(&mut self, reference_to: &str, document: &Document<'_>, here: &Here) -> Option<String> {
        let url = here.base.join(reference_to).ok()?;
        let fragment = percent_encoding::percent_decode_str(url.fragment().unwrap_or("")).decode_utf8_lossy();
        let address = without_fragment(&url);
        let inside = if address == without_fragment(&here.base) {
            Some(here.resource.clone())
        } else {
            document.resources.iter().find(|(of, _)| *of == address).map(|(_, pointer)| pointer.clone())
        };
        let (component, root, resource) = match inside {
            Some(resource) => (document.component.clone()?, document.root, resource),
            None => {
                let root = self.files.get(&address)?;
                (self.file(&address), root, String::new())
            }
        };
        let pointer = if fragment.is_empty() || fragment.starts_with('/') {
            format!("{resource}{fragment}")
        } else {
            anchor(root.pointer(&resource)?, &fragment, &resource)?
        };
        Some(format!("{AT}{component}{}", encode(&newer_pointer(root, &pointer))))
    }
}

impl<'t> Document<'t> {
    fn new(root: &'t Json, component: Option<String>, base: &Url) -> Self {
        let mut resources = Vec::new();
        find_resources(root, "", &Here { base: base.clone(), resource: String::new() }, &mut resources);
        let draft = root.get("$schema").and_then(Json::as_str).unwrap_or("");
        let lone_references = LONE_REFERENCES.iter().any(|old| draft.contains(old));
        Self { root, component, resources, lone_references }
    }
}

impl Here {
    /// The same place, or a new one where a schema has an address of its own.
    fn within(&self, keywords: &Map<String, Json>, pointer: &str) -> Self {
        let id = keywords.get("$id").and_then(Json::as_str).filter(|id| !id.starts_with('#'));
        match id.and_then(|id| self.base.join(id).ok()) {
            Some(base) => Self { base, resource: pointer.to_owned() },
            None => self.clone(),
        }
    }
}

fn find_resources(schema: &Json, pointer: &str, here: &Here, found: &mut Vec<(String, String)>) {
    let Json::Object(keywords) = schema else { return };
    let here = here.within(keywords, pointer);
    if keywords.contains_key("$id") {
        found.push((without_fragment(&here.base), here.resource.clone()));
    }
    children(keywords, pointer, &mut |child, at| find_resources(child, at, &here, found));
}

/// The pointer of an anchor in a resource.
fn anchor(schema: &Json, name: &str, pointer: &str) -> Option<String> {
    let keywords = schema.as_object()?;
    let is = |keyword: &str| keywords.get(keyword).and_then(Json::as_str);
    let old = is("$id").and_then(|id| id.strip_prefix('#'));
    if is("$anchor") == Some(name) || is("$dynamicAnchor") == Some(name) || old == Some(name) {
        return Some(pointer.to_owned());
    }
    let mut found = None;
    children(keywords, pointer, &mut |child, at| {
        let other = child.get("$id").and_then(Json::as_str).is_some_and(|id| !id.starts_with('#'));
        if found.is_none() && !other {
            found = anchor(child, name, at);
        }
    });
    found
}

/// Visits the schemas that stand in a schema, with their pointers.
fn children(keywords: &Map<String, Json>, pointer: &str, visit: &mut dyn FnMut(&Json, &str)) {
    for (keyword, value) in keywords.iter().filter(|(keyword, _)| !DATA.contains(&keyword.as_str())) {
        let at = format!("{pointer}/{}", token(keyword));
        match value {
            Json::Object(named) if MAPS.contains(&keyword.as_str()) => {
                named.iter().for_each(|(name, schema)| visit(schema, &format!("{at}/{}", token(name))));
            }
            Json::Array(schemas) => {
                schemas.iter().enumerate().for_each(|(index, schema)| visit(schema, &format!("{at}/{index}")));
            }
            Json::Object(_) => visit(value, &at),
            _ => {}
        }
    }
}

fn refers_to_itself(schema: &Json) -> bool {
    let Json::Object(keywords) = schema else { return false };
    let local = |keyword: &str| keywords.get(keyword).and_then(Json::as_str).is_some_and(|to| to.starts_with('#'));
    let mut found = local("$ref") || local("$dynamicRef") || local("$recursiveRef") || keywords.contains_key("$id");
    children(keywords, "", &mut |child, _| found = found || refers_to_itself(child));
    found
}

/// A reference to a component, or to a part of it.
pub fn reference(component: &str, pointer: &str) -> Json {
    json!({ "$ref": format!("{AT}{component}{}", encode(pointer)) })
}

/// A name as a token of a JSON Pointer (RFC 6901).
fn token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A JSON Pointer as a URI's fragment (RFC 6901 section 6).
fn encode(pointer: &str) -> String {
    const UNSAFE: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'#')
        .add(b'%')
        .add(b'<')
        .add(b'>')
        .add(b'[')
        .add(b'\\')
        .add(b']')
        .add(b'^')
        .add(b'`')
        .add(b'{')
        .add(b'|')
        .add(b'}');
    percent_encoding::utf8_percent_encode(pointer, UNSAFE).to_string()
}

fn without_fragment(url: &Url) -> String {
    let mut url = url.clone();
    url.set_fragment(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_of_every_kind() {
        let files: BTreeMap<String, Json> = [
            (
                "a.json",
                json!({
                    "$id": "https://example.com/elsewhere/a",
                    "properties": {
                        "$ref": { "$ref": "#/$defs/in%20b" },
                        "own": { "$ref": "" },
                        "part": { "$ref": "part#/$defs/deep" },
                        "meta": { "$ref": "https://json-schema.org/draft/2020-12/schema" },
                    },
                    "enum": [{ "$ref": "data" }],
                    "$defs": {
                        "in b": { "$anchor": "x" },
                        "p": { "$id": "part", "$ref": "#here", "$defs": { "deep": { "$anchor": "here" } } },
                    },
                }),
            ),
            ("sub/b.json", json!({ "allOf": [{ "$ref": "../a.json#x" }, { "$ref": "c d.json" }] })),
            ("sub/c%20d.json", json!(true)),
            (
                "old.json",
                json!({
                    "$schema": "http://json-schema.org/draft-07/schema#",
                    "items": [{ "$ref": "#/items/1", "type": "string" }, {}],
                }),
            ),
        ]
        .map(|(name, schema)| (format!("{BASE}{name}"), schema))
        .into();
        let mut components = Components::new(&files, ["a"]);
        let b = components.file(&format!("{BASE}sub/b.json"));
        let old = components.file(&format!("{BASE}old.json"));
        let ready = components.ready();
        assert_eq!((b.as_str(), old.as_str()), ("sub.b", "old"));
        let to = |pointer: &str| json!({ "$ref": format!("{AT}{pointer}") });
        assert_eq!(ready["sub.b"]["allOf"], json!([to("a_2/$defs/in%20b"), to("sub.c.20d")]));
        let a = &ready["a_2"];
        assert_eq!(a["properties"]["$ref"], to("a_2/$defs/in%20b"));
        assert_eq!(a["properties"]["own"], to("a_2"));
        assert_eq!(a["properties"]["part"], to("a_2/$defs/p/$defs/deep"));
        assert_eq!(a["properties"]["meta"], json!({}));
        assert_eq!(a["enum"], json!([{ "$ref": "data" }]));
        assert_eq!(a["$defs"]["p"]["$ref"], to("a_2/$defs/p/$defs/deep")["$ref"]);
        assert_eq!(ready["old"], json!({ "prefixItems": [to("old/prefixItems/1"), {}] }));
    }
}
