//! Which keywords of JSON Schema hold schemas, and how: the one list that every walk over a schema goes by.

use jsonschema::Draft;
use serde_json::Value as Json;

/// What the value of a keyword is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// One schema; a list of them where it is a list.
    Schemas,
    /// Schemas by names of the author's choice.
    Named,
    /// Values of JSON that are no schemas, whatever they look like.
    Data,
    /// Something else, or a keyword that no draft has.
    Other,
}

/// What the value of a keyword is.
pub fn holds(keyword: &str) -> Holds {
    match keyword {
        "additionalItems"
        | "additionalProperties"
        | "allOf"
        | "anyOf"
        | "contains"
        | "contentSchema"
        | "else"
        | "if"
        | "items"
        | "not"
        | "oneOf"
        | "prefixItems"
        | "propertyNames"
        | "then"
        | "unevaluatedItems"
        | "unevaluatedProperties" => Holds::Schemas,
        "$defs" | "definitions" | "dependencies" | "dependentSchemas" | "patternProperties" | "properties" => {
            Holds::Named
        }
        "const" | "default" | "enum" | "example" | "examples" => Holds::Data,
        _ => Holds::Other,
    }
}

/// The version of JSON Schema that a schema names, or else that of what it stands in.
pub fn draft(schema: &Json, outer: Draft) -> Draft {
    match schema.get("$schema") {
        Some(Json::String(_)) => outer.detect(schema),
        _ => outer,
    }
}

/// Whether everything beside a `$ref` is passed over.
pub fn ref_stands_alone(draft: Draft) -> bool {
    matches!(draft, Draft::Draft4 | Draft::Draft6 | Draft::Draft7)
}

/// The address that a schema gives itself, and the name it can be referred to by beside that (drafts 4 to 7 wrote both in
/// one keyword). Parts may be empty.
pub fn id(schema: &Json, draft: Draft) -> Option<(&str, &str)> {
    if ref_stands_alone(draft) && schema.get("$ref").is_some() {
        return None;
    }
    let id = schema.get(if draft == Draft::Draft4 { "id" } else { "$id" })?.as_str()?;
    Some(id.split_once('#').unwrap_or((id, "")))
}

/// A reference relative to an address; `None` where that is no address.
pub fn join(base: &str, reference: &str) -> Option<String> {
    if reference.is_empty() {
        return Some(base.to_owned());
    }
    match url::Url::parse(base) {
        Ok(base) => base.join(reference).ok().map(String::from),
        Err(_) => url::Url::parse(reference).ok().map(String::from),
    }
}

/// Calls `visit` with each schema that stands in a schema, and the tokens that lead to it.
pub fn each_inner<'j>(schema: &'j Json, visit: &mut dyn FnMut(&[&str], &'j Json)) {
    let Some(members) = schema.as_object() else { return };
    for (keyword, value) in members {
        match (holds(keyword), value) {
            (Holds::Schemas, Json::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    visit(&[keyword, &index.to_string()], item);
                }
            }
            (Holds::Schemas, value) => visit(&[keyword], value),
            (Holds::Named, Json::Object(named)) => {
                for (name, value) in named {
                    visit(&[keyword, name], value);
                }
            }
            _ => {}
        }
    }
}

/// Adds tokens to a JSON Pointer (RFC 6901).
pub fn push_tokens(pointer: &mut String, tokens: &[&str]) {
    for token in tokens {
        pointer.push('/');
        for c in token.chars() {
            match c {
                '~' => pointer.push_str("~0"),
                '/' => pointer.push_str("~1"),
                c => pointer.push(c),
            }
        }
    }
}
