//! `fpesa health`: whether a gateway or worker on this machine is ready, for a container's health check.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::anyhow;
use hyper::{Request, StatusCode};
use serde_json::Value;

use super::patience::Tried;
use crate::{
    ask,
    output::{note, say},
    settings::Settings,
};

/// A process that can do its work answers sooner.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Asks `/readyz` once, and prints what keeps the process from being ready.
pub async fn health(settings: &Settings, url: Option<&str>) -> anyhow::Result<bool> {
    let base = ask::address(&url.map_or_else(|| local_url(settings), str::to_owned))?;
    let asked = ask::once(&base, Request::get("/readyz"));
    let late = |_| anyhow!("{base} does not answer within {} s", ANSWER_WITHIN.as_secs());
    let answer = match tokio::time::timeout(ANSWER_WITHIN, asked).await.map_err(late)?? {
        Tried::Done(answer) => answer,
        Tried::Away(why) => return Err(anyhow!("nothing answers at {base}: {why}")),
    };
    if answer.status() == StatusCode::OK {
        say("ready")?;
        return Ok(true);
    }
    let state: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    let why = ["bus", "store", "degraded", "missing"].iter().filter(|key| !state[**key].is_null());
    let why: Vec<String> = why.map(|key| format!("{key}: {}", state[*key])).collect();
    note(&format!("fpesa: {base} is not ready ({}) {}", answer.status().as_u16(), why.join(", ")));
    Ok(false)
}

/// The setting `listen` as an address to connect to: a process that listens on every address is reached on loopback.
fn local_url(settings: &Settings) -> String {
    let mut address = settings.listen;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{address}")
}
