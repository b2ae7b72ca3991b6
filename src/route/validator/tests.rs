//! What is valid, as the library has it too; and what it costs, in steps.

use jsonschema::Draft;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Budget, Compiled, Exhausted, Failures, Validator, compile,
    resources::{Resources, Spot},
};

fn compiled(schema: &Value) -> (Compiled, Spot) {
    let mut resources = Resources::default();
    let document = resources.add("file:///schemas/test.json", std::sync::Arc::new(schema.clone()));
    let root = Spot { document, pointer: String::new() };
    (compile(&resources, std::slice::from_ref(&root), None), root)
}

fn validator_for(schema: &Value) -> Validator {
    let (compiled, root) = compiled(schema);
    assert!(compiled.dangling.is_empty(), "{:?}", compiled.dangling);
    Validator::new(&compiled, &root).unwrap()
}

/// Whether a value is valid, and the steps that telling it takes, failures included.
fn cost(validator: &Validator, value: &Value) -> (bool, u64, Failures) {
    let mut budget = Budget::steps(u64::MAX / 2);
    let valid = validator.is_valid(value, &mut budget).unwrap();
    let failures = if valid { Failures::default() } else { validator.failures(value, 20, &mut budget) };
    (valid, budget.spent(), failures)
}

/// A filter of which one leaf is wrong, under so many levels.
fn filter(depth: usize, leaf: &Value) -> Value {
    (0..depth).fold(leaf.clone(), |inner, _| json!({ "op": "all", "of": [inner] }))
}

/// Recursive schemas whose branches look alike, in the orders and with the keywords that could make it dear.
fn filter_trees() -> Vec<Value> {
    let branch = |op: &str, op_first: bool| {
        let (op, of) = (json!({ "const": op }), json!({ "type": "array", "items": { "$ref": "#/$defs/filter" } }));
        let properties = if op_first { json!({ "op": op, "of": of }) } else { json!({ "of": of, "op": op }) };
        json!({ "type": "object", "required": ["op", "of"], "properties": properties })
    };
    let late = |op: &str| {
        json!({ "allOf": [
            { "properties": { "of": { "items": { "$ref": "#/$defs/filter" } } }, "required": ["of"] },
            { "properties": { "op": { "pattern": format!("^{op}$") } } },
        ] })
    };
    let test = json!({ "type": "object", "required": ["field"], "properties": { "field": { "type": "string" } }, "additionalProperties": false });
    let mut trees = Vec::new();
    for keyword in ["anyOf", "oneOf"] {
        for branches in [
            [branch("all", true), branch("any", true)],
            [branch("all", false), branch("any", false)],
            [late("any"), late("all")],
            // Both take the same, and neither says which it is.
            [
                json!({ "properties": { "of": { "items": { "$ref": "#/$defs/filter" } } }, "required": ["of"] }),
                late("all"),
            ],
        ] {
            let [all, any] = branches;
            trees.push(json!({ "$ref": "#/$defs/filter", "$defs": { "all": all, "any": any, "test": test, "filter": {
                keyword: [{ "$ref": "#/$defs/all" }, { "$ref": "#/$defs/any" }, { "$ref": "#/$defs/test" }]
            } } }));
        }
    }
    trees
}

#[test]
fn a_refusal_grows_with_the_depth_and_not_with_its_power() {
    for schema in filter_trees() {
        let validator = validator_for(&schema);
        let refused = |depth| {
            let (valid, steps, failures) = cost(&validator, &filter(depth, &json!({ "nope": 1 })));
            assert!(!valid && !failures.list.is_empty(), "{schema}");
            steps
        };
        let (shallow, deep) = (refused(30), refused(60));
        // Three branches at each of sixty levels, each asked from within a few keywords.
        assert!(deep < 60 * 200, "{deep} steps: {schema}");
        assert!(deep < shallow * 3, "{shallow} steps become {deep} at twice the depth: {schema}");
        let (valid, steps, _) = cost(&validator, &filter(60, &json!({ "field": "x" })));
        let ambiguous = schema["$defs"]["all"].get("type").is_none() && schema["$defs"]["all"].get("allOf").is_none();
        assert!(valid || ambiguous, "{schema}");
        assert!(deep < steps * 8 + 1_000, "{deep} steps to refuse, {steps} to accept: {schema}");
    }
}

#[test]
fn references_that_fan_out_are_asked_once() {
    for (keyword, nested) in [("allOf", true), ("anyOf", true), ("oneOf", true), ("allOf", false), ("anyOf", false)] {
        let mut definitions = serde_json::Map::new();
        for n in 0..40 {
            let next = json!({ "$ref": format!("#/$defs/d{}", n + 1) });
            let next = if nested { json!({ "properties": { "a": next } }) } else { next };
            definitions.insert(format!("d{n}"), json!({ keyword: [next, next, { "not": {} }] }));
        }
        definitions.insert("d40".into(), json!({ "type": "integer" }));
        let schema = json!({ "$ref": "#/$defs/d0", "$defs": definitions });
        let validator = validator_for(&schema);
        let wrap = |leaf: Value| if nested { (0..40).fold(leaf, |inner, _| json!({ "a": inner })) } else { leaf };
        for value in [wrap(json!("x")), wrap(json!(1))] {
            let (_, steps, _) = cost(&validator, &value);
            assert!(steps < 100_000, "{steps} steps for {keyword}, nested: {nested}");
        }
    }
}

#[test]
fn what_is_unevaluated_is_not_asked_for_by_the_power_of_the_depth() {
    let schema = json!({
        "$ref": "#/$defs/node",
        "$defs": { "node": {
            "anyOf": [{ "properties": { "a": { "$ref": "#/$defs/node" } } }, { "properties": { "b": { "$ref": "#/$defs/node" } } }],
            "unevaluatedProperties": false,
        } },
    });
    let validator = validator_for(&schema);
    let value = |depth: usize| {
        (0..depth)
            .fold(json!({ "c": 1 }), |inner, n| if n % 2 == 0 { json!({ "a": inner }) } else { json!({ "b": inner }) })
    };
    let (_, shallow, _) = cost(&validator, &value(30));
    let (valid, deep, _) = cost(&validator, &value(60));
    assert!(!valid && deep < shallow * 3, "{shallow} steps become {deep}");
}

#[test]
fn a_step_is_bounded_whatever_the_keyword() {
    for (schema, value) in [
        (json!({ "items": { "uniqueItems": true } }), json!([vec![json!([[], [[]]]); 2_000]])),
        (json!({ "items": { "pattern": "^(a{1,100}){1,100}$" } }), json!(["a".repeat(4_000)])),
        (json!({ "items": { "enum": (0..5_000).collect::<Vec<_>>() } }), json!(vec![json!(-1.5); 100])),
        (json!({ "items": { "format": "email" } }), json!(["a".repeat(100_000)])),
        (json!({ "items": { "maxLength": 10 } }), json!(["ä".repeat(100_000)])),
        (json!({ "items": { "required": (0..5_000).map(|n| n.to_string()).collect::<Vec<_>>() } }), json!([{}])),
    ] {
        let verdict = validator_for(&schema).is_valid(&value, &mut Budget::steps(300));
        assert_eq!(verdict, Err(Exhausted), "{:.60}", schema.to_string());
    }
}

/// The stack is bounded, in a build without optimization too: a thread of the runtime has 2 MiB.
#[test]
fn depth_is_bounded() {
    let run = || {
        let list = json!({ "$ref": "#/$defs/list", "$defs": { "list": { "anyOf": [
            { "type": "null" },
            { "allOf": [{ "oneOf": [{ "properties": { "next": { "$ref": "#/$defs/list" } }, "unevaluatedProperties": false }] }] },
        ] } } });
        let validator = validator_for(&list);
        let nested = |leaf: Value| (0..127).fold(leaf, |inner, _| json!({ "next": inner }));
        assert!(cost(&validator, &nested(Value::Null)).0);
        assert!(!cost(&validator, &nested(json!(1))).2.cut);
        let chain: serde_json::Map<String, Value> = (0..5_000)
            .map(|n| (format!("d{n}"), json!({ "allOf": [{ "$ref": format!("#/$defs/d{}", n + 1) }] })))
            .chain([("d5000".to_owned(), json!(false))])
            .collect();
        let validator = validator_for(&json!({ "$ref": "#/$defs/d0", "$defs": chain }));
        assert_eq!(validator.is_valid(&json!(1), &mut Budget::unlimited()), Err(Exhausted));
    };
    std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(run).unwrap().join().unwrap();
}

#[test]
fn what_leads_back_without_going_into_the_value_is_found() {
    for (schema, endless) in [
        (json!({ "$ref": "#" }), true),
        (
            json!({ "$defs": { "a": { "allOf": [{ "$ref": "#/$defs/b" }] }, "b": { "anyOf": [{}, { "$ref": "#/$defs/a" }] } } }),
            true,
        ),
        (json!({ "if": {}, "then": { "not": { "$ref": "#/then" } } }), true),
        (json!({ "dependentSchemas": { "a": { "$ref": "#" } } }), true),
        (json!({ "properties": { "a": { "$ref": "#" } }, "allOf": [{ "items": { "$ref": "#" } }] }), false),
        (json!({ "allOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/a" }], "$defs": { "a": {} } }), false),
    ] {
        assert_eq!(!compiled(&schema).0.endless().is_empty(), endless, "{schema}");
    }
}

#[test]
fn failures_are_told_where_they_are() {
    let schema = json!({
        "required": ["id"], "dependentRequired": { "a": ["b"] }, "propertyNames": { "maxLength": 8 },
        "properties": {
            "n": { "type": "integer", "minimum": 3 }, "t": { "maxLength": 1 }, "e": { "enum": ["x", "y"] },
            "l": { "prefixItems": [{}], "items": false, "uniqueItems": true }, "u": { "anyOf": [{ "type": "string" }, { "properties": { "deep": false } }] },
        },
        "patternProperties": { "^x-": { "const": true } }, "additionalProperties": false,
    });
    let value = json!({ "a": 1, "n": 1, "t": "ab", "e": "z", "l": [1, 1], "u": { "deep": 1 }, "x-a/b": 0, "very-long-name": 1 });
    let (_, _, failures) = cost(&validator_for(&schema), &value);
    let mut told: Vec<(&str, &str)> = failures.list.iter().map(|f| (f.pointer.as_str(), f.keyword)).collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ("/a", "additionalProperties"),
            ("/b", "dependentRequired"),
            ("/e", "enum"),
            ("/id", "required"),
            ("/l", "items"),
            ("/l", "uniqueItems"),
            ("/n", "minimum"),
            ("/t", "maxLength"),
            ("/u", "anyOf"),
            ("/very-long-name", "additionalProperties"),
            ("/very-long-name", "propertyNames"),
            ("/x-a~1b", "const"),
        ]
    );
    assert!(!failures.cut);
    assert!(failures.list.iter().all(|f| !f.detail.is_empty() && !f.detail.contains("very-long")), "{failures:?}");
    let many: Value = (0..30).map(|_| json!(1)).collect();
    let (_, _, failures) = cost(&validator_for(&json!({ "items": { "type": "string" } })), &many);
    assert!(failures.cut && failures.list.len() == 20, "{failures:?}");
    let few: Value = (0..20).map(|_| json!(1)).collect();
    assert!(!cost(&validator_for(&json!({ "items": { "type": "string" } })), &few).2.cut);
}

#[test]
fn meta_schemas_are_known() {
    for meta in [
        "http://json-schema.org/draft-07/schema#",
        "http://json-schema.org/draft-04/schema#",
        "https://json-schema.org/draft/2020-12/schema",
    ] {
        let validator = validator_for(&json!({ "$ref": meta }));
        assert!(cost(&validator, &json!({ "type": "string" })).0, "{meta}");
        assert!(!cost(&validator, &json!({ "type": 1 })).0, "{meta}");
    }
    let positive = json!({ "properties": { "n": { "$ref": "http://json-schema.org/draft-04/schema#/definitions/positiveInteger" } } });
    assert!(cost(&validator_for(&positive), &json!({ "n": 1 })).0);
    assert!(!cost(&validator_for(&positive), &json!({ "n": -1 })).0);
}

fn words() -> BoxedStrategy<String> {
    prop::sample::select(vec!["a", "b", "ab", "x-a", "", "ä"]).prop_map(str::to_owned).boxed()
}

fn values() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        (-3..4_i64).prop_map(Into::into),
        prop::sample::select(vec![0.5, 1.0, -2.0, 1e300]).prop_map(Into::into),
        words().prop_map(Into::into),
    ];
    let inner = |inner: BoxedStrategy<Value>| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((words(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    };
    leaf.prop_recursive(3, 16, 4, move |recursive| inner(recursive.boxed())).boxed()
}

fn schemas() -> BoxedStrategy<Value> {
    let one = |keyword: &'static str, value: BoxedStrategy<Value>| {
        value.prop_map(move |value| (keyword.to_owned(), value)).boxed()
    };
    let size = || (0..4_u64).prop_map(Value::from).boxed();
    let number = || prop_oneof![(-2..3_i64).prop_map(Value::from), Just(json!(0.5))].boxed();
    let names = || prop::collection::btree_set(words(), 0..3).prop_map(|names| json!(names)).boxed();
    let kind = || prop::sample::select(super::program::TYPES.to_vec());
    let leaf = prop_oneof![
        one(
            "type",
            prop_oneof![
                kind().prop_map(Value::from),
                prop::collection::btree_set(kind(), 1..3).prop_map(|kinds| json!(kinds))
            ]
            .boxed()
        ),
        one("const", values()),
        one("enum", prop::collection::vec(values(), 1..4).prop_map(Value::from).boxed()),
        one("minimum", number()),
        one("maximum", number()),
        one("exclusiveMinimum", number()),
        one("exclusiveMaximum", number()),
        one("multipleOf", prop::sample::select(vec![json!(2), json!(0.5), json!(1.0)]).boxed()),
        one("minLength", size()),
        one("maxLength", size()),
        one("minItems", size()),
        one("maxItems", size()),
        one("minProperties", size()),
        one("maxProperties", size()),
        one("pattern", prop::sample::select(vec!["a", "^a", "b$", "^$"]).prop_map(Value::from).boxed()),
        one("uniqueItems", any::<bool>().prop_map(Value::from).boxed()),
        one("required", names()),
        one("$ref", prop::sample::select(vec!["#/$defs/s", "#/$defs/r", "#named"]).prop_map(Value::from).boxed()),
    ];
    let boolean = any::<bool>().prop_map(Value::from);
    let object = |keywords: BoxedStrategy<(String, Value)>| {
        prop::collection::vec(keywords, 0..4).prop_map(|keywords| Value::Object(keywords.into_iter().collect()))
    };
    let schema = prop_oneof![1 => boolean, 6 => object(leaf.clone().boxed())];
    schema
        .prop_recursive(3, 24, 4, move |inner| {
            let inner = inner.boxed();
            let of = |keyword: &'static str| one(keyword, inner.clone());
            let list = |keyword: &'static str| {
                one(keyword, prop::collection::vec(inner.clone(), 1..4).prop_map(Value::from).boxed())
            };
            let named = |keyword: &'static str| {
                let members = prop::collection::vec((words(), inner.clone()), 0..3);
                one(keyword, members.prop_map(|members| Value::Object(members.into_iter().collect())).boxed())
            };
            let nested = prop_oneof![
                leaf.clone(),
                named("properties"),
                named("patternProperties"),
                of("additionalProperties"),
                of("propertyNames"),
                of("items"),
                list("prefixItems"),
                of("contains"),
                one("minContains", size()),
                one("maxContains", size()),
                list("allOf"),
                list("anyOf"),
                list("oneOf"),
                of("not"),
                of("if"),
                of("then"),
                of("else"),
                named("dependentSchemas"),
                of("unevaluatedProperties"),
                of("unevaluatedItems"),
            ];
            object(nested.boxed())
        })
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The library judges the same, and what is refused is told.
    #[test]
    fn the_library_judges_alike(schema in schemas(), values in prop::collection::vec(values(), 1..6)) {
        let mut schema = if schema.is_object() { schema } else { json!({ "not": { "not": schema } }) };
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
        schema["$defs"] = json!({
            "s": { "type": ["string", "object"], "properties": { "a": { "$ref": "#/$defs/r" } } },
            "r": { "properties": { "b": { "$ref": "#" } }, "items": { "$ref": "#" } },
            "n": { "$anchor": "named", "unevaluatedItems": { "type": "integer" } },
        });
        let library = jsonschema::options().with_draft(Draft::Draft202012).build(&schema).unwrap();
        let own = validator_for(&schema);
        for value in &values {
            let (valid, _, failures) = cost(&own, value);
            prop_assert_eq!(valid, library.is_valid(value), "{} {}", schema, value);
            let unclear = failures.list.iter().any(|failure| failure.keyword == "schema");
            prop_assert!(valid || !(unclear || failures.cut), "{} {} {:?}", schema, value, failures);
        }
    }
}
