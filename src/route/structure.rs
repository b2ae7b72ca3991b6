//! Checks a tree against the grammar and tells everything that is not as it says. What fits together with what is the
//! compiler's business.

use super::{
    decode::{Decoder, Fields},
    grammar::{Field, Need, Object, PARAMETER, Rule, Shape, TABLE},
    problem::{Place, Problem, Source, suggest},
    yaml::{Key, Node, Value},
};

/// Tells what is wrong with a file's tree; `what` is the file, as a sentence calls it.
pub fn check(source: &Source, root: &Node, object: &Object, what: &str, problems: &mut Vec<Problem>) {
    let mut d = Decoder::new(source, problems);
    if root.value == Value::Null {
        let hint =
            if object.name == TABLE.name { "begin with `version: 1` and `routes:`" } else { "begin with `routes:`" };
        return d.problem_hint(Place::default(), "wrong-type", format!("{what} is empty"), Some(hint));
    }
    self::object(&mut d, root, object, what, root.at);
}

/// `at` is where missing keys are told.
fn object(d: &mut Decoder<'_>, node: &Node, object: &Object, what: &str, at: Place) {
    let known: Vec<&str> = object.keys.iter().map(|field| field.name).collect();
    let Some(fields) = d.fields(node, what, &known) else { return };
    // What a misspelt key means is not missing too: one mistake is told once.
    let missing = |name: &str| fields.get(name).is_none() && !fields.meant(&known).any(|meant| meant == name);
    for Field { name, shape, need, .. } in object.keys {
        match (fields.get(name), need) {
            (Some(node), _) => value(d, node, *shape, &format!("`{name}`")),
            (None, Need::Required(hint)) if missing(name) => {
                d.problem_hint(at, "missing-key", format!("{what} has no `{name}`"), Some(*hint));
            }
            (None, _) => {}
        }
    }
    rule(d, &fields, missing, object, what, at);
}

fn rule(
    d: &mut Decoder<'_>,
    fields: &Fields<'_>,
    missing: impl Fn(&str) -> bool,
    object: &Object,
    what: &str,
    at: Place,
) {
    match object.rule {
        Rule::Free => {}
        Rule::Some(keys, told) => {
            if keys.iter().all(|key| missing(key)) {
                d.problem_hint(at, "missing-key", format!("{what} {}", told.what), Some(told.hint));
            }
        }
        Rule::One(groups, told) => {
            let begun: Vec<&&[&str]> =
                groups.iter().filter(|group| group.iter().any(|key| fields.get(key).is_some())).collect();
            match begun.as_slice() {
                [group] => {
                    for key in group.iter().filter(|key| missing(key)) {
                        let message = format!("{what} {}: `{key}` is missing", told.what);
                        d.problem_hint(at, "missing-key", message, Some(told.hint));
                    }
                }
                [] if groups.iter().flat_map(|group| group.iter()).all(|key| missing(key)) => {
                    d.problem_hint(at, "missing-key", format!("{what} {}", told.what), Some(told.hint));
                }
                [] => {}
                [first, .., last] => {
                    let given = |group: &&[&'static str]| {
                        group.iter().copied().find(|key| fields.get(key).is_some()).unwrap_or_default()
                    };
                    let (first, last) = (given(first), given(last));
                    let at = fields.place(first).max(fields.place(last));
                    let message = format!("{what} has both `{first}` and `{last}`");
                    d.problem_hint(at, "bad-value", message, Some(told.hint));
                }
            }
        }
    }
}

fn value(d: &mut Decoder<'_>, node: &Node, shape: Shape, what: &str) {
    match shape {
        Shape::Text => drop(d.text(node, what)),
        Shape::AnyText => drop(d.any_text(node, what)),
        Shape::Flag => drop(d.flag(node, what)),
        Shape::Version => version(d, node, what),
        Shape::IntegerOr(_, _, word) if matches!(&node.value, Value::Text(text) if text == word) => {}
        Shape::IntegerOr(_, _, word) if matches!(node.value, Value::Text(_)) => {
            let message = format!("{what} must be a whole number or `{word}`, not {}", node.kind());
            d.problem_hint(node.at, "wrong-type", message, Some("write one of them"));
        }
        Shape::Integer(least, most) | Shape::IntegerOr(least, most, _) => drop(d.integer(node, what, least, most)),
        Shape::Status(allowed) => status(d, node, what, allowed),
        Shape::Word(words) => {
            let words: Vec<(&str, ())> = words.iter().map(|word| (*word, ())).collect();
            d.word(node, what, &words);
        }
        Shape::Duration => drop(d.duration(node, what)),
        Shape::Size => drop(d.size(node, what)),
        Shape::Scalar => {
            if !matches!(node.value, Value::Text(_) | Value::Bool(_) | Value::Number(_)) {
                let message = format!("{what} must be text, a number or a boolean, not {}", node.kind());
                d.problem_hint(node.at, "wrong-type", message, Some("write one value"));
            }
        }
        Shape::Object(kind) => object(d, node, kind, what, node.at),
        Shape::List(item, shape) => d.list(node, what).iter().for_each(|node| item_of(d, node, *shape, item)),
        Shape::OneOrMore(item, shape) => match &node.value {
            Value::List(items) => items.iter().for_each(|node| item_of(d, node, *shape, item)),
            _ => value(d, node, *shape, what),
        },
        Shape::Names(noun, shape) => {
            for (key, node) in d.names(node, what) {
                let what = format!("{noun} `{}`", key.name);
                match shape {
                    // What is missing in it is told at its name, which says more than where its first key stands.
                    Shape::Object(kind) => object(d, node, kind, &what, key.at),
                    shape => value(d, node, *shape, &what),
                }
            }
        }
        Shape::Schema => {
            if !matches!(node.value, Value::Text(_) | Value::Map(_) | Value::Bool(_)) {
                let message = format!("{what} is a file's name or a mapping, not {}", node.kind());
                d.problem_hint(node.at, "wrong-type", message, Some("give a name such as `message.json`, or a schema"));
            }
        }
        Shape::Parameter => parameter(d, node, what),
    }
}

/// An item of a list; one with an id is called by it.
fn item_of(d: &mut Decoder<'_>, node: &Node, shape: Shape, what: &str) {
    let id = match &node.value {
        Value::Map(entries) => entries.iter().find_map(|(key, node)| match &node.value {
            Value::Text(id) if key.name == "id" => Some(id),
            _ => None,
        }),
        _ => None,
    };
    match id {
        Some(id) => value(d, node, shape, &format!("{} `{id}`", what.trim_start_matches("a "))),
        None => value(d, node, shape, what),
    }
}

fn version(d: &mut Decoder<'_>, node: &Node, what: &str) {
    match &node.value {
        Value::Number(number) if number.as_f64() == Some(1.0) => {}
        Value::Number(number) => {
            let hint = Some("write `version: 1`");
            d.problem_hint(node.at, "bad-value", format!("{what} can't be {number}: there is only 1 so far"), hint);
        }
        _ => {
            let hint = Some("write `version: 1`");
            d.problem_hint(node.at, "wrong-type", format!("{what} must be the number 1, not {}", node.kind()), hint);
        }
    }
}

fn status(d: &mut Decoder<'_>, node: &Node, what: &str, allowed: &[u16]) {
    let list: Vec<String> = allowed.iter().map(ToString::to_string).collect();
    let hint = Some(format!("use one of {}", list.join(", ")));
    match &node.value {
        Value::Number(number) => {
            let fits = allowed.iter().any(|status| number.as_f64() == Some(f64::from(*status)));
            if !fits {
                d.problem_hint(node.at, "bad-status", format!("a publish can't answer {number}"), hint);
            }
        }
        _ => d.problem_hint(node.at, "wrong-type", format!("{what} must be a status, not {}", node.kind()), hint),
    }
}

/// A parameter is a JSON Schema, whose other keywords are the schema compiler's to check.
fn parameter(d: &mut Decoder<'_>, node: &Node, what: &str) {
    let entries: Vec<(&Key, &Node)> = d.names(node, what);
    for (key, node) in entries {
        let Some(field) = PARAMETER.keys.iter().find(|field| field.name == key.name) else { continue };
        match (field.shape, &node.value) {
            (Shape::Word(words), Value::Text(word)) if !words.contains(&word.as_str()) => {
                let message = match word.as_str() {
                    "object" | "null" => format!("{what} can't be of type `{word}`: it comes as text"),
                    _ => format!("{what} can't be of type `{word}`"),
                };
                d.problem_hint(node.at, "schema-invalid", message, suggest(word, words.iter().copied()));
            }
            (Shape::Word(words), Value::List(_)) => {
                let message = format!("{what} has one `type`, which its text is turned into, not a list of them");
                d.problem_hint(node.at, "wrong-type", message, Some(format!("choose one of {}", words.join(", "))));
            }
            (shape, _) => value(d, node, shape, &format!("`{}`", field.name)),
        }
    }
}
