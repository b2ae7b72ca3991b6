//! Whether a value is valid. Every step is taken from a budget, and what a place of a schema said of a place of the value
//! is remembered once there was much to do: the work grows with the product of both, never by the power of their depth.

use std::{collections::HashMap, sync::Arc};

use serde_json::{Map, Value};

use super::{
    budget::{Budget, Exhausted},
    program::{Bound, Check, Contains, Counted, Items, Limit, NodeId, Program, Properties, TypeSet},
    values::{compare, equal, is_multiple, is_whole, unique},
};

/// References that are followed before anything is remembered: a small value needs no memory.
const REFERENCES_WITHOUT_MEMORY: u32 = 64;
/// Most results that are remembered, about 4 MB of them.
const MAX_REMEMBERED: usize = 1 << 17;
/// Schemas that may be entered within one another.
const MAX_DEPTH: u32 = 1_000;

/// A schema's place, a value's address, and the way that led there, where that matters.
type Remembered = (NodeId, usize, u64);

/// One validation.
pub struct Evaluation<'p, 'b> {
    pub(super) program: &'p Program,
    pub(super) budget: &'b mut Budget,
    remembered: HashMap<Remembered, bool>,
    references: u32,
    depth: u32,
    /// Inside of a value that is made on the way, whose address means nothing.
    temporary: u32,
    /// Resources that were entered, outermost first, each with a sum of all up to it.
    scope: Vec<(u32, u64)>,
}

type Verdict = Result<bool, Exhausted>;

impl<'p, 'b> Evaluation<'p, 'b> {
    /// Begins one.
    pub fn new(program: &'p Program, budget: &'b mut Budget) -> Self {
        Self { program, budget, remembered: HashMap::new(), references: 0, depth: 0, temporary: 0, scope: Vec::new() }
    }

    /// Whether a value is valid under a node.
    pub fn valid(&mut self, id: NodeId, value: &Value) -> Verdict {
        self.budget.spend(1)?;
        let node = self.program.node(id);
        let entered = self.enter(node.resource)?;
        let mut verdict = Ok(true);
        for check in &node.checks {
            verdict = self.check(id, check, value);
            if verdict != Ok(true) {
                break;
            }
        }
        self.leave(entered);
        verdict
    }

    /// Goes into a schema; says whether its resource is another one than before.
    pub(super) fn enter(&mut self, resource: u32) -> Result<bool, Exhausted> {
        if self.depth == MAX_DEPTH {
            return Err(Exhausted);
        }
        self.depth += 1;
        if !self.program.has_dynamic {
            return Ok(false);
        }
        let (last, sum) = self.scope.last().copied().unwrap_or((u32::MAX, 0));
        if last == resource {
            return Ok(false);
        }
        let sum = sum.wrapping_mul(0x0100_0000_01b3) ^ (u64::from(resource) + 1);
        self.scope.push((resource, sum));
        Ok(true)
    }

    pub(super) fn leave(&mut self, entered: bool) {
        self.depth -= 1;
        if entered {
            self.scope.pop();
        }
    }

    /// The same for what a reference leads to: it may have been asked before.
    pub(super) fn referred(&mut self, id: NodeId, value: &Value) -> Verdict {
        self.references = self.references.saturating_add(1);
        if self.references <= REFERENCES_WITHOUT_MEMORY || self.temporary > 0 {
            return self.valid(id, value);
        }
        let key = self.key(id, value);
        if let Some(known) = self.remembered.get(&key) {
            self.budget.spend(1)?;
            return Ok(*known);
        }
        let verdict = self.valid(id, value)?;
        if self.remembered.len() < MAX_REMEMBERED {
            self.remembered.insert(key, verdict);
        }
        Ok(verdict)
    }

    pub(super) fn key(&self, id: NodeId, value: &Value) -> Remembered {
        (id, std::ptr::from_ref(value) as usize, self.scope.last().map_or(0, |(_, sum)| *sum))
    }

    /// Where a `$dynamicRef` leads: to the outermost resource on the way that has the name.
    pub(super) fn target(&self, name: &Arc<str>, otherwise: NodeId) -> NodeId {
        self.scope.iter().find_map(|(resource, _)| self.program.dynamic(*resource, name)).unwrap_or(otherwise)
    }

    fn all(&mut self, ids: &[NodeId], value: &Value) -> Verdict {
        for id in ids {
            if !self.valid(*id, value)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many of some schemas take a value, as far as `most`.
    pub(super) fn count(&mut self, ids: &[NodeId], value: &Value, most: usize) -> Result<usize, Exhausted> {
        let mut count = 0;
        for id in ids {
            count += usize::from(self.valid(*id, value)?);
            if count == most {
                break;
            }
        }
        Ok(count)
    }

    /// Whether one check of a node lets a value through. What goes deeper is here, in as small a frame as can be; the rest is
    /// [`Self::value`]'s.
    pub(super) fn check(&mut self, id: NodeId, check: &Check, value: &Value) -> Verdict {
        match (check, value) {
            (Check::Properties(properties), Value::Object(members)) => self.properties(properties, members),
            (Check::PropertyNames(node), Value::Object(members)) => self.names(*node, members),
            (Check::Items(items), Value::Array(list)) => self.items(items, list),
            (Check::Contains(contains), Value::Array(list)) => self.contains(contains, list),
            (Check::Ref(target), value) => self.referred(*target, value),
            (Check::DynamicRef(name, otherwise), value) => self.referred(self.target(name, *otherwise), value),
            (Check::AllOf(ids), value) => self.all(ids, value),
            (Check::AnyOf(ids), value) => Ok(self.count(ids, value, 1)? == 1),
            (Check::OneOf(ids), value) => Ok(self.count(ids, value, 2)? == 1),
            (Check::Not(node), value) => Ok(!self.valid(*node, value)?),
            (Check::If(condition, then, otherwise), value) => self.branch(*condition, *then, *otherwise, value),
            (Check::DependentSchemas(schemas), Value::Object(members)) => self.dependent(schemas, value, members),
            (Check::UnevaluatedItems(node), Value::Array(items)) => self.rest_of_items(id, *node, value, items),
            (Check::UnevaluatedProperties(node), Value::Object(members)) => {
                self.rest_of_properties(id, *node, value, members)
            }
            (check, value) => self.value(check, value),
        }
    }

    /// The same for what looks at no part of the value by a schema of its own.
    #[inline(never)]
    fn value(&mut self, check: &Check, value: &Value) -> Verdict {
        match (check, value) {
            (Check::Never, _) => Ok(false),
            (Check::Type(types), value) => Ok(types.takes(value)),
            (Check::Const(expected), value) => {
                self.budget.spend(weight(expected))?;
                Ok(equal(value, expected))
            }
            (Check::Enum(_, Some(texts)), Value::String(text)) => Ok(texts.contains(text)),
            (Check::Enum(values, _), value) => {
                self.budget.spend(values.len() as u64 / 8)?;
                Ok(values.iter().any(|expected| equal(value, expected)))
            }
            (Check::Bound(bound, limit), Value::Number(number)) => Ok(bound.takes(compare(number, limit))),
            (Check::MultipleOf(of), Value::Number(number)) => Ok(is_multiple(number, of)),
            (Check::Size(counted, limit, size), value) => self.size(*counted, *limit, *size, value),
            (Check::Pattern(pattern), Value::String(text)) => pattern.is_match(text, self.budget),
            (Check::Text(_, _, validator), Value::String(text)) => {
                self.budget.spend(text.len() as u64 / 16)?;
                Ok(validator.is_valid(value))
            }
            (Check::Required(names), Value::Object(members)) => {
                self.budget.spend(names.len() as u64 / 8)?;
                Ok(names.iter().all(|name| members.contains_key(name)))
            }
            (Check::DependentRequired(names), Value::Object(members)) => {
                self.budget.spend(names.iter().map(|(_, names)| names.len() as u64).sum::<u64>() / 8)?;
                let whole = |names: &Vec<String>| names.iter().all(|name| members.contains_key(name));
                Ok(names.iter().all(|(name, others)| !members.contains_key(name) || whole(others)))
            }
            (Check::UniqueItems, Value::Array(items)) => unique(items, self.budget),
            (Check::Meta(validator), value) => {
                self.budget.spend(weight(value))?;
                Ok(validator.is_valid(value))
            }
            // About another type of value.
            _ => Ok(true),
        }
    }

    fn names(&mut self, node: NodeId, members: &Map<String, Value>) -> Verdict {
        for name in members.keys() {
            if !self.name(node, name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn items(&mut self, items: &Items, list: &[Value]) -> Verdict {
        for (index, item) in list.iter().enumerate() {
            let Some(node) = items.prefix.get(index).copied().or(items.others) else { break };
            if !self.valid(node, item)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn contains(&mut self, contains: &Contains, list: &[Value]) -> Verdict {
        let mut count = 0;
        for item in list {
            count += u64::from(self.valid(contains.node, item)?);
            if contains.most.is_some_and(|most| count > most) {
                return Ok(false);
            }
            if contains.most.is_none() && count >= contains.least {
                break;
            }
        }
        Ok(count >= contains.least)
    }

    fn branch(&mut self, condition: NodeId, then: Option<NodeId>, otherwise: Option<NodeId>, value: &Value) -> Verdict {
        let branch = if self.valid(condition, value)? { then } else { otherwise };
        branch.map_or(Ok(true), |branch| self.valid(branch, value))
    }

    fn dependent(&mut self, schemas: &[(String, NodeId)], value: &Value, members: &Map<String, Value>) -> Verdict {
        for (name, node) in schemas {
            if members.contains_key(name) && !self.valid(*node, value)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn rest_of_items(&mut self, id: NodeId, node: NodeId, value: &Value, items: &[Value]) -> Verdict {
        for index in self.unevaluated_items(id, value, items)? {
            if !self.valid(node, &items[index])? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn rest_of_properties(&mut self, id: NodeId, node: NodeId, value: &Value, members: &Map<String, Value>) -> Verdict {
        for name in self.unevaluated_properties(id, value, members)? {
            if !self.valid(node, &members[name])? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn size(&mut self, counted: Counted, limit: Limit, size: u64, value: &Value) -> Verdict {
        let count = match (counted, value) {
            (Counted::Length, Value::String(text)) => {
                // Characters are counted only where the bytes do not tell: each has one to four.
                let bytes = text.len() as u64;
                match limit {
                    Limit::Most if bytes <= size => return Ok(true),
                    Limit::Least if bytes < size => return Ok(false),
                    _ => {
                        self.budget.spend(bytes / 64)?;
                        text.chars().count() as u64
                    }
                }
            }
            (Counted::Items, Value::Array(items)) => items.len() as u64,
            (Counted::Properties, Value::Object(members)) => members.len() as u64,
            _ => return Ok(true),
        };
        Ok(match limit {
            Limit::Least => count >= size,
            Limit::Most => count <= size,
        })
    }

    fn properties(&mut self, properties: &Properties, members: &Map<String, Value>) -> Verdict {
        let (telling, rest) = properties.order.split_at(properties.telling);
        for name in telling {
            if let Some(value) = members.get(name)
                && !self.valid(properties.named[name], value)?
            {
                return Ok(false);
            }
        }
        if properties.patterns.is_empty() && properties.others.is_none() && rest.len() <= members.len() {
            for name in rest {
                if let Some(value) = members.get(name)
                    && !self.valid(properties.named[name], value)?
                {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        for (name, value) in members {
            let mut known = false;
            if let Some(node) = properties.named.get(name) {
                known = true;
                if !telling.contains(name) && !self.valid(*node, value)? {
                    return Ok(false);
                }
            }
            for (pattern, node) in &properties.patterns {
                if pattern.is_match(name, self.budget)? {
                    known = true;
                    if !self.valid(*node, value)? {
                        return Ok(false);
                    }
                }
            }
            if let (false, Some(others)) = (known, properties.others)
                && !self.valid(others, value)?
            {
                return Ok(false);
            }
            self.budget.spend(1)?;
        }
        Ok(true)
    }

    /// Whether a name is valid as a text.
    pub(super) fn name(&mut self, node: NodeId, name: &str) -> Verdict {
        let text = Value::String(name.to_owned());
        self.temporary += 1;
        let verdict = self.valid(node, &text);
        self.temporary -= 1;
        verdict
    }
}

/// About how much there is to look at in a value.
fn weight(value: &Value) -> u64 {
    match value {
        Value::Array(items) => 1 + items.iter().map(weight).sum::<u64>(),
        Value::Object(members) => 1 + members.values().map(weight).sum::<u64>(),
        _ => 1,
    }
}

impl TypeSet {
    fn takes(self, value: &Value) -> bool {
        // In the order of `TYPES`: null, boolean, integer, number, string, array, object.
        let bits = match value {
            Value::Null => 1,
            Value::Bool(_) => 1 << 1,
            Value::Number(number) if self.whole_floats && is_whole(number) => 1 << 2 | 1 << 3,
            Value::Number(number) if !number.is_f64() => 1 << 2 | 1 << 3,
            Value::Number(_) => 1 << 3,
            Value::String(_) => 1 << 4,
            Value::Array(_) => 1 << 5,
            Value::Object(_) => 1 << 6,
        };
        self.bits & bits != 0
    }
}

impl Bound {
    fn takes(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Minimum => order.is_ge(),
            Self::Maximum => order.is_le(),
            Self::ExclusiveMinimum => order.is_gt(),
            Self::ExclusiveMaximum => order.is_lt(),
        }
    }
}
