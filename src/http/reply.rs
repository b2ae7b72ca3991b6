//! From a worker's reply to an answer, or to the word that it is none.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::{
    message::{self, PROBLEM, Reply},
    route::schema::Schema,
};

/// Headers that a worker may set, by the message header that sets them.
const ALLOWED: [(&str, HeaderName); 4] = [
    ("http.link", header::LINK),
    ("http.etag", header::ETAG),
    ("http.cache-control", header::CACHE_CONTROL),
    ("http.location", header::LOCATION),
];

/// Largest problem of a worker's that is passed on, in bytes.
const MAX_PROBLEM: usize = 16 * 1024;

/// The answer that a reply stands for; `None` when it is not what it must be.
pub fn answer(reply: Reply, schema: Option<&Schema>, request_id: &str) -> Option<Response<Body>> {
    if reply.properties.unreadable.is_some() {
        return None;
    }
    let headers = &reply.properties.headers;
    let status = match headers.get("status") {
        None => StatusCode::OK,
        Some(message::HeaderValue::Int(status)) => u16::try_from(*status).ok().and_then(in_range)?,
        Some(message::HeaderValue::Text(status)) => status.parse().ok().and_then(in_range)?,
        Some(message::HeaderValue::Bool(_) | message::HeaderValue::Raw { .. }) => return None,
    };
    let content_type = reply.properties.content_type.as_deref().unwrap_or("application/json");
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let bodyless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT);
    let body = if bodyless && reply.body.is_empty() {
        Body::empty()
    } else if essence == PROBLEM {
        Body::from(problem(&reply.body, request_id)?)
    } else {
        check(&reply.body, &essence, schema.filter(|_| status.is_success()))?;
        Body::from(reply.body)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let out = response.headers_mut();
    if !bodyless {
        out.insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type).ok()?);
    }
    for (name, header) in ALLOWED {
        if let Some(value) = headers.get(name) {
            out.insert(header, HeaderValue::from_str(&value.to_text()?).ok()?);
        }
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        out.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Some(response)
}

fn in_range(status: u16) -> Option<StatusCode> {
    (200..=599).contains(&status).then(|| StatusCode::from_u16(status).ok()).flatten()
}

/// JSON is checked to be JSON, without recursion; with a schema it is checked whole.
fn check(body: &[u8], essence: &str, schema: Option<&Schema>) -> Option<()> {
    let json = essence == "application/json" || essence.ends_with("+json");
    match schema {
        Some(schema) => {
            let value: Value = serde_json::from_slice(body).ok()?;
            schema.validator.is_valid(&value).then_some(())
        }
        None if json => serde_json::from_slice::<IgnoredAny>(body).ok().map(drop),
        None => Some(()),
    }
}

/// A worker's problem, bounded, with the request's id where it names none.
fn problem(body: &[u8], request_id: &str) -> Option<String> {
    if body.len() > MAX_PROBLEM {
        return None;
    }
    let Value::Object(mut problem) = serde_json::from_slice(body).ok()? else { return None };
    problem.entry("instance").or_insert_with(|| request_id.into());
    Some(Value::Object(problem).to_string())
}
