//! `routes.yaml` as written: every key of the grammar, with places, and what is wrong key by key. Whether the parts
//! fit together is the compiler's business.

use std::time::Duration;

use super::{
    decode::{At, Decoder, Fields},
    problem::{Place, Problem, Source},
    yaml::{Key, Node},
};
use crate::topology::{Declare, QueueKind};

/// A whole file, or an included one (which has `routes` alone).
#[derive(Debug, Default)]
pub struct TableFile {
    /// Prefix of every route.
    pub base_path: Option<At<String>>,
    /// For routes that don't say.
    pub defaults: Defaults,
    /// Globs of further files.
    pub include: Vec<At<String>>,
    /// The routes, in order.
    pub routes: Vec<RouteFile>,
    /// Queues by name.
    pub queues: Vec<(Key, QueueFile)>,
    /// Exchanges by name.
    pub exchanges: Vec<(Key, ExchangeFile)>,
    /// Workers by name.
    pub workers: Vec<(Key, WorkerFile)>,
    /// MQTT filters that browsers may read.
    pub feed: Vec<At<String>>,
}

/// `defaults:`
#[derive(Debug, Default, Clone)]
pub struct Defaults {
    /// Of calls.
    pub timeout: Option<Duration>,
    /// Of publishes.
    pub confirm_timeout: Option<Duration>,
    /// Of bodies, in bytes.
    pub max_size: Option<u64>,
    /// Whether a message that no queue takes is accepted.
    pub unroutable: Option<Unroutable>,
    /// What is published.
    pub payload: Option<Payload>,
}

/// `unroutable:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unroutable {
    /// 503.
    Reject,
    /// A live-only route: nobody listening is normal.
    Accept,
}

/// `payload:`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// A CloudEvents envelope around the request's body.
    Event,
    /// The request's bytes, untouched.
    Body,
}

/// HTTP methods that a route can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// All of them, with their names (RFC 9110, RFC 5789).
    pub const ALL: [(&'static str, Self); 5] = [
        ("GET", Self::Get),
        ("POST", Self::Post),
        ("PUT", Self::Put),
        ("PATCH", Self::Patch),
        ("DELETE", Self::Delete),
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, method)| *method == self).map_or("GET", |(name, _)| name)
    }
}

/// One of `routes:`
#[derive(Debug)]
pub struct RouteFile {
    /// The file it stands in.
    pub source: Source,
    /// Where it begins.
    pub at: Place,
    /// `id`
    pub id: Option<At<String>>,
    /// `method`
    pub method: Option<At<Method>>,
    /// `path`
    pub path: Option<At<String>>,
    /// `summary`
    pub summary: Option<String>,
    /// `description`
    pub description: Option<String>,
    /// `tags`
    pub tags: Vec<String>,
    /// `deprecated`
    pub deprecated: bool,
    /// `params.path`
    pub path_params: Vec<(Key, ParamFile)>,
    /// `params.query`
    pub query_params: Vec<(Key, ParamFile)>,
    /// `params.header`
    pub header_params: Vec<(Key, ParamFile)>,
    /// `body`
    pub body: Option<BodyFile>,
    /// `publish`
    pub publish: Option<PublishFile>,
    /// `call`
    pub call: Option<CallFile>,
}

/// A parameter: a JSON Schema, and whether it must be given.
#[derive(Debug)]
pub struct ParamFile {
    /// The schema as written, `required` included when it is true or false.
    pub schema: Node,
    /// `required`
    pub required: bool,
}

/// `body:`
#[derive(Debug)]
pub struct BodyFile {
    /// Where it stands.
    pub at: Place,
    /// A file's name, or an inline schema.
    pub schema: Option<Node>,
    /// In bytes.
    pub max_size: Option<u64>,
    /// A media type.
    pub content_type: Option<At<String>>,
    /// Whether a body must be there.
    pub required: bool,
}

/// `publish:`
#[derive(Debug)]
pub struct PublishFile {
    /// Where it stands.
    pub at: Place,
    /// `exchange`
    pub exchange: Option<At<String>>,
    /// `key`, a template.
    pub key: Option<At<String>>,
    /// `payload`
    pub payload: Option<Payload>,
    /// `headers`: name to template.
    pub headers: Vec<(Key, At<String>)>,
    /// `type`
    pub kind: Option<At<String>>,
    /// `expires`
    pub expires: Option<Duration>,
    /// `priority`
    pub priority: Option<u8>,
    /// `confirm_timeout`
    pub confirm_timeout: Option<Duration>,
    /// `unroutable`
    pub unroutable: Option<Unroutable>,
    /// `status`
    pub status: Option<u16>,
}

/// `call:`
#[derive(Debug)]
pub struct CallFile {
    /// Where it stands.
    pub at: Place,
    /// `queue`
    pub queue: Option<At<String>>,
    /// `exchange`
    pub exchange: Option<At<String>>,
    /// `key`, a template.
    pub key: Option<At<String>>,
    /// `timeout`
    pub timeout: Option<Duration>,
    /// `headers`: name to template.
    pub headers: Vec<(Key, At<String>)>,
    /// `reply.schema`: a file's name, or an inline schema.
    pub reply_schema: Option<Node>,
}

/// One of `queues:`
#[derive(Debug)]
pub struct QueueFile {
    /// Where it stands.
    pub at: Place,
    /// `type`
    pub kind: QueueKind,
    /// `bind`
    pub bind: Vec<BindingFile>,
    /// `max_length`
    pub max_length: Option<u64>,
    /// `delivery_limit`
    pub delivery_limit: Option<At<u32>>,
    /// `dead_letter`
    pub dead_letter: Option<At<String>>,
    /// `arguments`
    pub arguments: Vec<(Key, Node)>,
    /// `declare`
    pub declare: Declare,
}

/// One of `bind:`
#[derive(Debug)]
pub struct BindingFile {
    /// `exchange`
    pub exchange: Option<At<String>>,
    /// `key`
    pub key: Option<At<String>>,
    /// `arguments`, for a headers exchange.
    pub arguments: Vec<(Key, Node)>,
}

/// One of `exchanges:`
#[derive(Debug)]
pub struct ExchangeFile {
    /// `type`
    pub kind: Option<At<String>>,
    /// `arguments`
    pub arguments: Vec<(Key, Node)>,
    /// `declare`
    pub declare: Declare,
}

/// One of `workers:`
#[derive(Debug)]
pub struct WorkerFile {
    /// Where it stands.
    pub at: Place,
    /// `queue`
    pub queue: Option<At<String>>,
    /// `kind`
    pub kind: Option<At<String>>,
    /// `batch`
    pub batch: Option<u64>,
    /// `prefetch`
    pub prefetch: Option<u64>,
    /// `concurrency`
    pub concurrency: Option<u64>,
}

const DECLARE: [(&str, Declare); 2] = [("active", Declare::Active), ("passive", Declare::Passive)];
const UNROUTABLE: [(&str, Unroutable); 2] = [("reject", Unroutable::Reject), ("accept", Unroutable::Accept)];
const PAYLOAD: [(&str, Payload); 2] = [("event", Payload::Event), ("body", Payload::Body)];
const QUEUE_KIND: [(&str, QueueKind); 3] =
    [("quorum", QueueKind::Quorum), ("classic", QueueKind::Classic), ("rpc", QueueKind::Rpc)];

/// Reads the main file.
pub fn read(source: &Source, root: &Node, problems: &mut Vec<Problem>) -> TableFile {
    const KEYS: [&str; 9] =
        ["version", "base_path", "defaults", "include", "routes", "queues", "exchanges", "workers", "feed"];
    let mut d = Decoder::new(source, problems);
    let mut table = TableFile::default();
    let Some(fields) = d.fields(root, "the table", &KEYS) else { return table };
    match fields.get("version") {
        None => d.problem_hint(fields.at, "missing-key", "the table has no `version`", Some("begin with `version: 1`")),
        Some(node) => {
            d.integer(node, "`version`", 1, 1);
        }
    }
    table.base_path = fields.get("base_path").and_then(|node| d.text(node, "`base_path`"));
    if let Some(node) = fields.get("defaults") {
        table.defaults = defaults(&mut d, node);
    }
    if let Some(node) = fields.get("include") {
        table.include = one_or_more(&mut d, node, "`include`");
    }
    match fields.get("routes") {
        Some(node) => table.routes = d.list(node, "`routes`").iter().filter_map(|node| route(&mut d, node)).collect(),
        None if table.include.is_empty() => {
            d.problem_hint(
                fields.at,
                "missing-key",
                "the table has no `routes`",
                Some("add `routes:` with at least one route, or `include:`"),
            );
        }
        None => {}
    }
    if let Some(node) = fields.get("queues") {
        table.queues = named(&mut d, node, "`queues`", queue);
    }
    if let Some(node) = fields.get("exchanges") {
        table.exchanges = named(&mut d, node, "`exchanges`", exchange);
    }
    if let Some(node) = fields.get("workers") {
        table.workers = named(&mut d, node, "`workers`", worker);
    }
    if let Some(feed) = fields.get("feed").and_then(|node| d.fields(node, "`feed`", &["topics"])) {
        match feed.get("topics") {
            Some(node) => table.feed = d.list(node, "`topics`").iter().filter_map(|n| d.text(n, "a topic")).collect(),
            None => d.problem(feed.at, "missing-key", "`feed` has no `topics`"),
        }
    }
    table
}

/// Reads an included file: `routes` alone.
pub fn read_included(source: &Source, root: &Node, problems: &mut Vec<Problem>) -> Vec<RouteFile> {
    let mut d = Decoder::new(source, problems);
    let Some(fields) = d.fields(root, "an included file", &["version", "routes"]) else { return Vec::new() };
    if let Some(node) = fields.get("version") {
        d.integer(node, "`version`", 1, 1);
    }
    match fields.get("routes") {
        Some(node) => d.list(node, "`routes`").iter().filter_map(|node| route(&mut d, node)).collect(),
        None => {
            d.problem(fields.at, "missing-key", "an included file has `routes`, and this one has none");
            Vec::new()
        }
    }
}

fn named<T>(
    d: &mut Decoder<'_>,
    node: &Node,
    what: &str,
    read: impl Fn(&mut Decoder<'_>, &Key, &Node) -> Option<T>,
) -> Vec<(Key, T)> {
    let entries = d.names(node, what);
    entries.into_iter().filter_map(|(key, node)| Some((key.clone(), read(d, key, node)?))).collect()
}

fn one_or_more(d: &mut Decoder<'_>, node: &Node, what: &str) -> Vec<At<String>> {
    match &node.value {
        super::yaml::Value::List(items) => items.iter().filter_map(|node| d.text(node, what)).collect(),
        _ => d.text(node, what).into_iter().collect(),
    }
}

fn defaults(d: &mut Decoder<'_>, node: &Node) -> Defaults {
    const KEYS: [&str; 5] = ["timeout", "confirm_timeout", "max_size", "unroutable", "payload"];
    let Some(fields) = d.fields(node, "`defaults`", &KEYS) else { return Defaults::default() };
    Defaults {
        timeout: fields.get("timeout").and_then(|node| d.duration(node, "`timeout`")),
        confirm_timeout: fields.get("confirm_timeout").and_then(|node| d.duration(node, "`confirm_timeout`")),
        max_size: fields.get("max_size").and_then(|node| d.size(node, "`max_size`")),
        unroutable: fields.get("unroutable").and_then(|n| Some(d.word(n, "`unroutable`", &UNROUTABLE)?.value)),
        payload: fields.get("payload").and_then(|node| Some(d.word(node, "`payload`", &PAYLOAD)?.value)),
    }
}

fn route(d: &mut Decoder<'_>, node: &Node) -> Option<RouteFile> {
    const KEYS: [&str; 11] =
        ["id", "method", "path", "summary", "description", "tags", "deprecated", "params", "body", "publish", "call"];
    let fields = d.fields(node, "a route", &KEYS)?;
    let name = match fields.get("id").map(|node| &node.value) {
        Some(super::yaml::Value::Text(id)) => format!("route `{id}`"),
        _ => "this route".to_owned(),
    };
    for key in ["id", "method", "path"] {
        if fields.get(key).is_none() {
            d.problem(fields.at, "missing-key", format!("{name} has no `{key}`"));
        }
    }
    match (fields.get("publish").is_some(), fields.get("call").is_some()) {
        (false, false) => d.problem_hint(
            fields.at,
            "missing-key",
            format!("{name} does nothing"),
            Some("give it `publish:` or `call:`"),
        ),
        (true, true) => {
            let at = fields.place("publish").max(fields.place("call"));
            d.problem_hint(at, "bad-value", format!("{name} has both `publish` and `call`"), Some("keep exactly one"));
        }
        _ => {}
    }
    let params = fields.get("params").and_then(|node| d.fields(node, "`params`", &["path", "query", "header"]));
    let mut in_group = |group: &str| {
        let node = params.as_ref().and_then(|params| params.get(group));
        node.map(|node| named(d, node, &format!("`params.{group}`"), param)).unwrap_or_default()
    };
    let (path_params, query_params, header_params) = (in_group("path"), in_group("query"), in_group("header"));
    Some(RouteFile {
        source: d.source.clone(),
        at: fields.at,
        id: fields.get("id").and_then(|node| d.text(node, "`id`")),
        method: fields.get("method").and_then(|node| d.word(node, "`method`", &Method::ALL)),
        path: fields.get("path").and_then(|node| d.text(node, "`path`")),
        summary: fields.get("summary").and_then(|node| Some(d.any_text(node, "`summary`")?.value)),
        description: fields.get("description").and_then(|node| Some(d.any_text(node, "`description`")?.value)),
        tags: fields
            .get("tags")
            .map(|node| d.list(node, "`tags`").iter().filter_map(|n| Some(d.text(n, "a tag")?.value)).collect())
            .unwrap_or_default(),
        deprecated: fields.get("deprecated").and_then(|node| d.flag(node, "`deprecated`")).unwrap_or(false),
        path_params,
        query_params,
        header_params,
        body: fields.get("body").and_then(|node| body(d, node)),
        publish: fields.get("publish").and_then(|node| publish(d, node)),
        call: fields.get("call").and_then(|node| call(d, node)),
    })
}

fn param(d: &mut Decoder<'_>, key: &Key, node: &Node) -> Option<ParamFile> {
    let what = format!("parameter `{}`", key.name);
    // A parameter is a JSON Schema, whose keys are the schema compiler's to check; `required` alone is ours.
    let entries = d.names(node, &what);
    if !matches!(node.value, super::yaml::Value::Map(_)) {
        return None;
    }
    let mut required = false;
    let mut schema = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        match &value.value {
            super::yaml::Value::Bool(flag) if key.name == "required" => required = *flag,
            _ => schema.push((key.clone(), value.clone())),
        }
    }
    Some(ParamFile { schema: Node { value: super::yaml::Value::Map(schema), at: node.at }, required })
}

fn body(d: &mut Decoder<'_>, node: &Node) -> Option<BodyFile> {
    let fields = d.fields(node, "`body`", &["schema", "max_size", "content_type", "required"])?;
    Some(BodyFile {
        at: fields.at,
        schema: fields.get("schema").cloned(),
        max_size: fields.get("max_size").and_then(|node| d.size(node, "`max_size`")),
        content_type: fields.get("content_type").and_then(|node| d.text(node, "`content_type`")),
        required: fields.get("required").and_then(|node| d.flag(node, "`required`")).unwrap_or(true),
    })
}

fn templates(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Vec<(Key, At<String>)> {
    let node = fields.get("headers");
    node.map(|node| named(d, node, "`headers`", |d, _, node| d.any_text(node, "a header"))).unwrap_or_default()
}

fn publish(d: &mut Decoder<'_>, node: &Node) -> Option<PublishFile> {
    const KEYS: [&str; 10] = [
        "exchange",
        "key",
        "payload",
        "headers",
        "type",
        "expires",
        "priority",
        "confirm_timeout",
        "unroutable",
        "status",
    ];
    let fields = d.fields(node, "`publish`", &KEYS)?;
    for key in ["exchange", "key"] {
        if fields.get(key).is_none() {
            d.problem(fields.at, "missing-key", format!("`publish` has no `{key}`"));
        }
    }
    let status = fields.get("status").and_then(|node| {
        let status = d.integer(node, "`status`", 100, 599)?;
        if [200, 201, 202, 204].contains(&status) {
            return u16::try_from(status).ok();
        }
        d.problem_hint(
            node.at,
            "bad-status",
            format!("a publish can't answer {status}"),
            Some("use 200, 201, 202 or 204"),
        );
        None
    });
    Some(PublishFile {
        at: fields.at,
        exchange: fields.get("exchange").and_then(|node| d.any_text(node, "`exchange`")),
        key: fields.get("key").and_then(|node| d.any_text(node, "`key`")),
        payload: fields.get("payload").and_then(|node| Some(d.word(node, "`payload`", &PAYLOAD)?.value)),
        headers: templates(d, &fields),
        kind: fields.get("type").and_then(|node| d.text(node, "`type`")),
        expires: fields.get("expires").and_then(|node| d.duration(node, "`expires`")),
        priority: fields
            .get("priority")
            .and_then(|node| d.integer(node, "`priority`", 0, 9))
            .and_then(|n| u8::try_from(n).ok()),
        confirm_timeout: fields.get("confirm_timeout").and_then(|node| d.duration(node, "`confirm_timeout`")),
        unroutable: fields.get("unroutable").and_then(|n| Some(d.word(n, "`unroutable`", &UNROUTABLE)?.value)),
        status,
    })
}

fn call(d: &mut Decoder<'_>, node: &Node) -> Option<CallFile> {
    let fields = d.fields(node, "`call`", &["queue", "exchange", "key", "timeout", "headers", "reply"])?;
    let (queue, exchange, key) = (fields.get("queue"), fields.get("exchange"), fields.get("key"));
    if queue.is_some() == (exchange.is_some() || key.is_some()) || exchange.is_some() != key.is_some() {
        d.problem_hint(
            fields.at,
            "missing-key",
            "`call` does not say where the request goes",
            Some("give it either `queue`, or `exchange` and `key`"),
        );
    }
    let reply = fields.get("reply").and_then(|node| d.fields(node, "`reply`", &["schema"]));
    Some(CallFile {
        at: fields.at,
        queue: queue.and_then(|node| d.text(node, "`queue`")),
        exchange: exchange.and_then(|node| d.any_text(node, "`exchange`")),
        key: key.and_then(|node| d.any_text(node, "`key`")),
        timeout: fields.get("timeout").and_then(|node| d.duration(node, "`timeout`")),
        headers: templates(d, &fields),
        reply_schema: reply.and_then(|reply| reply.get("schema").cloned()),
    })
}

fn arguments(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Vec<(Key, Node)> {
    let node = fields.get("arguments");
    node.map(|node| named(d, node, "`arguments`", |_, _, node| Some(node.clone()))).unwrap_or_default()
}

fn queue(d: &mut Decoder<'_>, key: &Key, node: &Node) -> Option<QueueFile> {
    const KEYS: [&str; 8] =
        ["bind", "type", "max_length", "overflow", "delivery_limit", "dead_letter", "arguments", "declare"];
    let fields = d.fields(node, &format!("queue `{}`", key.name), &KEYS)?;
    if let Some(node) = fields.get("overflow") {
        d.word(node, "`overflow`", &[("reject", ())]);
    }
    let bind = fields.get("bind").map(|node| d.list(node, "`bind`").iter().filter_map(|n| binding(d, n)).collect());
    Some(QueueFile {
        at: key.at,
        kind: fields
            .get("type")
            .and_then(|node| d.word(node, "`type`", &QUEUE_KIND))
            .map_or(QueueKind::Quorum, |kind| kind.value),
        bind: bind.unwrap_or_default(),
        max_length: fields.get("max_length").and_then(|node| d.integer(node, "`max_length`", 1, u64::MAX)),
        delivery_limit: fields.get("delivery_limit").and_then(|node| {
            let limit = d.integer(node, "`delivery_limit`", 1, u64::from(u32::MAX))?;
            Some(At { value: u32::try_from(limit).ok()?, at: node.at })
        }),
        dead_letter: fields.get("dead_letter").and_then(|node| d.text(node, "`dead_letter`")),
        arguments: arguments(d, &fields),
        declare: declare(d, &fields),
    })
}

fn declare(d: &mut Decoder<'_>, fields: &Fields<'_>) -> Declare {
    fields.get("declare").and_then(|node| d.word(node, "`declare`", &DECLARE)).map_or(Declare::Active, |at| at.value)
}

fn binding(d: &mut Decoder<'_>, node: &Node) -> Option<BindingFile> {
    let fields = d.fields(node, "a binding", &["exchange", "key", "arguments"])?;
    if fields.get("exchange").is_none() {
        d.problem(fields.at, "missing-key", "this binding has no `exchange`");
    }
    Some(BindingFile {
        exchange: fields.get("exchange").and_then(|node| d.text(node, "`exchange`")),
        key: fields.get("key").and_then(|node| d.any_text(node, "`key`")),
        arguments: arguments(d, &fields),
    })
}

fn exchange(d: &mut Decoder<'_>, key: &Key, node: &Node) -> Option<ExchangeFile> {
    let fields = d.fields(node, &format!("exchange `{}`", key.name), &["type", "arguments", "declare"])?;
    Some(ExchangeFile {
        kind: fields.get("type").and_then(|node| d.text(node, "`type`")),
        arguments: arguments(d, &fields),
        declare: declare(d, &fields),
    })
}

fn worker(d: &mut Decoder<'_>, key: &Key, node: &Node) -> Option<WorkerFile> {
    const KEYS: [&str; 5] = ["queue", "kind", "batch", "prefetch", "concurrency"];
    let fields = d.fields(node, &format!("worker `{}`", key.name), &KEYS)?;
    if fields.get("queue").is_none() {
        d.problem(key.at, "missing-key", format!("worker `{}` has no `queue`", key.name));
    }
    Some(WorkerFile {
        at: key.at,
        queue: fields.get("queue").and_then(|node| d.text(node, "`queue`")),
        kind: fields.get("kind").and_then(|node| d.text(node, "`kind`")),
        batch: fields.get("batch").and_then(|node| d.integer(node, "`batch`", 1, 10_000)),
        prefetch: fields.get("prefetch").and_then(|node| d.integer(node, "`prefetch`", 1, 65_535)),
        concurrency: fields.get("concurrency").and_then(|node| d.integer(node, "`concurrency`", 1, 256)),
    })
}
