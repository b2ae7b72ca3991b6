//! Cases of a table: a request, and what is expected of it, in YAML. Read with places, so that a mistake in a cases file
//! is shown as one in the table is.

mod expect;
mod placeholder;

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;

pub use expect::{Difference, Expect};

use crate::{
    http::explain::Asked,
    route::{
        decode::{Decoder, Fields},
        problem::{Place, Problem, Source},
        yaml::{self, Node, Value},
    },
};

/// One case.
#[derive(Debug)]
pub struct Case {
    /// Where it begins.
    pub at: Place,
    /// What it shows.
    pub name: String,
    /// The request.
    pub asked: Asked,
    /// What is expected.
    pub expect: Expect,
}

/// Keys that give a case's body; at most one of them.
const BODIES: [&str; 4] = ["body", "text", "base64", "file"];

/// Reads a cases file; a `file` in it is relative to `folder`. With problems, what could be read is given all the same.
pub fn read(source: &Source, folder: &Path) -> (Vec<Case>, Vec<Problem>) {
    let mut problems = Vec::new();
    let root = match yaml::parse(source) {
        Ok(root) => root,
        Err(problem) => return (Vec::new(), vec![*problem]),
    };
    let mut d = Decoder::new(source, &mut problems);
    let mut cases = Vec::new();
    if let Some(fields) = d.fields(&root, "a cases file", &["version", "cases"]) {
        if let Some(node) = fields.get("version") {
            d.integer(node, "`version`", 1, 1);
        }
        match fields.get("cases") {
            Some(node) => {
                cases = d.list(node, "`cases`").iter().filter_map(|node| case(&mut d, node, folder)).collect();
            }
            None => d.problem_hint(
                fields.at,
                "missing-key",
                "the file has no `cases`",
                Some("add `cases:` with at least one `name`, `request` and `expect`"),
            ),
        }
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    (cases, problems)
}

fn case(d: &mut Decoder<'_>, node: &Node, folder: &Path) -> Option<Case> {
    const KEYS: [&str; 8] = ["name", "request", "headers", "body", "text", "base64", "file", "expect"];
    let fields = d.fields(node, "a case", &KEYS)?;
    for key in ["name", "request", "expect"] {
        if fields.get(key).is_none() {
            d.problem(fields.at, "missing-key", format!("this case has no `{key}`"));
        }
    }
    let name = fields.get("name").and_then(|node| d.text(node, "`name`"));
    let request = fields.get("request").and_then(|node| d.text(node, "`request`"));
    let headers = fields.get("headers").map(|node| headers(d, node)).unwrap_or_default();
    let body = body(d, &fields, folder);
    let expect = fields.get("expect").and_then(|node| expect::read(d, node));
    let (name, request, body) = (name?, request?, body?);
    let Some((method, target)) = request.value.split_once(' ') else {
        let hint = "write it as in `request: GET /api/v1/messages?limit=5`";
        d.problem_hint(request.at, "bad-value", "a request is a method and a path", Some(hint));
        return None;
    };
    match Asked::new(method, target.trim(), &headers, body) {
        Ok(asked) => Some(Case { at: fields.at, name: name.value, asked, expect: expect? }),
        Err(why) => {
            d.problem(request.at, "bad-value", format!("this request can't be sent: {why}"));
            None
        }
    }
}

fn headers(d: &mut Decoder<'_>, node: &Node) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (key, node) in d.names(node, "`headers`") {
        let values = if let Value::List(items) = &node.value { items.as_slice() } else { std::slice::from_ref(node) };
        let texts = values.iter().filter_map(|value| d.any_text(value, "a header"));
        headers.extend(texts.map(|text| (key.name.clone(), text.value)));
    }
    headers
}

/// The body's bytes; `None` when they can't be had.
fn body(d: &mut Decoder<'_>, fields: &Fields<'_>, folder: &Path) -> Option<Bytes> {
    let mut given = BODIES.into_iter().filter_map(|key| Some((key, fields.get(key)?)));
    let Some((key, node)) = given.next() else { return Some(Bytes::new()) };
    if let Some((other, _)) = given.next() {
        let message = format!("this case has both `{key}` and `{other}`");
        d.problem_hint(fields.place(other), "bad-value", message, Some("keep exactly one"));
        return None;
    }
    match key {
        "body" => {
            unique(d, node);
            Some(node.to_json().to_string().into())
        }
        "text" => Some(d.any_text(node, "`text`")?.value.into()),
        "base64" => {
            let text = d.any_text(node, "`base64`")?;
            let bytes = BASE64.decode(text.value.trim());
            if bytes.is_err() {
                d.problem(node.at, "bad-value", "this is not base64 (RFC 4648, with padding)");
            }
            Some(bytes.ok()?.into())
        }
        _ => {
            let name = d.text(node, "`file`")?;
            match fs::read(folder.join(&name.value)) {
                Ok(bytes) => Some(bytes.into()),
                Err(error) => {
                    let message = format!("`{}` can't be read: {error}", name.value);
                    d.problem_hint(node.at, "unreadable", message, Some("a file is relative to this file's folder"));
                    None
                }
            }
        }
    }
}

/// Tells keys that are given twice, at any depth: in JSON they would be one.
fn unique(d: &mut Decoder<'_>, node: &Node) {
    match &node.value {
        Value::Map(_) => d.names(node, "this").into_iter().for_each(|(_, node)| unique(d, node)),
        Value::List(items) => items.iter().for_each(|node| unique(d, node)),
        _ => {}
    }
}
