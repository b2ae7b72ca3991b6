//! Every refusal and every outcome of the bus, as a status and a problem (RFC 9457). The only room that decides
//! statuses. No internal error text, no secret and no value of the client's enters an answer here.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::{Map, Value, json};

use crate::{
    live::Reloaded,
    message::{Away, CallError, Outcome, PROBLEM, Refusal},
    route::{invalid::FieldErrors, json::Malformed, map::Reject, problem::Severity},
};

/// A problem on its way to a client; the request id is added when it is sent.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The status.
    pub status: StatusCode,
    suffix: &'static str,
    title: &'static str,
    detail: String,
    members: Map<String, Value>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
}

/// What every `type` of ours begins with.
pub const TYPES: &str = "https://fpesa.dev/problems/";

/// Whole seconds that a client should wait before it tries again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl Problem {
    fn new(status: StatusCode, suffix: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, suffix, title, detail: detail.into(), members: Map::new(), headers: Vec::new() }
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn retry_later(self) -> Self {
        self.header(header::RETRY_AFTER, RETRY_AFTER)
    }

    /// The answer, with the request's id as `instance`.
    pub fn into_response(self, request_id: &str) -> Response<Body> {
        let mut response = Response::new(Body::from(Value::Object(self.body(request_id)).to_string()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }

    /// The answer's body.
    pub fn body(&self, request_id: &str) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("type".into(), format!("{TYPES}{}", self.suffix).into());
        body.insert("title".into(), self.title.into());
        body.insert("status".into(), self.status.as_u16().into());
        body.insert("detail".into(), self.detail.clone().into());
        body.insert("instance".into(), request_id.into());
        body.extend(self.members.clone());
        body
    }

    /// What ends its `type`.
    pub fn suffix(&self) -> &'static str {
        self.suffix
    }

    /// Names of the headers that it brings, in lower case.
    pub fn header_names(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|(name, _)| name.as_str())
    }

    /// No route has the path.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", "No route has this path.")
    }

    /// The path is there, but not with this method.
    pub fn method_not_allowed(allow: &str) -> Self {
        let problem = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Method not allowed",
            format!("This path takes {allow}."),
        );
        let value = HeaderValue::from_str(allow).unwrap_or(HeaderValue::from_static("GET"));
        problem.header(header::ALLOW, value)
    }

    /// The content type is not the route's.
    pub fn unsupported_media_type(wanted: &str) -> Self {
        let detail = format!("This route takes a body of type {wanted}.");
        let problem =
            Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type", detail);
        match HeaderValue::from_str(wanted) {
            Ok(value) => problem.header(header::ACCEPT, value),
            Err(_) => problem,
        }
    }

    /// The body is in a content coding, such as gzip, and the route reads bodies.
    pub fn unsupported_content_coding() -> Self {
        let detail = "This route takes a body without a content encoding: send it as it is, without Content-Encoding.";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type", detail)
            .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))
    }

    /// The body comes in a transfer coding that the HTTP layer does not undo (RFC 9112 section 6.1).
    pub fn unsupported_transfer_coding() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "unsupported-transfer-coding",
            "Unsupported transfer coding",
            "A body is taken as it is or in chunks: `Transfer-Encoding: chunked` and nothing else.",
        )
        .header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// An `Expect` header with anything but `100-continue`.
    pub fn expectation_failed() -> Self {
        Self::new(
            StatusCode::EXPECTATION_FAILED,
            "expectation-failed",
            "Expectation failed",
            "The only expectation that can be met is `Expect: 100-continue`.",
        )
    }

    /// No `Host`, several, or one that is none (RFC 9112 section 3.2).
    pub fn invalid_host() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid-host",
            "Invalid host",
            "An HTTP/1.1 request has exactly one Host header, with a host name or address and perhaps a port.",
        )
    }

    /// A host that this process does not answer for.
    pub fn misdirected_request() -> Self {
        Self::new(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected-request",
            "Misdirected request",
            "This server does not answer for the request's host. The setting `hosts` names the hosts that it answers for.",
        )
    }

    /// Nothing that the client accepts can be given.
    pub fn not_acceptable(given: &str) -> Self {
        let detail = format!("This route answers with {given}, which the Accept header rules out.");
        Self::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", "Not acceptable", detail)
    }

    /// The body is larger than the route takes.
    pub fn body_too_large(limit: u64) -> Self {
        let detail = format!("The body is larger than {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large", detail).with("limit", limit)
    }

    /// The body did not come in time.
    pub fn body_timeout(limit_ms: u64) -> Self {
        let detail = format!("The body was not there within {limit_ms} ms.");
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", "Body timeout", detail)
            .with("limit_ms", limit_ms)
            .header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// The body came too slowly to be waited for until the end of its time.
    pub fn body_too_slow(min_rate: u64, limit_ms: u64) -> Self {
        let detail = format!("The body came more slowly than {min_rate} bytes a second.");
        Self { detail, ..Self::body_timeout(limit_ms) }
    }

    /// The body broke off.
    pub fn body_incomplete() -> Self {
        Self::malformed(&Malformed { line: 1, column: 0, detail: "the body broke off".into() })
    }

    /// The header block is over its limit.
    pub fn headers_too_large() -> Self {
        Self::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers-too-large",
            "Headers too large",
            "The header block is larger than 16 KiB.",
        )
    }

    /// The URI is over its limit.
    pub fn uri_too_long() -> Self {
        Self::new(StatusCode::URI_TOO_LONG, "uri-too-long", "URI too long", "The URI is longer than 8 KiB.")
    }

    /// Too much is under way here.
    pub fn overloaded() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "Overloaded",
            "Too many requests are under way here; nothing was sent.",
        )
        .with("outcome", "not-sent")
        .retry_later()
    }

    /// As many WebSockets are open as may be.
    pub fn too_many_sessions() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "Overloaded",
            "Too many sessions of the live feed are open here.",
        )
        .with("outcome", "not-sent")
        .retry_later()
    }

    /// The bytes that are held here leave no room for the request's body.
    pub fn out_of_memory() -> Self {
        Self { detail: "Too many bytes are under way here; nothing was sent.".into(), ..Self::overloaded() }
    }

    /// The bytes that are held here leave no room for the answer: what was asked for may have been done.
    pub fn reply_without_room() -> Self {
        let problem =
            Self { detail: "Too many bytes are under way here to take the answer.".into(), ..Self::overloaded() };
        problem.with("outcome", "unknown")
    }

    /// The process ends and takes nothing new.
    pub fn stopping() -> Self {
        Self::overloaded()
    }

    /// A handler failed in a way that none of us foresaw.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal error",
            "The gateway failed on this request.",
        )
    }

    /// A page of another origin that may not do this.
    pub fn origin_refused() -> Self {
        let detail = "A page of another origin may not do this, unless the setting `cors.origins` names that origin.";
        Self::new(StatusCode::FORBIDDEN, "origin-refused", "Origin refused", detail)
    }

    /// Not a WebSocket handshake that the feed takes.
    pub fn not_a_websocket() -> Self {
        let detail = "This is the live feed: MQTT over a WebSocket, subprotocol `mqtt`.";
        Self::new(StatusCode::UPGRADE_REQUIRED, "upgrade-required", "Upgrade required", detail)
            .header(header::UPGRADE, HeaderValue::from_static("websocket"))
    }

    /// A handshake without MQTT among its subprotocols (MQTT 5, section 6).
    pub fn wrong_subprotocol() -> Self {
        let detail = "The WebSocket must offer the subprotocol `mqtt`.";
        Self::new(StatusCode::BAD_REQUEST, "wrong-subprotocol", "Wrong subprotocol", detail)
    }

    /// The table's files can't take effect: what is in force stays.
    pub fn reload_refused(generation: u64, reloaded: &Reloaded) -> Self {
        let errors = reloaded.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        let detail = format!(
            "The table's files have {errors} {}: generation {generation} stays in force.",
            if errors == 1 { "error" } else { "errors" }
        );
        Self::new(StatusCode::CONFLICT, "reload-refused", "Reload refused", detail)
            .with("generation", generation)
            .with("problems", json!(reloaded.problems))
            .with("digest", reloaded.digest.as_str())
    }

    /// The body is no JSON that is taken.
    fn malformed(malformed: &Malformed) -> Self {
        let detail = format!(
            "The body is not JSON that is taken: {} (line {}, column {}).",
            malformed.detail, malformed.line, malformed.column
        );
        Self::new(StatusCode::BAD_REQUEST, "malformed-body", "Malformed body", detail)
            .with("line", malformed.line)
            .with("column", malformed.column)
    }

    fn invalid(FieldErrors { list: errors, cut }: &FieldErrors) -> Self {
        let first = errors.first().map_or(String::new(), |error| {
            let place = error.name.as_deref().or(error.pointer.as_deref()).filter(|place| !place.is_empty());
            place.map_or_else(|| format!(" {}", error.detail), |place| format!(" {place}: {}", error.detail))
        });
        let others = if errors.len() > 1 { format!(" (and {} more)", errors.len() - 1) } else { String::new() };
        let cut = if *cut { "; more errors were not looked for" } else { "" };
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "validation-failed",
            "Validation failed",
            format!("The request does not fit its schema:{first}{others}{cut}"),
        )
        .with("errors", json!(errors))
    }

    /// Checking the request takes longer than it may.
    pub fn validation_budget() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "validation-budget",
            "Validation budget",
            "Checking this request against its schema takes too long; nothing was sent.",
        )
        .with("outcome", "not-sent")
    }

    /// What the mapping refused.
    pub fn rejected(reject: &Reject) -> Self {
        match reject {
            Reject::Malformed(malformed) => Self::malformed(malformed),
            Reject::Invalid(errors) => Self::invalid(errors),
            Reject::Exhausted => Self::validation_budget(),
        }
    }

    /// A publish that did not end as [`Outcome::Routed`]; `id` is the message's.
    pub fn publish(outcome: Outcome, id: &str) -> Self {
        match outcome {
            Outcome::Routed => Self::internal(),
            Outcome::Rejected => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "broker-rejected",
                "Broker rejected",
                "The broker refused the message: a queue is full, or can't take it just now.",
            )
            .with("outcome", "rejected")
            .retry_later(),
            Outcome::Refused(refusal) => Self::refused(refusal),
            Outcome::Unroutable => Self::unroutable(),
            Outcome::NotSent(away) => Self::away(away),
            Outcome::Unknown => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "confirm-timeout",
                "Confirm timeout",
                "The broker did not say in time whether it has the message. Send it again with this id as Idempotency-Key: it is kept once.",
            )
            .with("outcome", "unknown")
            .with("id", id),
        }
    }

    /// The broker will never take this one message: sending it again is of no use.
    fn refused(refusal: Refusal) -> Self {
        let problem = match refusal {
            Refusal::Forbidden => Self::new(
                StatusCode::BAD_GATEWAY,
                "broker-refused",
                "Broker refused",
                "The broker refused this message for good: sending it again does not help. Its reason is in the gateway's log.",
            ),
            Refusal::TooLarge { limit } => {
                let over = limit.map_or_else(|| "allows".to_owned(), |limit| format!("allows ({limit} bytes)"));
                let detail = format!("The message is larger than the broker {over}.");
                let problem = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large", detail);
                match limit {
                    Some(limit) => problem.with("limit", limit),
                    None => problem,
                }
            }
        };
        problem.with("outcome", "rejected")
    }

    /// No queue takes what the route publishes.
    pub fn unroutable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unroutable",
            "Unroutable",
            "No queue takes this message; it was not kept.",
        )
        .with("outcome", "unroutable")
    }

    /// The same, with the sentence that names the queue or exchange.
    pub fn unroutable_because(why: &str) -> Self {
        Self { detail: format!("Nothing was sent: {why}."), ..Self::unroutable() }
    }

    fn away(away: Away) -> Self {
        let (suffix, title, detail) = match away {
            Away::Down => ("broker-unavailable", "Broker unavailable", "The message broker is away; nothing was sent."),
            Away::Blocked => {
                ("broker-blocked", "Broker blocked", "The message broker takes nothing just now; nothing was sent.")
            }
            Away::StorageFull => ("storage-full", "Storage full", "The disk is full; the message was not kept."),
            Away::StorageFailed => ("storage-failed", "Storage failed", "The disk fails; the message was not kept."),
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, suffix, title, detail).with("outcome", "not-sent").retry_later()
    }

    /// A call without a reply.
    pub fn call(error: CallError, correlation_id: &str) -> Self {
        match error {
            CallError::NoWorker => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "no-worker",
                "No worker",
                "No worker consumes the queue that answers this.",
            )
            .with("outcome", "not-sent")
            .retry_later(),
            CallError::Timeout => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "call-timeout",
                "Call timeout",
                "No worker answered before the deadline.",
            )
            .with("correlation_id", correlation_id),
            CallError::NotSent(away) => Self::away(away),
            CallError::Rejected => Self::publish(Outcome::Rejected, ""),
            CallError::Refused(refusal) => Self::refused(refusal),
            CallError::ReplyTooLarge => Self::invalid_reply(),
            CallError::Overloaded => Self::reply_without_room(),
            CallError::Unknown => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "broker-unavailable",
                "Broker unavailable",
                "The link to the broker broke while the reply was awaited.",
            )
            .with("outcome", "unknown")
            .retry_later(),
        }
    }

    /// The headers that it brings, such as `Allow`.
    pub fn headers(&self) -> &[(header::HeaderName, HeaderValue)] {
        &self.headers
    }

    /// A reply that is not what it must be.
    pub fn invalid_reply() -> Self {
        let detail = "The worker's reply is not what it must be.";
        Self::new(StatusCode::BAD_GATEWAY, "invalid-reply", "Invalid reply", detail)
    }
}
