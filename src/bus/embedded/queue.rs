//! One queue in memory: a bounded window of what is ready, what is delivered and not settled, and who consumes.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::sync::mpsc;

use super::now_ms;
use crate::{bus::Delivery, message::Message, topology::Queue as Spec};

/// Most messages of the window.
const WINDOW: usize = 4_096;
/// Most bytes of the window's bodies; one message is let in whatever its size.
const WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// One message that waits or is delivered.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// Its row on disk; negative for a message in memory only.
    pub seq: i64,
    pub message: Arc<Message>,
    /// How often it was given back.
    pub returns: u32,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Milliseconds since 1970.
    pub expires: Option<i64>,
}

/// Somebody who takes messages.
#[derive(Debug)]
pub(super) struct Consumer {
    pub id: u64,
    /// Closed by removing the consumer; what is sent already can still be received.
    pub sender: mpsc::Sender<Delivery>,
    /// Deliveries that may still be outstanding.
    pub credit: usize,
}

#[derive(Debug)]
pub(super) struct Queue {
    /// Its row on disk; `None` for a queue in memory only.
    pub id: Option<i64>,
    pub spec: Spec,
    /// Oldest first, in order of `seq`.
    pub ready: VecDeque<Kept>,
    bytes: usize,
    /// Whether rows after `loaded` wait on disk.
    pub beyond: bool,
    /// Whether the writer was asked to load them.
    pub loading: bool,
    /// Last row that went through the window.
    pub loaded: i64,
    /// Delivered and not settled, with their consumers.
    pub unsettled: HashMap<i64, (u64, Kept)>,
    pub consumers: VecDeque<Consumer>,
    /// Messages that wait, the window and the rows beyond it, and those being inserted.
    pub waiting: u64,
    /// Highest row that was ever delivered: after a crash, what is at or below it counts as delivered once more.
    pub delivered: i64,
    /// Whether `delivered` is not on disk yet.
    pub delivered_dirty: bool,
}

impl Queue {
    pub fn new(id: Option<i64>, spec: Spec) -> Self {
        Self {
            id,
            spec,
            ready: VecDeque::new(),
            bytes: 0,
            beyond: false,
            loading: false,
            loaded: 0,
            unsettled: HashMap::new(),
            consumers: VecDeque::new(),
            waiting: 0,
            delivered: 0,
            delivered_dirty: false,
        }
    }

    fn has_room(&self, size: usize) -> bool {
        self.ready.is_empty() || (self.ready.len() < WINDOW && self.bytes + size <= WINDOW_BYTES)
    }

    /// Takes a new or loaded message into the window; `false` when there is no room and it stays on disk.
    pub fn admit(&mut self, kept: Kept) -> bool {
        let in_memory = kept.seq < 0;
        if !in_memory && !self.has_room(kept.message.body.len()) {
            self.beyond = true;
            return false;
        }
        self.loaded = self.loaded.max(kept.seq);
        self.bytes += kept.message.body.len();
        self.ready.push_back(kept);
        true
    }

    /// Puts a message back where it was, before everything younger.
    pub fn give_back(&mut self, kept: Kept) {
        let at = self.ready.partition_point(|other| other.seq.abs() < kept.seq.abs());
        self.bytes += kept.message.body.len();
        self.waiting += 1;
        self.ready.insert(at, kept);
    }

    pub fn next(&mut self) -> Option<Kept> {
        let kept = self.ready.pop_front()?;
        self.bytes = self.bytes.saturating_sub(kept.message.body.len());
        self.waiting = self.waiting.saturating_sub(1);
        Some(kept)
    }

    /// Whether the time of the oldest message is over. As on RabbitMQ, only what stands first is looked at.
    pub fn first_has_expired(&self) -> bool {
        self.ready.front().and_then(|kept| kept.expires).is_some_and(|expires| expires <= now_ms())
    }

    /// Whether the writer should load more: the window runs low and rows wait.
    pub fn wants_more(&self) -> bool {
        self.beyond && !self.loading && self.ready.len() <= WINDOW / 2 && self.has_room(0)
    }

    pub fn is_full(&self) -> bool {
        self.spec.max_length.is_some_and(|most| self.waiting >= most)
    }
}
