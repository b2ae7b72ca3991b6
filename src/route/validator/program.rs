//! A compiled schema: nodes that refer to one another by number, so that recursion is no deeper than the value.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde_json::{Number, Value as Json};

use super::pattern::Pattern;

/// Number of a node.
pub type NodeId = u32;

/// The nodes of all that was compiled together, and of what that builds on.
#[derive(Debug, Default)]
pub struct Program {
    /// The nodes of the files, for a schema that stands in the table.
    pub outer: Option<Arc<Program>>,
    /// Number of the first node of its own.
    pub first: NodeId,
    /// Its own nodes.
    pub nodes: Vec<Node>,
    /// Number of the first resource of its own.
    pub first_resource: u32,
    /// Number of each resource of its own by its address.
    pub resources: HashMap<Arc<str>, u32>,
    /// Nodes that a `$dynamicRef` can lead to, by resource and name.
    pub dynamic: HashMap<(u32, Arc<str>), NodeId>,
    /// Whether any node looks at the way that led to it.
    pub has_dynamic: bool,
}

impl Program {
    /// The node with a number.
    #[inline]
    pub fn node(&self, id: NodeId) -> &Node {
        match &self.outer {
            Some(outer) if id < self.first => outer.node(id),
            _ => &self.nodes[(id - self.first) as usize],
        }
    }

    /// The number of a resource.
    pub fn resource(&self, address: &str) -> Option<u32> {
        self.resources.get(address).copied().or_else(|| self.outer.as_ref()?.resource(address))
    }

    /// Nodes of its own from which a way leads back to them that never goes into the value, one of each circle.
    pub fn circles(&self) -> HashSet<NodeId> {
        #[derive(Clone, Copy, PartialEq, Eq)]
        enum Seen {
            Not,
            OnTheWay,
            Done,
        }
        let mut seen = vec![Seen::Not; self.nodes.len()];
        let mut circles = HashSet::new();
        for start in 0..self.nodes.len() {
            if seen[start] != Seen::Not {
                continue;
            }
            seen[start] = Seen::OnTheWay;
            let mut way = vec![(start, self.nodes[start].in_place())];
            while let Some((at, left)) = way.last_mut() {
                let Some(next) = left.pop() else {
                    seen[*at] = Seen::Done;
                    way.pop();
                    continue;
                };
                // What stands further out was compiled before, and refers to nothing in here.
                let Some(next) = next.checked_sub(self.first).map(|next| next as usize) else { continue };
                match seen[next] {
                    Seen::Done => {}
                    Seen::OnTheWay => {
                        circles.insert(self.first + NodeId::try_from(next).unwrap_or(NodeId::MAX));
                    }
                    Seen::Not => {
                        seen[next] = Seen::OnTheWay;
                        way.push((next, self.nodes[next].in_place()));
                    }
                }
            }
        }
        circles
    }

    /// The node of a name in a resource, if a `$dynamicRef` can lead to it.
    pub fn dynamic(&self, resource: u32, name: &Arc<str>) -> Option<NodeId> {
        let own = self.dynamic.get(&(resource, name.clone())).copied();
        own.or_else(|| self.outer.as_ref()?.dynamic(resource, name))
    }
}

/// One schema.
#[derive(Debug, Default)]
pub struct Node {
    /// The resource that it stands in.
    pub resource: u32,
    /// What is checked, the cheap first.
    pub checks: Vec<Check>,
}

impl Node {
    /// Nodes that look at the same value.
    fn in_place(&self) -> Vec<NodeId> {
        let mut nodes = Vec::new();
        for check in &self.checks {
            match check {
                Check::Ref(node) | Check::DynamicRef(_, node) | Check::Not(node) => nodes.push(*node),
                Check::AllOf(ids) | Check::AnyOf(ids) | Check::OneOf(ids) => nodes.extend(ids),
                Check::If(condition, then, otherwise) => {
                    nodes.extend([Some(*condition), *then, *otherwise].into_iter().flatten());
                }
                Check::DependentSchemas(schemas) => nodes.extend(schemas.iter().map(|(_, node)| node)),
                _ => {}
            }
        }
        nodes
    }
}

/// One thing that a schema asks of a value.
#[derive(Debug)]
pub enum Check {
    /// Nothing is valid.
    Never,
    /// `type`
    Type(TypeSet),
    /// `const`
    Const(Json),
    /// `enum`; texts apart, when there are many.
    Enum(Vec<Json>, Option<HashSet<String>>),
    /// `minimum`, `maximum`, …
    Bound(Bound, Number),
    /// `multipleOf`
    MultipleOf(Number),
    /// `minLength`, `maxItems`, …
    Size(Counted, Limit, u64),
    /// `pattern`
    Pattern(Arc<Pattern>),
    /// `format`, and what describes the content of a text.
    Text(&'static str, String, Arc<jsonschema::Validator>),
    /// `required`
    Required(Vec<String>),
    /// `dependentRequired`
    DependentRequired(Vec<(String, Vec<String>)>),
    /// `uniqueItems`
    UniqueItems,
    /// `properties`, `patternProperties`, `additionalProperties`
    Properties(Box<Properties>),
    /// `propertyNames`
    PropertyNames(NodeId),
    /// `prefixItems`, `items`, `additionalItems`
    Items(Box<Items>),
    /// `contains`
    Contains(Box<Contains>),
    /// `$ref`
    Ref(NodeId),
    /// A `$ref` to a meta-schema.
    Meta(Arc<jsonschema::Validator>),
    /// `$dynamicRef`, `$recursiveRef`: the name, and where it leads when nothing further out has it.
    DynamicRef(Arc<str>, NodeId),
    /// `allOf`
    AllOf(Vec<NodeId>),
    /// `anyOf`
    AnyOf(Vec<NodeId>),
    /// `oneOf`
    OneOf(Vec<NodeId>),
    /// `not`
    Not(NodeId),
    /// `if` with `then` and `else`
    If(NodeId, Option<NodeId>, Option<NodeId>),
    /// `dependentSchemas`
    DependentSchemas(Vec<(String, NodeId)>),
    /// `unevaluatedItems`
    UnevaluatedItems(NodeId),
    /// `unevaluatedProperties`
    UnevaluatedProperties(NodeId),
}

/// Types of JSON Schema.
pub const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

/// A set of [`TYPES`], a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeSet {
    /// Bits by place in [`TYPES`].
    pub bits: u8,
    /// Whether `1.0` is an integer (from draft 6 on).
    pub whole_floats: bool,
}

/// Which end of the numbers, and whether it is excluded itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Bound {
    Minimum,
    Maximum,
    ExclusiveMinimum,
    ExclusiveMaximum,
}

/// What of a value is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Counted {
    Length,
    Items,
    Properties,
}

/// Least or most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Limit {
    Least,
    Most,
}

/// What properties must be.
#[derive(Debug, Default)]
pub struct Properties {
    /// By name.
    pub named: HashMap<String, NodeId>,
    /// Names as the schema has them; those first that tell one kind of object from another.
    pub order: Vec<String>,
    /// How many of them tell kinds apart.
    pub telling: usize,
    /// By pattern.
    pub patterns: Vec<(Arc<Pattern>, NodeId)>,
    /// All others.
    pub others: Option<NodeId>,
}

/// What items must be.
#[derive(Debug, Default)]
pub struct Items {
    /// The first ones.
    pub prefix: Vec<NodeId>,
    /// The keyword that says so.
    pub prefix_keyword: &'static str,
    /// All others.
    pub others: Option<NodeId>,
    /// The keyword that says so.
    pub others_keyword: &'static str,
}

/// How many items must be valid.
#[derive(Debug)]
pub struct Contains {
    /// Under what.
    pub node: NodeId,
    /// At least so many.
    pub least: u64,
    /// At most so many.
    pub most: Option<u64>,
    /// Whether those are evaluated, for `unevaluatedItems` (from 2020-12 on).
    pub evaluates: bool,
}

impl Check {
    /// The keyword that asks it.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Never => "false",
            Self::Type(_) => "type",
            Self::Const(_) => "const",
            Self::Enum(..) => "enum",
            Self::Bound(Bound::Minimum, _) => "minimum",
            Self::Bound(Bound::Maximum, _) => "maximum",
            Self::Bound(Bound::ExclusiveMinimum, _) => "exclusiveMinimum",
            Self::Bound(Bound::ExclusiveMaximum, _) => "exclusiveMaximum",
            Self::MultipleOf(_) => "multipleOf",
            Self::Size(Counted::Length, Limit::Least, _) => "minLength",
            Self::Size(Counted::Length, Limit::Most, _) => "maxLength",
            Self::Size(Counted::Items, Limit::Least, _) => "minItems",
            Self::Size(Counted::Items, Limit::Most, _) => "maxItems",
            Self::Size(Counted::Properties, Limit::Least, _) => "minProperties",
            Self::Size(Counted::Properties, Limit::Most, _) => "maxProperties",
            Self::Pattern(_) => "pattern",
            Self::Text(keyword, ..) => keyword,
            Self::Required(_) => "required",
            Self::DependentRequired(_) => "dependentRequired",
            Self::UniqueItems => "uniqueItems",
            Self::Properties(_) => "properties",
            Self::PropertyNames(_) => "propertyNames",
            Self::Items(_) => "items",
            Self::Contains(_) => "contains",
            Self::Ref(_) | Self::Meta(_) => "$ref",
            Self::DynamicRef(..) => "$dynamicRef",
            Self::AllOf(_) => "allOf",
            Self::AnyOf(_) => "anyOf",
            Self::OneOf(_) => "oneOf",
            Self::Not(_) => "not",
            Self::If(..) => "if",
            Self::DependentSchemas(_) => "dependentSchemas",
            Self::UnevaluatedItems(_) => "unevaluatedItems",
            Self::UnevaluatedProperties(_) => "unevaluatedProperties",
        }
    }

    /// How much it costs, roughly: what is cheap is checked first, and what the others evaluated last.
    pub fn rank(&self) -> u8 {
        match self {
            Self::Never | Self::Type(_) | Self::Bound(..) | Self::Size(..) | Self::MultipleOf(_) => 0,
            Self::Required(_) | Self::DependentRequired(_) | Self::Const(_) | Self::Enum(..) => 1,
            Self::Pattern(_) | Self::Text(..) => 2,
            Self::Properties(_) => 3,
            Self::PropertyNames(_) | Self::UniqueItems | Self::Meta(_) => 4,
            Self::Items(_) => 5,
            Self::Contains(_) => 6,
            Self::Ref(_) | Self::DynamicRef(..) | Self::AllOf(_) => 7,
            Self::AnyOf(_) | Self::OneOf(_) | Self::Not(_) | Self::If(..) | Self::DependentSchemas(_) => 8,
            Self::UnevaluatedItems(_) | Self::UnevaluatedProperties(_) => 9,
        }
    }
}
