//! A connection's socket: it keeps the connection's place for as long as anybody reads or writes it (a WebSocket too), notes
//! what comes, and gives a client up that takes too little of what is written to it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use super::{connection::Connection, connections::Place};

/// A socket with its place.
#[derive(Debug)]
pub(super) struct ConnectionIo {
    stream: TcpStream,
    place: Place,
    write_timeout: Duration,
    /// Bytes that must move within one write timeout.
    min_bytes: u64,
    /// There is a timer only while the client's socket is full: most answers never need one.
    stall: Option<Stall>,
}

#[derive(Debug)]
struct Stall {
    timer: Pin<Box<Sleep>>,
    /// Bytes that moved since the timer was set.
    moved: u64,
}

impl ConnectionIo {
    pub(super) fn new(stream: TcpStream, place: Place, write_timeout: Duration, min_body_rate: Option<u64>) -> Self {
        let min_bytes = min_body_rate.map_or(1, |rate| rate.saturating_mul(write_timeout.as_secs()).max(1));
        Self { stream, place, write_timeout, min_bytes, stall: None }
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        self.place.connection()
    }

    /// Waits until something can be read, or the client is gone.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    fn watch(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => {
                if let Some(stall) = &mut self.stall {
                    stall.moved += *bytes as u64;
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let stall = self.stall.get_or_insert_with(|| {
                    self.place.connection().write_blocks();
                    Stall { timer: Box::pin(sleep(self.write_timeout)), moved: 0 }
                });
                ready!(stall.timer.as_mut().poll(context));
                if stall.moved < self.min_bytes {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly")));
                }
                stall.moved = 0;
                stall.timer.as_mut().reset(Instant::now() + self.write_timeout);
                // It can't be ready, and is to wake this task when it is.
                let _ = stall.timer.as_mut().poll(context);
            }
        }
        written
    }
}

impl AsyncRead for ConnectionIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.place.connection().bytes_came();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ConnectionIo {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Comes when everything was written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stall.take().is_some() {
            self.place.connection().write_resumes();
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
