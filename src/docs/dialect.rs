//! Older and newer words for the same: OpenAPI 3.1 reads JSON Schema 2020-12, and AsyncAPI 3.0 a superset of draft 07.
//! A table's schemas may be of any draft. What a dialect has no word for stays as it is; readers pass it over.

use serde_json::{Map, Value as Json, json};

use super::schemas::{DATA, MAPS};

/// A schema of an older draft in the words of 2020-12.
pub fn newer(schema: &Json) -> Json {
    let Json::Object(keywords) = schema else { return schema.clone() };
    let mut out = within(keywords, newer);
    if out.get("items").is_some_and(Json::is_array)
        && let Some(first) = out.remove("items")
    {
        out.insert("prefixItems".into(), first);
        if let Some(rest) = out.remove("additionalItems") {
            out.insert("items".into(), rest);
        }
    }
    if let Some(Json::Object(dependencies)) = out.remove("dependencies") {
        let (required, schemas): (Map<String, Json>, Map<String, Json>) =
            dependencies.into_iter().partition(|(_, value)| value.is_array());
        for (keyword, part) in [("dependentRequired", required), ("dependentSchemas", schemas)] {
            if !part.is_empty() {
                out.insert(keyword.into(), part.into());
            }
        }
    }
    // Draft 04 marked a limit as exclusive.
    for (limit, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        match out.get(exclusive) {
            Some(Json::Bool(true)) => {
                if let Some(value) = out.remove(limit) {
                    out.insert(exclusive.into(), value);
                }
            }
            Some(Json::Bool(false)) => drop(out.remove(exclusive)),
            _ => {}
        }
    }
    out.into()
}

/// A schema of 2020-12 in the words of draft 07.
pub fn older(schema: &Json) -> Json {
    let Json::Object(keywords) = schema else { return schema.clone() };
    let mut out = within(keywords, older);
    if let Some(first) = out.remove("prefixItems")
        && let Some(rest) = out.insert("items".into(), first)
    {
        out.insert("additionalItems".into(), rest);
    }
    let mut dependencies = Map::new();
    for keyword in ["dependentRequired", "dependentSchemas"] {
        if let Some(Json::Object(more)) = out.remove(keyword) {
            dependencies.extend(more);
        }
    }
    if !dependencies.is_empty() {
        out.insert("dependencies".into(), dependencies.into());
    }
    // Beside a reference nothing counts there.
    if out.len() > 1
        && let Some(target) = out.remove("$ref")
    {
        let mut all = vec![json!({ "$ref": target })];
        if let Some(Json::Array(more)) = out.remove("allOf") {
            all.extend(more);
        }
        out.insert("allOf".into(), all.into());
    }
    out.into()
}

/// A pointer into a schema, after [`newer`].
pub fn newer_pointer(root: &Json, pointer: &str) -> String {
    let mut here = Some(root);
    let mut out = String::new();
    for token in pointer.split('/').skip(1) {
        let array = |keyword: &str| here.and_then(|here| here.get(keyword)).is_some_and(Json::is_array);
        let renamed = match token {
            "items" if array("items") => "prefixItems",
            "additionalItems" if array("items") => "items",
            "dependencies" => "dependentSchemas",
            token => token,
        };
        out.push('/');
        out.push_str(renamed);
        let name = token.replace("~1", "/").replace("~0", "~");
        here = here.and_then(|here| match here {
            Json::Array(items) => items.get(name.parse::<usize>().ok()?),
            here => here.get(&name),
        });
    }
    out
}

/// The keywords, with `each` done to every schema among them.
fn within(keywords: &Map<String, Json>, each: fn(&Json) -> Json) -> Map<String, Json> {
    let value = |(keyword, value): (&String, &Json)| {
        let value = match value {
            value if DATA.contains(&keyword.as_str()) => value.clone(),
            Json::Object(named) if MAPS.contains(&keyword.as_str()) => {
                named.iter().map(|(name, schema)| (name.clone(), each(schema))).collect()
            }
            Json::Array(schemas) => schemas.iter().map(each).collect(),
            value => each(value),
        };
        (keyword.clone(), value)
    };
    keywords.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_renamed() {
        for (new, old) in [
            (
                json!({ "prefixItems": [{}, true], "items": false }),
                json!({ "items": [{}, true], "additionalItems": false }),
            ),
            (json!({ "dependentRequired": { "a": ["b"] } }), json!({ "dependencies": { "a": ["b"] } })),
            (json!({ "dependentSchemas": { "a": {} } }), json!({ "dependencies": { "a": {} } })),
            (json!({ "$ref": "#/a" }), json!({ "$ref": "#/a" })),
            (json!({ "enum": [{ "prefixItems": [1] }] }), json!({ "enum": [{ "prefixItems": [1] }] })),
            (json!({ "exclusiveMinimum": 1 }), json!({ "exclusiveMinimum": 1 })),
        ] {
            assert_eq!(older(&new), old);
            assert_eq!(newer(&old), new);
        }
        let beside = json!({ "properties": { "$ref": { "$ref": "#/a", "maxLength": 2 } } });
        assert_eq!(
            older(&beside),
            json!({ "properties": { "$ref": { "maxLength": 2, "allOf": [{ "$ref": "#/a" }] } } })
        );
        assert_eq!(newer(&json!({ "minimum": 1, "exclusiveMinimum": true })), json!({ "exclusiveMinimum": 1 }));
        let root = json!({ "properties": { "a": { "items": [{}, {}] }, "items": {} } });
        assert_eq!(newer_pointer(&root, "/properties/a/items/1"), "/properties/a/prefixItems/1");
        assert_eq!(newer_pointer(&root, "/properties/items"), "/properties/items");
    }
}
