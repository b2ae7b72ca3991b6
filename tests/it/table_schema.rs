//! The JSON Schema of routes.yaml: the committed file is what the code prints, and what one of the two accepts the other
//! accepts.

use std::process::Command;

use fpesa::route::{grammar, problem::Source, structure, table_schema::table_schema, yaml};
use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::root;

#[test]
fn the_committed_file_is_what_the_code_prints() {
    let output = Command::new(env!("CARGO_BIN_EXE_fpesa")).arg("schema").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let path = root().join("schemas/routes.schema.json");
    if std::env::var_os("FPESA_BLESS").is_some() {
        std::fs::write(&path, &printed).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap_or_default(),
        printed,
        "run `fpesa schema > schemas/routes.schema.json`"
    );
}

#[test]
fn it_is_a_schema_and_says_what_everything_means() {
    let schema = table_schema();
    assert!(jsonschema::meta::is_valid(&schema));
    let mut silent = Vec::new();
    undescribed(&schema, "", &mut silent);
    assert!(silent.is_empty(), "no description: {silent:?}");
    let shipped = std::fs::read_to_string(root().join("routes.yaml")).unwrap();
    assert!(shipped.starts_with("# yaml-language-server: $schema=schemas/routes.schema.json\n"));
}

fn undescribed(schema: &Value, path: &str, silent: &mut Vec<String>) {
    let groups = ["properties", "$defs"].into_iter().filter_map(|group| schema.get(group).and_then(Value::as_object));
    for (name, inner) in groups.flatten() {
        let path = format!("{path}/{name}");
        if inner.is_object() && inner.get("description").is_none() {
            silent.push(path.clone());
        }
        undescribed(inner, &path, silent);
    }
}

/// What the parser says of a table's structure; whether the parts fit together no schema can tell.
fn parsed(table: &Value) -> Vec<String> {
    let source = Source { name: "routes.yaml".into(), text: table.to_string().into() };
    let root = yaml::parse(&source).unwrap();
    let mut problems = Vec::new();
    structure::check(&source, &root, &grammar::TABLE, "the table", &mut problems);
    problems.into_iter().map(|problem| format!("{}: {}", problem.code, problem.message)).collect()
}

fn agree(schema: &Validator, table: &Value) -> Result<(), TestCaseError> {
    let told = parsed(table);
    let against: Vec<String> =
        schema.iter_errors(table).map(|error| format!("{} at {}", error, error.instance_path().as_str())).collect();
    prop_assert_eq!(
        told.is_empty(),
        against.is_empty(),
        "{:#}\nthe parser: {:?}\nthe schema: {:?}",
        table,
        told,
        against
    );
    Ok(())
}

/// The shipped table, and every broken one that can be read at all, get the same verdict from both.
#[test]
fn the_same_verdict_on_the_tables_that_we_have() {
    let schema = jsonschema::validator_for(&table_schema()).unwrap();
    let broken = std::fs::read_dir(root().join("tests/broken")).unwrap().map(|entry| entry.unwrap().path());
    let (mut taken, mut refused) = (0, 0);
    for folder in broken.chain([root()]) {
        let text = std::fs::read_to_string(folder.join("routes.yaml")).unwrap();
        let source = Source { name: "routes.yaml".into(), text: text.into() };
        let Ok(node) = yaml::parse(&source) else { continue };
        let mut problems = Vec::new();
        structure::check(&source, &node, &grammar::TABLE, "the table", &mut problems);
        // Of duplicate keys JSON knows nothing.
        problems.retain(|problem| problem.code != "duplicate-key");
        assert_eq!(problems.is_empty(), schema.is_valid(&node.to_json()), "{} {problems:?}", folder.display());
        *(if problems.is_empty() { &mut taken } else { &mut refused }) += 1;
    }
    assert!(taken > 20 && refused > 20, "{taken} {refused}");
}

fn maybe<T: std::fmt::Debug + Clone + 'static>(value: impl Strategy<Value = T> + 'static) -> BoxedStrategy<Option<T>> {
    prop_oneof![2 => value.prop_map(Some), 1 => Just(None)].boxed()
}

fn object(fields: Vec<(&'static str, BoxedStrategy<Option<Value>>)>) -> BoxedStrategy<Value> {
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let values: Vec<_> = fields.into_iter().map(|(_, value)| value).collect();
    values
        .prop_map(move |values| {
            let given = names.iter().zip(values).filter_map(|(name, value)| Some(((*name).to_owned(), value?)));
            Value::Object(given.collect())
        })
        .boxed()
}

fn one(words: &'static [&'static str]) -> BoxedStrategy<Value> {
    prop::sample::select(words).prop_map(Into::into).boxed()
}

fn yes(value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Value>> {
    value.prop_map(Some).boxed()
}

fn durations() -> BoxedStrategy<Value> {
    one(&["250ms", "2s", "1m", "24h", "86400s", "1440m", "86400000ms", "007s", "2 s", "1h"])
}

/// Tables whose every value is of the right shape.
fn tables() -> BoxedStrategy<Value> {
    let flag = || any::<bool>().prop_map(Value::from);
    let number = |least: u64, most: u64| (least..=most).prop_map(Value::from);
    let headers = || maybe(Just(json!({ "tenant": "{route}", "empty": "" })));
    let publish = object(vec![
        ("exchange", yes(one(&["amq.topic", ""]))),
        ("key", yes(one(&["a.b", "a.{id}"]))),
        ("payload", maybe(one(&["event", "body"]))),
        ("headers", headers()),
        ("type", maybe(one(&["order"]))),
        ("expires", maybe(durations())),
        ("priority", maybe(number(0, 9))),
        ("confirm_timeout", maybe(durations())),
        ("unroutable", maybe(one(&["reject", "accept"]))),
        ("status", maybe(prop::sample::select(vec![200, 201, 202, 204]).prop_map(Value::from))),
    ]);
    let to_queue = object(vec![("queue", yes(one(&["q"]))), ("timeout", maybe(durations())), ("headers", headers())]);
    let to_exchange = object(vec![
        ("exchange", yes(one(&["amq.topic"]))),
        ("key", yes(one(&["a"]))),
        ("reply", maybe(prop_oneof![Just(json!({})), Just(json!({ "schema": { "type": "object" } }))])),
    ]);
    let action = prop_oneof![
        publish.prop_map(|publish| ("publish", publish)),
        to_queue.prop_map(|call| ("call", call)),
        to_exchange.prop_map(|call| ("call", call)),
    ];
    let parameter = prop_oneof![
        Just(json!({})),
        Just(json!({ "type": "integer", "minimum": 1, "required": true })),
        Just(json!({ "type": "array", "items": { "type": "number" }, "required": false })),
    ];
    let params = object(vec![
        ("query", maybe(parameter.prop_map(|parameter| json!({ "p": parameter })))),
        ("header", maybe(Just(json!({ "X-P": { "type": "boolean" } })))),
    ]);
    let body = object(vec![
        ("schema", maybe(prop_oneof![Just(json!(true)), Just(json!({ "type": "object" }))])),
        ("max_size", maybe(one(&["1B", "64KiB", "1024MiB", "1GiB", "1 MiB", "1073741824B"]))),
        ("content_type", maybe(one(&["application/json"]))),
        ("required", maybe(flag())),
    ]);
    let route = (
        object(vec![
            ("method", yes(one(&["GET", "POST", "PUT", "PATCH", "DELETE"]))),
            ("path", yes(one(&["/a", "/a/b", "/c/"]))),
            ("summary", maybe(one(&["", "some words"]))),
            ("tags", maybe(Just(json!(["x"])))),
            ("deprecated", maybe(flag())),
            ("params", maybe(params)),
            ("body", maybe(body)),
        ]),
        action,
    )
        .prop_map(|(mut route, (verb, action))| {
            route["id"] = "r".into();
            route[verb] = action;
            route
        });
    let binding = object(vec![("exchange", yes(one(&["amq.topic"]))), ("key", yes(one(&["#", "a.*"])))]);
    let queue = object(vec![
        ("bind", maybe(prop::collection::vec(binding, 0..3).prop_map(Value::from))),
        ("type", maybe(one(&["quorum", "classic"]))),
        ("max_length", maybe(number(1, 1_000_000))),
        ("overflow", maybe(one(&["reject"]))),
        ("arguments", maybe(Just(json!({ "x-a": 1, "x-b": true, "x-c": "y" })))),
        ("declare", maybe(one(&["active", "passive"]))),
    ]);
    let worker = object(vec![
        ("queue", yes(one(&["q"]))),
        ("kind", yes(one(&["persist", "history"]))),
        ("batch", maybe(number(1, 10_000))),
        ("prefetch", maybe(number(1, 65_535))),
        ("concurrency", maybe(number(1, 256))),
    ]);
    let defaults = object(vec![
        ("timeout", maybe(durations())),
        ("max_size", maybe(one(&["1KiB"]))),
        ("unroutable", maybe(one(&["accept"]))),
        ("payload", maybe(one(&["body"]))),
    ]);
    object(vec![
        ("version", yes(Just(json!(1)))),
        ("base_path", maybe(one(&["/", "/api/v1"]))),
        ("defaults", maybe(defaults)),
        ("routes", yes(prop::collection::vec(route, 0..2).prop_map(Value::from))),
        ("queues", yes(queue.prop_map(|queue| json!({ "q": queue })))),
        (
            "exchanges",
            maybe(Just(json!({ "shop": { "type": "x-plugin" }, "theirs": { "type": "topic", "declare": "passive" } }))),
        ),
        ("workers", maybe(worker.prop_map(|worker| json!({ "w": worker })))),
        ("feed", maybe(Just(json!({ "topics": ["a/#"] })))),
    ])
}

/// Something that is put into the place of another value.
fn intruders() -> BoxedStrategy<Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!(true)),
        Just(json!("")),
        Just(json!("word")),
        Just(json!(["word"])),
        Just(json!({ "word": 1 })),
        prop::sample::select(vec![-1.0, 0.0, 0.5, 1.0, 5.0, 9.0, 10.0, 204.0, 1e30]).prop_map(Value::from),
        prop::sample::select(vec![0_i64, 1, 2, 9, 10, 200, 202, 256, 257, 404, 10_000, 10_001, 65_536, -1])
            .prop_map(Value::from),
        one(&[
            "0s",
            "5",
            "5s",
            "25h",
            "1441m",
            "86401s",
            "86400001ms",
            "-1s",
            "1.5s",
            "1KB",
            "0B",
            "2GiB",
            "1025MiB",
            "1073741825B",
            "reject",
            "GET",
            "get",
            "event",
            "quorum",
            "fast"
        ]),
    ]
    .boxed()
}

/// Changes the value, or the key, at the n-th place of a tree: what stands in a schema or under a name of the user's own
/// is left alone, for there the grammar says nothing.
fn change(value: &mut Value, places: &mut usize, how: usize, intruder: &Value) -> bool {
    let Value::Object(map) = value else {
        if let Value::Array(items) = value {
            for item in items {
                if *places == 0 {
                    *item = intruder.clone();
                    return true;
                }
                *places -= 1;
                if change(item, places, how, intruder) {
                    return true;
                }
            }
        }
        return false;
    };
    let keys: Vec<String> = map.keys().cloned().collect();
    for key in keys {
        if *places == 0 {
            match how {
                0 => drop(map.insert(key, intruder.clone())),
                1 => drop(map.shift_remove(&key)),
                2 => {
                    let old = map.shift_remove(&key).unwrap();
                    map.insert(format!("{key}s"), old);
                }
                _ => drop(map.insert("call".into(), intruder.clone())),
            }
            return true;
        }
        *places -= 1;
        if !matches!(key.as_str(), "schema" | "p" | "X-P") && change(&mut map[&key], places, how, intruder) {
            return true;
        }
    }
    false
}

fn count(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.values().map(|value| 1 + count(value)).sum(),
        Value::Array(items) => items.iter().map(|value| 1 + count(value)).sum(),
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_well_formed_both_accept(table in tables()) {
        let schema = jsonschema::validator_for(&table_schema()).unwrap();
        let told = parsed(&table);
        prop_assert!(told.is_empty(), "{:#}\n{:?}", table, told);
        agree(&schema, &table)?;
    }

    #[test]
    fn what_is_changed_both_judge_alike(
        table in tables(), at in any::<prop::sample::Index>(), how in 0..4_usize, intruder in intruders(),
    ) {
        let mut changed = table;
        let places = count(&changed);
        prop_assume!(places > 0);
        change(&mut changed, &mut at.index(places), how, &intruder);
        let schema = jsonschema::validator_for(&table_schema()).unwrap();
        agree(&schema, &changed)?;
    }
}
