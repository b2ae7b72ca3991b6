//! The table in force: routes ready to be matched, the topology they need, the workers and the feed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fpesa_workers::topic::Filter;

use super::{
    file::{Method, Payload},
    matcher::Matcher,
    params::Params,
    schema::Schema,
    template::Template,
};
use crate::topology::Topology;

/// A compiled table; it never changes.
#[derive(Debug, Default)]
pub struct Table {
    /// Routes in the table's order.
    pub routes: Vec<Arc<Route>>,
    /// What the bus must have.
    pub topology: Topology,
    /// Workers by name.
    pub workers: BTreeMap<String, WorkerSpec>,
    /// MQTT filters that browsers may read.
    pub feed: Vec<Filter>,
    /// Every file of `schemas/` by its address under [`BASE`](super::schema::BASE), for the API descriptions.
    pub schemas: Arc<BTreeMap<String, serde_json::Value>>,
    /// In the order of [`Method`].
    matchers: [Matcher; Method::ALL.len()],
}

/// One endpoint.
#[derive(Debug)]
pub struct Route {
    /// Unique; the operation's id, and the metrics label.
    pub id: String,
    /// The method.
    pub method: Method,
    /// Whole path with parameters, base path included: `/api/v1/messages/{id}`.
    pub path: String,
    /// Prefix that the table gave it, without a trailing slash.
    pub base_path: String,
    /// The path's segments.
    pub segments: Vec<Segment>,
    /// For the API description.
    pub summary: Option<String>,
    /// For the API description.
    pub description: Option<String>,
    /// For the API description.
    pub tags: Vec<String>,
    /// For the API description.
    pub deprecated: bool,
    /// Path parameters.
    pub path_params: Params,
    /// Query parameters.
    pub query_params: Params,
    /// Header parameters.
    pub header_params: Params,
    /// `None`: the route allows no body.
    pub body: Option<Body>,
    /// What a request becomes.
    pub action: Action,
}

/// One segment of a path. The order is that of matching: what comes first wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// Matches itself.
    Literal(String),
    /// `{name}` matches one segment.
    Param(String),
    /// `{*name}` matches one or more segments, at the end.
    Rest(String),
}

/// What body a route takes.
#[derive(Debug, Clone)]
pub struct Body {
    /// What it must be; `None` for any.
    pub schema: Option<Schema>,
    /// Most bytes.
    pub max_size: u64,
    /// Most levels of nesting, for JSON.
    pub max_depth: usize,
    /// Media type, in lower case and without parameters.
    pub content_type: String,
    /// Whether the type is JSON, so that it is parsed, checked and spliced.
    pub json: bool,
    /// Whether it must be there.
    pub required: bool,
}

impl Body {
    /// Whether a `Content-Type` header is one that the route takes. `application/json` takes any `+json` type too;
    /// JSON is UTF-8 (RFC 8259 section 8.1).
    pub fn takes(&self, content_type: &str) -> bool {
        let mut parts = content_type.split(';');
        let essence = parts.next().unwrap_or("").trim();
        let utf8 = parts.filter_map(|part| part.split_once('=')).all(|(name, value)| {
            !name.trim().eq_ignore_ascii_case("charset") || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        });
        let same = essence.eq_ignore_ascii_case(&self.content_type)
            || (self.content_type == "application/json" && {
                let essence = essence.to_ascii_lowercase();
                essence.starts_with("application/") && essence.ends_with("+json")
            });
        same && (utf8 || !self.json)
    }
}

/// What a request becomes.
#[derive(Debug)]
pub enum Action {
    /// A confirmed publish.
    Publish(Publish),
    /// A request whose reply is the answer.
    Call(Call),
}

/// `publish:` ready for use.
#[derive(Debug)]
pub struct Publish {
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub key: Template,
    /// What is published.
    pub payload: Payload,
    /// Further headers.
    pub headers: Vec<(String, Template)>,
    /// The event's type.
    pub kind: String,
    /// Per-message time to live.
    pub expires: Option<Duration>,
    /// 0 to 9.
    pub priority: Option<u8>,
    /// Longest wait for the broker's confirm.
    pub confirm_timeout: Duration,
    /// Whether a message that no queue takes is refused.
    pub mandatory: bool,
    /// Of a success.
    pub status: u16,
    /// Declared queues that a message of this route can reach.
    pub reaches: BTreeSet<String>,
    /// Whether a GET route gives the one message: its path is this one plus a parameter.
    pub location: bool,
}

/// `call:` ready for use.
#[derive(Debug)]
pub struct Call {
    /// The exchange; empty for the default one.
    pub exchange: String,
    /// The routing key; the queue's name on the default exchange.
    pub key: Template,
    /// The deadline.
    pub timeout: Duration,
    /// Further headers.
    pub headers: Vec<(String, Template)>,
    /// What the reply must be.
    pub reply: Option<Schema>,
}

/// One of `workers:` ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSpec {
    /// The queue it serves.
    pub queue: String,
    /// Which worker.
    pub kind: String,
    /// Most jobs at a time.
    pub batch: usize,
    /// Most unsettled deliveries.
    pub prefetch: u16,
    /// How many batches at a time.
    pub concurrency: usize,
}

/// What a path and method lead to.
#[derive(Debug)]
pub enum Match<'t, 'p> {
    /// A route, with its path parameters as they were sent (percent-encoded).
    Found(&'t Arc<Route>, Vec<(&'t str, &'p str)>),
    /// The path exists with these methods.
    WrongMethod(Vec<Method>),
    /// No route has the path.
    Nothing,
}

impl Table {
    /// A table of compiled routes; two of the same method and shape are the compiler's to refuse.
    pub fn new(
        routes: Vec<Arc<Route>>,
        topology: Topology,
        workers: BTreeMap<String, WorkerSpec>,
        feed: Vec<Filter>,
    ) -> Self {
        let mut matchers: [Matcher; Method::ALL.len()] = Default::default();
        for (index, route) in routes.iter().enumerate() {
            matchers[route.method as usize].insert(&route.segments, index);
        }
        Self { routes, topology, workers, feed, schemas: Arc::default(), matchers }
    }

    /// The route of a request. A trailing slash is the same path.
    pub fn find<'t, 'p>(&'t self, method: Method, path: &'p str) -> Match<'t, 'p> {
        let path = trimmed(path);
        if let Some((index, values)) = self.matchers[method as usize].find(path) {
            let route = &self.routes[index];
            let names = route.segments.iter().filter_map(|segment| match segment {
                Segment::Param(name) | Segment::Rest(name) => Some(name.as_str()),
                Segment::Literal(_) => None,
            });
            return Match::Found(route, names.zip(values).collect());
        }
        self.other_methods(path)
    }

    /// What methods a path has, for one that no table knows.
    pub fn find_any<'t, 'p>(&'t self, path: &'p str) -> Match<'t, 'p> {
        self.other_methods(trimmed(path))
    }

    fn other_methods<'t, 'p>(&'t self, path: &'p str) -> Match<'t, 'p> {
        let others: Vec<Method> = Method::ALL
            .into_iter()
            .map(|(_, method)| method)
            .filter(|other| self.matchers[*other as usize].find(path).is_some())
            .collect();
        if others.is_empty() { Match::Nothing } else { Match::WrongMethod(others) }
    }
}

/// A path without its trailing slash; the root stays.
pub fn trimmed(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some(rest) if !rest.is_empty() => rest,
        _ => path,
    }
}

/// A path with its parameters' names taken off: what two routes of one method may not share.
pub fn shape(segments: &[Segment]) -> String {
    if segments.is_empty() {
        return "/".into();
    }
    segments
        .iter()
        .enumerate()
        .map(|(index, segment)| match segment {
            Segment::Literal(text) => format!("/{}", text.replace('{', "{{").replace('}', "}}")),
            Segment::Param(_) => format!("/{{p{index}}}"),
            Segment::Rest(_) => format!("/{{*p{index}}}"),
        })
        .collect()
}
