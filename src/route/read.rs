//! From the tree to what is written in it. Says nothing: what is not as the grammar has it is told by
//! [`super::structure`], and is left out here so that the rest can be read on.

use std::time::Duration;

use super::{
    decode::At,
    file::{
        BindingFile, BodyFile, CallFile, DECLARE, Defaults, ExchangeFile, Method, PAYLOAD, ParamFile, PublishFile,
        QUEUE_KIND, QueueFile, RouteFile, TableFile, UNROUTABLE, WorkerFile,
    },
    grammar::{BY_POLICY, PARAMETER_TYPES, STATUSES},
    problem::Source,
    yaml::{Key, Node, Value},
};
use crate::{
    topology::{Declare, DeliveryLimit, QueueKind},
    units,
};

/// Reads the main file.
pub fn table(source: &Source, root: &Node) -> TableFile {
    TableFile {
        base_path: text(get(root, "base_path")),
        defaults: defaults(get(root, "defaults")),
        include: one_or_more(get(root, "include")),
        routes: routes(source, root),
        queues: names(get(root, "queues"), |key, node| Some(queue(key, node))),
        exchanges: names(get(root, "exchanges"), |_, node| Some(exchange(node))),
        workers: names(get(root, "workers"), |key, node| Some(worker(key, node))),
        feed: texts(get(root, "feed").and_then(|feed| get(feed, "topics"))),
    }
}

/// Reads the routes of a file, the main one or an included one.
pub fn routes(source: &Source, root: &Node) -> Vec<RouteFile> {
    list(get(root, "routes")).iter().filter(|node| is_map(node)).map(|node| route(source, node)).collect()
}

fn defaults(node: Option<&Node>) -> Defaults {
    let Some(node) = node else { return Defaults::default() };
    Defaults {
        timeout: duration(get(node, "timeout")),
        confirm_timeout: duration(get(node, "confirm_timeout")),
        max_size: size(get(node, "max_size")),
        unroutable: word(get(node, "unroutable"), &UNROUTABLE).map(|at| at.value),
        payload: word(get(node, "payload"), &PAYLOAD).map(|at| at.value),
    }
}

fn route(source: &Source, node: &Node) -> RouteFile {
    let params = |group| get(node, "params").and_then(|params| get(params, group));
    RouteFile {
        source: source.clone(),
        at: node.at,
        id: text(get(node, "id")),
        method: word(get(node, "method"), &Method::ALL),
        path: text(get(node, "path")),
        summary: any_text(get(node, "summary")).map(|at| at.value),
        description: any_text(get(node, "description")).map(|at| at.value),
        tags: texts(get(node, "tags")).into_iter().map(|at| at.value).collect(),
        deprecated: flag(get(node, "deprecated")).unwrap_or(false),
        path_params: names(params("path"), param),
        query_params: names(params("query"), param),
        header_params: names(params("header"), param),
        body: map(get(node, "body")).map(body),
        publish: map(get(node, "publish")).map(publish),
        call: map(get(node, "call")).map(call),
    }
}

/// `required` is ours; everything else is the parameter's schema. A `type` that is none for text is left out of it.
fn param(_: &Key, node: &Node) -> Option<ParamFile> {
    let Value::Map(entries) = &node.value else { return None };
    let ours = |key: &Key, node: &Node| match key.name.as_str() {
        "required" => true,
        "type" => !matches!(&node.value, Value::Text(word) if PARAMETER_TYPES.contains(&word.as_str())),
        _ => false,
    };
    let schema = entries.iter().filter(|(key, node)| !ours(key, node)).cloned().collect();
    Some(ParamFile {
        schema: Node { value: Value::Map(schema), at: node.at },
        required: flag(get(node, "required")).unwrap_or(false),
    })
}

fn body(node: &Node) -> BodyFile {
    BodyFile {
        at: node.at,
        schema: get(node, "schema").cloned(),
        max_size: size(get(node, "max_size")),
        max_depth: integer(get(node, "max_depth")).map(|at| at.value),
        content_type: text(get(node, "content_type")),
        required: flag(get(node, "required")).unwrap_or(true),
    }
}

fn publish(node: &Node) -> PublishFile {
    let status = integer(get(node, "status")).and_then(|at| u16::try_from(at.value).ok());
    PublishFile {
        at: node.at,
        exchange: any_text(get(node, "exchange")),
        key: any_text(get(node, "key")),
        payload: word(get(node, "payload"), &PAYLOAD).map(|at| at.value),
        headers: names(get(node, "headers"), |_, node| any_text(Some(node))),
        kind: text(get(node, "type")),
        expires: duration(get(node, "expires")),
        priority: integer(get(node, "priority")).and_then(|at| u8::try_from(at.value).ok()),
        confirm_timeout: duration(get(node, "confirm_timeout")),
        unroutable: word(get(node, "unroutable"), &UNROUTABLE).map(|at| at.value),
        status: status.filter(|status| STATUSES.contains(status)),
    }
}

fn call(node: &Node) -> CallFile {
    CallFile {
        at: node.at,
        queue: text(get(node, "queue")),
        exchange: any_text(get(node, "exchange")),
        key: any_text(get(node, "key")),
        timeout: duration(get(node, "timeout")),
        headers: names(get(node, "headers"), |_, node| any_text(Some(node))),
        reply_schema: get(node, "reply").and_then(|reply| get(reply, "schema")).cloned(),
    }
}

/// One that can't be read is there all the same, for those that name it.
fn queue(key: &Key, node: &Node) -> QueueFile {
    let limit = get(node, "delivery_limit");
    let by_policy = limit.filter(|node| matches!(&node.value, Value::Text(text) if text == BY_POLICY));
    let by_policy = by_policy.map(|node| At { value: DeliveryLimit::Policy, at: node.at });
    let count = integer(limit)
        .and_then(|at| Some(At { value: DeliveryLimit::Count(u32::try_from(at.value).ok()?), at: at.at }));
    QueueFile {
        at: key.at,
        kind: word(get(node, "type"), &QUEUE_KIND).map_or(QueueKind::Quorum, |at| at.value),
        bind: list(get(node, "bind")).iter().filter(|node| is_map(node)).map(binding).collect(),
        max_length: integer(get(node, "max_length")).map(|at| at.value),
        delivery_limit: by_policy.or(count),
        dead_letter: text(get(node, "dead_letter")),
        arguments: arguments(node),
        declare: declare(node),
        fixed: ["bind", "max_length", "overflow", "delivery_limit", "dead_letter", "arguments"]
            .into_iter()
            .filter_map(|name| Some((name, entry(node, name)?.0.at)))
            .collect(),
    }
}

fn binding(node: &Node) -> BindingFile {
    BindingFile { exchange: text(get(node, "exchange")), key: any_text(get(node, "key")), arguments: arguments(node) }
}

fn exchange(node: &Node) -> ExchangeFile {
    ExchangeFile {
        kind: text(get(node, "type")),
        typed: get(node, "type").is_some() || !is_map(node),
        arguments: arguments(node),
        declare: declare(node),
    }
}

fn worker(key: &Key, node: &Node) -> WorkerFile {
    let number = |name| integer(get(node, name)).map(|at| at.value);
    WorkerFile {
        at: key.at,
        queue: text(get(node, "queue")),
        kind: text(get(node, "kind")),
        batch: number("batch"),
        prefetch: number("prefetch"),
        concurrency: number("concurrency"),
    }
}

fn arguments(node: &Node) -> Vec<(Key, Node)> {
    names(get(node, "arguments"), |_, node| {
        matches!(node.value, Value::Text(_) | Value::Bool(_) | Value::Number(_)).then(|| node.clone())
    })
}

fn declare(node: &Node) -> Declare {
    word(get(node, "declare"), &DECLARE).map_or(Declare::Active, |at| at.value)
}

/// A key of a mapping; of duplicates the first.
fn entry<'n>(node: &'n Node, name: &str) -> Option<&'n (Key, Node)> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(key, _)| key.name == name)
}

fn get<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    entry(node, name).map(|(_, node)| node)
}

fn is_map(node: &Node) -> bool {
    matches!(node.value, Value::Map(_))
}

fn map(node: Option<&Node>) -> Option<&Node> {
    node.filter(|node| is_map(node))
}

fn list(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

fn names<T>(node: Option<&Node>, read: impl Fn(&Key, &Node) -> Option<T>) -> Vec<(Key, T)> {
    let Some(Value::Map(entries)) = node.map(|node| &node.value) else { return Vec::new() };
    let mut seen = std::collections::HashSet::with_capacity(entries.len());
    let first = entries.iter().filter(|(key, _)| seen.insert(key.name.as_str()));
    first.filter_map(|(key, node)| Some((key.clone(), read(key, node)?))).collect()
}

fn any_text(node: Option<&Node>) -> Option<At<String>> {
    match node {
        Some(Node { value: Value::Text(text), at }) => Some(At { value: text.clone(), at: *at }),
        _ => None,
    }
}

fn text(node: Option<&Node>) -> Option<At<String>> {
    any_text(node).filter(|text| !text.value.is_empty())
}

fn texts(node: Option<&Node>) -> Vec<At<String>> {
    list(node).iter().filter_map(|node| text(Some(node))).collect()
}

fn one_or_more(node: Option<&Node>) -> Vec<At<String>> {
    text(node).map_or_else(|| texts(node), |one| vec![one])
}

fn flag(node: Option<&Node>) -> Option<bool> {
    match node?.value {
        Value::Bool(flag) => Some(flag),
        _ => None,
    }
}

fn integer(node: Option<&Node>) -> Option<At<u64>> {
    let node = node?;
    let Value::Number(number) = &node.value else { return None };
    Some(At { value: units::whole(number)?, at: node.at })
}

fn word<T: Copy>(node: Option<&Node>, words: &[(&str, T)]) -> Option<At<T>> {
    let text = any_text(node)?;
    let (_, value) = words.iter().find(|(word, _)| *word == text.value)?;
    Some(At { value: *value, at: text.at })
}

fn duration(node: Option<&Node>) -> Option<Duration> {
    units::duration(&any_text(node)?.value).ok()
}

fn size(node: Option<&Node>) -> Option<u64> {
    units::size(&any_text(node)?.value).ok()
}
