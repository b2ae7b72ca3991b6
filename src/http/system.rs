//! The gateway's own paths: health, readiness, metrics, the documents, and what a browser needs to know of the feed.

use std::borrow::Cow;

use axum::{
    body::Body,
    http::{Method, Response, StatusCode, request::Parts},
};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    assets,
    connection::Connection,
    documents::{self, Which},
    feed,
    head::{HostPolicy, request_host},
    problem::Problem,
    state::Gateway,
    table,
    vitals::{asks_for_all, healthy, json_answer},
};
use crate::{route::table::trimmed, settings::bus_addresses};

/// Whether a path is one of the gateway's own, and whether it takes the method; `None` for all others.
pub fn own(method: &Method, path: &str) -> Option<Result<(), Problem>> {
    let (taken, allow) = match &*own_name(path) {
        "/healthz" | "/readyz" | "/metrics" | "/feed.json" | "/mqtt" | "/openapi.json" | "/asyncapi.json" | "/docs"
        | "/table.json" | "/pulse.json" => (matches!(*method, Method::GET | Method::HEAD), "GET, HEAD"),
        "/reload" => (*method == Method::POST, "POST"),
        _ => return None,
    };
    Some(if taken { Ok(()) } else { Err(Problem::method_not_allowed(allow)) })
}

/// A path without its trailing slash, and with what needs no escape written plainly: both spellings are one path (RFC 3986
/// section 6.2.2.2).
fn own_name(path: &str) -> Cow<'_, str> {
    if path.contains('%') {
        let plain = percent_decode_str(path).decode_utf8_lossy();
        // An escaped slash separates nothing.
        if !plain.contains('%') && plain.matches('/').count() == path.matches('/').count() {
            return trimmed(&plain).to_owned().into();
        }
    }
    trimmed(path).into()
}

/// Whether a path of the gateway's own is answered for a host.
pub fn check_host(hosts: &HostPolicy, path: &str, host: &str) -> Result<(), Problem> {
    match &*own_name(path) {
        "/reload" => hosts.check_operator(host),
        "/healthz" | "/readyz" | "/metrics" => hosts.check_probe(host),
        _ => hosts.check_public(host),
    }
}

/// The answer to a request that [`own`] takes.
pub async fn answer(gateway: &Gateway, parts: &mut Parts, connection: &Connection) -> Result<Response<Body>, Problem> {
    let path = own_name(parts.uri.path()).into_owned();
    match path.as_str() {
        "/healthz" => Ok(healthy()),
        "/readyz" => Ok(gateway.vitals.gateway_ready(asks_for_all(parts.uri.query())).await),
        "/metrics" => Ok(gateway.vitals.metrics().await),
        "/openapi.json" => documents::answer(gateway, Which::OpenApi, &parts.headers).await,
        "/asyncapi.json" => documents::answer(gateway, Which::AsyncApi, &parts.headers).await,
        "/docs" => assets::asset("/docs.html", &parts.headers).ok_or_else(Problem::not_found),
        "/reload" => {
            let host = request_host(&parts.headers, &parts.uri, parts.version)?;
            gateway.vitals.reload(&parts.method, &parts.headers, host).await
        }
        "/feed.json" => Ok(json_answer(StatusCode::OK, &feed_document(gateway))),
        "/table.json" => Ok(json_answer(StatusCode::OK, &table::document(&gateway.vitals))),
        "/pulse.json" => Ok(json_answer(StatusCode::OK, &gateway.pulse.document())),
        _ => feed::upgrade(gateway, parts, connection).await,
    }
}

/// Where and what a browser subscribes. With a networked bus the user and password are the browser's: public, and
/// good for reading only.
fn feed_document(gateway: &Gateway) -> Value {
    let in_force = gateway.vitals.live.get();
    let topics: Vec<&str> = in_force.table.feed.iter().map(fpesa_workers::topic::Filter::as_str).collect();
    if gateway.vitals.feed.is_some() {
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
    let first = bus_addresses(bus).ok().and_then(|addresses| addresses.into_iter().next());
    let host = first.map(|address| address.host).filter(|host| !host.is_empty());
    host.map_or_else(|| "localhost".into(), |host| if host.contains(':') { format!("[{host}]") } else { host })
}
