//! What a case expects, and how it differs from what would happen.

use serde_json::{Map, Value as Json};

use super::placeholder::{NAMES, Pattern};
use crate::{
    http::{
        explain::{Explained, Verdict},
        problem::TYPES,
    },
    route::{
        decode::Decoder,
        problem::suggest,
        yaml::{Node, Value},
    },
};

/// What is compared with a message; a refused request has none of it.
const OF_A_MESSAGE: [&str; 8] = ["action", "params", "exchange", "key", "queue", "headers", "properties", "payload"];

/// What a case expects. Only what is named is compared.
#[derive(Debug, Default)]
pub struct Expect {
    /// Expected values by name, as in `fpesa explain --format json`.
    named: Map<String, Json>,
    /// Whether what is named must be there whole, and nothing besides.
    exact: bool,
}

/// One thing that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where: `key`, `payload.data.text`, `problem.errors[0].pointer`.
    pub place: String,
    /// What was expected, as JSON or in words.
    pub expected: String,
    /// What would be there.
    pub actual: String,
}

/// Reads `expect:`.
pub(super) fn read(d: &mut Decoder<'_>, node: &Node) -> Option<Expect> {
    const KEYS: [&str; 12] = [
        "route",
        "status",
        "action",
        "params",
        "exchange",
        "key",
        "queue",
        "headers",
        "properties",
        "payload",
        "problem",
        "exact",
    ];
    let fields = d.fields(node, "`expect`", &KEYS)?;
    let mut expect = Expect {
        exact: fields.get("exact").and_then(|node| d.flag(node, "`exact`")).unwrap_or(false),
        ..Expect::default()
    };
    for key in KEYS.into_iter().filter(|key| *key != "exact") {
        let Some(node) = fields.get(key) else { continue };
        match key {
            "params" | "headers" | "properties" => {
                d.names(node, &format!("`{key}`"));
            }
            "status" => {
                d.integer(node, "`status`", 100, 599);
            }
            "action" => {
                d.word(node, "`action`", &[("publish", ()), ("call", ()), ("gateway", ())]);
            }
            "problem" => {
                problem(d, node);
            }
            "exchange" | "key" | "queue" => {
                d.any_text(node, &format!("`{key}`"));
            }
            _ => {}
        }
        check(d, node);
        expect.named.insert(key.to_owned(), node.to_json());
    }
    if let Some(key) = OF_A_MESSAGE.into_iter().find(|key| expect.named.contains_key(*key))
        && expect.named.contains_key("problem")
    {
        let message = format!("a refused request has no `{key}`: this case expects it and a `problem`");
        d.problem_hint(fields.place(key), "bad-value", message, Some("keep one of the two"));
    }
    if expect.named.is_empty() {
        let hint = "name a `key`, a `payload`, a `problem`, …";
        d.problem_hint(fields.at, "missing-key", "this case expects nothing", Some(hint));
    }
    expect.normalise();
    Some(expect)
}

/// `problem: not-found`, or its members.
fn problem(d: &mut Decoder<'_>, node: &Node) {
    match &node.value {
        Value::Map(_) => {
            d.names(node, "`problem`");
        }
        _ => {
            d.text(node, "`problem`");
        }
    }
}

/// Tells keys that are given twice, and what looks like a placeholder and is none.
fn check(d: &mut Decoder<'_>, node: &Node) {
    match &node.value {
        Value::Map(_) => d.names(node, "this").into_iter().for_each(|(_, node)| check(d, node)),
        Value::List(items) => items.iter().for_each(|node| check(d, node)),
        Value::Text(text) => {
            if let Err(word) = Pattern::parse(text) {
                let hint = suggest(&word, NAMES.iter().map(|(name, _)| *name)).unwrap_or_default();
                let hint = format!("{hint} (write `<<{word}>` for the text itself)");
                d.problem_hint(node.at, "bad-value", format!("`<{word}>` is no placeholder"), Some(hint));
            }
        }
        _ => {}
    }
}

impl Expect {
    /// A problem may be named by the end of its type.
    fn normalise(&mut self) {
        let Some(problem) = self.named.get_mut("problem") else { return };
        if let Json::String(suffix) = problem {
            *problem = serde_json::json!({ "type": suffix });
        }
        if let Some(Json::String(kind)) = problem.get_mut("type")
            && !kind.contains([':', '<'])
        {
            kind.insert_str(0, TYPES);
        }
    }

    /// Everything that is not as expected.
    pub fn differences(&self, explained: &Explained<'_>) -> Vec<Difference> {
        let mut actual = serde_json::to_value(explained.view()).unwrap_or_default();
        if let (Some(status), Some(members)) = (status(explained), actual.as_object_mut()) {
            members.insert("status".into(), status.into());
        }
        let mut differences = Vec::new();
        let refused = actual.get("problem");
        let wants_a_message = OF_A_MESSAGE.into_iter().any(|key| self.named.contains_key(key));
        let wants_a_problem = self.named.contains_key("problem");
        let told_whole = match refused {
            Some(problem) if wants_a_message => Some(("a request that is taken", format!("refused: {problem}"))),
            None if wants_a_problem => Some(("a problem", format!("taken: {}", taken(&actual)))),
            _ => None,
        };
        for (name, expected) in &self.named {
            let whole = OF_A_MESSAGE.contains(&name.as_str()) || name == "problem";
            if told_whole.is_none() || !whole {
                self.compare(name, expected, actual.get(name), &mut differences);
            }
        }
        if let Some((expected, actual)) = told_whole {
            differences.push(Difference { place: "request".into(), expected: expected.into(), actual });
        }
        differences
    }

    fn compare(&self, place: &str, expected: &Json, actual: Option<&Json>, out: &mut Vec<Difference>) {
        match (expected, actual) {
            (Json::Object(wanted), Some(Json::Object(there))) => {
                for (name, expected) in wanted {
                    self.compare(&format!("{place}.{name}"), expected, there.get(name), out);
                }
                for (name, actual) in there.iter().filter(|(name, _)| self.exact && !wanted.contains_key(*name)) {
                    out.push(Difference {
                        place: format!("{place}.{name}"),
                        expected: "nothing".into(),
                        actual: actual.to_string(),
                    });
                }
            }
            (Json::Array(wanted), Some(Json::Array(there))) if wanted.len() == there.len() => {
                for (index, (expected, actual)) in wanted.iter().zip(there).enumerate() {
                    self.compare(&format!("{place}[{index}]"), expected, Some(actual), out);
                }
            }
            _ if same(expected, actual) => {}
            _ => out.push(Difference {
                place: place.to_owned(),
                expected: expected.to_string(),
                actual: actual.map_or_else(|| "nothing".to_owned(), Json::to_string),
            }),
        }
    }
}

fn same(expected: &Json, actual: Option<&Json>) -> bool {
    match (expected, actual) {
        (Json::String(text), actual) => Pattern::parse(text).is_ok_and(|pattern| pattern.matches(actual)),
        (Json::Number(a), Some(Json::Number(b))) => a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64(),
        (Json::Null, None) => true,
        (expected, actual) => Some(expected) == actual,
    }
}

/// The status that the client gets; a call's is its worker's.
fn status(explained: &Explained<'_>) -> Option<u16> {
    match &explained.verdict {
        Verdict::Published { status, .. } => Some(*status),
        Verdict::Refused(problem) => Some(problem.status.as_u16()),
        Verdict::Called { .. } | Verdict::Own => None,
    }
}

fn taken(actual: &Json) -> String {
    let word = |name: &str| actual.get(name).and_then(Json::as_str).unwrap_or_default();
    format!("{} {} {}", word("action"), word("exchange"), word("key")).trim_end().to_owned()
}
