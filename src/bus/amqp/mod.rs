//! RabbitMQ (AMQP 0-9-1): publishing and consuming by sessions of our own, declaring and looking by lapin. Each role has a
//! connection and a supervisor of its own: a link that breaks is dropped whole and made anew, and what was under way on it
//! is told to be unknown. No type of lapin's leaves this room.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Bus, BusError, BusState, Deliveries, Fault, Link, QueueNow, pending::Pending, stamp_call};
use crate::{
    message::{CallError, Message, Outcome, Reply},
    topology::{QueueKind, Topology},
};

mod census;
mod consumer;
mod content;
mod content_header;
mod control;
mod convert;
mod declare;
mod encode;
mod handshake;
mod incoming;
mod link;
mod outstanding;
mod owner;
mod publisher;
mod renewal;
mod session;
mod version;

pub use link::{Login, Options};

use control::Declare;
use publisher::Publisher;

/// How long a declaration may wait for the broker.
const DECLARE_WITHIN: Duration = Duration::from_secs(5);

/// A bus on one broker, or on several addresses of one cluster.
pub struct Amqp {
    shared: Arc<Shared>,
    publisher: Publisher,
    /// Requests go out on a link of their own, which their replies come back on.
    caller: Publisher,
    control: mpsc::Sender<Declare>,
    stop: CancellationToken,
}

struct Shared {
    options: Options,
    /// What is declared again at each connection.
    topology: Mutex<Topology>,
    missing: Mutex<BTreeSet<String>>,
    faults: Mutex<Vec<Fault>>,
    /// What was last seen of the topology's queues on the link of now.
    queues: Mutex<BTreeMap<String, Option<QueueNow>>>,
    pending: Pending,
    /// Where replies come to; changes with each connection of the caller.
    reply_to: Mutex<Option<String>>,
    late_replies: AtomicU64,
    /// Whether what routes publish to has been looked at on the link of now.
    watched: AtomicBool,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_missing(name: &str) -> String {
    format!("queue `{name}` is missing on the broker")
}

impl Amqp {
    /// Starts to connect and returns at once; a broker that is away is tried until it is there. Needs a runtime.
    pub fn connect(options: Options) -> Arc<Self> {
        let pending = Pending::new(options.replies.clone());
        let shared = Arc::new(Shared {
            options,
            topology: Mutex::default(),
            missing: Mutex::default(),
            faults: Mutex::default(),
            queues: Mutex::default(),
            pending,
            reply_to: Mutex::default(),
            late_replies: AtomicU64::new(0),
            watched: AtomicBool::new(false),
        });
        let stop = CancellationToken::new();
        let publisher = Publisher::start(shared.clone(), false, stop.clone());
        let caller = Publisher::start(shared.clone(), true, stop.clone());
        let control = control::start(shared.clone(), stop.clone());
        Arc::new(Self { shared, publisher, caller, control, stop })
    }
}

impl Drop for Amqp {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Bus for Amqp {
    async fn declare(&self, topology: &Topology) -> Result<(), BusError> {
        let (done, result) = oneshot::channel();
        let declare = Declare { topology: topology.clone(), done };
        let down = || BusError::Down("no connection to the broker".into());
        let declared = async {
            self.control.send(declare).await.map_err(|_| down())?;
            result.await.unwrap_or_else(|_| Err(down()))
        };
        tokio::time::timeout(DECLARE_WITHIN, declared).await.unwrap_or_else(|_| Err(down()))
    }

    async fn publish(&self, message: Message, deadline: Instant) -> Outcome {
        self.publisher.publish(message, deadline).await
    }

    async fn call(&self, mut message: Message, deadline: Instant) -> Result<Reply, CallError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let correlation = Uuid::now_v7().simple().to_string();
        stamp_call(&mut message, held(&self.shared.reply_to).clone(), &correlation, left);
        let mut expected = self.shared.pending.expect(correlation.clone());
        self.caller.call(message, deadline, correlation).await.map_err(CallError::NotSent)?;
        expected.answered(deadline).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Deliveries, BusError> {
        let rpc = held(&self.shared.topology).queues.get(queue).is_some_and(|queue| queue.kind == QueueKind::Rpc);
        consumer::consume(&self.shared.options, queue, prefetch, rpc, self.stop.child_token()).await
    }

    fn state(&self) -> BusState {
        let link = match (self.publisher.link(), self.caller.link()) {
            // Nobody looks whether queues are there: not all that must work does.
            _ if !self.shared.watched.load(Ordering::Acquire) => Link::Down,
            (Link::Down, _) | (_, Link::Down) => Link::Down,
            (Link::Blocked, _) | (_, Link::Blocked) => Link::Blocked,
            (Link::Up, Link::Up) => Link::Up,
        };
        // Each lock is let go before the next: a guard in the middle of an expression is held until its end.
        let missing = held(&self.shared.missing).clone();
        let mut faults = held(&self.shared.faults).clone();
        faults.extend(missing.iter().map(|name| Fault::queue(name, is_missing(name))));
        BusState { link, missing, faults, late_replies: self.shared.late_replies.load(Ordering::Relaxed) }
    }

    fn refuses(&self, message: &Message) -> Option<String> {
        let missing = held(&self.shared.missing);
        if missing.is_empty() || !message.mandatory {
            return None;
        }
        let topology = held(&self.shared.topology);
        let bound = |name: &String| {
            let queue = topology.queues.get(name)?;
            queue.bind.iter().any(|binding| binding.exchange == message.exchange).then_some(())
        };
        let would_reach = |name: &&String| match message.exchange.as_str() {
            "" => **name == message.key,
            exchange => *name == exchange || bound(name).is_some(),
        };
        missing.iter().find(would_reach).map(|name| is_missing(name))
    }

    fn queues(&self) -> BTreeMap<String, Option<QueueNow>> {
        held(&self.shared.queues).clone()
    }

    fn retries(&self) -> bool {
        true
    }

    async fn close(&self) {
        // Settlements and confirms are sent as they come; what is left is the links' orderly end.
        self.stop.cancel();
        self.publisher.ended().await;
        self.caller.ended().await;
    }
}
