//! The one generic handler: a request finds its route, is mapped to an order, and the bus's answer becomes a status.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, Request, Response, StatusCode, header, request::Parts,
    },
};
use bytes::BytesMut;
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{assets, metrics::CallOutcome, problem::Problem, reply, state::Gateway, system};
use crate::{
    message::{Message, Outcome},
    route::{
        file::Method,
        map::{self, Order},
        schema::Schema,
        table::{Match, Publish, Route},
    },
};

/// Most bytes of a request's header block.
const MAX_HEADERS: usize = 16 * 1024;
/// Most bytes of a request's URI.
const MAX_URI: usize = 8 * 1024;
/// What is read of a body where none is allowed, to say so.
const UNWANTED_BODY: u64 = 64 * 1024;

impl Gateway {
    /// Answers one request; never fails.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let start = Instant::now();
        let request_id = request_id(request.headers());
        let mut label = Label::default();
        let answer = AssertUnwindSafe(self.answer(request, &request_id, &mut label)).catch_unwind().await;
        let mut response = match answer {
            Ok(Ok(response)) => response,
            Ok(Err(problem)) => problem.into_response(&request_id),
            Err(_) => {
                tracing::error!(request_id, "a request's handler panicked");
                Problem::internal().into_response(&request_id)
            }
        };
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        self.vitals.metrics.answered(label.name(), response.status().as_u16(), start.elapsed());
        response
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        request_id: &str,
        label: &mut Label,
    ) -> Result<Response<Body>, Problem> {
        let (mut parts, body) = request.into_parts();
        let size: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if size > MAX_HEADERS {
            return Err(Problem::headers_too_large());
        }
        if parts.uri.path_and_query().map_or(0, |whole| whole.as_str().len()) > MAX_URI {
            return Err(Problem::uri_too_long());
        }
        if let Some(answer) = system::answer(self, &mut parts).await {
            return answer;
        }
        let in_force = self.vitals.live.get();
        let path = parts.uri.path().to_owned();
        let Some(method) = method(&parts.method) else {
            return Err(not_here(&in_force.table.find(Method::Get, &path), &path, &parts));
        };
        let found = in_force.table.find(method, &path);
        let Match::Found(route, values) = found else {
            if method == Method::Get
                && let Some(file) = assets::asset(&path, &parts.headers)
            {
                return Ok(file);
            }
            return Err(not_here(&found, &path, &parts));
        };
        label.route = Some(route.clone());
        let Ok(_place) = self.places.try_acquire() else { return Err(Problem::overloaded()) };
        let _under_way = self.vitals.metrics.under_way();

        let accept = text(&parts.headers, &header::ACCEPT);
        if matches!(route.action, crate::route::table::Action::Publish(_))
            && !accepts(accept.as_deref(), "application/json")
        {
            return Err(Problem::not_acceptable("application/json"));
        }
        let body = self.read_body(route, &parts.headers, body).await?;
        let headers: Vec<(String, String)> = parts
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect();
        let request = map::Request {
            path: &path,
            path_values: &values,
            query: parts.uri.query(),
            headers: &headers,
            body,
            now: OffsetDateTime::now_utc(),
            new_id: Uuid::now_v7(),
        };
        let prefer = Prefer::of(&parts.headers);
        match map::map(route, &request).map_err(|reject| Problem::rejected(&reject))? {
            Order::Publish { message, id, publish, location } => {
                self.publish(route, message, &id, publish, location, &prefer).await
            }
            Order::Call { message, timeout, reply } => {
                let timeout = prefer.wait.map_or(timeout, |wait| wait.min(timeout));
                self.call(route, message, timeout, reply, accept.as_deref(), request_id).await
            }
        }
    }

    async fn publish(
        &self,
        route: &Route,
        message: Message,
        id: &str,
        publish: &Publish,
        location: Option<String>,
        prefer: &Prefer,
    ) -> Result<Response<Body>, Problem> {
        let missing = self.vitals.bus.state().missing;
        let outcome = if publish.mandatory && publish.reaches.iter().any(|queue| missing.contains(queue)) {
            Outcome::Unroutable
        } else {
            self.vitals.bus.publish(message, Instant::now() + publish.confirm_timeout).await
        };
        self.vitals.metrics.published(&route.id, outcome);
        if outcome != Outcome::Routed {
            return Err(Problem::publish(outcome, id));
        }
        let minimal = prefer.minimal || publish.status == 204;
        let mut response =
            Response::new(if minimal { Body::empty() } else { Body::from(format!("{{\"id\":\"{id}\"}}")) });
        *response.status_mut() = StatusCode::from_u16(publish.status).unwrap_or(StatusCode::ACCEPTED);
        let headers = response.headers_mut();
        if !minimal {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if prefer.minimal {
            headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("return=minimal"));
        }
        if let Some(location) = location.and_then(|location| HeaderValue::from_str(&location).ok()) {
            headers.insert(header::LOCATION, location);
        }
        Ok(response)
    }

    async fn call(
        &self,
        route: &Route,
        message: Message,
        timeout: Duration,
        schema: Option<&Schema>,
        accept: Option<&str>,
        request_id: &str,
    ) -> Result<Response<Body>, Problem> {
        let Ok(_place) = self.calls.try_acquire() else { return Err(Problem::overloaded()) };
        let id = message.properties.message_id.clone().unwrap_or_default();
        let answered = match self.vitals.bus.call(message, Instant::now() + timeout).await {
            Ok(reply) => reply::answer(reply, schema, request_id),
            Err(error) => {
                self.vitals.metrics.called(&route.id, CallOutcome::Failed(error));
                return Err(Problem::call(error, &id));
            }
        };
        let Some(response) = answered else {
            tracing::warn!(route = route.id, "a worker's reply is not what it must be");
            self.vitals.metrics.called(&route.id, CallOutcome::InvalidReply);
            return Err(Problem::invalid_reply());
        };
        let good = response.status().as_u16() < 400;
        self.vitals.metrics.called(&route.id, if good { CallOutcome::Answered } else { CallOutcome::Problem });
        let given = text(response.headers(), &header::CONTENT_TYPE).unwrap_or_default();
        if good && !accepts(accept, &given) {
            return Err(Problem::not_acceptable(&given));
        }
        Ok(response)
    }

    /// The whole body, within the route's size and the time for all of it.
    async fn read_body(&self, route: &Route, headers: &HeaderMap, mut body: Incoming) -> Result<Bytes, Problem> {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let wanted = route.body.as_ref();
        let announced = body.size_hint().exact();
        let wrong_type = |wanted: &crate::route::table::Body| {
            let given = text(headers, &header::CONTENT_TYPE);
            let takes = given.is_some_and(|given| wanted.takes(&given));
            (!takes).then(|| Problem::unsupported_media_type(&wanted.content_type))
        };
        if announced.is_some_and(|size| size > 0)
            && let Some(problem) = wanted.and_then(wrong_type)
        {
            drain(&mut body).await;
            return Err(problem);
        }
        let limit = wanted.map_or(UNWANTED_BODY, |body| body.max_size);
        let within = self.settings.limits.body_timeout;
        let read = async {
            if announced.is_some_and(|size| size > limit) {
                return Ok(None);
            }
            let mut bytes = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| Problem::body_incomplete())?;
                if let Ok(data) = frame.into_data() {
                    if bytes.len() as u64 + data.len() as u64 > limit {
                        return Ok(None);
                    }
                    bytes.extend_from_slice(&data);
                }
            }
            Ok(Some(bytes.freeze()))
        };
        let bytes = match tokio::time::timeout(within, read).await {
            Err(_) => return Err(Problem::body_timeout(u64::try_from(within.as_millis()).unwrap_or(u64::MAX))),
            Ok(read) => read?,
        };
        let Some(bytes) = bytes else {
            drain(&mut body).await;
            return match wanted {
                Some(_) => Err(Problem::body_too_large(limit)),
                // Where no body is allowed its size does not matter: the mapping refuses it.
                None => Ok(Bytes::from_static(b"-")),
            };
        };
        match wanted.filter(|_| !bytes.is_empty()).and_then(wrong_type) {
            Some(problem) => Err(problem),
            None => Ok(bytes),
        }
    }
}

/// Reads on for a moment what nobody wants: a client that still sends when the connection closes would lose the answer.
async fn drain(body: &mut Incoming) {
    const MOST: usize = 16 * 1024 * 1024;
    const WITHIN: Duration = Duration::from_secs(1);
    let mut left = MOST;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(WITHIN, reading).await;
}

/// The route that a request is counted under.
#[derive(Default)]
struct Label {
    route: Option<Arc<Route>>,
}

impl Label {
    fn name(&self) -> &str {
        self.route.as_ref().map_or("none", |route| route.id.as_str())
    }
}

/// 404 or 405; the gateway's own paths and the page's files take GET and HEAD alone.
fn not_here(found: &Match<'_, '_>, path: &str, parts: &Parts) -> Problem {
    let mut allowed: Vec<&str> = match found {
        Match::WrongMethod(methods) => methods.iter().map(|method| method.name()).collect(),
        Match::Found(route, _) => vec![route.method.name()],
        Match::Nothing if assets::asset(path, &parts.headers).is_some() => vec!["GET"],
        Match::Nothing => return Problem::not_found(),
    };
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    Problem::method_not_allowed(&allowed.join(", "))
}

fn method(method: &HttpMethod) -> Option<Method> {
    let name = if method == HttpMethod::HEAD { "GET" } else { method.as_str() };
    Method::ALL.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
}

/// `Prefer` (RFC 7240): a list, in one header or several.
#[derive(Debug, Default)]
struct Prefer {
    minimal: bool,
    wait: Option<Duration>,
}

impl Prefer {
    fn of(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')) {
            let preference = preference.split(';').next().unwrap_or("");
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "return" if value == "minimal" => prefer.minimal = true,
                "wait" => prefer.wait = value.parse().ok().map(Duration::from_secs),
                _ => {}
            }
        }
        prefer
    }
}

/// Whether an `Accept` header (RFC 9110 section 12.5.1) lets a media type through; without one everything is.
fn accepts(accept: Option<&str>, given: &str) -> bool {
    let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else { return true };
    let given = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let kind = given.split('/').next().unwrap_or("");
    // The most specific range that names the type decides.
    let mut best: Option<(u8, bool)> = None;
    for range in accept.split(',') {
        let mut parameters = range.split(';').map(str::trim);
        let range = parameters.next().unwrap_or("").to_ascii_lowercase();
        let rank = match range.split_once('/') {
            _ if range == given => 3,
            Some((of, "*")) if of == kind => 2,
            Some(("*", "*")) => 1,
            _ => continue,
        };
        let quality = parameters.find_map(|parameter| parameter.strip_prefix("q=")).and_then(|q| q.parse::<f32>().ok());
        if best.is_none_or(|(known, _)| rank > known) {
            best = Some((rank, quality != Some(0.0)));
        }
    }
    best.is_some_and(|(_, wanted)| wanted)
}

/// Carries the request's id, both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The client's id when it is sane, else a new one.
pub fn request_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let given = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok()).filter(sane);
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// A header's values as one, the way a list is sent in several lines.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::accepts;

    #[test]
    fn accept_headers() {
        for (accept, expected) in [
            (None, true),
            (Some(""), true),
            (Some("*/*"), true),
            (Some("application/*;q=0.5, text/html"), true),
            (Some("text/html"), false),
            (Some("*/*, application/json;q=0"), false),
            (Some("application/json; q=0.0, */*"), false),
            (Some("text/html, */*;q=0.1"), true),
        ] {
            assert_eq!(accepts(accept, "application/json; charset=utf-8"), expected, "{accept:?}");
        }
    }
}
