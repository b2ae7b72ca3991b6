//! What is wrong with a request, field by field: the `errors` of a 422.

use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use serde::Serialize;
use serde_json::Value;

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

/// What a schema says against a body, at most [`MOST_ERRORS`].
pub fn body_errors(validator: &Validator, body: &Value) -> Vec<FieldError> {
    validator
        .iter_errors(body)
        .take(MOST_ERRORS)
        .map(|error| FieldError::body(pointer(&error), error.kind().keyword(), sentence(&error)))
        .collect()
}

/// What a schema says against a parameter's value.
pub fn parameter_errors(validator: &Validator, part: Part, name: &str, value: &Value) -> Vec<FieldError> {
    validator
        .iter_errors(value)
        .take(MOST_ERRORS)
        .map(|error| FieldError::named(part, name, error.kind().keyword(), sentence(&error)))
        .collect()
}

/// A missing or unexpected property is pointed at itself: that is where a form shows the error.
fn pointer(error: &ValidationError<'_>) -> String {
    let base = error.instance_path().as_str();
    let property = match error.kind() {
        ValidationErrorKind::Required { property } => property.as_str(),
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => unexpected.first().map(String::as_str),
        _ => None,
    };
    property.map_or_else(|| base.to_owned(), |name| format!("{base}/{}", name.replace('~', "~0").replace('/', "~1")))
}

fn sentence(error: &ValidationError<'_>) -> String {
    const MOST: usize = 300;
    let text = error.masked().to_string();
    if text.chars().count() <= MOST { text } else { text.chars().take(MOST).chain(['…']).collect() }
}
