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
use futures::FutureExt as _;
use hyper::body::{Body as _, Incoming};
use uuid::Uuid;

use super::{
    body::{self, BodyError, Pace},
    connection::Connection,
    intake::{self, BodyCheck, Prefer, Target, accepts, text},
    metrics::CallOutcome,
    problem::Problem,
    reply,
    state::Gateway,
    system,
};
use crate::{
    message::{Message, Outcome},
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
        // Nothing of the request outlives this: while the bus is waited for, its buffer is the connection's again.
        let (route, order, prefer, accept) = {
            let (mut parts, body) = request.into_parts();
            intake::limits(&parts.headers, &parts.uri)?;
            if let Some(taken) = system::own(&parts.method, parts.uri.path()) {
                taken?;
                return system::answer(self, &mut parts, connection).await;
            }
            let (route, values) = match intake::find(&in_force.table, &parts.method, parts.uri.path(), &parts.headers)?
            {
                Target::Route(route, values) => (route, values),
                Target::Page(file) => return Ok(file),
            };
            *found = Some(route.clone());
            intake::acceptable(route, &parts.headers)?;
            let body = self.read_body(route, &parts.headers, body, connection).await?;
            // Not before: those that send slowly would keep the places from those that are ready.
            _place = self.places.try_acquire().map_err(|_| Problem::overloaded())?;
            _under_way = self.vitals.metrics.under_way();
            let headers = intake::texts(route, &parts.headers)?;
            let request = intake::request(&parts.uri, &values, &headers, body);
            let prefer = Prefer::of(&parts.headers);
            let order = intake::order(route, &request, &prefer)?;
            let accept = match order {
                Order::Call { .. } => text(&parts.headers, &header::ACCEPT).map(Cow::into_owned),
                Order::Publish { .. } => None,
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
    async fn read_body(
        &self,
        route: &Route,
        headers: &HeaderMap,
        mut body: Incoming,
        connection: &Connection,
    ) -> Result<Bytes, Problem> {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let check = BodyCheck::new(route, headers);
        let announced = body.size_hint().exact();
        if let Err(problem) = check.announced(announced) {
            body::drain(&mut body).await;
            return Err(problem);
        }
        let limit = check.limit();
        let read = if announced.is_some_and(|size| size > limit) {
            Err(BodyError::TooLarge)
        } else {
            body::read(&mut body, limit, self.pace(), connection).await
        };
        let bytes = match read {
            Ok(bytes) => Some(bytes),
            Err(BodyError::TooLarge) => {
                body::drain(&mut body).await;
                None
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
        check.read(bytes)
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
