//! The embedded bus: durable queues in one SQLite file, everything else in this process's memory. No broker's or
//! HTTP's types enter; the live feed hears of messages through a callback.

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use async_trait::async_trait;
use fpesa_workers::private;
use tokio::sync::{Semaphore, oneshot};

use super::{Bus, BusError, BusState, Deliveries, Link, QueueNow, ReplyLimits, pending::Pending};
use crate::{
    message::{Away, CallError, Message, Outcome, Reply},
    topology::{Declare, QueueKind, Topology},
};

mod broker;
mod command;
mod disk;
mod queue;
pub mod routing;
mod writer;

use broker::Broker;
use command::Command;
use writer::{Health, Writer};

/// Publishes that wait for a commit at the same time; a further one waits for a place, within its deadline.
const MOST_WAITING: usize = 8_192;

/// `reply_to` of every call of this bus.
const REPLY_ADDRESS: &str = "fpesa.reply.embedded";

/// A bus in a data folder.
pub struct Embedded {
    shared: Arc<Shared>,
    writer: Writer,
    places: Semaphore,
    /// Held as long as the bus is open: a second process on the same folder is refused by it.
    _lock: File,
}

/// What the writer, the consumers and the publishers share. No lock in here is held across a commit.
struct Shared {
    broker: Mutex<Broker>,
    pending: Pending,
    health: Health,
    late_replies: AtomicU64,
    on_topic: Box<dyn Fn(&Message) + Send + Sync>,
}

impl Shared {
    fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Embedded")
    }
}

impl Embedded {
    /// Opens `bus.db` in `folder`, or makes both. `on_topic` hears of every message that went through `amq.topic`,
    /// after it was committed; it must not block.
    pub fn open(folder: &Path, on_topic: impl Fn(&Message) + Send + Sync + 'static) -> Result<Arc<Self>, BusError> {
        Self::open_with(folder, ReplyLimits::default(), on_topic)
    }

    /// The same, with other limits on replies.
    pub fn open_with(
        folder: &Path,
        replies: ReplyLimits,
        on_topic: impl Fn(&Message) + Send + Sync + 'static,
    ) -> Result<Arc<Self>, BusError> {
        let settings = |why: String| BusError::Settings(format!("data folder {}: {why}", folder.display()));
        private::folder(folder).map_err(|error| settings(format!("it can't be made: {error}")))?;
        let lock = lock(folder).map_err(settings)?;
        let mut connection = disk::open(&folder.join("bus.db")).map_err(settings)?;
        let broker = disk::load(&mut connection).map_err(|error| settings(format!("bus.db can't be read: {error}")))?;
        let shared = Arc::new(Shared {
            broker: Mutex::new(broker),
            pending: Pending::new(replies),
            health: Health::default(),
            late_replies: AtomicU64::new(0),
            on_topic: Box::new(on_topic),
        });
        let writer = Writer::start(connection, shared.clone()).map_err(|error| settings(error.to_string()))?;
        shared.broker().writer = Some(writer.sender());
        Ok(Arc::new(Self { shared, writer, places: Semaphore::new(MOST_WAITING), _lock: lock }))
    }

    /// Puts a message on durable queues and waits for the commit.
    async fn keep(&self, queues: Vec<String>, message: Arc<Message>, deadline: Instant) -> Outcome {
        let deadline = tokio::time::Instant::from_std(deadline);
        let Ok(Ok(_place)) = tokio::time::timeout_at(deadline, self.places.acquire()).await else {
            self.shared.broker().give_back(&queues);
            return Outcome::NotSent(Away::Blocked);
        };
        let (done, result) = oneshot::channel();
        let insert = Command::Insert { queues, message, done };
        if let Err(Command::Insert { queues, .. }) = self.writer.send(insert) {
            self.shared.broker().give_back(&queues);
            return Outcome::NotSent(Away::Down);
        }
        match tokio::time::timeout_at(deadline, result).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        }
    }
}

/// The lock file of a folder, held; the error is a sentence.
fn lock(folder: &Path) -> Result<File, String> {
    let path = folder.join("fpesa.lock");
    let mut file = private::file(&path).map_err(|error| format!("{} can't be written: {error}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {
            // Who holds it is a help for people; the lock itself is the kernel's.
            let _ = file.set_len(0);
            let _ = file.rewind();
            let _ = write!(file, "{}", std::process::id());
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let who =
                if pid.is_empty() { "another fpesa".to_owned() } else { format!("another fpesa (process {pid})") };
            Err(format!("{who} uses it: stop that one, or give this one its own with --data-dir"))
        }
        Err(TryLockError::Error(error)) => Err(format!("{} can't be locked: {error}", path.display())),
    }
}

#[async_trait]
impl Bus for Embedded {
    async fn declare(&self, topology: &Topology) -> Result<(), BusError> {
        self.shared.broker().check(topology)?;
        let new: Vec<(String, QueueKind)> = {
            let broker = self.shared.broker();
            topology
                .queues
                .iter()
                .filter(|(name, queue)| queue.kind != QueueKind::Rpc && !broker.queues.contains_key(*name))
                .filter(|(_, queue)| queue.declare == Declare::Active)
                .map(|(name, queue)| (name.clone(), queue.kind))
                .collect()
        };
        let (done, result) = oneshot::channel();
        self.writer.send(Command::Declare { queues: new, done }).map_err(|_| BusError::Down("it is closed".into()))?;
        let ids = result.await.map_err(|_| BusError::Down("it is closed".into()))?.map_err(BusError::Storage)?;
        self.shared.broker().apply(topology, ids);
        Ok(())
    }

    async fn publish(&self, message: Message, deadline: Instant) -> Outcome {
        if message.exchange.is_empty() && message.key == REPLY_ADDRESS {
            let reply = Reply { properties: message.properties, body: message.body };
            if self.shared.pending.answer(reply) {
                return Outcome::Routed;
            }
            self.shared.late_replies.fetch_add(1, Ordering::Relaxed);
            return Outcome::Unroutable;
        }
        let message = Arc::new(message);
        let durable = {
            let mut broker = self.shared.broker();
            let targets = broker.route(&message);
            if targets.is_empty() {
                if message.mandatory || !broker.has_exchange(&message.exchange) {
                    return Outcome::Unroutable;
                }
                drop(broker);
                if message.exchange == routing::TOPIC {
                    (self.shared.on_topic)(&message);
                }
                return Outcome::Routed;
            }
            let Some(durable) = broker.reserve(&targets) else { return Outcome::Rejected };
            for name in targets.iter().filter(|name| !durable.contains(name)) {
                broker.deliver_in_memory(name, &message, &self.shared);
            }
            durable
        };
        if durable.is_empty() {
            return Outcome::Routed;
        }
        self.keep(durable, message, deadline).await
    }

    async fn call(&self, mut message: Message, deadline: Instant) -> Result<Reply, CallError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let correlation = super::stamp_call(&mut message, Some(REPLY_ADDRESS.into()), left);
        let mut expected = self.shared.pending.expect(correlation);
        match CallError::of(self.publish(message, deadline).await) {
            None => expected.answered(deadline).await,
            // Nothing here leaves it open but the time.
            Some(CallError::Unknown) => Err(CallError::Timeout),
            Some(error) => Err(error),
        }
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Deliveries, BusError> {
        let (consumer, received) = self.shared.broker().add_consumer(queue, prefetch, &self.shared)?;
        let (shared, name) = (Arc::downgrade(&self.shared), queue.to_owned());
        Ok(Deliveries::new(received, move || {
            if let Some(shared) = shared.upgrade() {
                shared.broker().remove_consumer(&name, consumer, &shared);
            }
        }))
    }

    fn state(&self) -> BusState {
        let broker = self.shared.broker();
        let missing = broker.topology.watched_queues.iter().filter(|name| !broker.queues.contains_key(*name));
        BusState {
            link: if self.shared.health.away().is_some() { Link::Blocked } else { Link::Up },
            missing: missing.cloned().collect(),
            faults: Vec::new(),
            late_replies: self.shared.late_replies.load(Ordering::Relaxed),
        }
    }

    fn queues(&self) -> BTreeMap<String, Option<QueueNow>> {
        let broker = self.shared.broker();
        let now = |queue: &queue::Queue| QueueNow {
            consumers: u32::try_from(queue.consumers.len()).unwrap_or(u32::MAX),
            messages: queue.waiting,
        };
        broker.topology.queues.keys().map(|name| (name.clone(), broker.queues.get(name).map(now))).collect()
    }

    fn retries(&self) -> bool {
        false
    }

    async fn close(&self) {
        let (done, finished) = oneshot::channel();
        if self.writer.send(Command::Close { done }).is_ok() {
            let _ = finished.await;
        }
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
