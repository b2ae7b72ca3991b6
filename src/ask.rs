//! One request to a running gateway, for the commands that ask one.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Response, http::request::Builder};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::Url;

use crate::app::Usage;

/// Largest answer that is read, in bytes.
const MOST: usize = 16 * 1024 * 1024;
/// How long an answer may take in all.
const WITHIN: Duration = Duration::from_secs(60);

/// A gateway's address, as in `http://127.0.0.1:8080`.
pub fn address(text: &str) -> Result<Url, Usage> {
    let url = Url::parse(text).ok().filter(Url::has_host);
    url.ok_or_else(|| Usage(format!("`{text}` is no address: write it as in http://127.0.0.1:8080")))
}

/// Asks the gateway at `base`.
pub async fn gateway(base: &Url, request: Builder) -> anyhow::Result<Response<Bytes>> {
    let late = |_| anyhow!("{base} does not answer within {} s", WITHIN.as_secs());
    tokio::time::timeout(WITHIN, ask(base, request)).await.map_err(late)?
}

async fn ask(base: &Url, request: Builder) -> anyhow::Result<Response<Bytes>> {
    if base.scheme() != "http" {
        return Err(Usage(format!(
            "`{base}` is not http: TLS is not spoken here, so give the gateway's inner address"
        ))
        .into());
    }
    let host = base.host_str().unwrap_or("127.0.0.1");
    let port = base.port_or_known_default().unwrap_or(80);
    let away = || format!("no gateway answers at {base}: start one with `fpesa up`, or name another with --url");
    // An IPv6 address stands in brackets in a URL.
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((plain, port)).await.with_context(away)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.with_context(away)?;
    tokio::spawn(connection);
    let request = request.header("host", format!("{host}:{port}")).body(Empty::<Bytes>::new())?;
    let (parts, body) = sender.send_request(request).await.with_context(away)?.into_parts();
    let body = Limited::new(body, MOST).collect().await.map_err(|error| anyhow!("{base}: {error}"))?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}
