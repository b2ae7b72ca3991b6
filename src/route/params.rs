//! Parameters of a request: text from path, query and headers becomes typed values, or field errors.

use serde_json::{Map, Value};

use super::{
    invalid::{FieldError, FieldErrors, Part, parameter_errors},
    schema::Schema,
    validator::{Budget, Exhausted},
};

/// One declared parameter.
#[derive(Debug, Clone)]
pub struct Param {
    /// Its name; a header's in lower case.
    pub name: String,
    /// What its text is turned into.
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
    /// Its value when it is not given.
    pub default: Option<Value>,
    /// What the value must be.
    pub schema: Schema,
}

/// What text is turned into, by the schema's `type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A whole number of 64 bits.
    Integer,
    /// Any JSON number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// The text itself.
    String,
    /// A repeated or comma-separated parameter, with the kind of its items.
    Array(Box<Kind>),
}

impl Kind {
    /// The kind that a schema's `type` asks for; text where it names none, or several.
    pub fn of(schema: &Value) -> Self {
        match schema.get("type").and_then(Value::as_str) {
            Some("integer") => Self::Integer,
            Some("number") => Self::Number,
            Some("boolean") => Self::Boolean,
            Some("array") => Self::Array(Box::new(schema.get("items").map_or(Self::String, Self::of))),
            _ => Self::String,
        }
    }

    fn one(&self, text: &str) -> Result<Value, &'static str> {
        match self {
            Self::Integer => {
                let digits = text.strip_prefix('-').unwrap_or(text);
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err("this must be an integer");
                }
                let number = text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from));
                number.map_err(|_| "this integer does not fit into 64 bits")
            }
            Self::Number => match serde_json::from_str::<Value>(text) {
                Ok(number @ Value::Number(_)) if !text.starts_with(char::is_whitespace) => Ok(number),
                _ => Err("this must be a number"),
            },
            Self::Boolean => match text {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err("this must be true or false"),
            },
            Self::String => Ok(Value::String(text.to_owned())),
            Self::Array(item) => text.split(',').map(|part| item.one(part)).collect::<Result<_, _>>().map(Value::Array),
        }
    }

    fn coerce(&self, texts: &[String]) -> Result<Value, &'static str> {
        match (self, texts) {
            (Self::Array(item), texts) => texts
                .iter()
                .flat_map(|text| text.split(','))
                .map(|text| item.one(text))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            (_, [text]) => self.one(text),
            _ => Err("this takes one value, and it was given more than once"),
        }
    }
}

/// The parameters of one part of a route.
#[derive(Debug, Clone, Default)]
pub struct Params(pub Vec<Param>);

impl Params {
    /// Reads the values that were given (name and text, a name repeated or not). What is not declared is an error
    /// where `closed`, else passed over. What is wrong is added to `errors`; the rest is read all the same.
    pub fn read<N: AsRef<str>, T: AsRef<str>>(
        &self,
        part: Part,
        given: &[(N, T)],
        closed: bool,
        errors: &mut FieldErrors,
        budget: &mut Budget,
    ) -> Result<Map<String, Value>, Exhausted> {
        let mut values = Map::new();
        for param in &self.0 {
            let texts: Vec<String> = given
                .iter()
                .filter(|(name, _)| name.as_ref() == param.name)
                .map(|(_, text)| text.as_ref().to_owned())
                .collect();
            if texts.is_empty() {
                if let Some(default) = &param.default {
                    values.insert(param.name.clone(), default.clone());
                } else if param.required {
                    errors.push(FieldError::named(part, &param.name, "required", "this must be given"));
                }
                continue;
            }
            match param.kind.coerce(&texts) {
                Ok(value) => {
                    let wrong = parameter_errors(&param.schema.validator, part, &param.name, &value, budget)?;
                    if wrong.is_empty() {
                        values.insert(param.name.clone(), value);
                    } else {
                        errors.append(wrong);
                    }
                }
                Err(detail) => errors.push(FieldError::named(part, &param.name, "type", detail)),
            }
        }
        if closed {
            let mut told: Vec<&str> = Vec::new();
            for (name, _) in given {
                let name = name.as_ref();
                let known = self.0.iter().any(|param| param.name == name);
                if known || errors.cut || told.contains(&name) {
                    continue;
                }
                told.push(name);
                errors.push(FieldError::named(part, &shown(name), "unknown", self.unknown()));
            }
        }
        Ok(values)
    }

    fn unknown(&self) -> String {
        if self.0.is_empty() {
            return "this route takes no query parameters".into();
        }
        let names: Vec<&str> = self.0.iter().map(|param| param.name.as_str()).collect();
        format!("this route takes {}", names.join(", "))
    }
}

/// A client's own name, shortened before it is told back.
fn shown(name: &str) -> String {
    name.chars().take(100).collect()
}
