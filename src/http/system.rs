//! The gateway's own paths: health, readiness, metrics, and what a browser needs to know of the feed.

use axum::{
    body::Body,
    http::{HeaderValue, Method, Response, StatusCode, header, request::Parts},
};
use serde_json::{Value, json};

use super::{feed, metrics::Readings, problem::Problem, state::Gateway};
use crate::{bus::Link, route::table::trimmed};

/// The answer to one of the gateway's own paths; `None` for all others.
pub async fn answer(gateway: &Gateway, parts: &mut Parts) -> Option<Result<Response<Body>, Problem>> {
    let path = trimmed(parts.uri.path()).to_owned();
    if !matches!(path.as_str(), "/healthz" | "/readyz" | "/metrics" | "/feed.json" | "/mqtt") {
        return None;
    }
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Some(Err(Problem::method_not_allowed("GET, HEAD")));
    }
    Some(match path.as_str() {
        "/healthz" => Ok(plain(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned())),
        "/readyz" => Ok(ready(gateway)),
        "/metrics" => Ok(metrics(gateway)),
        "/feed.json" => Ok(json_answer(StatusCode::OK, &feed_document(gateway))),
        _ => feed::upgrade(gateway, parts).await,
    })
}

fn ready(gateway: &Gateway) -> Response<Body> {
    let state = gateway.bus.state();
    let workers = (gateway.workers)();
    let ready = state.link == Link::Up
        && state.missing.is_empty()
        && state.refused.is_none()
        && !gateway.shutdown.is_cancelled();
    let mut body = json!({
        "ready": ready,
        "bus": state.link.word(),
        "generation": gateway.live.get().generation,
        "reload": *gateway.live.reloaded(),
        "workers": workers,
    });
    if let Some(object) = body.as_object_mut() {
        if !state.missing.is_empty() {
            object.insert("missing".into(), json!(state.missing));
        }
        if let Some(refused) = state.refused {
            object.insert("refused".into(), refused.into());
        }
    }
    json_answer(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

fn metrics(gateway: &Gateway) -> Response<Body> {
    let state = gateway.bus.state();
    let text = gateway.metrics.render(Readings {
        late_replies: state.late_replies,
        bus_up: state.link == Link::Up,
        generation: gateway.live.get().generation,
        reload_failures: gateway.live.failures(),
        feed_sessions: gateway.feed.as_ref().map_or(0, |feed| feed.session_count() as u64),
        feed_dropped: gateway.feed.as_ref().map_or(0, |feed| feed.dropped()),
    });
    plain(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text)
}

/// Where and what a browser subscribes. With a networked bus the user and password are the browser's: public, and
/// good for reading only.
fn feed_document(gateway: &Gateway) -> Value {
    let in_force = gateway.live.get();
    let topics: Vec<&str> = in_force.table.feed.iter().map(fpesa_workers::topic::Filter::as_str).collect();
    if gateway.feed.is_some() {
        return json!({ "url": "/mqtt", "protocol": "mqtt", "topics": topics });
    }
    let feed = &gateway.settings.feed;
    let url =
        feed.url.clone().unwrap_or_else(|| format!("ws://{}:15675/mqtt", bus_host(gateway.settings.bus.expose())));
    let mut document = json!({ "url": url, "protocol": "mqtt", "topics": topics });
    if let (Some(object), Some(password)) = (document.as_object_mut(), &feed.password) {
        object.insert("username".into(), json!(feed.username));
        object.insert("password".into(), password.expose().into());
    }
    document
}

/// The first host of the bus's URL.
fn bus_host(bus: &str) -> String {
    let first = bus.split(',').next().unwrap_or("");
    url::Url::parse(first).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| "localhost".into())
}

fn json_answer(status: StatusCode, body: &Value) -> Response<Body> {
    plain(status, "application/json", body.to_string())
}

fn plain(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
