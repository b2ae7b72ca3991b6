//! What of a value is evaluated already: `unevaluatedItems` and `unevaluatedProperties` are about the rest.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{
    budget::Exhausted,
    evaluate::Evaluation,
    program::{Check, NodeId},
};

/// What was evaluated of one value.
#[derive(Default)]
struct Evaluated<'v> {
    /// Of an object, or all.
    names: HashSet<&'v str>,
    all_names: bool,
    /// Of an array: the first ones, others, or all.
    first: usize,
    items: HashSet<usize>,
    all_items: bool,
}

impl Evaluation<'_, '_> {
    /// Properties that nothing in a node, up to its own `unevaluatedProperties`, has evaluated.
    pub(super) fn unevaluated_properties<'v>(
        &mut self,
        id: NodeId,
        value: &'v Value,
        members: &'v Map<String, Value>,
    ) -> Result<Vec<&'v String>, Exhausted> {
        let mut evaluated = Evaluated::default();
        self.annotate(id, value, &mut evaluated, true)?;
        if evaluated.all_names {
            return Ok(Vec::new());
        }
        Ok(members.keys().filter(|name| !evaluated.names.contains(name.as_str())).collect())
    }

    /// Items that nothing in a node, up to its own `unevaluatedItems`, has evaluated.
    pub(super) fn unevaluated_items(
        &mut self,
        id: NodeId,
        value: &Value,
        items: &[Value],
    ) -> Result<Vec<usize>, Exhausted> {
        let mut evaluated = Evaluated::default();
        self.annotate(id, value, &mut evaluated, true)?;
        if evaluated.all_items {
            return Ok(Vec::new());
        }
        Ok((evaluated.first..items.len()).filter(|index| !evaluated.items.contains(index)).collect())
    }

    /// Adds what a node evaluates of a value that is valid under it. `outermost`: its own `unevaluated…` are what is asked.
    fn annotate<'v>(
        &mut self,
        id: NodeId,
        value: &'v Value,
        evaluated: &mut Evaluated<'v>,
        outermost: bool,
    ) -> Result<(), Exhausted> {
        self.budget.spend(1)?;
        let node = self.program.node(id);
        let entered = self.enter(node.resource)?;
        let mut done = Ok(());
        for check in &node.checks {
            done = self.annotate_check(check, value, evaluated, outermost);
            if done.is_err() {
                break;
            }
        }
        self.leave(entered);
        done
    }

    fn annotate_valid<'v>(
        &mut self,
        id: NodeId,
        value: &'v Value,
        evaluated: &mut Evaluated<'v>,
    ) -> Result<bool, Exhausted> {
        let valid = self.referred(id, value)?;
        if valid {
            self.annotate(id, value, evaluated, false)?;
        }
        Ok(valid)
    }

    fn annotate_check<'v>(
        &mut self,
        check: &Check,
        value: &'v Value,
        evaluated: &mut Evaluated<'v>,
        outermost: bool,
    ) -> Result<(), Exhausted> {
        match (check, value) {
            (Check::Properties(properties), Value::Object(members)) => {
                if properties.others.is_some() {
                    evaluated.all_names = true;
                    return Ok(());
                }
                for name in members.keys() {
                    self.budget.spend(1)?;
                    let mut known = properties.named.contains_key(name);
                    for (pattern, _) in &properties.patterns {
                        known = known || pattern.is_match(name, self.budget)?;
                    }
                    if known {
                        evaluated.names.insert(name);
                    }
                }
            }
            (Check::Items(items), Value::Array(_)) => {
                evaluated.first = evaluated.first.max(items.prefix.len());
                evaluated.all_items |= items.others.is_some();
            }
            (Check::Contains(contains), Value::Array(items)) if contains.evaluates => {
                for (index, item) in items.iter().enumerate() {
                    if self.valid(contains.node, item)? {
                        evaluated.items.insert(index);
                    }
                }
            }
            (Check::UnevaluatedProperties(_), Value::Object(_)) if !outermost => evaluated.all_names = true,
            (Check::UnevaluatedItems(_), Value::Array(_)) if !outermost => evaluated.all_items = true,
            (Check::Ref(target), value) => {
                self.annotate_valid(*target, value, evaluated)?;
            }
            (Check::DynamicRef(name, otherwise), value) => {
                self.annotate_valid(self.target(name, *otherwise), value, evaluated)?;
            }
            (Check::AllOf(ids) | Check::AnyOf(ids) | Check::OneOf(ids), value) => {
                for id in ids {
                    self.annotate_valid(*id, value, evaluated)?;
                }
            }
            (Check::If(condition, then, otherwise), value) => {
                let branch = if self.annotate_valid(*condition, value, evaluated)? { then } else { otherwise };
                if let Some(branch) = branch {
                    self.annotate_valid(*branch, value, evaluated)?;
                }
            }
            (Check::DependentSchemas(schemas), Value::Object(members)) => {
                for (name, node) in schemas {
                    if members.contains_key(name) {
                        self.annotate_valid(*node, value, evaluated)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
