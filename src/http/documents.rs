//! `/openapi.json` and `/asyncapi.json`: made once for each table in force, when somebody asks.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::{assets::is_known, problem::Problem, state::Gateway};
use crate::docs;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The HTTP side.
    OpenApi,
    /// The messages.
    AsyncApi,
}

/// Documents of one table; kept until another is in force.
#[derive(Debug, Default)]
pub struct Documents(Mutex<Option<Made>>);

#[derive(Debug, Clone)]
struct Made {
    generation: u64,
    openapi: Document,
    asyncapi: Document,
}

#[derive(Debug, Clone)]
struct Document {
    text: Bytes,
    /// Quoted, from the text's hash: all gateways of one table give the same.
    tag: String,
}

impl Document {
    fn new(value: &serde_json::Value) -> Self {
        let text = value.to_string();
        let hash: String = Sha256::digest(&text).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self { text: text.into(), tag: format!("\"{hash}\"") }
    }
}

/// The document of the table in force.
pub async fn answer(gateway: &Gateway, which: Which, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
    let made = made(gateway).await?;
    let document = match which {
        Which::OpenApi => made.openapi,
        Which::AsyncApi => made.asyncapi,
    };
    let unchanged = is_known(headers, &document.tag);
    let mut response = Response::new(if unchanged { Body::empty() } else { Body::from(document.text) });
    let out = response.headers_mut();
    if !unchanged {
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&document.tag) {
        out.insert(header::ETAG, tag);
    }
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    Ok(response)
}

async fn made(gateway: &Gateway) -> Result<Made, Problem> {
    // Held while they are made: who asks meanwhile waits for the same ones.
    let mut kept = gateway.documents.0.lock().await;
    let in_force = gateway.vitals.live.get();
    if let Some(made) = kept.as_ref().filter(|made| made.generation == in_force.generation) {
        return Ok(made.clone());
    }
    let settings = gateway.settings.clone();
    // Of a large table it takes a while, in which others are answered.
    let making = tokio::task::spawn_blocking(move || Made {
        generation: in_force.generation,
        openapi: Document::new(&docs::openapi(&in_force.table, &settings)),
        asyncapi: Document::new(&docs::asyncapi(&in_force.table, &settings)),
    });
    let made = making.await.map_err(|error| {
        tracing::error!(%error, "the documents of the table could not be made");
        Problem::internal()
    })?;
    *kept = Some(made.clone());
    Ok(made)
}
