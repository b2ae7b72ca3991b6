//! Templates such as `messages.{body.topic:-general}`: parsed and checked at load, filled for each request.
//! A value that is not there is an error that names it, never an empty word; nothing is rewritten silently.

use std::fmt;

use serde_json::Value;

use super::invalid::{FieldError, Part};

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// As written, for errors.
    pub text: String,
    /// Literal text and references, in order.
    pub pieces: Vec<Piece>,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Taken as it is.
    Literal(String),
    /// Replaced by a value of the request.
    Reference(Reference),
}

/// `{from.name:-default}` or `{from.name|raw}`
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Where the value comes from.
    pub from: From,
    /// Used when the value is missing or empty.
    pub default: Option<String>,
    /// Whether dots are allowed in a routing key.
    pub raw: bool,
}

/// Where a reference's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// `{path.name}`
    Path(String),
    /// `{query.name}`
    Query(String),
    /// `{header.name}`
    Header(String),
    /// `{body.a.b}`
    Body(Vec<String>),
    /// `{id}`: the message's id.
    Id,
    /// `{route}`: the route's id.
    Route,
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(name) => write!(f, "path.{name}"),
            Self::Query(name) => write!(f, "query.{name}"),
            Self::Header(name) => write!(f, "header.{name}"),
            Self::Body(path) => write!(f, "body.{}", path.join(".")),
            Self::Id => f.write_str("id"),
            Self::Route => f.write_str("route"),
        }
    }
}

/// What a template is filled from.
pub struct Values<'a> {
    /// Coerced path parameters.
    pub path: &'a serde_json::Map<String, Value>,
    /// Coerced query parameters.
    pub query: &'a serde_json::Map<String, Value>,
    /// Coerced header parameters.
    pub header: &'a serde_json::Map<String, Value>,
    /// The body, when it is JSON.
    pub body: Option<&'a Value>,
    /// The message's id.
    pub id: &'a str,
    /// The route's id.
    pub route: &'a str,
}

impl Template {
    /// Parses a template; the error is a sentence, and what to do about it.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(("a `}` closes nothing".into(), "write `}}` for a brace".into()));
            }
            let Some(end) = rest.find('}') else {
                return Err(("a `{` is not closed".into(), "close it, or write `{{` for a brace".into()));
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Reference(reference(&rest[..end])?));
            rest = &rest[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self { text: text.to_owned(), pieces })
    }

    /// The references, in order.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Reference(reference) => Some(reference),
            Piece::Literal(_) => None,
        })
    }

    /// Fills a routing key: at most 255 bytes, and no value brings a separator or wildcard into it.
    pub fn key(&self, values: &Values<'_>) -> Result<String, FieldError> {
        let key = self.fill(values, |reference, value| {
            let bad = value.chars().find(|c| match c {
                '.' => !reference.raw,
                '/' | '#' | '*' | '+' => true,
                c => c.is_control(),
            });
            bad.map(|c| {
                let shown = if c.is_control() { "a control character".to_owned() } else { format!("`{c}`") };
                format!("the value becomes part of a routing key and may not hold {shown}")
            })
        })?;
        if key.len() > 255 {
            let blamed = self.references().next().map_or(&From::Id, |reference| &reference.from);
            let detail = format!("the routing key `{}` would have {} bytes, and 255 is the most", self.text, key.len());
            return Err(error(blamed, "maxLength", detail));
        }
        Ok(key)
    }

    /// Fills a header: any text without control characters.
    pub fn header(&self, values: &Values<'_>) -> Result<String, FieldError> {
        self.fill(values, |_, value| {
            value
                .chars()
                .any(char::is_control)
                .then(|| "the value becomes a header and may not hold control characters".into())
        })
    }

    fn fill(
        &self,
        values: &Values<'_>,
        refuse: impl Fn(&Reference, &str) -> Option<String>,
    ) -> Result<String, FieldError> {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Reference(reference) => {
                    let value = values.get(&reference.from).map_err(|detail| error(&reference.from, "type", detail))?;
                    match (value.filter(|value| !value.is_empty()), &reference.default) {
                        (Some(value), _) => {
                            if let Some(why) = refuse(reference, &value) {
                                return Err(error(&reference.from, "pattern", why));
                            }
                            out.push_str(&value);
                        }
                        (None, Some(default)) => out.push_str(default),
                        (None, None) => {
                            let detail = format!("`{{{}}}` of this route needs a value", reference.from);
                            return Err(error(&reference.from, "required", detail));
                        }
                    }
                }
            }
        }
        Ok(out)
    }
}

impl Values<'_> {
    fn get(&self, from: &From) -> Result<Option<String>, String> {
        let value = match from {
            From::Id => return Ok(Some(self.id.to_owned())),
            From::Route => return Ok(Some(self.route.to_owned())),
            From::Path(name) => self.path.get(name),
            From::Query(name) => self.query.get(name),
            From::Header(name) => self.header.get(name),
            From::Body(path) => path.iter().try_fold(self.body.unwrap_or(&Value::Null), |value, name| value.get(name)),
        };
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::Bool(flag)) => Ok(Some(flag.to_string())),
            Some(Value::Array(_)) => Err("a list can't become text here".into()),
            Some(Value::Object(_)) => Err("an object can't become text here".into()),
        }
    }
}

fn error(from: &From, keyword: &str, detail: impl Into<String>) -> FieldError {
    match from {
        From::Path(name) => FieldError::named(Part::Path, name, keyword, detail),
        From::Query(name) => FieldError::named(Part::Query, name, keyword, detail),
        From::Header(name) => FieldError::named(Part::Header, name, keyword, detail),
        From::Id => FieldError::named(Part::Header, "idempotency-key", keyword, detail),
        From::Route => FieldError::named(Part::Path, "route", keyword, detail),
        From::Body(path) => {
            let tokens: Vec<String> = path.iter().map(|name| name.replace('~', "~0").replace('/', "~1")).collect();
            let pointer = format!("/{}", tokens.join("/"));
            FieldError::body(pointer, keyword, detail)
        }
    }
}

fn reference(text: &str) -> Result<Reference, (String, String)> {
    let (name, default) = match text.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (text, None),
    };
    // `{path.rest|raw}`, or with a default `{path.rest:-a.b|raw}` or `{path.rest|raw:-a.b}`.
    let raw_of = |text: &'_ str| text.strip_suffix("|raw").map(str::to_owned);
    let (name, raw) = raw_of(name).map_or_else(|| (name.to_owned(), false), |name| (name, true));
    let (default, raw) = match default {
        Some(default) => raw_of(default).map_or_else(|| (Some(default.to_owned()), raw), |text| (Some(text), true)),
        None => (None, raw),
    };
    if let Some(at) = name.find('|') {
        return Err((
            format!("`{}` is nothing that can be done to a value", &name[at..]),
            "`|raw` is all there is".into(),
        ));
    }
    if let Some((before, after)) = name.split_once(':') {
        return Err((
            format!("`:{after}` is no default"),
            format!("a default begins with `:-`, as in `{{{before}:-{after}}}`"),
        ));
    }
    let from = match name.split_once('.') {
        None if name == "id" => From::Id,
        None if name == "route" => From::Route,
        Some(("path", name)) if !name.is_empty() => From::Path(name.to_owned()),
        Some(("query", name)) if !name.is_empty() => From::Query(name.to_owned()),
        Some(("header", name)) if !name.is_empty() => From::Header(name.to_ascii_lowercase()),
        Some(("body", path)) if path.split('.').all(|name| !name.is_empty()) => {
            From::Body(path.split('.').map(str::to_owned).collect())
        }
        _ => {
            let hint = "use `{path.NAME}`, `{query.NAME}`, `{header.NAME}`, `{body.FIELD}`, `{id}` or `{route}`";
            return Err((format!("`{{{name}}}` names nothing"), hint.into()));
        }
    };
    Ok(Reference { from, default, raw })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, body: &str) -> Result<String, FieldError> {
        let body: Value = serde_json::from_str(body).unwrap();
        let none = serde_json::Map::new();
        let values =
            Values { path: &none, query: &none, header: &none, body: Some(&body), id: "ID", route: "post-message" };
        Template::parse(template).unwrap().key(&values)
    }

    #[test]
    fn filled() {
        assert_eq!(fill("messages.{body.topic:-general}", "{}").unwrap(), "messages.general");
        assert_eq!(fill("messages.{body.topic:-general}", r#"{"topic":""}"#).unwrap(), "messages.general");
        assert_eq!(fill("messages.{body.topic:-general}", r#"{"topic":"a"}"#).unwrap(), "messages.a");
        assert_eq!(fill("{{{body.a.b}}}.{id}.{route}", r#"{"a":{"b":12}}"#).unwrap(), "{12}.ID.post-message");
        for template in ["v{body.v|raw}", "v{body.v:-0|raw}", "v{body.v|raw:-0}"] {
            assert_eq!(fill(template, r#"{"v":"1.2"}"#).unwrap(), "v1.2");
        }
        assert_eq!(fill("v{body.v|raw:-0.1}", "{}").unwrap(), "v0.1");
    }

    #[test]
    fn refused() {
        for (template, body, keyword, pointer) in [
            ("m.{body.topic}", "{}", "required", "/topic"),
            ("m.{body.topic}", r#"{"topic":""}"#, "required", "/topic"),
            ("m.{body.topic}", r#"{"topic":"a.b"}"#, "pattern", "/topic"),
            ("m.{body.topic}", r#"{"topic":"a/b"}"#, "pattern", "/topic"),
            ("m.{body.topic|raw}", r##"{"topic":"#"}"##, "pattern", "/topic"),
            ("m.{body.topic}", r#"{"topic":"a\u0007"}"#, "pattern", "/topic"),
            ("m.{body.topic}", r#"{"topic":{}}"#, "type", "/topic"),
            ("m.{body.a~b}", r"{}", "required", "/a~0b"),
        ] {
            let error = fill(template, body).unwrap_err();
            assert_eq!(
                (error.keyword.as_str(), error.pointer.as_deref()),
                (keyword, Some(pointer)),
                "{template} {body}"
            );
        }
        let long = format!(r#"{{"topic":"{}"}}"#, "a".repeat(250));
        assert_eq!(fill("messages.{body.topic}", &long).unwrap_err().keyword, "maxLength");
        for bad in
            ["{", "}", "{}", "{nope}", "{body.}", "{path}", "{body.a..b}", "{body.a:x}", "{body.a|up}", "{id|raw|raw}"]
        {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
