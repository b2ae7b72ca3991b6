//! What waits for one session: bounded, so that a browser that does not read costs a bounded amount.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::wire::{Bye, Qos};

/// Most messages that wait for a session.
pub(super) const MOST: usize = 1_000;
/// Most bytes of payload that wait for a session.
pub(super) const MOST_BYTES: usize = 4 * 1024 * 1024;

/// One message for one session; topic and payload are shared with all others.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub topic: Arc<str>,
    pub payload: Bytes,
    pub qos: Qos,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    /// Something waits, or the end has come.
    pub changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<Item>,
    bytes: usize,
    end: Option<Bye>,
}

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message; gives how many messages are lost by it. At `QoS` 0 the oldest make room; at `QoS` 1 nothing may be
    /// lost in silence, so the session is ended and its client reads the gap from history.
    pub fn push(&self, item: Item) -> u64 {
        let mut waiting = self.waiting();
        if waiting.end.is_some() {
            return 0;
        }
        let mut lost = 0;
        waiting.bytes += item.payload.len();
        waiting.items.push_back(item);
        while waiting.items.len() > MOST || (waiting.bytes > MOST_BYTES && waiting.items.len() > 1) {
            let Some(oldest) = waiting.items.pop_front() else { break };
            waiting.bytes -= oldest.payload.len();
            lost += 1;
            if oldest.qos == Qos::AtLeastOnce {
                lost += waiting.items.len() as u64;
                waiting.items.clear();
                waiting.bytes = 0;
                waiting.end = Some(Bye::TooSlow);
            }
        }
        drop(waiting);
        self.changed.notify_one();
        lost
    }

    /// The next message, if one waits and `takes` says so.
    pub fn pop(&self, takes: impl FnOnce(&Item) -> bool) -> Option<Item> {
        let mut waiting = self.waiting();
        if !waiting.items.front().is_some_and(takes) {
            return None;
        }
        let item = waiting.items.pop_front()?;
        waiting.bytes -= item.payload.len();
        Some(item)
    }

    /// Ends the session; the first word counts.
    pub fn end(&self, bye: Bye) {
        self.waiting().end.get_or_insert(bye);
        self.changed.notify_one();
    }

    /// Why the session is to end, if it is.
    pub fn ended(&self) -> Option<Bye> {
        self.waiting().end
    }
}
