//! The workers of fpesa: each is handed jobs and says what became of them. A worker knows no bus and no HTTP:
//! whoever runs it joins it to a queue.
//!
//! Reading order: [`Worker`], [`Job`] and [`Verdict`] here; [`topic`] for MQTT filters; [`store`] for what is kept,
//! [`retention`] for how long, [`memory`] for how much is held meanwhile, [`copy`] and [`lines`] for how it moves.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;

pub mod copy;
pub mod event;
mod gate;
pub mod history;
pub mod lines;
pub mod memory;
pub mod persist;
pub mod private;
pub mod retention;
pub mod store;
pub mod topic;

/// Kinds of workers that [`find`] knows.
pub const KINDS: [&str; 2] = ["history", "persist"];

/// What workers are told from outside.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is kept of history.
    pub keep: retention::Keep,
    /// Largest page of history, in bytes; one event is shown whatever its size.
    pub max_page_bytes: usize,
    /// What pages are counted in.
    pub memory: Arc<memory::MemoryBudget>,
}

/// The worker of a kind, on a store.
pub fn find(kind: &str, store: Arc<dyn store::Store>, options: &Options) -> Option<Arc<dyn Worker>> {
    match kind {
        "history" => Some(Arc::new(history::History::new(store, options.max_page_bytes, options.memory.clone()))),
        "persist" => Some(Arc::new(persist::Persist::new(store, options.keep))),
        _ => None,
    }
}

/// Does the work of one queue.
#[async_trait]
pub trait Worker: Send + Sync + 'static {
    /// Most jobs that [`Worker::work`] can use at a time; 1 for a worker that answers calls one by one.
    fn most(&self) -> usize;

    /// Whether it can do its work now: its store answers, and takes what it would be given. For probes; one that needs
    /// nothing always can.
    async fn is_able(&self) -> bool {
        true
    }

    /// Does these jobs and says of each, in their order, what became of it. Waits as long as its store is away
    /// (a kept message is never given back for that); a call is answered in time all the same.
    async fn work(&self, jobs: &[Job]) -> Vec<Verdict>;

    /// Goes on with what is to be done beside jobs, and says how many events it removed as soon as it removed some: call
    /// it again then. May be dropped at any time. A worker that has nothing beside its jobs never returns.
    async fn tend(&self) -> u64 {
        std::future::pending().await
    }
}

/// One delivered message, told without any bus's types.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// Routing key that it was published with.
    pub key: String,
    /// The message's id.
    pub message_id: Option<String>,
    /// MIME type of the body.
    pub content_type: Option<String>,
    /// The event's type, when the body is not an event itself.
    pub kind: Option<String>,
    /// When it came, in microseconds since 1970; of two jobs of one worker the later one's is greater.
    pub arrived: i64,
    /// Headers, as text; those without one (tables, lists, bytes) are not here.
    pub headers: BTreeMap<String, String>,
    /// When nobody waits for the answer any more.
    pub deadline: Option<SystemTime>,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// The payload, untouched.
    pub body: Bytes,
}

impl Job {
    /// What is left of the deadline; `None` without one, zero when it has passed.
    pub fn left(&self) -> Option<Duration> {
        self.deadline.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// An event is in the store now.
    Kept,
    /// The store had it already.
    Duplicate,
    /// A call has its answer.
    Answered(Answer),
    /// It did not work this time; the sentence is for the log.
    Retry(String),
    /// It can never work: to the dead-letter queue.
    Reject {
        /// One word, such as `id-conflict`, `not-an-event`, `not-storable`.
        reason: String,
        /// A sentence, at most 500 bytes.
        detail: String,
    },
    /// A call whose deadline had passed: nobody waits.
    Expired,
}

/// The answer to a call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// MIME type of the body.
    pub content_type: String,
    /// Headers for the client: `link`, `etag`, `cache-control`, `location`, `retry-after`; nothing else is passed on.
    pub headers: Vec<(String, String)>,
    /// The payload.
    pub body: Bytes,
}
