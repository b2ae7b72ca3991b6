//! How a process does: readiness and metrics, told alike by a gateway and by workers that listen.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header},
};
use fpesa_workers::memory::MemoryBudget;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    degraded::Degraded,
    gateway::{PREFERENCE_APPLIED, REQUEST_ID, request_id},
    head::{HostPolicy, check_head, request_host},
    intake::Prefer,
    metrics::{Metrics, Readings},
    origin,
    problem::Problem,
};
use crate::{
    bus::{Bus, BusState, Link},
    feed::Feed,
    live::Live,
    reload::{Answer, Ask},
    route::table::trimmed,
};

/// How long the store may take to say that it is there.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// A look at something that may take a while.
pub type Look = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// What a process is asked about itself.
pub struct Vitals {
    /// The table.
    pub live: Arc<Live>,
    /// Where messages go.
    pub bus: Arc<dyn Bus>,
    /// The embedded feed; `None` with a networked bus.
    pub feed: Option<Arc<Feed>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What large bodies, replies and pages are counted in.
    pub memory: Arc<MemoryBudget>,
    /// This process's own workers.
    pub workers: Arc<dyn Fn() -> Consuming + Send + Sync>,
    /// Looks whether this process's own workers could do their work, their store being there; `None` without workers.
    pub able: Option<Look>,
    /// Asks for a look at the table's files.
    pub reload: Ask,
    /// Which hosts are answered for.
    pub hosts: HostPolicy,
    /// Ends everything.
    pub shutdown: CancellationToken,
    /// Cancelled by the first signal: `/readyz` is 503 from then on, and answers close their connections.
    pub stopping: CancellationToken,
}

/// The workers of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consuming {
    /// Names of those that consume now, sorted.
    pub names: Vec<String>,
    /// Whether all of them do.
    pub all: bool,
}

impl Vitals {
    /// `/readyz` of a gateway: it is ready while the bus takes messages and any route serves; `all` asks for every route
    /// and queue.
    pub(super) async fn gateway_ready(&self, all: bool) -> Response<Body> {
        let store = self.store_is_there().await;
        let state = self.bus.state();
        let degraded = Degraded::routes(&self.live.get().table, &state);
        self.ready(&state, store, degraded.serves && !(all && degraded.any()), &degraded)
    }

    /// `/readyz` of workers: they need their store, and their queues.
    async fn workers_ready(&self, all: bool) -> Response<Body> {
        let store = self.store_is_there().await;
        let state = self.bus.state();
        let degraded = Degraded::workers(&self.live.get().table, &state);
        let able = store != Some(false) && (self.workers)().all;
        self.ready(&state, store, able && !(all && degraded.any()), &degraded)
    }

    fn ready(&self, state: &BusState, store: Option<bool>, able: bool, degraded: &Degraded) -> Response<Body> {
        let ready = able && state.link == Link::Up && !self.stopping.is_cancelled();
        let mut body = json!({
            "ready": ready,
            "bus": state.link.word(),
            "generation": self.live.get().generation,
            "reload": *self.live.reloaded(),
            "workers": (self.workers)().names,
        });
        if let Some(object) = body.as_object_mut() {
            if let Some(there) = store {
                object.insert("store".into(), if there { "up" } else { "down" }.into());
            }
            if !state.missing.is_empty() {
                object.insert("missing".into(), json!(state.missing));
            }
            if degraded.any() {
                object.insert("degraded".into(), json!(degraded.entries));
            }
        }
        json_answer(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
    }

    /// `POST /reload`: looks at the table's files at once, and answers whether they are in force. It tells nothing that
    /// `/readyz` does not, and does nothing that an edit does not: whoever reaches the port may ask, other origins' pages
    /// may not, whatever `cors.origins` names.
    pub(super) async fn reload(
        &self,
        method: &Method,
        headers: &HeaderMap,
        host: &str,
    ) -> Result<Response<Body>, Problem> {
        if *method != Method::POST {
            return Err(Problem::method_not_allowed("POST"));
        }
        self.hosts.check_operator(host)?;
        origin::check(headers, host, &[])?;
        if Prefer::of(headers).respond_async {
            self.reload.begin().ok_or_else(Problem::overloaded)?;
            let mut response = json_answer(StatusCode::ACCEPTED, &json!({ "generation": self.live.get().generation }));
            response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static("respond-async"));
            return Ok(response);
        }
        let Answer { generation, reloaded } = self.reload.wait().await.ok_or_else(Problem::overloaded)?;
        if !reloaded.ok {
            return Err(Problem::reload_refused(generation, &reloaded));
        }
        let body = json!({
            "generation": generation,
            "time": reloaded.time,
            "change": reloaded.change,
            "problems": reloaded.problems,
            "digest": reloaded.digest,
        });
        Ok(json_answer(StatusCode::OK, &body))
    }

    pub(super) async fn metrics(&self) -> Response<Body> {
        let store_up = self.store_is_there().await;
        let state = self.bus.state();
        let text = self.metrics.render(Readings {
            late_replies: state.late_replies,
            bus_up: state.link == Link::Up,
            store_up,
            generation: self.live.get().generation,
            reload_failures: self.live.failures(),
            reload_ok: self.live.reloaded().ok,
            memory_held: self.memory.held() as u64,
            memory_limit: self.memory.limit() as u64,
            feed_sessions: self.feed.as_ref().map_or(0, |feed| feed.session_count() as u64),
            feed_dropped: self.feed.as_ref().map_or(0, |feed| feed.dropped()),
        });
        plain(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text)
    }

    /// Whether the store answers now, and takes what workers hold; `None` in a process that has none.
    async fn store_is_there(&self) -> Option<bool> {
        let look = self.able.as_ref()?;
        Some(tokio::time::timeout(LOOK_WITHIN, look()).await.unwrap_or(false))
    }

    /// Answers a request to workers that listen: health, readiness and metrics, and nothing else.
    pub async fn handle<B>(self: Arc<Self>, request: Request<B>) -> Response<Body> {
        let id = request_id(request.headers());
        let mut response = self.answer(&request).await.unwrap_or_else(|problem| problem.into_response(&id));
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        response
    }

    async fn answer<B>(&self, request: &Request<B>) -> Result<Response<Body>, Problem> {
        check_head(request.headers(), request.uri())?;
        let host = request_host(request.headers(), request.uri(), request.version())?;
        let path = trimmed(request.uri().path());
        if path == "/reload" {
            return self.reload(request.method(), request.headers(), host).await;
        }
        self.hosts.check_probe(host)?;
        if !matches!(path, "/healthz" | "/readyz" | "/metrics") {
            return Err(Problem::not_found());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Problem::method_not_allowed("GET, HEAD"));
        }
        Ok(match path {
            "/readyz" => self.workers_ready(asks_for_all(request.uri().query())).await,
            "/metrics" => self.metrics().await,
            _ => healthy(),
        })
    }
}

/// Whether the query of `/readyz` asks for all: `?all`, or `?all=` with anything but `0` and `false`.
pub(super) fn asks_for_all(query: Option<&str>) -> bool {
    query.unwrap_or_default().split('&').any(|part| match part.split_once('=') {
        Some(("all", value)) => !matches!(value, "0" | "false"),
        _ => part == "all",
    })
}

pub(super) fn healthy() -> Response<Body> {
    plain(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned())
}

pub(super) fn json_answer(status: StatusCode, body: &Value) -> Response<Body> {
    plain(status, "application/json", body.to_string())
}

fn plain(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
