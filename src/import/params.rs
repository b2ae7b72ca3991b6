//! Parameters of an operation: OpenAPI's many styles, as the few that a table has.

use serde_json::{Map, Value as Json, json};

use super::{
    document::{Document, join},
    schemas::Schemas,
};

/// Headers that are no parameters in OpenAPI (3.0.3, Parameter Object).
const IGNORED: [&str; 3] = ["accept", "content-type", "authorization"];
/// Headers that never go to the bus.
const NEVER: [&str; 3] = ["cookie", "host", "content-length"];

/// A parameter as the table writes it.
#[derive(Debug, Clone)]
pub struct Param {
    /// `path`, `query` or `header`.
    pub part: &'static str,
    /// Its name.
    pub name: String,
    /// Whether it must be given; a path's always must.
    pub required: bool,
    /// Its schema.
    pub schema: Json,
}

/// Parameters of one operation, and what is left out of them.
#[derive(Debug, Default)]
pub struct Params {
    /// In the document's order, an operation's own instead of its path's.
    pub all: Vec<Param>,
    /// A sentence for each that could not be taken over.
    pub left_out: Vec<String>,
}

impl Params {
    /// Reads the parameters of an operation and of its path.
    pub fn read(doc: &Document, schemas: &mut Schemas<'_>, path_item: &str, operation: &str) -> Self {
        let mut params = Self::default();
        for list in [join(path_item, "parameters"), join(operation, "parameters")] {
            let count = doc.at(&list).as_array().map_or(0, Vec::len);
            for index in 0..count {
                if let Some(pointer) = doc.follow(&join(&list, &index.to_string())) {
                    params.one(doc, schemas, &pointer);
                }
            }
        }
        params
    }

    fn leave_out(&mut self, doc: &Document, pointer: &str, what: String) {
        doc.warn(pointer, "left-out", format!("{what}: it is left out"));
        self.left_out.push(what);
    }

    fn one(&mut self, doc: &Document, schemas: &mut Schemas<'_>, pointer: &str) {
        let written = doc.at(pointer);
        let name = written["name"].as_str().unwrap_or_default().to_owned();
        let part = match written["in"].as_str() {
            Some("path") => "path",
            Some("query") => "query",
            Some("header") => "header",
            Some("cookie") => {
                return self.leave_out(doc, pointer, format!("the cookie `{name}` can't be a parameter here"));
            }
            _ => return self.leave_out(doc, pointer, format!("the parameter `{name}` does not say what it is `in`")),
        };
        let lower = name.to_ascii_lowercase();
        if name.is_empty() {
            return self.leave_out(doc, pointer, format!("a {part} parameter has no name"));
        }
        if part == "header" && IGNORED.contains(&lower.as_str()) {
            return;
        }
        if part == "header" && NEVER.contains(&lower.as_str()) {
            return self.leave_out(doc, pointer, format!("the header `{name}` never goes to the bus"));
        }
        let Some(mut schema) = self.schema(doc, schemas, pointer, &name) else { return };
        describe(&mut schema, written);
        let param = Param { part, name, required: part != "path" && written["required"] == true, schema };
        let same = |other: &Param| {
            other.part == part
                && (other.name == param.name || part == "header" && other.name.eq_ignore_ascii_case(&param.name))
        };
        match self.all.iter().position(same) {
            Some(place) => self.all[place] = param,
            None => self.all.push(param),
        }
    }

    /// The schema that the parameter's text is read by; `None` when there is none that text can be read by.
    fn schema(&mut self, doc: &Document, schemas: &mut Schemas<'_>, pointer: &str, name: &str) -> Option<Json> {
        let written = doc.at(pointer);
        if written.get("content").is_some() {
            let message = format!("the parameter `{name}` has a media type: it is taken as the text that it is");
            doc.warn(&join(pointer, "content"), "changed", message);
            return Some(json!({ "type": "string" }));
        }
        let at = join(pointer, "schema");
        if doc.at(&at).is_null() {
            return Some(json!({ "type": "string" }));
        }
        let mut schema = textual(doc, schemas, &at, 0);
        let kind = schema["type"].as_str().unwrap_or_default().to_owned();
        let items = schema["items"]["type"].as_str().unwrap_or_default().to_owned();
        if kind == "object"
            || kind == "null"
            || matches!(items.as_str(), "object" | "array")
            || schema.get("properties").is_some()
        {
            self.leave_out(
                doc,
                pointer,
                format!("the parameter `{name}` is no text, number, boolean or list of these"),
            );
            return None;
        }
        if let Some(style @ ("spaceDelimited" | "pipeDelimited" | "label" | "matrix" | "deepObject")) =
            written["style"].as_str()
        {
            let message = format!("the parameter `{name}` has the style `{style}`: it is taken as the text that it is");
            doc.warn(&join(pointer, "style"), "changed", message);
            schema = json!({ "type": "string" });
        }
        schemas.repair(&mut schema, &at);
        check_default(doc, &mut schema, &at, name);
        Some(schema)
    }
}

/// A schema that text can be read by: references are followed, and `null`, which no text is, is taken away.
fn textual(doc: &Document, schemas: &mut Schemas<'_>, pointer: &str, depth: usize) -> Json {
    const DEEPEST: usize = 8;
    let Some(target) = doc.follow(pointer).filter(|_| depth < DEEPEST) else { return json!({ "type": "string" }) };
    let mut schema = match schemas.convert_shallow(doc.at(&target), &target) {
        Json::Object(schema) => schema,
        _ => Map::new(),
    };
    // From 3.1 on, what stands beside a reference counts too.
    if let (Json::Object(beside), false) = (doc.at(pointer), doc.is_3_0 || target == pointer) {
        schema.extend(beside.iter().filter(|(key, _)| *key != "$ref").map(|(key, value)| (key.clone(), value.clone())));
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        let Some(Json::Array(written)) = schema.shift_remove(key) else { continue };
        let all = (0..written.len()).map(|index| textual(doc, schemas, &format!("{target}/{key}/{index}"), depth + 1));
        let mut choices: Vec<Json> = all.filter(|choice| choice["type"] != "null").collect();
        if choices.len() == 1 {
            let only = choices.remove(0);
            for (name, value) in only.as_object().cloned().unwrap_or_default() {
                schema.entry(name).or_insert(value);
            }
            continue;
        }
        let numbers = choices.iter().all(|choice| matches!(choice["type"].as_str(), Some("integer" | "number")));
        if numbers && !choices.is_empty() {
            schema.insert("type".into(), "number".into());
        }
        if !choices.is_empty() {
            schema.insert(key.to_owned(), choices.into());
        }
    }
    if schema.contains_key("items") {
        schema.insert("items".into(), textual(doc, schemas, &format!("{target}/items"), depth + 1));
    }
    if let Some(Json::Array(kinds)) = schema.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if let Some(Json::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
        let all = |is: fn(&Json) -> bool| !values.is_empty() && values.iter().all(is);
        let kind = [
            ("integer", all(|v| v.is_i64() || v.is_u64())),
            ("number", all(Json::is_number)),
            ("boolean", all(Json::is_boolean)),
        ];
        if let (None, Some((kind, _))) = (schema.get("type"), kind.into_iter().find(|(_, fits)| *fits)) {
            schema.insert("type".into(), kind.into());
        }
    }
    Json::Object(schema)
}

/// What the parameter says of itself goes into its schema.
fn describe(schema: &mut Json, written: &Json) {
    let Some(members) = schema.as_object_mut() else { return };
    for key in ["description", "deprecated"] {
        if let Some(value) = written.get(key).filter(|value| value.is_string() || **value == Json::Bool(true)) {
            members.insert(key.to_owned(), value.clone());
        }
    }
    if let (Some(example), false) = (written.get("example"), members.contains_key("examples")) {
        members.insert("examples".into(), json!([example]));
    }
    // `required: true` is the parameter's own word in a table, and a list of names in a schema.
    members.shift_remove("required");
}

fn check_default(doc: &Document, schema: &mut Json, at: &str, name: &str) {
    let Some(default) = schema.get("default").cloned() else { return };
    let fits = jsonschema::validator_for(schema).is_ok_and(|validator| validator.is_valid(&default));
    if !fits && let Some(members) = schema.as_object_mut() {
        members.shift_remove("default");
        if !default.is_null() {
            let message = format!("the default of `{name}` is refused by its own schema and is left out");
            doc.warn(&join(at, "default"), "left-out", message);
        }
    }
}
