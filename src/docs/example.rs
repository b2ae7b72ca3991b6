//! Example values made from JSON Schemas. What is made here is a guess that fits most schemas; whoever shows one has it
//! checked first.

use std::{cell::Cell, collections::BTreeMap};

use regex_syntax::hir::{Class, ClassUnicodeRange, Hir, HirKind};
use serde_json::{Map, Value as Json, json};

use super::schemas::AT;

/// Deepest nesting of an example: a schema that refers to itself has no end.
const DEEPEST: usize = 12;
/// Optional fields are made to this depth.
const WHOLE: usize = 3;
/// Most schemas that are looked at for one example.
const STEPS: u32 = 5_000;
/// Most items or characters that are made to reach a minimum.
const LONGEST: u64 = 200;

/// Makes example values.
pub struct Examples<'a> {
    /// What references lead to, by component.
    pub components: &'a Map<String, Json>,
    /// Fields that are wanted though the schema does not require them, as paths of names.
    pub wanted: &'a [Vec<String>],
    /// Whether optional fields are made too, near the root.
    pub whole: bool,
    steps: Cell<u32>,
}

impl<'a> Examples<'a> {
    /// Of schemas that refer to these components.
    pub fn new(components: &'a Map<String, Json>, wanted: &'a [Vec<String>], whole: bool) -> Self {
        Self { components, wanted, whole, steps: Cell::new(0) }
    }

    /// A value that should fit the schema; `None` where none could be made.
    pub fn value(&self, schema: &Json) -> Option<Json> {
        self.steps.set(0);
        let wanted: Vec<&[String]> = self.wanted.iter().map(Vec::as_slice).collect();
        self.make(schema, &wanted, 0)
    }

    fn make(&self, schema: &Json, wanted: &[&[String]], depth: usize) -> Option<Json> {
        self.steps.set(self.steps.get() + 1);
        if depth > DEEPEST || self.steps.get() > STEPS {
            return None;
        }
        let mut keywords = match schema {
            Json::Bool(true) => return Some(json!({})),
            Json::Object(_) => self.joined(schema, depth)?,
            _ => return None,
        };
        // The author's own word first.
        let first = keywords.get("examples").and_then(|examples| examples.get(0));
        if let Some(value) = first.or(keywords.get("example")).or(keywords.get("default")) {
            return Some(value.clone());
        }
        if let Some(value) = keywords.get("const").or(keywords.get("enum").and_then(|values| values.get(0))) {
            return Some(value.clone());
        }
        for choice in ["oneOf", "anyOf"] {
            let Some(Json::Array(choices)) = keywords.remove(choice) else { continue };
            let rest = Json::Object(keywords);
            return choices.iter().find_map(|choice| self.make(&json!({ "allOf": [rest, choice] }), wanted, depth + 1));
        }
        match kind(&keywords)? {
            "object" => self.object(&keywords, wanted, depth),
            "array" => self.array(&keywords, depth),
            "string" => text(&keywords),
            "integer" => Some(number(&keywords, 1.0)),
            "number" => Some(number(&keywords, 0.0)),
            "boolean" => Some(true.into()),
            _ => Some(Json::Null),
        }
    }

    /// A schema with what it refers to and all of `allOf` in one.
    fn joined(&self, schema: &Json, depth: usize) -> Option<Map<String, Json>> {
        self.steps.set(self.steps.get() + 1);
        if depth > DEEPEST || self.steps.get() > STEPS {
            return None;
        }
        let mut out = Map::new();
        let Json::Object(keywords) = schema else { return Some(out) };
        let mut parts = Vec::new();
        if let Some(target) = keywords.get("$ref").and_then(Json::as_str) {
            parts.push(self.resolve(target)?);
        }
        if let Some(all) = keywords.get("allOf").and_then(Json::as_array) {
            parts.extend(all);
        }
        for part in parts {
            join(&mut out, self.joined(part, depth + 1)?);
        }
        let own = keywords.iter().filter(|(keyword, _)| !matches!(keyword.as_str(), "$ref" | "allOf"));
        join(&mut out, own.map(|(keyword, value)| (keyword.clone(), value.clone())).collect());
        Some(out)
    }

    fn resolve(&self, target: &str) -> Option<&Json> {
        let path = target.strip_prefix(AT)?;
        let (name, pointer) = path.find('/').map_or((path, ""), |at| path.split_at(at));
        let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8().ok()?;
        self.components.get(name)?.pointer(&pointer)
    }

    fn object(&self, keywords: &Map<String, Json>, wanted: &[&[String]], depth: usize) -> Option<Json> {
        let empty = Map::new();
        let properties = keywords.get("properties").and_then(Json::as_object).unwrap_or(&empty);
        let required: Vec<&str> =
            keywords.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
        let mut further: BTreeMap<&str, Vec<&[String]>> = BTreeMap::new();
        for path in wanted {
            if let Some((first, rest)) = path.split_first() {
                further.entry(first).or_default().push(rest);
            }
        }
        let known = properties.keys().map(String::as_str);
        let unknown =
            required.iter().copied().chain(further.keys().copied()).filter(|name| !properties.contains_key(*name));
        let mut out = Map::new();
        for name in known.chain(unknown) {
            let needed = required.contains(&name) || further.contains_key(name);
            if !(needed || self.whole && depth < WHOLE) || out.contains_key(name) {
                continue;
            }
            let deeper: Vec<&[String]> =
                further.get(name).into_iter().flatten().copied().filter(|rest| !rest.is_empty()).collect();
            let any = json!({ "type": if deeper.is_empty() { "string" } else { "object" } });
            let schema = properties.get(name).filter(|schema| **schema != Json::Bool(true) && **schema != json!({}));
            match self.make(schema.unwrap_or(&any), &deeper, depth + 1) {
                Some(value) => drop(out.insert(name.to_owned(), value)),
                None if needed => return None,
                None => {}
            }
        }
        let least = keywords.get("minProperties").and_then(Json::as_u64).unwrap_or(0).min(LONGEST);
        let others = keywords.get("additionalProperties").filter(|schema| schema.is_object()).cloned();
        for n in 1.. {
            if out.len() as u64 >= least {
                break;
            }
            let value = self.make(&others.clone().unwrap_or_else(|| json!({ "type": "string" })), &[], depth + 1)?;
            out.entry(format!("name{n}")).or_insert(value);
        }
        Some(Json::Object(out))
    }

    fn array(&self, keywords: &Map<String, Json>, depth: usize) -> Option<Json> {
        let least = keywords.get("minItems").and_then(Json::as_u64).unwrap_or(0).min(LONGEST);
        let most = keywords.get("maxItems").and_then(Json::as_u64).unwrap_or(LONGEST);
        let first = keywords.get("prefixItems").or(keywords.get("items").filter(|items| items.is_array()));
        let mut out: Vec<Json> = Vec::new();
        for schema in first.and_then(Json::as_array).into_iter().flatten() {
            out.push(self.make(schema, &[], depth + 1)?);
        }
        if let Some(contains) = keywords.get("contains") {
            out.push(self.make(contains, &[], depth + 1)?);
        }
        let string = json!({ "type": "string" });
        let item = keywords.get("items").filter(|items| items.is_object()).unwrap_or(&string);
        let unique = keywords.get("uniqueItems") == Some(&Json::Bool(true));
        // One says more than none.
        let wanted = least.max(1).min(most);
        while (out.len() as u64) < wanted {
            let Some(made) = self.make(item, &[], depth + 1) else { break };
            let n = out.len();
            out.push(match made {
                Json::String(text) if unique && n > 0 => format!("{text}{n}").into(),
                Json::Number(number) if unique && n > 0 => (number.as_i64()? + i64::try_from(n).ok()?).into(),
                made => made,
            });
        }
        (out.len() as u64 >= least).then_some(Json::Array(out))
    }
}

/// Adds keywords to others: properties and what is required are joined, the rest is replaced.
fn join(into: &mut Map<String, Json>, from: Map<String, Json>) {
    for (keyword, value) in from {
        match (keyword.as_str(), into.get_mut(&keyword), value) {
            ("properties", Some(Json::Object(there)), Json::Object(more)) => there.extend(more),
            ("required", Some(Json::Array(there)), Json::Array(more)) => there.extend(more),
            (_, _, value) => drop(into.insert(keyword, value)),
        }
    }
}

/// The type to make: the first that is named, or the one that the keywords are for.
fn kind(keywords: &Map<String, Json>) -> Option<&str> {
    match keywords.get("type") {
        Some(Json::String(kind)) => return Some(kind),
        Some(Json::Array(kinds)) => return kinds.first()?.as_str(),
        _ => {}
    }
    let has = |names: &[&str]| names.iter().any(|name| keywords.contains_key(*name));
    Some(if has(&["items", "prefixItems", "minItems", "contains"]) {
        "array"
    } else if has(&["minLength", "maxLength", "pattern", "format"]) {
        "string"
    } else if has(&["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]) {
        "number"
    } else {
        "object"
    })
}

fn number(keywords: &Map<String, Json>, otherwise: f64) -> Json {
    let is = |keyword: &str| keywords.get(keyword).and_then(Json::as_f64);
    let step = is("multipleOf").or(is("exclusiveMinimum").or(is("exclusiveMaximum")).map(|_| 1.0));
    let mut value = otherwise;
    if let Some(least) = is("minimum") {
        value = value.max(least);
    }
    if let Some(most) = is("maximum") {
        value = value.min(most);
    }
    if let Some(above) = is("exclusiveMinimum").filter(|above| value <= *above) {
        value = above + step.unwrap_or(1.0);
    }
    if let Some(below) = is("exclusiveMaximum").filter(|below| value >= *below) {
        value = is("exclusiveMinimum").map_or(below - step.unwrap_or(1.0), |above| f64::midpoint(above, below));
    }
    if let Some(step) = is("multipleOf") {
        value = (value / step).ceil() * step;
    }
    #[allow(clippy::cast_possible_truncation, reason = "it is whole and within the range")]
    let whole = (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64);
    whole.map_or_else(|| json!(value), Json::from)
}

fn text(keywords: &Map<String, Json>) -> Option<Json> {
    let size = |keyword: &str| keywords.get(keyword).and_then(Json::as_u64);
    let made = match (keywords.get("format").and_then(Json::as_str), keywords.get("pattern").and_then(Json::as_str)) {
        (Some(format), _) if formatted(format).is_some() => formatted(format)?.to_owned(),
        (_, Some(pattern)) => matching(pattern, size("minLength").unwrap_or(1))?,
        _ => "text".to_owned(),
    };
    let (least, most) = (size("minLength").unwrap_or(0), size("maxLength").unwrap_or(u64::MAX));
    let long = made.chars().count() as u64;
    if long < least && least <= LONGEST {
        return Some(
            made.chars().chain("text ".chars().cycle()).take(usize::try_from(least).ok()?).collect::<String>().into(),
        );
    }
    Some(made.chars().take(usize::try_from(most).unwrap_or(usize::MAX)).collect::<String>().into())
}

/// An example of a format (JSON Schema 2020-12, section 7.3).
fn formatted(format: &str) -> Option<&'static str> {
    Some(match format {
        "uuid" => "0193f1c2-7d3a-7c3e-9d4e-0123456789ab",
        "date-time" => "2026-11-23T18:27:58Z",
        "date" => "2026-11-23",
        "time" => "18:27:58Z",
        "duration" => "PT2S",
        "email" | "idn-email" => "somebody@example.com",
        "hostname" | "idn-hostname" => "example.com",
        "ipv4" => "192.0.2.1",
        "ipv6" => "2001:db8::1",
        "uri" | "iri" => "https://example.com/",
        "uri-reference" | "iri-reference" => "/path",
        "uri-template" => "/path/{name}",
        "json-pointer" => "/name",
        "relative-json-pointer" => "0",
        "regex" => "^a+$",
        _ => return None,
    })
}

/// A text that a pattern matches, of at least `least` characters where the pattern lets it.
fn matching(pattern: &str, least: u64) -> Option<String> {
    let hir = regex_syntax::parse(pattern).ok()?;
    let mut short = String::new();
    write(&hir, 0, &mut short)?;
    let missing = u32::try_from(least).ok()?.saturating_sub(u32::try_from(short.chars().count()).ok()?);
    if missing == 0 {
        return Some(short);
    }
    let mut long = String::new();
    write(&hir, missing + 1, &mut long)?;
    Some(long)
}

/// Writes what an expression matches; `more` is how often something repeats beyond what it must.
fn write(hir: &Hir, more: u32, out: &mut String) -> Option<()> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => out.push_str(std::str::from_utf8(&literal.0).ok()?),
        HirKind::Class(class) => out.push(pick(class)?),
        HirKind::Repetition(repetition) => {
            let times = repetition.min.saturating_add(more).min(repetition.max.unwrap_or(u32::MAX));
            for _ in 0..times.max(repetition.min) {
                write(&repetition.sub, 0, out)?;
                if out.len() as u64 > LONGEST * 4 {
                    return None;
                }
            }
        }
        HirKind::Capture(capture) => write(&capture.sub, more, out)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write(part, more, out))?,
        HirKind::Alternation(choices) => write(choices.first()?, more, out)?,
    }
    Some(())
}

/// A character of a class: a letter or a digit where there is one.
fn pick(class: &Class) -> Option<char> {
    let Class::Unicode(class) = class else { return None };
    let holds = |c: &char| class.iter().any(|range| (range.start()..=range.end()).contains(c));
    "aA1".chars().chain(' '..='~').find(holds).or_else(|| class.iter().next().map(ClassUnicodeRange::start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_fit_their_schemas() {
        let components = json!({
            "node": { "type": "object", "required": ["name"], "properties": {
                "name": { "type": "string", "minLength": 3 },
                "next": { "$ref": "#/components/schemas/node" } } },
        });
        let components = components.as_object().unwrap();
        for schema in [
            json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" }),
            json!({ "type": "string", "pattern": "^[a-z]+-\\d{4}$", "minLength": 12 }),
            json!({ "type": "string", "minLength": 40 }),
            json!({ "type": "string", "maxLength": 2 }),
            json!({ "type": "string", "format": "uuid" }),
            json!({ "type": "integer", "minimum": 7, "multipleOf": 5 }),
            json!({ "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 }),
            json!({ "type": ["null", "string"] }),
            json!({ "enum": ["a", "b"] }),
            json!({ "type": "array", "minItems": 3, "uniqueItems": true, "items": { "type": "integer" } }),
            json!({ "type": "array", "prefixItems": [{ "const": 1 }, { "type": "string" }], "items": false }),
            json!({ "allOf": [
                { "type": "object", "required": ["a"], "properties": { "a": { "type": "boolean" } } },
                { "required": ["b"], "properties": { "b": { "type": "integer" } } } ] }),
            json!({ "oneOf": [{ "type": "integer" }, { "type": "string" }] }),
            json!({ "type": "object", "minProperties": 2 }),
            json!({ "type": "object", "required": ["x"], "additionalProperties": { "type": "string" } }),
        ] {
            for whole in [false, true] {
                let made = Examples::new(components, &[], whole).value(&schema);
                let made = made.unwrap_or_else(|| panic!("nothing for {schema}"));
                assert!(jsonschema::is_valid(&schema, &made), "{made} for {schema}");
            }
        }
        let node = json!({ "$ref": "#/components/schemas/node" });
        let made = |whole| Examples::new(components, &[], whole).value(&node).unwrap();
        assert_eq!(made(false), json!({ "name": "text" }));
        assert_eq!(made(true)["next"]["name"], "text", "it ends, though the schema has no end");
        let wanted = [vec!["order".to_owned(), "kind".to_owned()]];
        let made = Examples::new(components, &wanted, false).value(&json!({ "type": "object" }));
        assert_eq!(made.unwrap(), json!({ "order": { "kind": "text" } }));
    }
}
