//! The yardstick: a bare axum handler that parses, validates and answers, and keeps nothing.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::post,
};
use jsonschema::Validator;
use tokio::net::TcpListener;
use uuid::Uuid;

async fn keep(State(validator): State<Arc<Validator>>, body: Bytes) -> impl IntoResponse {
    let valid = serde_json::from_slice(&body).is_ok_and(|value| validator.is_valid(&value));
    let status = if valid { StatusCode::ACCEPTED } else { StatusCode::UNPROCESSABLE_ENTITY };
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{{\"id\":\"{}\"}}", Uuid::now_v7()))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let schema = serde_json::from_str(&std::fs::read_to_string("schemas/message.json")?)?;
    let validator = Arc::new(jsonschema::validator_for(&schema).map_err(|error| anyhow::anyhow!("{error}"))?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let router = Router::new().route("/api/v1/messages", post(keep)).with_state(validator);
    axum::serve(listener, router).await?;
    Ok(())
}
