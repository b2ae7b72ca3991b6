//! From JSON to a [`Program`]. Compiling never fails: what is wrong in a schema is told before, with its place, and what
//! can't be used is left out here.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use jsonschema::Draft;
use serde_json::{Map, Value as Json, json};

use super::{
    keywords::{push_tokens, ref_stands_alone},
    pattern::Pattern,
    program::{Bound, Check, Contains, Counted, Items, Limit, Node, NodeId, Program, Properties, TYPES, TypeSet},
    resources::{Context, Resources, Spot, inner_context},
};

/// A program with the places that its nodes were made of.
#[derive(Debug, Default)]
pub struct Compiled {
    /// The nodes.
    pub program: Arc<Program>,
    /// Number of the node of each place that a reference leads to.
    nodes: HashMap<Spot, NodeId>,
    outer: Option<Arc<Compiled>>,
    /// References that lead nowhere.
    pub dangling: Vec<Dangling>,
    /// Which document refers to which, by number.
    pub refers: BTreeSet<(u32, u32)>,
}

/// A reference that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dangling {
    /// The schema that has it.
    pub spot: Spot,
    /// The keyword.
    pub keyword: &'static str,
    /// What is written.
    pub reference: String,
    /// What it is relative to.
    pub base: Arc<str>,
}

impl Compiled {
    /// The node of a place.
    pub fn node(&self, spot: &Spot) -> Option<NodeId> {
        self.nodes.get(spot).copied().or_else(|| self.outer.as_ref()?.node(spot))
    }

    /// Schemas that lead back to themselves without going into the value, one of each circle.
    pub fn endless(&self) -> Vec<&Spot> {
        let circles = self.program.circles();
        let mut spots: Vec<&Spot> =
            self.nodes.iter().filter(|(_, id)| circles.contains(id)).map(|(spot, _)| spot).collect();
        spots.sort_by(|a, b| (a.document, &a.pointer).cmp(&(b.document, &b.pointer)));
        spots
    }
}

/// Compiles the schemas at some places, and all that they refer to.
pub fn compile(resources: &Resources, roots: &[Spot], outer: Option<Arc<Compiled>>) -> Compiled {
    let below = outer.as_ref().map(|outer| outer.program.clone());
    let first = below.as_ref().map_or(0, |below| below.first + to_id(below.nodes.len()));
    let first_resource = below.as_ref().map_or(0, |below| below.first_resource + to_id(below.resources.len()));
    let has_dynamic = below.as_ref().is_some_and(|below| below.has_dynamic);
    let program = Program { outer: below, first, first_resource, has_dynamic, ..Program::default() };
    let mut compiler = Compiler {
        resources,
        program,
        compiled: Compiled { outer, ..Compiled::default() },
        waiting: VecDeque::new(),
        patterns: HashMap::new(),
        texts: HashMap::new(),
        names: HashSet::new(),
    };
    for root in roots {
        compiler.reference(root);
    }
    while let Some((spot, id)) = compiler.waiting.pop_front() {
        let Some(json) = resources.at(&spot) else { continue };
        let context = resources.context(&spot);
        let node = compiler.node(json, &spot, &context);
        compiler.put(id, node);
    }
    let Compiler { program, mut compiled, .. } = compiler;
    compiled.program = Arc::new(program);
    compiled
}

struct Compiler<'r> {
    resources: &'r Resources,
    program: Program,
    compiled: Compiled,
    /// Places that are referred to and not compiled yet.
    waiting: VecDeque<(Spot, NodeId)>,
    patterns: HashMap<String, Option<Arc<Pattern>>>,
    texts: HashMap<(String, String), Option<Arc<jsonschema::Validator>>>,
    /// Names of `$dynamicRef` whose places are known.
    names: HashSet<String>,
}

fn to_id(n: usize) -> NodeId {
    NodeId::try_from(n).unwrap_or(NodeId::MAX)
}

impl Compiler<'_> {
    /// The node of a place that is referred to; it is compiled in its turn.
    fn reference(&mut self, spot: &Spot) -> NodeId {
        if let Some(id) = self.compiled.node(spot) {
            return id;
        }
        let id = self.reserve();
        self.compiled.nodes.insert(spot.clone(), id);
        self.waiting.push_back((spot.clone(), id));
        id
    }

    fn reserve(&mut self) -> NodeId {
        self.program.nodes.push(Node::default());
        self.program.first + to_id(self.program.nodes.len() - 1)
    }

    fn put(&mut self, id: NodeId, node: Node) {
        self.program.nodes[(id - self.program.first) as usize] = node;
    }

    fn resource(&mut self, base: &Arc<str>) -> u32 {
        if let Some(known) = self.program.resource(base) {
            return known;
        }
        let next = self.program.first_resource + to_id(self.program.resources.len());
        self.program.resources.insert(base.clone(), next);
        next
    }

    /// A schema that stands in another, under these tokens.
    fn inner(&mut self, json: &Json, spot: &Spot, context: &Context, tokens: &[&str]) -> NodeId {
        let mut spot = spot.clone();
        push_tokens(&mut spot.pointer, tokens);
        if let Some(id) = self.compiled.nodes.get(&spot) {
            return *id;
        }
        let id = self.reserve();
        self.compiled.nodes.insert(spot.clone(), id);
        let node = self.node(json, &spot, &inner_context(json, context));
        self.put(id, node);
        id
    }

    fn node(&mut self, json: &Json, spot: &Spot, context: &Context) -> Node {
        let resource = self.resource(&context.base);
        let mut checks = Vec::new();
        match json {
            Json::Bool(false) => checks.push(Check::Never),
            Json::Object(schema) => {
                let here = Here { spot, context };
                self.references(schema, &here, &mut checks);
                if !(ref_stands_alone(context.draft) && schema.contains_key("$ref")) {
                    self.values(schema, context.draft, &mut checks);
                    self.objects(schema, &here, &mut checks);
                    self.arrays(schema, &here, &mut checks);
                    self.combined(schema, &here, &mut checks);
                    self.definitions(schema, &here);
                }
            }
            _ => {}
        }
        checks.sort_by_key(Check::rank);
        Node { resource, checks }
    }

    fn references(&mut self, schema: &Map<String, Json>, here: &Here<'_>, checks: &mut Vec<Check>) {
        let text = |keyword: &str| schema.get(keyword).and_then(Json::as_str);
        if let Some(target) = text("$ref") {
            if is_meta(target) {
                let draft = Draft::default().detect(&json!({ "$schema": target.split('#').next() }));
                checks.extend(self.text("$ref", target, draft).map(Check::Meta));
            } else if let Some(spot) = self.resolve(here, "$ref", target) {
                checks.push(Check::Ref(self.reference(&spot)));
            }
        }
        let dynamic = match here.context.draft {
            Draft::Draft201909 => text("$recursiveRef").map(|target| ("$recursiveRef", target)),
            draft if ref_stands_alone(draft) => None,
            _ => text("$dynamicRef").map(|target| ("$dynamicRef", target)),
        };
        let Some((keyword, target)) = dynamic else { return };
        let Some(spot) = self.resolve(here, keyword, target) else { return };
        let id = self.reference(&spot);
        let name = if keyword == "$recursiveRef" { "" } else { target.split_once('#').map_or("", |(_, name)| name) };
        let base = self.resources.context(&spot).base;
        if !self.resources.is_dynamic(&base, name) {
            checks.push(Check::Ref(id));
            return;
        }
        self.program.has_dynamic = true;
        if self.names.insert(name.to_owned()) {
            for (base, spot) in self.resources.dynamic(name) {
                let id = self.reference(&spot);
                let resource = self.resource(&base);
                self.program.dynamic.insert((resource, name.into()), id);
            }
        }
        checks.push(Check::DynamicRef(name.into(), id));
    }

    fn resolve(&mut self, here: &Here<'_>, keyword: &'static str, reference: &str) -> Option<Spot> {
        let base = &here.context.base;
        if let Ok(spot) = self.resources.resolve(base, reference) {
            self.compiled.refers.insert((here.spot.document, spot.document));
            return Some(spot);
        }
        self.compiled.dangling.push(Dangling {
            spot: here.spot.clone(),
            keyword,
            reference: reference.to_owned(),
            base: base.clone(),
        });
        None
    }

    fn values(&mut self, schema: &Map<String, Json>, draft: Draft, checks: &mut Vec<Check>) {
        const SIZES: [(&str, Counted, Limit); 6] = [
            ("minLength", Counted::Length, Limit::Least),
            ("maxLength", Counted::Length, Limit::Most),
            ("minItems", Counted::Items, Limit::Least),
            ("maxItems", Counted::Items, Limit::Most),
            ("minProperties", Counted::Properties, Limit::Least),
            ("maxProperties", Counted::Properties, Limit::Most),
        ];
        if let Some(types) = schema.get("type") {
            checks.push(Check::Type(type_set(types, draft)));
        }
        if let Some(value) = schema.get("const").filter(|_| draft != Draft::Draft4) {
            checks.push(Check::Const(value.clone()));
        }
        if let Some(Json::Array(values)) = schema.get("enum") {
            checks.push(Check::Enum(values.clone(), many_texts(values)));
        }
        bounds(schema, draft, checks);
        if let Some(Json::Number(of)) = schema.get("multipleOf") {
            checks.push(Check::MultipleOf(of.clone()));
        }
        for (keyword, counted, limit) in SIZES {
            if let Some(size) = schema.get(keyword).and_then(whole) {
                checks.push(Check::Size(counted, limit, size));
            }
        }
        if let Some(text) = schema.get("pattern").and_then(Json::as_str) {
            checks.extend(self.pattern(text).map(Check::Pattern));
        }
        let content = matches!(draft, Draft::Draft6 | Draft::Draft7);
        for (keyword, asserted) in [("format", true), ("contentEncoding", content), ("contentMediaType", content)] {
            if let Some(name) = schema.get(keyword).and_then(Json::as_str).filter(|_| asserted) {
                checks.extend(self.text(keyword, name, draft).map(|v| Check::Text(keyword, name.to_owned(), v)));
            }
        }
        if schema.get("uniqueItems") == Some(&Json::Bool(true)) {
            checks.push(Check::UniqueItems);
        }
        if let Some(Json::Array(names)) = schema.get("required") {
            checks.push(Check::Required(texts(names)));
        }
    }

    fn objects(&mut self, schema: &Map<String, Json>, here: &Here<'_>, checks: &mut Vec<Check>) {
        let mut properties = Properties::default();
        for (name, json) in named(schema, "properties") {
            let id = self.inner(json, here.spot, here.context, &["properties", name]);
            properties.named.insert(name.clone(), id);
            properties.order.push(name.clone());
        }
        // What is one of a few values tells which kind of object it is: the others need not be looked at then.
        let tells = |name: &String| {
            schema["properties"][name.as_str()]
                .as_object()
                .is_some_and(|schema| schema.contains_key("const") || schema.contains_key("enum"))
        };
        properties.order.sort_by_key(|name| !tells(name));
        properties.telling = properties.order.iter().take_while(|name| tells(name)).count();
        for (pattern, json) in named(schema, "patternProperties") {
            let id = self.inner(json, here.spot, here.context, &["patternProperties", pattern]);
            if let Some(pattern) = self.pattern(pattern) {
                properties.patterns.push((pattern, id));
            }
        }
        properties.others = schema
            .get("additionalProperties")
            .map(|json| self.inner(json, here.spot, here.context, &["additionalProperties"]));
        if !properties.named.is_empty() || !properties.patterns.is_empty() || properties.others.is_some() {
            checks.push(Check::Properties(Box::new(properties)));
        }
        if let Some(json) = schema.get("propertyNames").filter(|_| here.context.draft != Draft::Draft4) {
            checks.push(Check::PropertyNames(self.inner(json, here.spot, here.context, &["propertyNames"])));
        }
        let modern = matches!(here.context.draft, Draft::Draft201909 | Draft::Draft202012 | Draft::Unknown);
        let (mut names, mut schemas) = (Vec::new(), Vec::new());
        for keyword in ["dependentRequired", "dependentSchemas", "dependencies"] {
            if keyword != "dependencies" && !modern {
                continue;
            }
            for (name, value) in named(schema, keyword) {
                match value {
                    Json::Array(required) if keyword != "dependentSchemas" => {
                        names.push((name.clone(), texts(required)));
                    }
                    // Draft 3 wrote one name like this, and the meta-schema of draft 4 refuses it.
                    Json::Object(_) | Json::Bool(_) if keyword != "dependentRequired" => {
                        schemas.push((name.clone(), self.inner(value, here.spot, here.context, &[keyword, name])));
                    }
                    _ => {}
                }
            }
        }
        if !names.is_empty() {
            checks.push(Check::DependentRequired(names));
        }
        if !schemas.is_empty() {
            checks.push(Check::DependentSchemas(schemas));
        }
    }

    fn arrays(&mut self, schema: &Map<String, Json>, here: &Here<'_>, checks: &mut Vec<Check>) {
        let newest = matches!(here.context.draft, Draft::Draft202012 | Draft::Unknown);
        let mut items = Items { prefix_keyword: "items", others_keyword: "items", ..Items::default() };
        let one = |this: &mut Self, keyword: &'static str| {
            let json = schema.get(keyword)?;
            Some(this.inner(json, here.spot, here.context, &[keyword]))
        };
        if newest {
            items.prefix_keyword = "prefixItems";
            items.prefix = self.list(schema, "prefixItems", here);
            items.others = one(self, "items");
        } else if schema.get("items").is_some_and(Json::is_array) {
            items.prefix = self.list(schema, "items", here);
            items.others_keyword = "additionalItems";
            items.others = one(self, "additionalItems");
        } else {
            items.others = one(self, "items");
        }
        if !items.prefix.is_empty() || items.others.is_some() {
            checks.push(Check::Items(Box::new(items)));
        }
        if here.context.draft != Draft::Draft4
            && let Some(node) = one(self, "contains")
        {
            let counted = !ref_stands_alone(here.context.draft);
            let count = |keyword: &str| schema.get(keyword).and_then(whole).filter(|_| counted);
            let (least, most) = (count("minContains").unwrap_or(1), count("maxContains"));
            checks.push(Check::Contains(Box::new(Contains { node, least, most, evaluates: newest })));
        }
    }

    fn combined(&mut self, schema: &Map<String, Json>, here: &Here<'_>, checks: &mut Vec<Check>) {
        let some = |ids: Vec<NodeId>| Some(ids).filter(|ids| !ids.is_empty());
        checks.extend(some(self.list(schema, "allOf", here)).map(Check::AllOf));
        checks.extend(some(self.list(schema, "anyOf", here)).map(Check::AnyOf));
        checks.extend(some(self.list(schema, "oneOf", here)).map(Check::OneOf));
        let mut one = |keyword: &str| {
            let json = schema.get(keyword)?;
            Some(self.inner(json, here.spot, here.context, &[keyword]))
        };
        checks.extend(one("not").map(Check::Not));
        if !matches!(here.context.draft, Draft::Draft4 | Draft::Draft6)
            && let Some(condition) = one("if")
        {
            checks.push(Check::If(condition, one("then"), one("else")));
        }
        if !ref_stands_alone(here.context.draft) {
            checks.extend(one("unevaluatedItems").map(Check::UnevaluatedItems));
            checks.extend(one("unevaluatedProperties").map(Check::UnevaluatedProperties));
        }
    }

    /// What is defined for others to refer to is compiled whether anything does or not: it is checked whole.
    fn definitions(&mut self, schema: &Map<String, Json>, here: &Here<'_>) {
        for keyword in ["$defs", "definitions"] {
            for (name, json) in named(schema, keyword) {
                self.inner(json, here.spot, here.context, &[keyword, name]);
            }
        }
    }

    fn list(&mut self, schema: &Map<String, Json>, keyword: &str, here: &Here<'_>) -> Vec<NodeId> {
        let Some(Json::Array(schemas)) = schema.get(keyword) else { return Vec::new() };
        let inner = schemas.iter().enumerate();
        inner.map(|(n, json)| self.inner(json, here.spot, here.context, &[keyword, &n.to_string()])).collect()
    }

    fn pattern(&mut self, text: &str) -> Option<Arc<Pattern>> {
        if let Some(known) = self.patterns.get(text) {
            return known.clone();
        }
        let pattern = Pattern::new(text).map(Arc::new);
        self.patterns.insert(text.to_owned(), pattern.clone());
        pattern
    }

    /// What one keyword says of a text, as the library checks it; `None` for what it does not know.
    fn text(&mut self, keyword: &'static str, value: &str, draft: Draft) -> Option<Arc<jsonschema::Validator>> {
        if keyword == "format" && !jsonschema::options().is_known_format(draft, value) {
            return None;
        }
        let key = (format!("{keyword} {draft:?}"), value.to_owned());
        if let Some(known) = self.texts.get(&key) {
            return known.clone();
        }
        let options = jsonschema::options().with_draft(draft).should_validate_formats(true);
        let validator = options.build(&json!({ keyword: value })).ok().map(Arc::new);
        self.texts.insert(key, validator.clone());
        validator
    }
}

/// A schema's place.
struct Here<'h> {
    spot: &'h Spot,
    context: &'h Context,
}

/// Whether a reference leads to one of the schemas of JSON Schema itself.
pub fn is_meta(reference: &str) -> bool {
    ["https://json-schema.org/draft", "http://json-schema.org/draft"].iter().any(|start| reference.starts_with(start))
}

fn type_set(types: &Json, draft: Draft) -> TypeSet {
    let bit = |name: &Json| {
        let place = name.as_str().and_then(|name| TYPES.iter().position(|known| *known == name));
        place.map_or(0, |place| 1 << place)
    };
    let bits = match types {
        Json::Array(names) => names.iter().map(bit).fold(0, |all, one| all | one),
        name => bit(name),
    };
    TypeSet { bits, whole_floats: draft != Draft::Draft4 }
}

fn bounds(schema: &Map<String, Json>, draft: Draft, checks: &mut Vec<Check>) {
    let number = |keyword: &str| match schema.get(keyword) {
        Some(Json::Number(number)) => Some(number.clone()),
        _ => None,
    };
    let flag = |keyword: &str| schema.get(keyword) == Some(&Json::Bool(true));
    let (least, most) = if draft == Draft::Draft4 && (flag("exclusiveMinimum") || flag("exclusiveMaximum")) {
        let least = if flag("exclusiveMinimum") { Bound::ExclusiveMinimum } else { Bound::Minimum };
        (least, if flag("exclusiveMaximum") { Bound::ExclusiveMaximum } else { Bound::Maximum })
    } else {
        (Bound::Minimum, Bound::Maximum)
    };
    checks.extend(number("minimum").map(|n| Check::Bound(least, n)));
    checks.extend(number("maximum").map(|n| Check::Bound(most, n)));
    checks.extend(number("exclusiveMinimum").map(|n| Check::Bound(Bound::ExclusiveMinimum, n)));
    checks.extend(number("exclusiveMaximum").map(|n| Check::Bound(Bound::ExclusiveMaximum, n)));
}

/// A whole number, however it is written; one that is too large for any value is the largest.
fn whole(value: &Json) -> Option<u64> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    value.as_u64().or_else(|| value.as_f64().filter(|n| *n >= 0.0).map(|n| n.trunc() as u64))
}

fn named<'j>(schema: &'j Map<String, Json>, keyword: &str) -> impl Iterator<Item = (&'j String, &'j Json)> {
    schema.get(keyword).and_then(Json::as_object).into_iter().flatten()
}

fn texts(values: &[Json]) -> Vec<String> {
    values.iter().filter_map(Json::as_str).map(str::to_owned).collect()
}

/// Texts among the values of an `enum`, where there are so many that a look-up is worth it.
fn many_texts(values: &[Json]) -> Option<HashSet<String>> {
    const MANY: usize = 16;
    (values.len() > MANY).then(|| texts(values).into_iter().collect())
}
