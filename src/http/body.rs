//! Reading a request's body: all of it, within its size, its time and its pace.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use fpesa_workers::memory::{Held, MIN_COUNTED_BYTES, MemoryBudget, OverBudget};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, sleep_until};

use super::connection::Connection;

/// For so long a body may be slower than `limits.min_body_rate`: a lost packet or a phone that changes cells is no attack.
const PACE_GRACE: Duration = Duration::from_secs(3);

/// How fast a body must come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// For all of it.
    pub timeout: Duration,
    /// Bytes a second, after [`PACE_GRACE`].
    pub min_rate: Option<u64>,
}

/// Why a body is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It has more bytes than the limit.
    TooLarge,
    /// What this process holds already leaves no room for it.
    OverBudget,
    /// It broke off.
    Incomplete,
    /// It did not come within [`Pace::timeout`].
    Timeout,
    /// It came more slowly than [`Pace::min_rate`].
    TooSlow,
}

impl Pace {
    /// Until when a body of which so much came must go on.
    fn deadline(self, start: Instant, received: u64) -> (Instant, BodyError) {
        let whole = start + self.timeout;
        let Some(rate) = self.min_rate else { return (whole, BodyError::Timeout) };
        // More than the time for all of it makes no difference.
        let earned = Duration::from_millis(received.saturating_mul(1000) / rate).min(self.timeout);
        let next = start + PACE_GRACE + earned;
        if next < whole { (next, BodyError::TooSlow) } else { (whole, BodyError::Timeout) }
    }
}

/// Reads the whole body, at most `limit` bytes, with what is held of `memory` for a large one.
pub(super) async fn read(
    body: &mut Incoming,
    limit: u64,
    pace: Pace,
    connection: &Connection,
    memory: &Arc<MemoryBudget>,
) -> Result<(Bytes, Option<Held>), BodyError> {
    let mut reader = Reader { body: Pin::new(body), limit, received: 0, parts: Parts::None, memory, held: None };
    // No timer for what is ready at the second poll, which follows the first at once. A body that came with its head is:
    // hyper reads it no sooner than it is asked for.
    let mut looked = false;
    let soon = poll_fn(|context| match reader.poll(context) {
        Poll::Ready(read) => Poll::Ready(Some(read)),
        Poll::Pending if looked => Poll::Ready(None),
        Poll::Pending => {
            looked = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    });
    if let Some(read) = soon.await {
        return read;
    }
    let _awaited = connection.awaits_body();
    let start = Instant::now();
    let (mut deadline, mut late) = pace.deadline(start, reader.received);
    let mut timer = pin!(sleep_until(deadline));
    poll_fn(|context| {
        if let Poll::Ready(read) = reader.poll(context) {
            return Poll::Ready(read);
        }
        loop {
            ready!(timer.as_mut().poll(context));
            // What came meanwhile earned more time.
            let (next, why) = pace.deadline(start, reader.received);
            if next <= deadline {
                return Poll::Ready(Err(late));
            }
            (deadline, late) = (next, why);
            timer.as_mut().reset(deadline);
        }
    })
    .await
}

struct Reader<'b> {
    body: Pin<&'b mut Incoming>,
    limit: u64,
    received: u64,
    parts: Parts,
    memory: &'b Arc<MemoryBudget>,
    /// Of a body that turned out to be large: its bytes count as they come.
    held: Option<Held>,
}

/// What came of a body; one frame is not copied.
enum Parts {
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Reader<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(Bytes, Option<Held>), BodyError>> {
        loop {
            let frame = match ready!(self.body.as_mut().poll_frame(context)) {
                None => break,
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Poll::Ready(Err(BodyError::Incomplete)),
            };
            // Trailers mean nothing here.
            let Ok(data) = frame.into_data() else { continue };
            self.received += data.len() as u64;
            if self.received > self.limit {
                return Poll::Ready(Err(BodyError::TooLarge));
            }
            if self.count(data.len()).is_err() {
                return Poll::Ready(Err(BodyError::OverBudget));
            }
            self.parts = match std::mem::replace(&mut self.parts, Parts::None) {
                Parts::None => Parts::One(data),
                Parts::One(first) => {
                    let mut all = BytesMut::with_capacity(first.len() + data.len());
                    all.extend_from_slice(&first);
                    all.extend_from_slice(&data);
                    Parts::Many(all)
                }
                Parts::Many(mut all) => {
                    all.extend_from_slice(&data);
                    Parts::Many(all)
                }
            };
        }
        let bytes = match std::mem::replace(&mut self.parts, Parts::None) {
            Parts::None => Bytes::new(),
            Parts::One(bytes) => bytes,
            Parts::Many(all) => all.freeze(),
        };
        Poll::Ready(Ok((bytes, self.held.take())))
    }

    /// Counts so many bytes more, which are among those that were received.
    fn count(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let received = usize::try_from(self.received).unwrap_or(usize::MAX);
        match &mut self.held {
            Some(held) => held.grow(bytes)?,
            None if received >= MIN_COUNTED_BYTES => self.held = Some(self.memory.hold(received)?),
            None => {}
        }
        Ok(())
    }
}

/// Reads on for a moment what nobody wants: a client that still sends when the connection closes would lose the answer.
pub(super) async fn drain(body: &mut Incoming) {
    use http_body_util::BodyExt as _;
    const MAX_DRAINED_BYTES: usize = 16 * 1024 * 1024;
    const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
    let mut left = MAX_DRAINED_BYTES;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, reading).await;
}
