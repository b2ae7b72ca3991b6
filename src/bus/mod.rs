//! The bus port: what fpesa asks of a message bus, and the one place that picks an adapter by the URL's scheme.
//! Adapters pass one contract suite and have no method that they must refuse; no adapter's type leaves its room.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    message::{CallError, Message, Outcome, Reply},
    topology::Topology,
};

pub mod amqp;
pub mod embedded;
mod pending;

pub use pending::ReplyLimits;

/// A message bus.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Puts the first topology in force, whatever the broker says of it: what it refuses is in [`BusState::faults`] and is
    /// tried again. The error is for the log.
    async fn start(&self, topology: &Topology) -> Result<(), BusError> {
        self.declare(topology).await
    }

    /// Makes what `topology` names, and puts it in force once all of it is there; repeatable. When any part is refused,
    /// every refusal is returned, what was made is removed again, and the topology in force stays. After a reconnect the
    /// adapter declares what is in force again by itself. `rpc` queues are made by [`Bus::consume`] alone. What an earlier
    /// topology bound may stay bound; declared a second time, the embedded bus has the bindings of this one alone.
    async fn declare(&self, topology: &Topology) -> Result<(), BusError>;

    /// Publishes one message and waits, until `deadline` at the latest, for what the bus says of it.
    /// [`Outcome::Routed`] means that it survives a `kill -9` of anything.
    async fn publish(&self, message: Message, deadline: Instant) -> Outcome;

    /// Publishes a request and waits for its reply. The adapter fills `reply_to`, `expiration` with what is left of the
    /// deadline, and `correlation_id` where the caller brings none; a caller's own must be unique among those in flight.
    async fn call(&self, message: Message, deadline: Instant) -> Result<Reply, CallError>;

    /// Competes for the messages of `queue`, at most `prefetch` unsettled at a time.
    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Deliveries, BusError>;

    /// How the bus is now; cheap, and never waits.
    fn state(&self) -> BusState;

    /// Why a message would reach an exchange or a queue that is missing or not as the topology has it; `None` when all that
    /// it would reach is there, as far as the bus knows. Cheap, and never waits.
    fn refuses(&self, _message: &Message) -> Option<String> {
        None
    }

    /// The topology's queues as they are now, as far as the bus knows: `None` for one that is not there, no entry for one
    /// that it has not looked at. For people to see: it may be some seconds old. Cheap, and never waits.
    fn queues(&self) -> BTreeMap<String, Option<QueueNow>> {
        BTreeMap::new()
    }

    /// Whether the bus is a broker elsewhere that may be away and come back.
    fn retries(&self) -> bool;

    /// Sends what is settled already on its way, then lets go of the broker or the files. Nothing is usable after it.
    async fn close(&self);
}

/// What a bus says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BusState {
    /// The link to the broker.
    pub link: Link,
    /// Watched queues and exchanges that are not there now.
    pub missing: BTreeSet<String>,
    /// What the broker does not have as the topology in force needs it, sorted by subject; for operators to read.
    pub faults: Vec<Fault>,
    /// Replies that came after their deadline, since the start.
    pub late_replies: u64,
}

/// A queue that is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueNow {
    /// Who takes messages from it, in any process.
    pub consumers: u32,
    /// Messages that wait to be taken.
    pub messages: u64,
}

/// The link to the broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Link {
    /// Publishes are taken.
    Up,
    /// Connected, but the broker takes nothing (an alarm), or the embedded bus's disk takes nothing.
    Blocked,
    /// Not connected.
    #[default]
    Down,
}

impl Link {
    /// The word that `/readyz` uses.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Blocked => "blocked",
            Self::Down => "down",
        }
    }
}

/// Why a bus could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The settings cannot work: wrong URL, unknown scheme, data folder in use.
    #[error("{0}")]
    Settings(String),
    /// The broker is away.
    #[error("the broker is away: {0}")]
    Down(String),
    /// The broker does not have, or refuses, parts of the topology: all of them, sorted by subject.
    #[error("{}", .0.iter().map(|fault| fault.why.as_str()).collect::<Vec<_>>().join("; "))]
    Topology(Vec<Fault>),
    /// The queue is not there.
    #[error("queue {0:?} does not exist")]
    NoQueue(String),
    /// The disk of the embedded bus.
    #[error("the bus's storage failed: {0}")]
    Storage(String),
}

/// One part of a topology that the broker does not have as it is needed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The part.
    pub subject: Subject,
    /// Whether messages for it are refused. Otherwise it works, with a defect that an operator should mend.
    pub refuses: bool,
    /// Whether the broker says so of each message itself, so that nothing is refused before it is asked.
    pub broker_answers: bool,
    /// A sentence that names the part, says what is wrong in the broker's words, and what to do.
    pub why: String,
}

/// What a [`Fault`] is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An exchange; the default exchange's name is empty.
    Exchange(String),
    /// A queue, or its bindings.
    Queue(String),
    /// Where the replies to calls arrive.
    Replies,
}

impl BusError {
    /// A queue that the broker refuses; `why` names it.
    pub fn queue(name: &str, why: String) -> Self {
        Self::Topology(vec![Fault::queue(name, why)])
    }
}

impl Fault {
    /// A queue that refuses messages; `why` names it.
    pub fn queue(name: &str, why: String) -> Self {
        Self { subject: Subject::Queue(name.to_owned()), refuses: true, broker_answers: false, why }
    }

    /// An exchange that refuses messages; `why` names it.
    pub fn exchange(name: &str, why: String) -> Self {
        Self { subject: Subject::Exchange(name.to_owned()), refuses: true, broker_answers: false, why }
    }
}

/// The deliveries of one consumer, oldest first. Dropping it stops the consumer and gives back what was not settled.
#[derive(Debug)]
pub struct Deliveries {
    received: mpsc::Receiver<Delivery>,
    stop: Option<Stop>,
}

struct Stop(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stop")
    }
}

impl Deliveries {
    /// Joins what an adapter sends to the consumer who receives. `stop` runs once, at [`Deliveries::stop`] or on drop:
    /// after it the adapter sends nothing new and drops its sender.
    pub fn new(received: mpsc::Receiver<Delivery>, stop: impl FnOnce() + Send + 'static) -> Self {
        Self { received, stop: Some(Stop(Box::new(stop))) }
    }

    /// The next delivery; `None` once the consumer has ended (stopped, its queue deleted, the link broken).
    pub async fn next(&mut self) -> Option<Delivery> {
        self.received.recv().await
    }

    /// A delivery that is here already.
    pub fn next_now(&mut self) -> Option<Delivery> {
        self.received.try_recv().ok()
    }

    /// Asks for nothing more. What came already can still be read with [`Deliveries::next`], until `None`.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            (stop.0)();
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One delivered message, and the duty to settle it.
#[derive(Debug)]
pub struct Delivery {
    /// The message as it was published.
    pub message: Message,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// How its settlement reaches the broker.
    pub ticket: Ticket,
}

/// The duty to settle one delivery, once: twice does not compile, and a dropped ticket returns the message.
pub struct Ticket(Option<Box<dyn FnOnce(Settlement) + Send>>);

/// What becomes of a delivered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Done: the broker forgets it.
    Ack,
    /// It failed: back to the front of the queue, one delivery counted.
    Retry,
    /// Nobody worked on it: back to the front of the queue, not counted where the broker makes a difference.
    Return,
    /// Never to be done: to the dead-letter queue, or away where there is none.
    Reject,
}

impl Ticket {
    /// A ticket that tells `settle`; which returns at once and does not block.
    pub fn new(settle: impl FnOnce(Settlement) + Send + 'static) -> Self {
        Self(Some(Box::new(settle)))
    }

    /// Done: the broker forgets it.
    pub fn ack(self) {
        self.settle(Settlement::Ack);
    }

    /// Not done: it is delivered again, here or elsewhere.
    pub fn retry(self) {
        self.settle(Settlement::Retry);
    }

    /// Never to be done: dead-lettered by the broker.
    pub fn reject(self) {
        self.settle(Settlement::Reject);
    }

    fn settle(mut self, how: Settlement) {
        if let Some(settle) = self.0.take() {
            settle(how);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(settle) = self.0.take() {
            settle(Settlement::Return);
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket")
    }
}

/// Makes a message a call: where its reply goes, what joins the two, how long it is worth delivering, and until when
/// somebody waits (header `fpesa-deadline`, RFC 3339 with milliseconds). Returns the correlation id.
pub fn stamp_call(message: &mut Message, reply_to: Option<String>, left: Duration) -> String {
    let correlation = message.properties.correlation_id.get_or_insert_with(|| Uuid::now_v7().to_string()).clone();
    message.properties.reply_to = reply_to;
    message.properties.expiration = Some(left.max(Duration::from_millis(1)));
    message.mandatory = true;
    let at = time::OffsetDateTime::now_utc() + left;
    let at = at.replace_nanosecond(u32::from(at.millisecond()) * 1_000_000).unwrap_or(at);
    if let Ok(text) = at.format(&time::format_description::well_known::Rfc3339) {
        message.properties.headers.insert("fpesa-deadline".into(), text.into());
    }
    correlation
}
