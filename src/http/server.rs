//! Serving connections: a bound listener, a handler, and a token that ends it all within its time.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Request, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How long a client may take over the head of a request; an idle connection is closed after it too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until `shutdown` is cancelled; what is under way then has `drain` to finish. At most `connections` at a time:
/// further ones wait in the listener's backlog.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    connections: usize,
    shutdown: CancellationToken,
    drain: Duration,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let places = Arc::new(Semaphore::new(connections));
    let mut tasks = JoinSet::new();
    loop {
        // Finished connections are forgotten as we go.
        while tasks.try_join_next().is_some() {}
        let place = tokio::select! {
            () = shutdown.cancelled() => break,
            place = places.clone().acquire_owned() => place,
        };
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    refused(&error).await;
                    continue;
                }
            },
        };
        let (service, shutdown) = (service.clone(), shutdown.clone());
        tasks.spawn(async move {
            let _place = place;
            // Answers are small: waiting to fill a packet costs more than it saves.
            let _ = stream.set_nodelay(true);
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::pin!(connection);
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    let drained = tokio::time::timeout(drain, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(connections = tasks.len(), "the time to finish is over: closing what is still open");
    }
}

/// A connection that failed before it was ours is no matter; running out of file descriptors needs a breath.
async fn refused(error: &io::Error) {
    let theirs = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    );
    if !theirs {
        tracing::error!(%error, "connections can't be accepted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
