//! The JSON Schema (2020-12) of `routes.yaml`, made of the grammar: editors complete, explain and check by it.

use serde_json::{Map, Value, json};

use super::grammar::{Field, MOST, Need, OBJECTS, Object, PARAMETER, Rule, Shape, TABLE};
use crate::units;

/// The whole schema.
pub fn table_schema() -> Value {
    let mut root = object(&TABLE);
    let definitions: Map<String, Value> = OBJECTS
        .iter()
        .filter(|kind| kind.name != TABLE.name)
        .map(|kind| (kind.name.to_owned(), if kind.name == PARAMETER.name { parameter() } else { object(kind) }))
        .collect();
    if let Some(members) = root.as_object_mut() {
        members.insert("$defs".into(), definitions.into());
        members.shift_insert(0, "$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        members.shift_insert(1, "title".into(), "routes.yaml of fpesa".into());
    }
    root
}

fn object(kind: &Object) -> Value {
    let properties: Map<String, Value> =
        kind.keys.iter().map(|field| (field.name.to_owned(), property(field))).collect();
    let required: Vec<&str> =
        kind.keys.iter().filter(|field| matches!(field.need, Need::Required(_))).map(|field| field.name).collect();
    let mut schema = json!({
        "description": kind.description,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    match kind.rule {
        Rule::Free => {}
        Rule::Some(keys, _) => schema["anyOf"] = keys.iter().map(|key| json!({ "required": [key] })).collect(),
        Rule::One(groups, _) => {
            let one = |group: &&[&str]| {
                let others: Map<String, Value> = groups
                    .iter()
                    .filter(|other| *other != group)
                    .flat_map(|other| other.iter())
                    .map(|key| ((*key).to_owned(), Value::Bool(false)))
                    .collect();
                json!({ "required": group, "properties": others })
            };
            schema["oneOf"] = groups.iter().map(one).collect();
        }
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = shape(field.shape);
    if let Some(members) = schema.as_object_mut() {
        members.insert("description".into(), field.description.into());
        if let Need::Default(value) = field.need {
            members.insert("default".into(), serde_json::from_str(value).unwrap_or(Value::Null));
        }
    }
    schema
}

fn shape(shape: Shape) -> Value {
    match shape {
        Shape::Text => json!({ "type": "string", "minLength": 1 }),
        Shape::AnyText => json!({ "type": "string" }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Version => json!({ "const": 1 }),
        Shape::Integer(least, MOST) => json!({ "type": "integer", "minimum": least }),
        Shape::Integer(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::IntegerOr(least, most, word) => {
            json!({ "anyOf": [self::shape(Shape::Integer(least, most)), { "const": word }] })
        }
        Shape::Status(statuses) => json!({ "enum": statuses }),
        Shape::Word(words) => json!({ "enum": words }),
        Shape::Duration => json!({ "type": "string", "pattern": units::duration_pattern() }),
        Shape::Size => json!({ "type": "string", "pattern": units::size_pattern() }),
        Shape::Scalar => json!({ "type": ["string", "number", "boolean"] }),
        Shape::Object(kind) => json!({ "$ref": format!("#/$defs/{}", kind.name) }),
        Shape::List(_, item) => json!({ "type": "array", "items": self::shape(*item) }),
        Shape::OneOrMore(_, item) => {
            json!({ "anyOf": [self::shape(*item), { "type": "array", "items": self::shape(*item) }] })
        }
        Shape::Names(_, value) => json!({ "type": "object", "additionalProperties": self::shape(*value) }),
        Shape::Schema => json!({ "type": ["string", "object", "boolean"] }),
        Shape::Parameter => json!({ "$ref": format!("#/$defs/{}", PARAMETER.name) }),
    }
}

/// A parameter's keys, and the keywords of JSON Schema that people look for, so that editors complete them.
fn parameter() -> Value {
    const KEYWORDS: [(&str, &str); 17] = [
        ("description", "For the API description."),
        ("default", "Its value when it is not given."),
        ("format", "A format that is asserted, such as `uuid` or `date-time`."),
        ("enum", "The values that are allowed."),
        ("const", "The one value that is allowed."),
        ("examples", "For the API description."),
        ("minimum", "Smallest number."),
        ("maximum", "Largest number."),
        ("exclusiveMinimum", "It is larger than this."),
        ("exclusiveMaximum", "It is smaller than this."),
        ("multipleOf", "It is a multiple of this."),
        ("minLength", "Least characters."),
        ("maxLength", "Most characters."),
        ("pattern", "A regular expression without look-around and back-references."),
        ("items", "What each item of an array is; its `type` is what the text is turned into."),
        ("minItems", "Least items of an array."),
        ("maxItems", "Most items of an array."),
    ];
    let mut schema = object(&PARAMETER);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.extend(KEYWORDS.map(|(name, meaning)| (name.to_owned(), json!({ "description": meaning }))));
    }
    schema["additionalProperties"] = true.into();
    schema
}
