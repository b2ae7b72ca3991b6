//! What is wrong with a value, at its places. The branches of `anyOf` and `oneOf` are not entered: that none of them fits
//! is one failure, however many ways there would be to tell it.

use std::{collections::HashSet, fmt::Write as _};

use serde_json::{Map, Value};

use super::{
    budget::{Budget, Exhausted},
    evaluate::Evaluation,
    keywords::push_tokens,
    program::{Bound, Check, Counted, Limit, NodeId, Program, TYPES},
};

/// One place of a value that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// JSON Pointer of what is wrong; of a missing or unexpected property, where it is or would be.
    pub pointer: String,
    /// The keyword that refuses it.
    pub keyword: &'static str,
    /// A sentence. It never repeats the value, which may be a secret.
    pub detail: String,
}

/// What is wrong with a value.
#[derive(Debug, Default)]
pub struct Failures {
    /// The first of them.
    pub list: Vec<Failure>,
    /// Whether there may be more, which were not looked for.
    pub cut: bool,
}

/// What is wrong with a value that is not valid: at most `most` failures.
pub fn failures(program: &Program, root: NodeId, value: &Value, most: usize, budget: &mut Budget) -> Failures {
    let mut collection = Collection {
        evaluation: Evaluation::new(program, budget),
        pointer: String::new(),
        found: Failures::default(),
        most,
        visited: HashSet::new(),
    };
    let done = collection.node(root, value);
    let mut found = collection.found;
    found.cut = done.is_err();
    if found.list.is_empty() {
        found.list.push(Failure {
            pointer: String::new(),
            keyword: "schema",
            detail: "the value does not fit the schema".into(),
        });
    }
    found
}

struct Collection<'p, 'b> {
    evaluation: Evaluation<'p, 'b>,
    pointer: String,
    found: Failures,
    most: usize,
    /// What a reference led to, and the value that it was asked of: nothing is told twice.
    visited: HashSet<(NodeId, usize, u64)>,
}

/// Enough is found, or the budget is spent.
struct End;

impl From<Exhausted> for End {
    fn from(_: Exhausted) -> Self {
        Self
    }
}

impl Collection<'_, '_> {
    fn node(&mut self, id: NodeId, value: &Value) -> Result<(), End> {
        self.evaluation.budget.spend(1)?;
        let program = self.evaluation.program;
        let node = program.node(id);
        let entered = self.evaluation.enter(node.resource)?;
        let before = self.found.list.len();
        let mut done = Ok(());
        for check in &node.checks {
            // What is evaluated is known only where everything else holds.
            let last = matches!(check, Check::UnevaluatedItems(_) | Check::UnevaluatedProperties(_));
            if last && self.found.list.len() > before {
                break;
            }
            done = self.check(id, check, value);
            if done.is_err() {
                break;
            }
        }
        self.evaluation.leave(entered);
        done
    }

    fn referred(&mut self, id: NodeId, value: &Value) -> Result<(), End> {
        if !self.visited.insert(self.evaluation.key(id, value)) {
            return Ok(());
        }
        self.node(id, value)
    }

    fn within(&mut self, token: &str, id: NodeId, value: &Value) -> Result<(), End> {
        let length = self.pointer.len();
        push_tokens(&mut self.pointer, &[token]);
        let done = self.node(id, value);
        self.pointer.truncate(length);
        done
    }

    fn found(&mut self, keyword: &'static str, detail: impl Into<String>) -> Result<(), End> {
        self.found_at(&[], keyword, detail)
    }

    fn found_at(&mut self, tokens: &[&str], keyword: &'static str, detail: impl Into<String>) -> Result<(), End> {
        let mut pointer = self.pointer.clone();
        push_tokens(&mut pointer, tokens);
        let failure = Failure { pointer, keyword, detail: detail.into() };
        if self.found.list.contains(&failure) {
            return Ok(());
        }
        if self.found.list.len() == self.most {
            return Err(End);
        }
        self.found.list.push(failure);
        Ok(())
    }

    fn check(&mut self, id: NodeId, check: &Check, value: &Value) -> Result<(), End> {
        match (check, value) {
            (Check::Properties(properties), Value::Object(members)) => {
                for name in &properties.order {
                    if let Some(value) = members.get(name) {
                        self.within(name, properties.named[name], value)?;
                    }
                }
                for (name, value) in members {
                    self.evaluation.budget.spend(1)?;
                    let mut known = properties.named.contains_key(name);
                    for (pattern, node) in &properties.patterns {
                        if pattern.is_match(name, self.evaluation.budget)? {
                            known = true;
                            self.within(name, *node, value)?;
                        }
                    }
                    match properties.others {
                        Some(others) if !known => {
                            if self.never(others) {
                                self.found_at(&[name], "additionalProperties", "this property is not allowed")?;
                            } else {
                                self.within(name, others, value)?;
                            }
                        }
                        _ => {}
                    }
                }
                Ok(())
            }
            (Check::Items(items), Value::Array(list)) => {
                for (index, item) in list.iter().enumerate() {
                    let Some(node) = items.prefix.get(index).copied().or(items.others) else { break };
                    if index >= items.prefix.len() && self.never(node) {
                        let detail = format!("at most {} items are allowed", items.prefix.len());
                        return self.found(items.others_keyword, detail);
                    }
                    self.within(&index.to_string(), node, item)?;
                }
                Ok(())
            }
            (Check::PropertyNames(node), Value::Object(members)) => {
                for name in members.keys() {
                    if !self.evaluation.name(*node, name)? {
                        self.found_at(&[name], "propertyNames", "a property may not have this name")?;
                    }
                }
                Ok(())
            }
            (Check::Ref(target), value) => self.referred(*target, value),
            (Check::DynamicRef(name, otherwise), value) => {
                let target = self.evaluation.target(name, *otherwise);
                self.referred(target, value)
            }
            (Check::AllOf(ids), value) => ids.iter().try_for_each(|id| self.node(*id, value)),
            (Check::If(condition, then, otherwise), value) => {
                let branch = if self.evaluation.valid(*condition, value)? { then } else { otherwise };
                branch.map_or(Ok(()), |branch| self.node(branch, value))
            }
            (Check::DependentSchemas(schemas), Value::Object(members)) => {
                let given = schemas.iter().filter(|(name, _)| members.contains_key(name));
                given.into_iter().try_for_each(|(_, node)| self.node(*node, value))
            }
            (Check::Required(_) | Check::DependentRequired(_), Value::Object(members)) => self.missing(check, members),
            (Check::UnevaluatedProperties(node), Value::Object(members)) => {
                for name in self.evaluation.unevaluated_properties(id, value, members)? {
                    if self.never(*node) {
                        self.found_at(&[name], "unevaluatedProperties", "this property is not allowed")?;
                    } else {
                        self.within(name, *node, &members[name])?;
                    }
                }
                Ok(())
            }
            (Check::UnevaluatedItems(node), Value::Array(items)) => {
                for index in self.evaluation.unevaluated_items(id, value, items)? {
                    if self.never(*node) {
                        self.found_at(&[&index.to_string()], "unevaluatedItems", "this item is not allowed")?;
                    } else {
                        self.within(&index.to_string(), *node, &items[index])?;
                    }
                }
                Ok(())
            }
            (Check::OneOf(ids), value) => match self.evaluation.count(ids, value, 2)? {
                1 => Ok(()),
                0 => self.found("oneOf", "the value fits none of the schemas of `oneOf`"),
                _ => self.found("oneOf", "the value fits more than one of the schemas of `oneOf`"),
            },
            (check, value) => {
                if self.evaluation.check(id, check, value)? {
                    Ok(())
                } else {
                    self.found(check.keyword(), detail(check))
                }
            }
        }
    }

    /// Properties that are not there.
    fn missing(&mut self, check: &Check, members: &Map<String, Value>) -> Result<(), End> {
        match check {
            Check::Required(names) => {
                self.evaluation.budget.spend(names.len() as u64 / 8)?;
                for name in names.iter().filter(|name| !members.contains_key(*name)) {
                    self.found_at(&[name], "required", format!("{name:?} is a required property"))?;
                }
                Ok(())
            }
            Check::DependentRequired(dependent) => {
                for (name, others) in dependent.iter().filter(|(name, _)| members.contains_key(name)) {
                    self.evaluation.budget.spend(others.len() as u64 / 8)?;
                    for other in others.iter().filter(|other| !members.contains_key(*other)) {
                        let detail = format!("{other:?} is required where {name:?} is given");
                        self.found_at(&[other], "dependentRequired", detail)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether a node lets nothing through.
    fn never(&self, id: NodeId) -> bool {
        matches!(self.evaluation.program.node(id).checks.as_slice(), [Check::Never, ..])
    }
}

/// What a check that is about a value as a whole says against it.
fn detail(check: &Check) -> String {
    /// Longest sentence, in characters: a schema may hold long texts.
    const LONGEST: usize = 300;
    let text = match check {
        Check::Never => "no value is allowed here".into(),
        Check::Type(types) => {
            let names = TYPES.iter().enumerate().filter(|(place, _)| types.bits & (1 << place) != 0);
            let names: Vec<String> = names.map(|(_, name)| format!("\"{name}\"")).collect();
            format!("the value must be of type {}", names.join(" or "))
        }
        Check::Const(expected) => format!("the value must be {expected}"),
        Check::Enum(values, _) => {
            const SHOWN: usize = 10;
            let mut list = values.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(", ");
            if values.len() > SHOWN {
                let _ = write!(list, " and {} more", values.len() - SHOWN);
            }
            format!("the value must be one of {list}")
        }
        Check::Bound(Bound::Minimum, limit) => format!("the value must be at least {limit}"),
        Check::Bound(Bound::Maximum, limit) => format!("the value must be at most {limit}"),
        Check::Bound(Bound::ExclusiveMinimum, limit) => format!("the value must be more than {limit}"),
        Check::Bound(Bound::ExclusiveMaximum, limit) => format!("the value must be less than {limit}"),
        Check::MultipleOf(of) => format!("the value must be a multiple of {of}"),
        Check::Size(counted, limit, size) => {
            let bound = if *limit == Limit::Least { "at least" } else { "at most" };
            let (one, many) = match counted {
                Counted::Length => ("character", "characters"),
                Counted::Items => ("item", "items"),
                Counted::Properties => ("property", "properties"),
            };
            format!("the value must have {bound} {size} {}", if *size == 1 { one } else { many })
        }
        Check::Pattern(pattern) => format!("the value does not match \"{}\"", pattern.as_str()),
        Check::Text(keyword, name, _) if *keyword == "format" => format!("the value is not a valid {name}"),
        Check::Text(_, name, _) => format!("the value is not valid {name}"),
        Check::UniqueItems => "the items must differ from one another".into(),
        Check::Contains(contains) => {
            let least = contains.least;
            match contains.most {
                Some(most) => format!("between {least} and {most} items must fit the schema of `contains`"),
                None => format!("at least {least} of the items must fit the schema of `contains`"),
            }
        }
        Check::AnyOf(_) => "the value fits none of the schemas of `anyOf`".into(),
        Check::Not(_) => "the value fits the schema of `not`".into(),
        check => format!("the value does not fit `{}`", check.keyword()),
    };
    if text.chars().count() <= LONGEST { text } else { text.chars().take(LONGEST).chain(['…']).collect() }
}
