//! Where schemas stand: the documents of `schemas/`, what they embed by `$id` (2020-12, 9.3), and the names they give to
//! places. References are resolved here, and nothing is ever fetched.

use std::{collections::HashMap, sync::Arc};

use jsonschema::Draft;
use serde_json::Value as Json;

use super::keywords::{Holds, draft, each_inner, holds, id, join, push_tokens};

/// A place in a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spot {
    /// Number of the document.
    pub document: u32,
    /// JSON Pointer from its root.
    pub pointer: String,
}

/// A schema with an address of its own: a document, or one that another embeds.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Where it stands.
    pub spot: Spot,
    /// The address that references in it are relative to.
    pub base: Arc<str>,
}

/// What a place in a document is relative to.
#[derive(Debug, Clone)]
pub struct Context {
    /// Address of the innermost resource around it.
    pub base: Arc<str>,
    /// Version of JSON Schema there.
    pub draft: Draft,
}

/// Why a reference leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// No document has the address, which is this one in full.
    Address(String),
    /// The document is there, and nothing in it has that pointer or name.
    Fragment(Spot),
}

/// Documents, and what can be referred to in them.
#[derive(Debug, Default)]
pub struct Resources {
    /// Those of the files, for a schema that stands in the table.
    outer: Option<Arc<Resources>>,
    /// Each with the address that it is known by.
    documents: Vec<(Arc<str>, Arc<Json>)>,
    by_address: HashMap<String, Resource>,
    names: HashMap<(Arc<str>, String), Spot>,
    /// Places that a `$dynamicRef` can lead to, by address and name; a `$recursiveRef` by the empty name.
    dynamic: HashMap<(Arc<str>, String), Spot>,
    /// Schemas whose `$id` another one has.
    repeated: Vec<Spot>,
}

impl Resources {
    /// None yet, beside those of `outer`.
    pub fn over(outer: Arc<Resources>) -> Self {
        Self { outer: Some(outer), ..Self::default() }
    }

    /// Adds a document known by an address.
    pub fn add(&mut self, address: &str, json: Arc<Json>) -> u32 {
        let document = self.first() + u32::try_from(self.documents.len()).unwrap_or(u32::MAX);
        let draft = draft(&json, Draft::default());
        let root = Spot { document, pointer: String::new() };
        let base: Arc<str> = own_base(&json, &Context { base: address.into(), draft });
        self.by_address.insert(address.to_owned(), Resource { spot: root.clone(), base });
        self.walk(&json, &root, &Context { base: address.into(), draft: Draft::default() });
        self.documents.push((address.into(), json));
        document
    }

    fn walk(&mut self, schema: &Json, spot: &Spot, outer: &Context) {
        if !schema.is_object() {
            return;
        }
        let context = inner_context(schema, outer);
        if let Some((address, name)) = id(schema, context.draft) {
            if !address.is_empty() {
                let resource = Resource { spot: spot.clone(), base: context.base.clone() };
                let known = self.by_address.entry(context.base.to_string()).or_insert(resource);
                if known.spot != *spot {
                    self.repeated.push(spot.clone());
                }
            }
            if !name.is_empty() {
                self.names.insert((context.base.clone(), name.to_owned()), spot.clone());
            }
        }
        for keyword in ["$anchor", "$dynamicAnchor"] {
            if let Some(name) = schema.get(keyword).and_then(Json::as_str) {
                self.names.insert((context.base.clone(), name.to_owned()), spot.clone());
                if keyword == "$dynamicAnchor" {
                    self.dynamic.insert((context.base.clone(), name.to_owned()), spot.clone());
                }
            }
        }
        if schema.get("$recursiveAnchor") == Some(&Json::Bool(true)) {
            self.dynamic.insert((context.base.clone(), String::new()), spot.clone());
        }
        each_inner(schema, &mut |tokens, inner| {
            let mut spot = spot.clone();
            push_tokens(&mut spot.pointer, tokens);
            self.walk(inner, &spot, &context);
        });
    }

    /// Schemas whose `$id` another one has.
    pub fn repeated(&self) -> &[Spot] {
        &self.repeated
    }

    /// A document with the address that it is known by.
    pub fn document(&self, document: u32) -> &(Arc<str>, Arc<Json>) {
        match &self.outer {
            Some(outer) if document < self.first() => outer.document(document),
            _ => &self.documents[(document - self.first()) as usize],
        }
    }

    /// The value at a place.
    pub fn at(&self, spot: &Spot) -> Option<&Json> {
        self.document(spot.document).1.pointer(&spot.pointer)
    }

    /// What a place is relative to: what stands around it says so, and the schema there itself.
    pub fn context(&self, spot: &Spot) -> Context {
        let (address, root) = self.document(spot.document);
        let mut here: &Json = root;
        let mut context = inner_context(here, &Context { base: address.clone(), draft: Draft::default() });
        let mut data = false;
        for token in spot.pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            data |= here.is_object() && holds(&token) == Holds::Data;
            let next = match here {
                Json::Object(members) => members.get(&token),
                Json::Array(items) => token.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => None,
            };
            let Some(next) = next else { break };
            here = next;
            if !data {
                context = inner_context(here, &context);
            }
        }
        context
    }

    /// The place that a reference leads to.
    pub fn resolve(&self, base: &str, reference: &str) -> Result<Spot, Unresolved> {
        let (address, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let absolute = join(base, address).unwrap_or_else(|| address.to_owned());
        let resource = self.resource(&absolute).ok_or(Unresolved::Address(absolute))?;
        let fragment = percent_encoding::percent_decode_str(fragment).decode_utf8_lossy();
        if fragment.is_empty() {
            return Ok(resource.spot.clone());
        }
        if fragment.starts_with('/') {
            let mut spot = resource.spot.clone();
            spot.pointer.push_str(&fragment);
            return if self.at(&spot).is_some() { Ok(spot) } else { Err(Unresolved::Fragment(resource.spot.clone())) };
        }
        let found = self.named(&resource.base, &fragment);
        found.cloned().ok_or_else(|| Unresolved::Fragment(resource.spot.clone()))
    }

    /// The resource with an address.
    pub fn resource(&self, address: &str) -> Option<&Resource> {
        self.by_address.get(address).or_else(|| self.outer.as_ref()?.resource(address))
    }

    fn named(&self, base: &Arc<str>, name: &str) -> Option<&Spot> {
        self.names.get(&(base.clone(), name.to_owned())).or_else(|| self.outer.as_ref()?.named(base, name))
    }

    /// Whether a `$dynamicRef` that leads here looks for a place of that name further out.
    pub fn is_dynamic(&self, base: &Arc<str>, name: &str) -> bool {
        self.dynamic.contains_key(&(base.clone(), name.to_owned()))
            || self.outer.as_ref().is_some_and(|outer| outer.is_dynamic(base, name))
    }

    /// Every place of a name that a `$dynamicRef` can lead to, with the resource that it stands in.
    pub fn dynamic(&self, name: &str) -> Vec<(Arc<str>, Spot)> {
        let own = self.dynamic.iter().filter(|((_, known), _)| known == name);
        let own = own.map(|((base, _), spot)| (base.clone(), spot.clone()));
        own.chain(self.outer.iter().flat_map(|outer| outer.dynamic(name))).collect()
    }

    fn first(&self) -> u32 {
        self.outer.as_ref().map_or(0, |outer| outer.first() + u32::try_from(outer.documents.len()).unwrap_or(u32::MAX))
    }
}

/// What the inside of a schema is relative to.
pub fn inner_context(schema: &Json, outer: &Context) -> Context {
    if !schema.is_object() {
        return outer.clone();
    }
    let draft = draft(schema, outer.draft);
    let context = Context { base: outer.base.clone(), draft };
    Context { base: own_base(schema, &context), draft }
}

fn own_base(schema: &Json, context: &Context) -> Arc<str> {
    match id(schema, context.draft) {
        Some((address, _)) if !address.is_empty() => {
            join(&context.base, address).map_or_else(|| context.base.clone(), Arc::from)
        }
        _ => context.base.clone(),
    }
}
