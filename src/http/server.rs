//! Serving connections: a bound listener, a handler, and a token that ends it all within its time.

use std::{convert::Infallible, future::poll_fn, io, net::SocketAddr, pin::Pin, sync::Arc, task::Poll, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, Request, Response, StatusCode, header},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
#[cfg(target_os = "linux")]
use socket2::SockFilter;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{self, Connection},
    connection_io::ConnectionIo,
    connections::{Admission, ConnectionLimits, Connections, Place},
};
use crate::damper::Damper;

/// How often silent connections are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How long a new connection waits before it is looked again whether another one has become idle.
const FULL_RETRY: Duration = Duration::from_millis(50);
/// Pause after a connection could not be accepted, such as for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long WebSockets may take to say goodbye when everything else has finished.
const UPGRADED_DRAIN: Duration = Duration::from_secs(1);
/// Most bytes that are read of a head before it is refused; heads that the gateway takes are smaller. Without it every
/// connection could hold 400 KiB.
const MAX_READ_BUFFER: usize = 96 * 1024;
/// Bytes of an answer that may be with the operating system and not yet on the wire. It is what makes a slow reader's
/// progress visible, and bounds what it costs there.
const MAX_UNSENT_BYTES: u32 = 128 * 1024;
/// A client that vanished without a word is found out after about a minute and a half.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a connection without a request stays open once nothing new is accepted.
const KEPT_CONNECTION_GRACE: Duration = Duration::from_millis(250);
/// One line in so long about the same trouble.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How serving ends, in its order.
#[derive(Debug, Clone)]
pub struct Ending {
    /// From here on each answer closes its connection, so that a proxy's kept connections end without a request lost.
    pub stopping: CancellationToken,
    /// Nothing new is accepted.
    pub shutdown: CancellationToken,
    /// What is under way then has so long to finish.
    pub drain: Duration,
}

/// Serves until `ending.shutdown` is cancelled and what is under way has finished.
pub async fn serve<H, F>(listener: TcpListener, handler: H, limits: ConnectionLimits, ending: Ending)
where
    H: Fn(Request<Incoming>, Arc<Connection>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let Ending { stopping, shutdown, drain } = ending;
    set_options(&listener);
    let connections = Connections::new(limits);
    let mut tasks = JoinSet::new();
    let mut sweep = interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let [not_accepted, refused, shed] = [(); 3].map(|()| Damper::new(LOG_INTERVAL));
    loop {
        // Finished connections are forgotten as we go.
        while tasks.try_join_next().is_some() {}
        let (stream, peer) = tokio::select! {
            () = shutdown.cancelled() => break,
            () = stopping.cancelled(), if !connections.are_closing() => {
                connections.close_after_answers();
                continue;
            }
            _ = sweep.tick() => {
                let closed = connections.close_expired();
                if closed > 0 && let Some(more) = shed.pass(closed) {
                    tracing::warn!(closed = more, "a connection limit is reached: the oldest idle connections are closed for new ones");
                }
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // A connection that failed before it was ours is no matter.
                Err(error) if is_the_clients(&error) => continue,
                Err(error) => {
                    if let Some(times) = not_accepted.pass(1) {
                        tracing::error!(%error, times, "connections can't be accepted");
                    }
                    connections.shed_oldest();
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
        };
        let place = tokio::select! {
            // What is accepted is served where there is a place, though nothing more is accepted from now on.
            biased;
            place = place(&connections, peer.ip()) => place,
            () = shutdown.cancelled() => break,
        };
        let Some(place) = place else {
            if let Some(times) = refused.pass(1) {
                tracing::warn!(address = %peer.ip(), times, "an address has more connections than limits.per_address: refused");
            }
            continue;
        };
        tasks.spawn(serve_connection(stream, place, handler.clone(), connections.clone()));
    }
    connections.close_after_answers();
    // A client whose connection the system has established already may have sent its request: it is answered.
    for (stream, peer) in accept_established(listener) {
        if let Admission::Admitted(place) = connections.admit(Some(peer.ip())) {
            tasks.spawn(serve_connection(stream, place, handler.clone(), connections.clone()));
        }
    }
    // A request that is on its way on a kept connection is answered too; a connection on which none comes is closed then.
    let grace = KEPT_CONNECTION_GRACE.min(drain / 4);
    let _ = tokio::time::timeout(grace, all_finished(&mut tasks)).await;
    connections.drain();
    if tokio::time::timeout(drain.saturating_sub(grace), all_finished(&mut tasks)).await.is_err() {
        tracing::warn!(connections = tasks.len(), "drain timeout reached: closing the remaining connections");
    }
    let _ = tokio::time::timeout(UPGRADED_DRAIN.min(drain), connections.all_closed()).await;
}

/// Closes the listener and gives the connections that wait to be accepted. Closing resets what is established meanwhile, and
/// whoever sent a request on it can't know whether it was handled: so new connections are kept out first. Their clients try
/// again by themselves, and find the port closed.
fn accept_established(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    #[cfg(target_os = "linux")]
    {
        // BPF_RET | BPF_K with 0: every segment for the listener itself is dropped. Connections that are there have passed it.
        let drop_all = SockFilter::new(0x06, 0, 0, 0);
        let _ = SockRef::from(&listener).attach_filter(&[drop_all]);
    }
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let mut established = Vec::new();
    // It does not block: the first error is that there is no more.
    while let Ok((stream, peer)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            established.push((stream, peer));
        }
    }
    established
}

async fn all_finished(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// Options that every accepted socket inherits. None of them is worth a failure.
fn set_options(listener: &TcpListener) {
    let socket = SockRef::from(listener);
    let _ = socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL).with_retries(3);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// A place for a new connection; `None` when its address has too many.
async fn place(connections: &Arc<Connections>, address: std::net::IpAddr) -> Option<Place> {
    loop {
        match connections.admit(Some(address)) {
            Admission::Admitted(place) => return Some(place),
            Admission::AddressIsFull => return None,
            Admission::Full => {
                let _ = tokio::time::timeout(FULL_RETRY, connections.freed()).await;
            }
        }
    }
}

/// One connection, until it is closed or becomes a WebSocket.
async fn serve_connection<H, F>(stream: TcpStream, place: Place, handler: H, connections: Arc<Connections>)
where
    H: Fn(Request<Incoming>, Arc<Connection>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send,
{
    // Answers are small: waiting to fill a packet costs more than it saves.
    let _ = stream.set_nodelay(true);
    let limits = connections.limits();
    let io = ConnectionIo::new(stream, place, limits.write_timeout, limits.min_body_rate);
    // A silent connection has no buffers.
    tokio::select! {
        readable = io.readable() => if readable.is_err() { return },
        _ = asked(io.connection()) => return,
    }
    // In a box: the room for a request's handler is not every silent connection's.
    Box::pin(http(io, handler, connections)).await;
}

async fn asked(connection: &Connection) -> connection::Request {
    poll_fn(|context| connection.poll_request(context)).await
}

async fn http<H, F>(io: ConnectionIo, handler: H, connections: Arc<Connections>)
where
    H: Fn(Request<Incoming>, Arc<Connection>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send,
{
    let state = io.connection().clone();
    let (noted, connections) = (&state, &connections);
    let service = service_fn(move |request| {
        noted.request_begins();
        let (state, answer) = (noted, handler(request, noted.clone()));
        async move {
            let mut response = answer.await;
            state.request_ends();
            if connections.are_closing() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut served = std::pin::pin!(
        http1::Builder::new()
            // Time limits are the sweep's: a timer for each request would cost more.
            .header_read_timeout(None)
            .max_buf_size(MAX_READ_BUFFER)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades()
    );
    let mut draining = false;
    let ended = poll_fn(|context| {
        loop {
            if let Poll::Ready(ended) = served.as_mut().poll(context) {
                return Poll::Ready(Some(ended));
            }
            if draining {
                return Poll::Pending;
            }
            match state.poll_request(context) {
                Poll::Ready(connection::Request::Close) => return Poll::Ready(None),
                Poll::Ready(connection::Request::Drain) => {
                    draining = true;
                    Pin::as_mut(&mut served).graceful_shutdown();
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    if let Some(Err(error)) = ended.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
