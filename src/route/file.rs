//! `routes.yaml` as written: what each key of the grammar was given, with places. Whether the parts fit together is the
//! compiler's business.

use std::time::Duration;

use super::{
    decode::At,
    problem::{Place, Source},
    yaml::{Key, Node},
};
use crate::topology::{Declare, DeliveryLimit, QueueKind};

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
    /// The schema as written, without `required`.
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
    /// Levels of nesting.
    pub max_depth: Option<u64>,
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
    pub delivery_limit: Option<At<DeliveryLimit>>,
    /// `dead_letter`
    pub dead_letter: Option<At<String>>,
    /// `arguments`
    pub arguments: Vec<(Key, Node)>,
    /// `declare`
    pub declare: Declare,
    /// Keys that were given and that an rpc queue can't have, each with its place.
    pub fixed: Vec<(&'static str, Place)>,
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
    /// Whether `type` was given, were it only what can't be read.
    pub typed: bool,
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

/// Words of `declare:`
pub(super) const DECLARE: [(&str, Declare); 2] = [("active", Declare::Active), ("passive", Declare::Passive)];
/// Words of `unroutable:`
pub(super) const UNROUTABLE: [(&str, Unroutable); 2] = [("reject", Unroutable::Reject), ("accept", Unroutable::Accept)];
/// Words of `payload:`
pub(super) const PAYLOAD: [(&str, Payload); 2] = [("event", Payload::Event), ("body", Payload::Body)];
/// Words of `type:`
pub(super) const QUEUE_KIND: [(&str, QueueKind); 4] = [
    ("quorum", QueueKind::Quorum),
    ("classic", QueueKind::Classic),
    ("stream", QueueKind::Stream),
    ("rpc", QueueKind::Rpc),
];
