//! Checking bodies and replies without holding up anyone else: what is small is checked where it came in, within a number
//! of steps; what is not goes to a thread of its own, few at a time and within the time that the settings allow.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::Response,
};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{
    intake,
    problem::Problem,
    reply::{self, InvalidReply, ReplyError},
};
use crate::{
    message::Reply,
    route::{
        map::{self, CheckedBody, Reject},
        schema::Schema,
        table::Route,
        validator::Budget,
    },
};

/// Largest body that is checked where it came in, in bytes.
const MAX_INLINE_BYTES: usize = 64 * 1024;
/// Steps of it: a millisecond or two.
const MAX_INLINE_STEPS: u64 = 25_000;
/// How many times the limit of one check the wait for a thread may take.
const WAIT_FACTOR: u32 = 10;

/// Checks bodies and replies.
pub(super) struct Validation {
    /// How long one check may take.
    limit: Duration,
    /// Checks that run on threads of their own at the same time: a core is left for everyone else.
    threads: Arc<Semaphore>,
}

impl Validation {
    pub fn new(limit: Duration) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self { limit, threads: Arc::new(Semaphore::new(cores.saturating_sub(1).max(1))) }
    }

    /// Reads a body and holds it against the route's schema.
    pub async fn check_body(&self, route: &Arc<Route>, body: Bytes) -> Result<CheckedBody, Problem> {
        if body.len() <= MAX_INLINE_BYTES {
            match map::check_body(route, body.clone(), &mut Budget::steps(MAX_INLINE_STEPS)) {
                Err(Reject::Exhausted) => {}
                checked => return checked.map_err(|reject| Problem::rejected(&reject)),
            }
        }
        let route = route.clone();
        self.on_a_thread(move |budget| intake::check_body(&route, body, budget)).await?
    }

    /// The response that a reply stands for, or why there is none.
    pub async fn response(
        &self,
        reply: Reply,
        schema: Option<&Schema>,
        request_id: &str,
    ) -> Result<Response<Body>, InvalidReply> {
        const TOO_LONG: InvalidReply = "checking it against `reply.schema` takes too long";
        if schema.is_none() || reply.body.len() <= MAX_INLINE_BYTES {
            match reply::response(&reply, schema, request_id, &mut Budget::steps(MAX_INLINE_STEPS)) {
                Err(ReplyError::Exhausted) => {}
                Err(ReplyError::Invalid(reason)) => return Err(reason),
                Ok(response) => return Ok(response),
            }
        }
        let (schema, request_id) = (schema.cloned(), request_id.to_owned());
        let check = move |budget: &mut Budget| reply::response(&reply, schema.as_ref(), &request_id, budget);
        match self.on_a_thread(check).await {
            Ok(Err(ReplyError::Invalid(reason))) => Err(reason),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(ReplyError::Exhausted)) | Err(_) => Err(TOO_LONG),
        }
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        check: impl FnOnce(&mut Budget) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let wait = self.limit.saturating_mul(WAIT_FACTOR);
        let Ok(Ok(permit)) = tokio::time::timeout(wait, self.threads.clone().acquire_owned()).await else {
            return Err(Problem::overloaded());
        };
        let limit = self.limit;
        let checked = spawn_blocking(move || {
            let _permit = permit;
            check(&mut Budget::until(Instant::now() + limit))
        });
        checked.await.map_err(|error| {
            tracing::error!(%error, "checking a body failed");
            Problem::internal()
        })
    }
}
