//! Schemas as AsyncAPI 3.0 reads them: its schema object is a superset of JSON Schema draft 07, which spells some
//! keywords in another way. What draft 07 has no word for stays as it is; readers pass it over.

use serde_json::{Map, Value as Json, json};

use super::schemas::{DATA, MAPS};

/// The schema in draft 07's words.
pub fn draft07(schema: &Json) -> Json {
    let Json::Object(keywords) = schema else { return schema.clone() };
    let mut out: Map<String, Json> = keywords
        .iter()
        .map(|(keyword, value)| {
            let value = match value {
                value if DATA.contains(&keyword.as_str()) => value.clone(),
                Json::Object(named) if MAPS.contains(&keyword.as_str()) => {
                    named.iter().map(|(name, schema)| (name.clone(), draft07(schema))).collect()
                }
                Json::Array(schemas) => schemas.iter().map(draft07).collect(),
                value => draft07(value),
            };
            (keyword.clone(), value)
        })
        .collect();
    if let Some(first) = out.remove("prefixItems") {
        if let Some(rest) = out.insert("items".into(), first) {
            out.insert("additionalItems".into(), rest);
        }
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
    Json::Object(out)
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
            (json!({ "$ref": "#/a" }), json!({ "$ref": "#/a" })),
            (
                json!({ "properties": { "$ref": { "$ref": "#/a", "maxLength": 2 } } }),
                json!({ "properties": { "$ref": { "maxLength": 2, "allOf": [{ "$ref": "#/a" }] } } }),
            ),
            (json!({ "enum": [{ "prefixItems": [1] }] }), json!({ "enum": [{ "prefixItems": [1] }] })),
        ] {
            assert_eq!(draft07(&new), old);
        }
    }
}
