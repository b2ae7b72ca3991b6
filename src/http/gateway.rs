//! The one generic handler: a request finds its route, is mapped to an order, and the bus's answer becomes a status.

use std::{
    borrow::Cow,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header},
};
use fpesa_workers::memory::{Held, MIN_COUNTED_BYTES, OverBudget};
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use uuid::Uuid;

use super::{
    body::{self, BodyError, Pace},
    connection::Connection,
    head::{check_head, expects_continue, request_host},
    intake::{self, BodyCheck, Prefer, Target, accepts, text},
    metrics::CallOutcome,
    origin,
    problem::Problem,
    state::Gateway,
    system,
};
use crate::{
    message::{CallError, Message, Outcome},
    route::{
        map::Order,
        schema::Schema,
        table::{Publish, Route},
    },
};

impl Gateway {
    /// Answers one request; never fails.
    pub async fn handle(&self, request: Request<Incoming>, connection: &Connection) -> Response<Body> {
        let start = Instant::now();
        let request_id = request_id(request.headers());
        // What it is counted under.
        let mut found = None;
        let answer = AssertUnwindSafe(self.answer(request, connection, &request_id, &mut found)).catch_unwind().await;
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
        let (status, took) = (response.status().as_u16(), start.elapsed());
        self.vitals.metrics.answered(found.as_ref().map(|route| route.id.as_str()), status, took);
        if let Some(route) = &found {
            self.pulse.answered(&route.action, status, took);
        }
        response
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        connection: &Connection,
        request_id: &str,
        found: &mut Option<Arc<Route>>,
    ) -> Result<Response<Body>, Problem> {
        let in_force = self.vitals.live.get();
        let (_place, _under_way);
        // The body's bytes count until the bus is done with what became of them.
        let _held;
        // Nothing of the request outlives this: while the bus is waited for, its buffer is the connection's again.
        let (route, order, prefer, accept) = {
            let (mut parts, incoming) = request.into_parts();
            check_head(&parts.headers, &parts.uri)?;
            let host = request_host(&parts.headers, &parts.uri, parts.version)?;
            if let Some(taken) = system::own(&parts.method, parts.uri.path()) {
                system::check_host(&self.vitals.hosts, parts.uri.path(), host)?;
                taken?;
                return system::answer(self, &mut parts, connection)
                    .await
                    .and_then(|answer| self.within_memory(answer));
            }
            self.vitals.hosts.check_public(host)?;
            let (route, values) = match intake::find(&in_force.table, &parts.method, parts.uri.path(), &parts.headers)?
            {
                Target::Route(route, values) => (route, values),
                Target::Page(file) => return Ok(file),
            };
            *found = Some(route.clone());
            if !parts.method.is_safe() {
                origin::check(&parts.headers, host, &self.settings.cors.origins)?;
            }
            let body;
            (body, _held) = self.read_body(route, &parts.headers, incoming, connection).await?;
            // Not before: those that send slowly would keep the places from those that are ready.
            _place = self.places.try_acquire().map_err(|_| Problem::overloaded())?;
            _under_way = self.vitals.metrics.under_way();
            let body = self.validation.check_body(route, body).await?;
            let headers = intake::texts(route, &parts.headers)?;
            let request = intake::request(&parts.uri, &values, &headers, body);
            let prefer = Prefer::of(&parts.headers);
            let order = intake::order(route, &request, &prefer)?;
            // What a call has done is not undone by ruling out its answer: only where nothing is changed can it be refused.
            let accept = match order {
                Order::Call { .. } if parts.method.is_safe() => {
                    text(&parts.headers, &header::ACCEPT).map(Cow::into_owned)
                }
                Order::Call { .. } | Order::Publish { .. } => None,
            };
            (route, order, prefer, accept)
        };
        match order {
            Order::Publish { message, id, publish, location } => {
                self.publish(route, message, &id, publish, location, &prefer).await
            }
            Order::Call { message, timeout, reply } => {
                self.call(route, message, timeout, reply, accept.as_deref(), request_id).await
            }
        }
    }

    /// An answer of the gateway's own; a large one that was made for this request alone is counted until it is sent.
    fn within_memory(&self, answer: Response<Body>) -> Result<Response<Body>, Problem> {
        let is_shared = answer.headers().contains_key(header::ETAG);
        let size = answer.body().size_hint().exact().and_then(|size| usize::try_from(size).ok()).unwrap_or_default();
        if is_shared || size < MIN_COUNTED_BYTES {
            return Ok(answer);
        }
        let mut held = Some(self.vitals.memory.hold(size).map_err(|OverBudget| Problem::out_of_memory())?);
        // Text of ours is one frame, which counts until its last byte is sent.
        let mut guard = move |bytes| match held.take() {
            Some(held) => held.guard(bytes),
            None => bytes,
        };
        Ok(answer.map(|body| Body::new(body.map_frame(move |frame| frame.map_data(&mut guard)))))
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
        let refused = self.vitals.bus.refuses(&message);
        let outcome = match refused {
            Some(_) => Outcome::Unroutable,
            None => self.vitals.bus.publish(message, Instant::now() + publish.confirm_timeout).await,
        };
        self.vitals.metrics.published(&route.id, outcome);
        self.pulse.published(outcome);
        if let Some(why) = refused {
            return Err(Problem::unroutable_because(&why));
        }
        if outcome != Outcome::Routed {
            return Err(Problem::publish(outcome, id));
        }
        let minimal = prefer.minimal || publish.status == 204;
        let mut response =
            Response::new(if minimal { Body::empty() } else { Body::from([r#"{"id":""#, id, r#""}"#].concat()) });
        *response.status_mut() = StatusCode::from_u16(publish.status).unwrap_or(StatusCode::ACCEPTED);
        let headers = response.headers_mut();
        if !minimal {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if prefer.minimal {
            headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("return=minimal"));
        }
        if let Some(location) = location.and_then(|location| HeaderValue::from_maybe_shared(Bytes::from(location)).ok())
        {
            headers.insert(header::LOCATION, location);
        }
        Ok(response)
    }

    async fn call(
        &self,
        route: &Route,
        mut message: Message,
        timeout: Duration,
        schema: Option<&Schema>,
        accept: Option<&str>,
        request_id: &str,
    ) -> Result<Response<Body>, Problem> {
        let Ok(_place) = self.calls.try_acquire() else { return Err(Problem::overloaded()) };
        // Made here so that a problem can name the one that was on the wire.
        let correlation = Uuid::now_v7().to_string();
        message.properties.correlation_id = Some(correlation.clone());
        let id = message.properties.message_id.clone().unwrap_or_default();
        let reply = match self.vitals.bus.call(message, Instant::now() + timeout).await {
            Ok(reply) => reply,
            Err(error) => {
                if error == CallError::ReplyTooLarge {
                    let limit = self.settings.reply.max_size;
                    tracing::warn!(
                        route = route.id,
                        id,
                        limit,
                        request_id,
                        "a worker's reply is over `reply.max_size`"
                    );
                }
                self.vitals.metrics.called(&route.id, CallOutcome::Failed(error));
                return Err(Problem::call(error, &correlation));
            }
        };
        let correlation_id = reply.properties.correlation_id.clone();
        let response = self.validation.response(reply, schema, request_id).await.map_err(|reason| {
            tracing::warn!(route = route.id, reason, correlation_id, request_id, "a worker's reply can't be passed on");
            self.vitals.metrics.called(&route.id, CallOutcome::InvalidReply);
            Problem::invalid_reply()
        })?;
        let good = response.status().as_u16() < 400;
        self.vitals.metrics.called(&route.id, if good { CallOutcome::Answered } else { CallOutcome::Problem });
        match text(response.headers(), &header::CONTENT_TYPE) {
            Some(given) if good && !accepts(accept, &given) => Err(Problem::not_acceptable(&given)),
            _ => Ok(response),
        }
    }

    /// The whole body, within the route's size and the time for all of it. With what is held for a large one.
    async fn read_body(
        &self,
        route: &Route,
        headers: &HeaderMap,
        mut body: Incoming,
        connection: &Connection,
    ) -> Result<(Bytes, Option<Held>), Problem> {
        if body.is_end_stream() {
            return Ok((Bytes::new(), None));
        }
        let check = BodyCheck::new(route, headers);
        let announced = body.size_hint().exact();
        // Who waits for `100 Continue` is answered without: it sends no body then.
        let waits = expects_continue(headers);
        if waits && check.wants_none() {
            return Ok((BodyCheck::unwanted(), None));
        }
        if let Err(problem) = check.announced(announced) {
            if !waits {
                body::drain(&mut body).await;
            }
            return Err(problem);
        }
        let limit = check.limit();
        let read = body::read(&mut body, limit, self.pace(), connection, &self.vitals.memory).await;
        let (bytes, held) = match read {
            Ok((bytes, held)) => (Some(bytes), held),
            Err(BodyError::TooLarge) => {
                body::drain(&mut body).await;
                (None, None)
            }
            Err(BodyError::OverBudget) => {
                body::drain(&mut body).await;
                return Err(Problem::out_of_memory());
            }
            Err(BodyError::Incomplete) => return Err(Problem::body_incomplete()),
            Err(error @ (BodyError::Timeout | BodyError::TooSlow)) => {
                let limits = &self.settings.limits;
                let limit_ms = u64::try_from(limits.body_timeout.as_millis()).unwrap_or(u64::MAX);
                return Err(match (error, limits.min_body_rate) {
                    (BodyError::TooSlow, Some(rate)) => Problem::body_too_slow(rate, limit_ms),
                    _ => Problem::body_timeout(limit_ms),
                });
            }
        };
        Ok((check.read(bytes)?, held))
    }

    fn pace(&self) -> Pace {
        Pace { timeout: self.settings.limits.body_timeout, min_rate: self.settings.limits.min_body_rate }
    }
}

/// Carries the request's id, both ways.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The client's id when it is sane, else a new one.
pub fn request_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let given = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok()).filter(sane);
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}
