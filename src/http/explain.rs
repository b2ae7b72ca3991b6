//! What would become of a request, told without a bus: the gateway's own steps, up to where it would hand the message to
//! the bus.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, Method, Uri, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use super::{
    gateway::request_id,
    head::check_head,
    intake::{self, BodyCheck, Prefer, Target},
    problem::Problem,
    system,
};
use crate::{
    bus::{embedded::routing, stamp_call},
    message::{HeaderValue, Message},
    route::{
        invalid::FieldErrors,
        map::{self, Given, Order},
        table::{Action, Route, Table},
        validator::Budget,
        why::{WhyNot, why_not},
    },
};

/// A request that nobody sent.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// Headers.
    pub headers: HeaderMap,
    /// The body; empty is none.
    pub body: Bytes,
}

impl Asked {
    /// A request as people write one. A body without a `Content-Type` is sent as `application/json`; a header without a
    /// value is one that is not sent, as with curl. The error is a sentence.
    pub fn new(method: &str, target: &str, headers: &[(String, String)], body: Bytes) -> Result<Self, String> {
        let method = Method::from_bytes(method.to_uppercase().as_bytes())
            .map_err(|_| format!("`{method}` is no HTTP method"))?;
        if !target.starts_with('/') {
            return Err(format!("`{target}` is no path: it begins with `/`, as in /api/v1/messages?limit=5"));
        }
        let uri: Uri = target
            .parse()
            .map_err(|_| format!("`{target}` is no path: write what a URL can't hold as %20 and the like"))?;
        let mut map = HeaderMap::new();
        let mut typed = false;
        for (name, value) in headers {
            let wrong = |_| format!("`{name}` with `{value}` is no header");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header's name"))?;
            typed |= name == header::CONTENT_TYPE;
            if !value.is_empty() {
                map.append(&name, axum::http::HeaderValue::from_str(value).map_err(wrong)?);
            }
        }
        if !typed && !body.is_empty() {
            map.insert(header::CONTENT_TYPE, axum::http::HeaderValue::from_static("application/json"));
        }
        Ok(Self { method, uri, headers: map, body })
    }
}

/// What would become of a request.
#[derive(Debug)]
pub struct Explained<'t> {
    /// The route that answers; `None` where none does.
    pub route: Option<&'t Arc<Route>>,
    /// The route's parameters, coerced; what is wrong with one is in the problem.
    pub params: Option<Given>,
    /// What would happen.
    pub verdict: Verdict,
    /// Every other route of the table, in its order, and why it does not answer.
    pub others: Vec<(&'t Arc<Route>, WhyNot)>,
    /// The request's id.
    pub request_id: String,
}

/// What would happen. Ids and times in it are examples.
#[derive(Debug)]
pub enum Verdict {
    /// A message is published.
    Published {
        /// The message.
        message: Message,
        /// Declared queues that take it.
        queues: Vec<String>,
        /// Of the answer, once the bus has the message.
        status: u16,
        /// `Location` of the answer.
        location: Option<String>,
    },
    /// A call is made, and its reply is the answer.
    Called {
        /// The request message.
        message: Message,
        /// How long the reply may take.
        timeout: Duration,
    },
    /// The gateway answers by itself.
    Own,
    /// The client gets a problem.
    Refused(Problem),
}

/// Explains one request.
pub fn explain<'t>(table: &'t Table, asked: &Asked) -> Explained<'t> {
    let mut explained = Explained {
        route: None,
        params: None,
        verdict: Verdict::Own,
        others: Vec::new(),
        request_id: request_id(&asked.headers),
    };
    match judge(table, asked, &mut explained) {
        Ok(verdict) => explained.verdict = verdict,
        Err(problem) => explained.verdict = Verdict::Refused(problem),
    }
    let method = intake::known(&asked.method);
    let chosen = explained.route;
    let others = table.routes.iter().filter(|route| chosen.is_none_or(|chosen| !Arc::ptr_eq(chosen, route)));
    explained.others =
        others.map(|route| (route, why_not(route, method, asked.uri.path(), chosen.map(|chosen| &**chosen)))).collect();
    explained
}

fn judge<'t>(table: &'t Table, asked: &Asked, explained: &mut Explained<'t>) -> Result<Verdict, Problem> {
    // A preflight never comes as far as the table.
    if asked.method == Method::OPTIONS {
        return Ok(Verdict::Own);
    }
    check_head(&asked.headers, &asked.uri)?;
    if let Some(own) = system::own(&asked.method, asked.uri.path()) {
        return own.map(|()| Verdict::Own);
    }
    let (route, values) = match intake::find(table, &asked.method, asked.uri.path(), &asked.headers)? {
        Target::Route(route, values) => (route, values),
        Target::Page(_) => return Ok(Verdict::Own),
    };
    explained.route = Some(route);
    let body = BodyCheck::new(route, &asked.headers).whole(asked.body.clone())?;
    let headers = intake::texts(route, &asked.headers)?;
    let body = intake::check_body(route, body, &mut Budget::within(CHECK_WITHIN))?;
    let request = intake::request(&asked.uri, &values, &headers, body);
    explained.params = map::parameters(route, &request, &mut FieldErrors::default()).ok();
    match intake::order(route, &request, &Prefer::of(&asked.headers))? {
        Order::Publish { message, publish, location, .. } => {
            let queues = queues(&message, table);
            Ok(Verdict::Published { message, queues, status: publish.status, location })
        }
        Order::Call { mut message, timeout, .. } => {
            message.properties.correlation_id.clone_from(&message.properties.message_id);
            stamp_call(&mut message, Some(REPLY_ADDRESS.into()), timeout);
            Ok(Verdict::Called { message, timeout })
        }
    }
}

/// How long a body may be checked here: no client waits for it, and a gateway's own limit is a setting of another process.
const CHECK_WITHIN: Duration = Duration::from_secs(10);

/// Stands for the reply queue of a gateway that runs.
const REPLY_ADDRESS: &str = "fpesa.reply.example";

fn queues(message: &Message, table: &Table) -> Vec<String> {
    if message.exchange.is_empty() {
        return table.topology.queues.contains_key(&message.key).then(|| message.key.clone()).into_iter().collect();
    }
    routing::bound(message, &table.topology).into_iter().map(str::to_owned).collect()
}

impl Explained<'_> {
    /// Whether the request would be taken.
    pub fn taken(&self) -> bool {
        !matches!(self.verdict, Verdict::Refused(_))
    }

    /// The same for programs.
    pub fn view(&self) -> View<'_> {
        let mut view = View {
            route: self.route.map(|route| route.id.as_str()),
            others: self.others.iter().map(|(route, why)| Other { route: &route.id, why: &why.why }).collect(),
            ..View::default()
        };
        match &self.verdict {
            Verdict::Refused(problem) => view.problem = Some(problem.body(&self.request_id)),
            Verdict::Own => view.action = Some("gateway"),
            Verdict::Published { message, .. } => view.message("publish", message, self),
            Verdict::Called { message, .. } => view.message("call", message, self),
        }
        view
    }
}

/// An explanation for programs: `fpesa explain --format json`, and what `fpesa test` compares.
#[derive(Debug, Default, Serialize)]
pub struct View<'a> {
    /// The route's id.
    pub route: Option<&'a str>,
    /// `publish`, `call`, or `gateway` for its own paths and the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<&'static str>,
    /// What a refused client gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Map<String, Value>>,
    /// What goes to the bus.
    #[serde(flatten)]
    pub sent: Option<Sent<'a>>,
    /// The routes that do not answer.
    pub others: Vec<Other<'a>>,
}

/// A message as programs see it.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Sent<'a> {
    pub params: Option<&'a Given>,
    pub exchange: &'a str,
    pub key: &'a str,
    /// The queue that a call names.
    pub queue: Option<&'a str>,
    pub headers: Map<String, Value>,
    /// AMQP basic properties by their standard names; `expiration` is text with milliseconds, as on the wire.
    pub properties: Map<String, Value>,
    /// JSON byte for byte where it is JSON, else text, else `{"base64": …}`.
    pub payload: Box<RawValue>,
}

/// A route that does not answer.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Other<'a> {
    pub route: &'a str,
    pub why: &'a str,
}

impl<'a> View<'a> {
    fn message(&mut self, action: &'static str, message: &'a Message, explained: &'a Explained<'_>) {
        let by_queue = match explained.route.map(|route| &route.action) {
            Some(Action::Call(call)) => call.exchange.is_empty(),
            _ => false,
        };
        self.action = Some(action);
        self.sent = Some(Sent {
            params: explained.params.as_ref(),
            exchange: &message.exchange,
            key: &message.key,
            queue: by_queue.then_some(message.key.as_str()),
            headers: headers(message),
            properties: properties(message),
            payload: payload(message),
        });
    }
}

fn headers(message: &Message) -> Map<String, Value> {
    let value = |value: &HeaderValue| match value {
        HeaderValue::Text(text) => text.as_str().into(),
        HeaderValue::Int(number) => (*number).into(),
        HeaderValue::Bool(flag) => (*flag).into(),
        HeaderValue::Raw { .. } => Value::Null,
    };
    message.properties.headers.iter().map(|(name, header)| (name.clone(), value(header))).collect()
}

fn properties(message: &Message) -> Map<String, Value> {
    let from = &message.properties;
    let text = |text: &Option<String>| text.as_deref().map(Value::from);
    let all = [
        ("content_type", text(&from.content_type)),
        ("content_encoding", text(&from.content_encoding)),
        ("delivery_mode", Some(if from.persistent { 2 } else { 1 }.into())),
        ("priority", from.priority.map(Value::from)),
        ("correlation_id", text(&from.correlation_id)),
        ("reply_to", text(&from.reply_to)),
        ("expiration", from.expiration.map(|left| left.as_millis().max(1).to_string().into())),
        ("message_id", text(&from.message_id)),
        ("timestamp", from.timestamp.map(Value::from)),
        ("type", text(&from.kind)),
        ("app_id", text(&from.app_id)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn payload(message: &Message) -> Box<RawValue> {
    let content_type = message.properties.content_type.as_deref().unwrap_or("").to_ascii_lowercase();
    let essence = content_type.split(';').next().unwrap_or("").trim();
    let json = essence == "application/json" || essence.ends_with("+json");
    let as_it_came = || serde_json::from_slice::<Box<RawValue>>(&message.body).ok().filter(|_| json);
    let text = || serde_json::value::to_raw_value(std::str::from_utf8(&message.body).ok()?).ok();
    let bytes = || serde_json::value::to_raw_value(&serde_json::json!({ "base64": BASE64.encode(&message.body) })).ok();
    as_it_came().or_else(text).or_else(bytes).unwrap_or_else(|| RawValue::NULL.to_owned())
}
