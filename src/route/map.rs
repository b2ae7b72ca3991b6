//! From a request to an order for the bus, or to what is wrong with it. Pure: the time and new ids come in.

use std::{borrow::Cow, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use fpesa_workers::{
    event::{TIME_HEADER, time_text, unix_micros},
    topic::topic_of_key,
};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    escapes,
    file::Payload,
    invalid::{FieldError, FieldErrors, Part, body_errors},
    json::{self, Malformed},
    schema::Schema,
    table::{Action, Call, Publish, Route, trimmed},
    template::{Template, Values},
    validator::{Budget, Exhausted},
};
use crate::message::{APP_ID, CLOUDEVENT, HeaderValue, Headers, Message, Properties};

/// A request whose route is known and whose body is read.
pub struct Request<'a> {
    /// Path as sent, base path included.
    pub path: &'a str,
    /// Values of the path's parameters, percent-encoded as sent.
    pub path_values: &'a [(&'a str, &'a str)],
    /// Query as sent, without `?`.
    pub query: Option<&'a str>,
    /// Headers by name in lower case; a repeated one is there repeatedly. Values that are no UTF-8 are absent.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body, checked.
    pub body: CheckedBody,
    /// When it came.
    pub now: OffsetDateTime,
    /// An id for the message, should the client bring none: a UUIDv7.
    pub new_id: Uuid,
}

/// A body that was read and held against its schema.
#[derive(Debug)]
pub struct CheckedBody {
    bytes: Bytes,
    /// `None` when there is none, or when it is not JSON.
    value: Option<Value>,
    errors: FieldErrors,
}

/// What goes to the bus.
#[derive(Debug)]
pub enum Order<'r> {
    /// A publish, confirmed within the time.
    Publish {
        /// The message.
        message: Message,
        /// Its id.
        id: String,
        /// The route's settings.
        publish: &'r Publish,
        /// Path that gives this message later.
        location: Option<String>,
    },
    /// A call, answered within the time.
    Call {
        /// The request message.
        message: Message,
        /// From now.
        timeout: Duration,
        /// What the reply must be.
        reply: Option<&'r Schema>,
    },
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reject {
    /// The body is no JSON that is taken.
    Malformed(Malformed),
    /// Some fields are not as they must be.
    Invalid(FieldErrors),
    /// Checking it takes too long.
    Exhausted,
}

impl From<Exhausted> for Reject {
    fn from(_: Exhausted) -> Self {
        Self::Exhausted
    }
}

/// Steps for all parameters of a request: some thousand characters of text need far fewer.
const PARAMETER_STEPS: u64 = 100_000;

/// Parameters of a request, coerced.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Given {
    pub path: Map<String, Value>,
    pub query: Map<String, Value>,
    pub header: Map<String, Value>,
}

/// Maps a request to what its route says.
pub fn map<'r>(route: &'r Route, request: &Request<'_>) -> Result<Order<'r>, Reject> {
    let mut errors = FieldErrors::default();
    let given = parameters(route, request, &mut errors)?;
    let id = match (&route.action, idempotency_key(request.headers)) {
        (Action::Publish(_), Some(Ok(id))) => id,
        (Action::Publish(_), Some(Err(error))) => {
            errors.push(error);
            String::new()
        }
        _ => request.new_id.hyphenated().to_string(),
    };
    errors.append(request.body.errors.clone());
    if !errors.is_empty() {
        return Err(Reject::Invalid(errors));
    }
    let values = Values {
        path: &given.path,
        query: &given.query,
        header: &given.header,
        body: request.body.value.as_ref(),
        id: &id,
        route: &route.id,
    };
    let order = match &route.action {
        Action::Publish(publish) => publish_order(route, publish, request, &values),
        Action::Call(call) => call_order(route, call, request, &given, &values),
    };
    order.map_err(|error| Reject::Invalid(error.into()))
}

/// Reads a request's parameters; what is wrong is added to `errors`, and the rest is read all the same.
pub fn parameters(route: &Route, request: &Request<'_>, errors: &mut FieldErrors) -> Result<Given, Reject> {
    let mut budget = Budget::steps(PARAMETER_STEPS);
    let mut path: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(request.path_values.len());
    for (name, text) in request.path_values {
        match escapes::decode(text) {
            Ok(text) => path.push((name, text)),
            Err(detail) => errors.push(FieldError::named(Part::Path, name, "format", detail)),
        }
    }
    Ok(Given {
        path: route.path_params.read(Part::Path, &path, false, errors, &mut budget)?,
        query: query(route, request.query.unwrap_or(""), errors, &mut budget)?,
        header: route.header_params.read(Part::Header, request.headers, false, errors, &mut budget)?,
    })
}

/// Reads the query's parameters (`application/x-www-form-urlencoded`).
fn query(
    route: &Route,
    query: &str,
    errors: &mut FieldErrors,
    budget: &mut Budget,
) -> Result<Map<String, Value>, Exhausted> {
    let (pairs, bad) = escapes::query_pairs(query);
    let is_declared = |name: &str| route.query_params.0.iter().any(|param| param.name == name);
    let is_bent = |name: &str| bad.iter().any(|(bent, _)| bent == name);
    let mut told = FieldErrors::default();
    let values = route.query_params.read(Part::Query, &pairs, true, &mut told, budget)?;
    // What has no value because of its escapes is not missing, and is told once.
    told.list.retain(|error| !error.name.as_deref().is_some_and(|name| is_declared(name) && is_bent(name)));
    for error in &mut told.list {
        let name = error.name.as_deref().unwrap_or_default();
        if is_declared(name) && escapes::has_plus(query, name) {
            error.detail.push_str("; a `+` in a query stands for a space: write a plus sign as %2B");
        }
    }
    for (name, detail) in bad.iter().filter(|(name, _)| is_declared(name)) {
        told.push(FieldError::named(Part::Query, name, "format", detail.clone()));
    }
    errors.append(told);
    Ok(values)
}

/// The client's own id: a UUID, bare or quoted.
fn idempotency_key(headers: &[(&str, &str)]) -> Option<Result<String, FieldError>> {
    const NAME: &str = "idempotency-key";
    let mut values = headers.iter().filter(|(name, _)| *name == NAME).map(|(_, value)| value.trim());
    let value = values.next()?;
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let id = (bare.len() == 36).then(|| Uuid::parse_str(bare).ok()).flatten();
    Some(match (id, values.next()) {
        (Some(id), None) => Ok(id.hyphenated().to_string()),
        _ => {
            let detail = "this must be one UUID such as 0193f1c2-7d3a-7c3e-9d4e-0123456789ab";
            Err(FieldError::named(Part::Header, NAME, "format", detail))
        }
    })
}

/// Reads a body and holds it against its schema.
pub fn check_body(route: &Route, bytes: Bytes, budget: &mut Budget) -> Result<CheckedBody, Reject> {
    let mut checked = CheckedBody { bytes, value: None, errors: FieldErrors::default() };
    let Some(body) = &route.body else {
        if !checked.bytes.is_empty() {
            checked.errors.push(FieldError::body("", "not-allowed", "this route takes no body"));
        }
        return Ok(checked);
    };
    if checked.bytes.is_empty() {
        if body.required {
            checked.errors.push(FieldError::body("", "required", "this route needs a body"));
        }
        return Ok(checked);
    }
    if !body.json {
        return Ok(checked);
    }
    let value = json::parse(&checked.bytes, body.max_depth, budget)?.map_err(Reject::Malformed)?;
    if let Some(schema) = &body.schema {
        checked.errors = body_errors(&schema.validator, &value, budget)?;
    }
    checked.value = Some(value);
    Ok(checked)
}

fn publish_order<'r>(
    route: &'r Route,
    publish: &'r Publish,
    request: &Request<'_>,
    values: &Values<'_>,
) -> Result<Order<'r>, FieldError> {
    let key = publish.key.key(values)?;
    let mut headers = trace(request);
    headers.insert("fpesa-route".into(), route.id.as_str().into());
    headers.insert(TIME_HEADER.into(), time_text(unix_micros(request.now)).into());
    fill(&publish.headers, values, &mut headers)?;
    let came = short_header(request.headers, "content-type")?;
    let (content_type, content_encoding, body) = match publish.payload {
        Payload::Event => {
            let body = event(route, publish, request, values, &key, came, &headers);
            (Some(CLOUDEVENT), None, body)
        }
        Payload::Body => (came, short_header(request.headers, "content-encoding")?, request.body.bytes.clone()),
    };
    let message = Message {
        exchange: publish.exchange.clone(),
        key,
        properties: Properties {
            message_id: Some(values.id.to_owned()),
            content_type: content_type.map(str::to_owned),
            content_encoding: content_encoding.map(str::to_owned),
            kind: Some(publish.kind.clone()),
            app_id: Some(APP_ID.into()),
            timestamp: u64::try_from(request.now.unix_timestamp()).ok(),
            expiration: publish.expires,
            priority: publish.priority,
            persistent: true,
            headers,
            ..Properties::default()
        },
        body,
        mandatory: publish.mandatory,
    };
    let location = publish.location.then(|| [trimmed(request.path), "/", values.id].concat());
    Ok(Order::Publish { message, id: values.id.to_owned(), publish, location })
}

fn call_order<'r>(
    route: &'r Route,
    call: &'r Call,
    request: &Request<'_>,
    given: &Given,
    values: &Values<'_>,
) -> Result<Order<'r>, FieldError> {
    #[derive(Serialize)]
    struct Asked<'a> {
        id: &'a str,
        route: &'a str,
        method: &'a str,
        path: &'a str,
        params: &'a Given,
        body: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        content_type: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        body_base64: Option<String>,
    }
    let key = call.key.key(values)?;
    let mut headers = trace(request);
    headers.insert("fpesa-route".into(), route.id.as_str().into());
    fill(&call.headers, values, &mut headers)?;
    // What was parsed is valid JSON: it travels as it came.
    let raw = values.body.and_then(|_| serde_json::from_slice::<&RawValue>(&request.body.bytes).ok());
    let other = raw.is_none() && !request.body.bytes.is_empty();
    let asked = Asked {
        id: values.id,
        route: &route.id,
        method: route.method.name(),
        path: without_base(request.path, route),
        params: given,
        body: raw,
        content_type: header(request.headers, "content-type").filter(|_| other),
        body_base64: other.then(|| BASE64.encode(&request.body.bytes)),
    };
    let message = Message {
        exchange: call.exchange.clone(),
        key,
        properties: Properties {
            message_id: Some(values.id.to_owned()),
            content_type: Some("application/json".into()),
            kind: Some(route.id.clone()),
            app_id: Some(APP_ID.into()),
            timestamp: u64::try_from(request.now.unix_timestamp()).ok(),
            headers,
            ..Properties::default()
        },
        body: serde_json::to_vec(&asked).unwrap_or_default().into(),
        mandatory: true,
    };
    Ok(Order::Call { message, timeout: call.timeout, reply: call.reply.as_ref() })
}

/// One CloudEvents 1.0 event in structured JSON mode, the body spliced in as it came.
fn event(
    route: &Route,
    publish: &Publish,
    request: &Request<'_>,
    values: &Values<'_>,
    key: &str,
    content_type: Option<&str>,
    headers: &Headers,
) -> Bytes {
    let mut out = Vec::with_capacity(request.body.bytes.len() + 400);
    let member = |out: &mut Vec<u8>, name: &str, value: &str| {
        for part in [if out.is_empty() { "{\"" } else { ",\"" }, name, "\":"] {
            out.extend_from_slice(part.as_bytes());
        }
        // Text always serializes, and a vector takes all that is written.
        let _ = serde_json::to_writer(out, value);
    };
    member(&mut out, "specversion", "1.0");
    member(&mut out, "id", values.id);
    member(&mut out, "source", &["/", &route.id].concat());
    member(&mut out, "type", &publish.kind);
    if !key.is_empty() {
        member(&mut out, "subject", &topic_of_key(key));
    }
    for (header, name) in [(TIME_HEADER, "time"), ("traceparent", "traceparent"), ("tracestate", "tracestate")] {
        if let Some(value) = headers.get(header).and_then(HeaderValue::to_text) {
            member(&mut out, name, &value);
        }
    }
    if !request.body.bytes.is_empty() {
        let json = route.body.as_ref().is_some_and(|body| body.json);
        if let Some(content_type) = content_type {
            member(&mut out, "datacontenttype", content_type);
        }
        if json {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(&request.body.bytes);
        } else {
            member(&mut out, "data_base64", &BASE64.encode(&request.body.bytes));
        }
    }
    out.push(b'}');
    out.into()
}

fn fill(templates: &[(String, Template)], values: &Values<'_>, headers: &mut Headers) -> Result<(), FieldError> {
    for (name, template) in templates {
        headers.insert(name.clone(), template.header(values)?.into());
    }
    Ok(())
}

/// W3C Trace Context: what the client sent when it is valid, else a new trace.
fn trace(request: &Request<'_>) -> Headers {
    let mut headers = Headers::new();
    match header(request.headers, "traceparent").filter(|value| valid_traceparent(value)) {
        Some(parent) => {
            headers.insert("traceparent".into(), parent.into());
            if let Some(state) = header(request.headers, "tracestate").filter(|state| state.len() <= 512) {
                headers.insert("tracestate".into(), state.into());
            }
        }
        None => {
            let (mut trace, mut span) = ([0; 32], [0; 32]);
            let trace = Uuid::new_v4().simple().encode_lower(&mut trace);
            let span = Uuid::new_v4().simple().encode_lower(&mut span);
            headers.insert("traceparent".into(), ["00-", trace, "-", &span[..16], "-01"].concat().into());
        }
    }
    headers
}

fn valid_traceparent(value: &str) -> bool {
    let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&str> = value.split('-').collect();
    let [version, trace, span, flags] = parts.as_slice() else { return false };
    *version == "00"
        && hex(trace, 32)
        && hex(span, 16)
        && hex(flags, 2)
        && trace.bytes().any(|b| b != b'0')
        && span.bytes().any(|b| b != b'0')
}

fn header<'h>(headers: &[(&str, &'h str)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(given, _)| *given == name).map(|(_, value)| *value)
}

/// A header that becomes a property of the message, parameters included. The error says that AMQP can't carry it.
fn short_header<'h>(headers: &[(&str, &'h str)], name: &str) -> Result<Option<&'h str>, FieldError> {
    /// The longest short string of AMQP 0-9-1, in bytes.
    const MAX_BYTES: usize = 255;
    match header(headers, name).map(str::trim) {
        Some(value) if value.len() > MAX_BYTES => {
            Err(FieldError::named(Part::Header, name, "maxLength", format!("this must have at most {MAX_BYTES} bytes")))
        }
        value => Ok(value),
    }
}

/// The path without the table's base path, which may be spelt with escapes.
fn without_base<'p>(path: &'p str, route: &Route) -> &'p str {
    let slashes = route.base_path.matches('/').count();
    path.match_indices('/').nth(slashes).map_or(path, |(at, _)| &path[at..])
}
