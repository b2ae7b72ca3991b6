//! Parameters and bodies of a route.

use serde_json::{Value as Json, json};

use super::{Compiler, MAX_SIZE};
use crate::route::{
    file::{BodyFile, ParamFile},
    invalid::Part,
    json::MAX_DEPTH,
    params::{Kind, Param, Params},
    problem::Source,
    schema::{Schema, Subschema},
    table::Body,
    validator::Budget,
    yaml::Key,
};

/// Headers that never go to the bus: what is the client's secret, or of one connection alone (RFC 9110 section 7.6.1),
/// and what the gateway itself answers to.
const KEPT: [&str; 17] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "expect",
    "accept",
    "content-type",
    "content-length",
    "content-encoding",
    "idempotency-key",
];

impl Compiler<'_> {
    pub(super) fn params(&mut self, source: &Source, written: &[(Key, ParamFile)], part: Part) -> Params {
        let mut params: Vec<Param> = Vec::new();
        for (key, param) in written {
            let name = if part == Part::Header { key.name.to_ascii_lowercase() } else { key.name.clone() };
            if part == Part::Header {
                let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
                if name.is_empty() || !name.chars().all(token) {
                    let hint = "letters, digits and `-`, as in `X-Tenant`".to_owned();
                    self.tell(source, key.at, "bad-value", format!("`{}` is no header", key.name), Some(hint));
                    continue;
                }
                if KEPT.contains(&name.as_str()) {
                    let message = format!("the header `{}` can't be a parameter: it never goes to the bus", key.name);
                    let hint = "delete it, or send the value in a header of your own".to_owned();
                    self.tell(source, key.at, "bad-value", message, Some(hint));
                    continue;
                }
                if params.iter().any(|param| param.name == name) {
                    let message = format!("the header `{}` is given twice: upper and lower case are alike", key.name);
                    self.tell(source, key.at, "duplicate-key", message, Some("keep one of them".into()));
                    continue;
                }
            }
            let Some(schema) = self.schemas.inline(source, &param.schema, self.problems) else { continue };
            let typed = typed(schema.part());
            if !self.text_fits(source, &key.name, param, &typed) {
                continue;
            }
            let default = schema.json.get("default").cloned();
            if let Some(value) = &default
                && schema.validator.is_valid(value, &mut Budget::unlimited()) == Ok(false)
            {
                let failures = schema.validator.failures(value, 1, &mut Budget::unlimited());
                let error = failures.list.first().map_or("", |failure| failure.detail.as_str());
                let at = param.schema.place_of("/default");
                let message = format!("the default of `{}` is refused by its own schema: {error}", key.name);
                self.tell(source, at, "bad-default", message, Some("make one fit the other".into()));
            }
            let required = param.required || part == Part::Path;
            params.push(Param { name, kind: Kind::of(&typed), required, default, schema });
        }
        Params(params)
    }

    /// Whether some text can become what the schema asks for.
    fn text_fits(&mut self, source: &Source, name: &str, param: &ParamFile, typed: &Json) -> bool {
        let unreachable =
            |kind: &Json| !matches!(kind.as_str(), None | Some("string" | "integer" | "number" | "boolean"));
        let kind = &typed["type"];
        if kind.is_array() || (kind != "array" && unreachable(kind)) {
            let at = param.schema.place_of("/$ref");
            let message = format!("parameter `{name}` can't be of type {kind}: it comes as text");
            self.tell(
                source,
                at,
                "bad-value",
                message,
                Some("choose string, integer, number, boolean or array".into()),
            );
            return false;
        }
        let items = &typed["items"]["type"];
        if kind == "array" && (items.is_array() || unreachable(items)) {
            let message = format!("the items of parameter `{name}` can't be of type {items}: they come as text");
            let hint = "choose string, integer, number or boolean".to_owned();
            self.tell(source, param.schema.place_of("/items/type"), "bad-value", message, Some(hint));
            return false;
        }
        // Text of no type stays text, which no number equals.
        if kind.is_null() {
            let schema = param.schema.to_json();
            let text = |value: &Json| value.is_string();
            let never = match (schema.get("enum").and_then(Json::as_array), schema.get("const")) {
                (Some(values), _) => !values.iter().any(text),
                (None, Some(value)) => !text(value),
                (None, None) => false,
            };
            if never {
                let keyword = if schema.get("enum").is_some() { "enum" } else { "const" };
                let message = format!("parameter `{name}` has no `type`, so it is text, and `{keyword}` holds none");
                let at = param.schema.place_of(&format!("/{keyword}"));
                self.tell(source, at, "bad-value", message, Some("add its `type`, such as `integer`".into()));
                return false;
            }
        }
        true
    }

    pub(super) fn body(&mut self, source: &Source, written: &BodyFile) -> Body {
        let content_type = written
            .content_type
            .as_ref()
            .map_or("application/json".to_owned(), |at| at.value.trim().to_ascii_lowercase());
        if let Some(at) = &written.content_type {
            let fits = content_type.split_once('/').is_some_and(|(kind, sub)| {
                !kind.is_empty()
                    && !sub.is_empty()
                    && content_type.chars().all(|c| c.is_ascii_graphic() && !",;\"/ ".contains(c) || c == '/')
            });
            if !fits {
                let hint = Some("write it without parameters, as in `application/json`".into());
                self.tell(source, at.at, "bad-value", format!("`{}` is no media type", at.value), hint);
            }
        }
        let json = content_type == "application/json" || content_type.ends_with("+json");
        if let (Some(schema), false) = (&written.schema, json) {
            let message =
                format!("a body of type `{content_type}` is passed through unchecked, so it can have no schema");
            self.tell(source, schema.at, "bad-value", message, Some("delete `schema`, or take JSON".into()));
        }
        let schema: Option<Schema> =
            written.schema.as_ref().and_then(|node| self.schemas.resolve(source, node, self.problems));
        Body {
            schema,
            max_size: written.max_size.or(self.file.defaults.max_size).unwrap_or(MAX_SIZE),
            max_depth: written.max_depth.and_then(|depth| usize::try_from(depth).ok()).unwrap_or(MAX_DEPTH),
            content_type,
            json,
            required: written.required,
        }
    }
}

/// `type` of a schema and of its items, references followed.
fn typed(part: Subschema<'_>) -> Json {
    let here = if part.json.get("type").is_some() { part } else { part.follow() };
    let kind = here.json.get("type").cloned().unwrap_or(Json::Null);
    match here.inner(&["items"]) {
        Some(items) if kind == "array" => json!({ "type": kind, "items": typed(items) }),
        _ => json!({ "type": kind }),
    }
}
