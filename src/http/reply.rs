//! From a worker's reply to an answer, or to the reason why it is none.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::{
    message::{self, PROBLEM, Reply},
    route::{
        schema::Schema,
        validator::{Budget, Exhausted},
    },
};

/// The headers that a worker may set, and no others: by the message header that sets each, and as documents write them.
pub const WORKER_HEADERS: [(&str, HeaderName, &str); 8] = [
    ("http.link", header::LINK, "Link"),
    ("http.etag", header::ETAG, "ETag"),
    ("http.cache-control", header::CACHE_CONTROL, "Cache-Control"),
    ("http.location", header::LOCATION, "Location"),
    ("http.retry-after", header::RETRY_AFTER, "Retry-After"),
    ("http.content-disposition", header::CONTENT_DISPOSITION, "Content-Disposition"),
    ("http.content-language", header::CONTENT_LANGUAGE, "Content-Language"),
    ("http.x-total-count", HeaderName::from_static("x-total-count"), "X-Total-Count"),
];

/// Largest problem of a worker's that is passed on, in bytes.
const MAX_PROBLEM_BYTES: usize = 16 * 1024;

/// Why a reply can't be passed on: a sentence for the log, without anything of the reply's body.
pub type InvalidReply = &'static str;

/// Why there is no response.
#[derive(Debug)]
pub enum ReplyError {
    /// The reply can't be passed on.
    Invalid(InvalidReply),
    /// Checking it takes too long.
    Exhausted,
}

impl From<InvalidReply> for ReplyError {
    fn from(reason: InvalidReply) -> Self {
        Self::Invalid(reason)
    }
}

impl From<Exhausted> for ReplyError {
    fn from(_: Exhausted) -> Self {
        Self::Exhausted
    }
}

/// The response that a reply stands for.
pub fn response(
    reply: &Reply,
    schema: Option<&Schema>,
    request_id: &str,
    budget: &mut Budget,
) -> Result<Response<Body>, ReplyError> {
    let properties = &reply.properties;
    if properties.unreadable.is_some() {
        return Err(ReplyError::Invalid("its properties can't be read"));
    }
    let status = status(properties.headers.get("status"))?;
    let coding = properties.content_encoding.as_deref().filter(|coding| !coding.eq_ignore_ascii_case("identity"));
    let given = properties.content_type.as_deref();
    let essence = given.map(|given| given.split(';').next().unwrap_or("").trim().to_ascii_lowercase());
    let has_content = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT);
    let schema = schema.filter(|_| status.is_success() && has_content);
    let mut content_type = given;
    let body = if !has_content {
        // These statuses have none (RFC 9110 section 6.4.1), whatever the reply has.
        content_type = None;
        Body::empty()
    } else if essence.as_deref() == Some(PROBLEM) {
        Body::from(problem(&reply.body, request_id)?)
    } else if coding.is_some() {
        if schema.is_some() {
            return Err(ReplyError::Invalid("its content encoding keeps it from being checked against `reply.schema`"));
        }
        Body::from(reply.body.clone())
    } else if reply.body.is_empty() && schema.is_none() {
        content_type = None;
        Body::empty()
    } else {
        content_type = Some(check(&reply.body, given, essence.as_deref(), schema, budget)?);
        Body::from(reply.body.clone())
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let out = response.headers_mut();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        out.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    for (name, header, _) in WORKER_HEADERS {
        if let Some(value) = properties.headers.get(name) {
            let text = value.to_text().ok_or("an `http.*` header is neither text nor a number")?;
            let value = HeaderValue::from_bytes(text.as_bytes());
            out.insert(header, value.map_err(|_| "an `http.*` header has a character that HTTP forbids in headers")?);
        }
    }
    if let Some(content_type) = content_type {
        let value = HeaderValue::from_bytes(content_type.as_bytes());
        out.insert(header::CONTENT_TYPE, value.map_err(|_| "its content type has a character that HTTP forbids")?);
        if let Some(coding) = coding {
            let value = HeaderValue::from_str(coding);
            out.insert(header::CONTENT_ENCODING, value.map_err(|_| "its content encoding is no coding's name")?);
        }
    }
    Ok(response)
}

fn status(given: Option<&message::HeaderValue>) -> Result<StatusCode, InvalidReply> {
    let status = match given {
        None => Some(200),
        Some(message::HeaderValue::Int(status)) => u16::try_from(*status).ok(),
        Some(message::HeaderValue::Text(status)) => status.trim().parse().ok(),
        Some(message::HeaderValue::Bool(_) | message::HeaderValue::Raw { .. }) => None,
    };
    let status = status.filter(|status| (200..=599).contains(status));
    status.and_then(|status| StatusCode::from_u16(status).ok()).ok_or("its `status` is not an integer from 200 to 599")
}

/// Checks a body by what it is said to be, and says what it is. JSON is checked to be JSON, without recursion; with a schema it
/// is checked whole.
fn check<'t>(
    body: &[u8],
    given: Option<&'t str>,
    essence: Option<&str>,
    schema: Option<&Schema>,
    budget: &mut Budget,
) -> Result<&'t str, ReplyError> {
    const JSON: &str = "application/json";
    let is_json = essence.is_none_or(|essence| essence == JSON || essence.ends_with("+json"));
    if let Some(schema) = schema {
        let value: Value =
            serde_json::from_slice(body).map_err(|_| "its body is not JSON, which `reply.schema` asks for")?;
        let fits = schema.validator.is_valid(&value, budget)?;
        return if fits { Ok(given.unwrap_or(JSON)) } else { Err("its body does not fit `reply.schema`".into()) };
    }
    let valid = is_json && serde_json::from_slice::<IgnoredAny>(body).is_ok();
    match given {
        None => Ok(if valid { JSON } else { "application/octet-stream" }),
        Some(_) if is_json && !valid => Err("its content type says JSON, and its body is not JSON".into()),
        Some(given) => Ok(given),
    }
}

/// A worker's problem, bounded, with the request's id where it names none.
fn problem(body: &[u8], request_id: &str) -> Result<String, InvalidReply> {
    if body.len() > MAX_PROBLEM_BYTES {
        return Err("its problem is larger than 16 KiB");
    }
    let Ok(Value::Object(mut problem)) = serde_json::from_slice(body) else {
        return Err("its problem is not a JSON object");
    };
    problem.entry("instance").or_insert_with(|| request_id.into());
    Ok(Value::Object(problem).to_string())
}
