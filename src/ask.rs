//! One request to a running gateway, for the commands that ask one.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Response, http::request::Builder};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use url::Url;

use crate::{
    app::Usage,
    commands::patience::{Limit, Patience, Tried},
    settings::mask_line,
};

/// Largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// How long an answer may take in all.
const WITHIN: Duration = Duration::from_secs(60);

/// Where a gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// As requests name it; its host is `localhost` for a socket.
    pub url: Url,
    /// The socket, where it is no address of a network.
    pub socket: Option<PathBuf>,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.socket {
            Some(socket) => write!(f, "unix:{}", socket.display()),
            None => f.write_str(self.url.as_str().trim_end_matches('/')),
        }
    }
}

/// A gateway's address, as in `http://127.0.0.1:8080` or `unix:/run/fpesa.sock`.
pub fn address(text: &str) -> Result<Address, Usage> {
    let wrong = |why: &str| Usage(format!("`{}` {why}: write it as in http://127.0.0.1:8080", mask_line(text)));
    if let Some(socket) = text.strip_prefix("unix:").filter(|socket| !socket.is_empty()) {
        let url = Url::parse("http://localhost").map_err(|_| wrong("is not an address"))?;
        return Ok(Address { url, socket: Some(socket.into()) });
    }
    let url = Url::parse(text).ok().filter(Url::has_host).ok_or_else(|| wrong("is not an address"))?;
    if url.scheme() != "http" {
        return Err(wrong("is not http: TLS is not spoken here, so give the gateway's inner address"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("has a user or a password, and a gateway takes neither"));
    }
    Ok(Address { url, socket: None })
}

/// Asks the gateway at `base`, once. [`Tried::Away`] when nothing answers there.
pub async fn once(base: &Address, request: Builder) -> anyhow::Result<Tried<Response<Bytes>>> {
    match tokio::time::timeout(WITHIN, ask(base, request)).await {
        Ok(asked) => asked,
        Err(_) => Err(anyhow!("{base} does not answer within {} s", WITHIN.as_secs())),
    }
}

/// Asks the gateway at `base`. One that is not there is waited for.
pub async fn gateway(
    base: &Address,
    request: impl Fn() -> Builder,
    patience: &mut Patience,
) -> anyhow::Result<Response<Bytes>> {
    loop {
        match once(base, request()).await? {
            Tried::Done(response) => return Ok(response),
            Tried::Away(why) => patience.pause(&why).await?,
        }
    }
}

/// The patience with a gateway.
pub fn patience(base: &Address, limit: Limit) -> Patience {
    Patience::new(format!("the gateway at {base}"), limit)
}

async fn ask(base: &Address, request: Builder) -> anyhow::Result<Tried<Response<Bytes>>> {
    let host = base.url.host_str().unwrap_or("127.0.0.1");
    let port = base.url.port_or_known_default().unwrap_or(80);
    let request = request.header("host", format!("{host}:{port}")).body(Empty::<Bytes>::new())?;
    // An IPv6 address stands in brackets in a URL.
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    let answered = match &base.socket {
        Some(socket) => match UnixStream::connect(socket).await {
            Ok(stream) => exchange(stream, request).await,
            Err(error) => return Ok(Tried::Away(error.to_string())),
        },
        None => match TcpStream::connect((plain, port)).await {
            Ok(stream) => exchange(stream, request).await,
            Err(error) => return Ok(Tried::Away(error.to_string())),
        },
    };
    Ok(Tried::Done(answered.with_context(|| format!("{base} does not answer as a gateway does"))?))
}

async fn exchange<S>(stream: S, request: hyper::Request<Empty<Bytes>>) -> anyhow::Result<Response<Bytes>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection, which ends with this request.
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| anyhow!("{error}"))?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}
