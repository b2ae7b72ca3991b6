//! JSON Schema (drafts 4 to 2020-12) with bounds: a value is checked within a [`Budget`], a refusal costs no more than a
//! few times what an acceptance does, and nothing is fetched. Formats and the meta-schemas are the library's.
//!
//! Reading order: [`keywords`] and [`resources`] (what stands where), [`compile`] to a [`program`], [`evaluate`] with
//! [`annotations`] (whether a value is valid), [`failures`] (what is wrong with it).

mod annotations;
mod budget;
mod compile;
mod evaluate;
mod failures;
pub mod keywords;
mod pattern;
mod program;
pub mod resources;
mod values;

use std::sync::Arc;

use serde_json::Value;

pub use budget::{Budget, Exhausted};
pub use compile::{Compiled, Dangling, compile, is_meta};
pub use failures::{Failure, Failures};
pub use pattern::Pattern;
use program::{NodeId, Program};
use resources::Spot;

/// A compiled schema.
#[derive(Debug, Clone)]
pub struct Validator {
    program: Arc<Program>,
    root: NodeId,
}

impl Validator {
    /// The one of a place; `None` where that was not compiled.
    pub fn new(compiled: &Compiled, spot: &Spot) -> Option<Self> {
        Some(Self { program: compiled.program.clone(), root: compiled.node(spot)? })
    }

    /// Whether a value is valid.
    pub fn is_valid(&self, value: &Value, budget: &mut Budget) -> Result<bool, Exhausted> {
        evaluate::Evaluation::new(&self.program, budget).valid(self.root, value)
    }

    /// What is wrong with a value that is not valid: the first `most` failures.
    pub fn failures(&self, value: &Value, most: usize, budget: &mut Budget) -> Failures {
        failures::failures(&self.program, self.root, value, most, budget)
    }
}

#[cfg(test)]
mod tests;
