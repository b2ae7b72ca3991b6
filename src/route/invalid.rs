//! What is wrong with a request, field by field: the `errors` of a 422.

use serde::Serialize;
use serde_json::Value;

use super::validator::{Budget, Exhausted, Failure, Failures, Validator};

/// Most errors that one answer tells.
pub const MOST_ERRORS: usize = 20;

/// One field that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The part of the request.
    pub r#in: Part,
    /// Where in the body, as a JSON Pointer (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The parameter's or header's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The JSON Schema keyword that refused it, or a word of ours such as `unknown` or `not-allowed`.
    pub keyword: String,
    /// A sentence. It never repeats the value, which may be a secret.
    pub detail: String,
}

/// A part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Part {
    Body,
    Path,
    Query,
    Header,
}

impl FieldError {
    /// An error of the body at a JSON Pointer.
    pub fn body(pointer: impl Into<String>, keyword: &str, detail: impl Into<String>) -> Self {
        Self {
            r#in: Part::Body,
            pointer: Some(pointer.into()),
            name: None,
            keyword: keyword.into(),
            detail: detail.into(),
        }
    }

    /// An error of a parameter or header.
    pub fn named(part: Part, name: &str, keyword: &str, detail: impl Into<String>) -> Self {
        Self { r#in: part, pointer: None, name: Some(name.into()), keyword: keyword.into(), detail: detail.into() }
    }
}

/// What is wrong with a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldErrors {
    /// At most [`MOST_ERRORS`] of them.
    pub list: Vec<FieldError>,
    /// Whether there may be more, which were not looked for.
    pub cut: bool,
}

impl FieldErrors {
    /// One more; beyond [`MOST_ERRORS`] it only counts as such.
    pub fn push(&mut self, error: FieldError) {
        if self.list.len() < MOST_ERRORS {
            self.list.push(error);
        } else {
            self.cut = true;
        }
    }

    /// Those of another part of the request.
    pub fn append(&mut self, others: Self) {
        self.cut |= others.cut;
        others.list.into_iter().for_each(|error| self.push(error));
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl From<FieldError> for FieldErrors {
    fn from(error: FieldError) -> Self {
        Self { list: vec![error], cut: false }
    }
}

/// What a schema says against a body.
pub fn body_errors(validator: &Validator, body: &Value, budget: &mut Budget) -> Result<FieldErrors, Exhausted> {
    errors(validator, body, budget, |failure| FieldError::body(failure.pointer, failure.keyword, failure.detail))
}

/// What a schema says against a parameter's value.
pub fn parameter_errors(
    validator: &Validator,
    part: Part,
    name: &str,
    value: &Value,
    budget: &mut Budget,
) -> Result<FieldErrors, Exhausted> {
    errors(validator, value, budget, |failure| FieldError::named(part, name, failure.keyword, failure.detail))
}

fn errors(
    validator: &Validator,
    value: &Value,
    budget: &mut Budget,
    error: impl Fn(Failure) -> FieldError,
) -> Result<FieldErrors, Exhausted> {
    if validator.is_valid(value, budget)? {
        return Ok(FieldErrors::default());
    }
    let Failures { list, cut } = validator.failures(value, MOST_ERRORS, budget);
    Ok(FieldErrors { list: list.into_iter().map(error).collect(), cut })
}
