//! One open connection: what it does, since when, and what its task is asked to do.
//!
//! A connection's own task notes its phase; everybody else only reads it. To close one is to ask its task, which does so
//! if the phase is still the one that it was chosen by: a request that arrives meanwhile is never cut.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::task::AtomicWaker;

use super::connections::Connections;

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No byte of it came yet.
    Opened = 1,
    /// A head has begun to come.
    Head = 2,
    /// Between two requests.
    Idle = 3,
    /// The body of a request is awaited.
    Body = 4,
    /// A request is handled.
    Busy = 5,
    /// An answer is written to a client that reads slowly.
    Writing = 6,
    /// It is a WebSocket now.
    Upgraded = 7,
}

/// A phase with the time since when it lasts, in one word: milliseconds and three bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PhaseSince(u64);

impl PhaseSince {
    pub(super) fn new(phase: Phase, since: Duration) -> Self {
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX >> 3) << 3 | phase as u64)
    }

    pub(super) fn phase(self) -> Phase {
        match self.0 & 7 {
            1 => Phase::Opened,
            2 => Phase::Head,
            3 => Phase::Idle,
            4 => Phase::Body,
            6 => Phase::Writing,
            7 => Phase::Upgraded,
            _ => Phase::Busy,
        }
    }

    pub(super) fn since(self) -> Duration {
        Duration::from_millis(self.0 >> 3)
    }
}

/// One open connection, as its task and its requests see it.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    /// What `per_address` counts it under.
    address: Option<IpAddr>,
    state: AtomicU64,
    /// It is to be closed if its state is this one; 0 for none.
    close_if: AtomicU64,
    draining: AtomicBool,
    task: AtomicWaker,
    table: Arc<Connections>,
}

/// What a connection's task is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Close: nothing is under way on it.
    Close,
    /// Finish what is under way, then close.
    Drain,
}

impl Connection {
    pub(super) fn new(id: u64, address: Option<IpAddr>, table: Arc<Connections>) -> Self {
        let state = PhaseSince::new(Phase::Opened, table.now());
        Self {
            id,
            address,
            state: AtomicU64::new(state.0),
            close_if: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            task: AtomicWaker::new(),
            table,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    pub(super) fn table(&self) -> &Connections {
        &self.table
    }

    pub(super) fn ask_to_drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.task.wake();
    }

    pub(super) fn state(&self) -> PhaseSince {
        PhaseSince(self.state.load(Ordering::Acquire))
    }

    fn enter(&self, phase: Phase) {
        self.state.store(PhaseSince::new(phase, self.table.now()).0, Ordering::Release);
    }

    /// Bytes came: of a head, if one was awaited.
    pub(super) fn bytes_came(&self) {
        if matches!(self.state().phase(), Phase::Opened | Phase::Idle) {
            self.enter(Phase::Head);
        }
    }

    /// A request's head is complete.
    pub(super) fn request_begins(&self) {
        self.enter(Phase::Busy);
    }

    /// The answer of a request is known; writing it is the connection's next work.
    pub(super) fn request_ends(&self) {
        if self.state().phase() != Phase::Upgraded {
            self.enter(Phase::Idle);
        }
    }

    /// A request's body is awaited, as long as what this gives is kept.
    pub(super) fn awaits_body(&self) -> AwaitedBody<'_> {
        self.enter(Phase::Body);
        AwaitedBody(self)
    }

    /// The client's socket takes no more for now.
    pub(super) fn write_blocks(&self) {
        if self.state().phase() == Phase::Idle {
            self.enter(Phase::Writing);
        }
    }

    /// All that was to be written is with the operating system.
    pub(super) fn write_resumes(&self) {
        if self.state().phase() == Phase::Writing {
            self.enter(Phase::Idle);
        }
    }

    /// Makes it a WebSocket for the rest of its life; refused when too many are.
    pub(super) fn upgrade(&self) -> bool {
        let taken = self.table.take_upgrade();
        if taken {
            self.enter(Phase::Upgraded);
        }
        taken
    }

    /// Ready as soon as the connection's task is asked for something. To be polled after the connection itself.
    pub(super) fn poll_request(&self, context: &mut Context<'_>) -> Poll<Request> {
        self.task.register(context.waker());
        let close_if = self.close_if.load(Ordering::Acquire);
        if close_if != 0 {
            if close_if == self.state.load(Ordering::Relaxed) {
                return Poll::Ready(Request::Close);
            }
            // Something came since it was chosen: it stays.
            self.close_if.store(0, Ordering::Release);
            self.table.stays(self.id);
        }
        if self.draining.load(Ordering::Acquire) { Poll::Ready(Request::Drain) } else { Poll::Pending }
    }

    pub(super) fn ask_to_close(&self, state: PhaseSince) {
        self.close_if.store(state.0, Ordering::Release);
        self.task.wake();
    }
}

/// A body that is awaited.
#[derive(Debug)]
pub(super) struct AwaitedBody<'c>(&'c Connection);

impl Drop for AwaitedBody<'_> {
    fn drop(&mut self) {
        self.0.enter(Phase::Busy);
    }
}
