//! RabbitMQ (AMQP 0-9-1) by sessions of our own on the library's frames; lapin connects and reads URLs. Each role has a
//! connection and a supervisor of its own: a link that breaks is dropped whole and made anew, and the outcome of what was
//! under way on it is unknown. No type of lapin's leaves this module.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use tokio::sync::{Notify, watch as channel};
use tokio_util::sync::CancellationToken;

use super::{Bus, BusError, BusState, Deliveries, Fault, Link, QueueNow, Subject, pending::Pending, stamp_call};
use crate::{
    message::{Away, CallError, Message, Outcome, Reply},
    topology::{QueueKind, Topology},
};

mod consumer;
mod content;
mod content_header;
mod control;
mod convert;
mod counts;
mod declare;
mod encode;
mod handshake;
mod holds;
mod incoming;
mod lane;
mod lanes;
mod link;
mod methods;
#[cfg(test)]
mod model_broker;
mod outstanding;
mod owner;
mod publish_refusal;
mod publisher;
mod refusal;
mod renewal;
mod rpc;
mod session;
mod watch;

pub use link::{Login, Options};

use counts::Counts;
use publisher::Publisher;
use watch::{Clock, Reach, Watch};

/// How long a call may wait to hear whether its queue has a consumer.
const CONSUMER_KNOWN_WITHIN: Duration = Duration::from_millis(200);

/// How long a publish may wait for a look at its queues.
const LOOKED_WITHIN: Duration = Duration::from_millis(250);
/// How long a table with the first calls may wait for their link.
const CALLS_WITHIN: Duration = Duration::from_secs(1);

/// A bus on one broker, or on several addresses of one cluster.
pub struct Amqp {
    shared: Arc<Shared>,
    publisher: Publisher,
    /// Requests go out on a link of their own, which their replies come back on; only while a table has calls.
    caller: ArcSwapOption<Caller>,
    stop: CancellationToken,
}

struct Caller {
    publisher: Publisher,
    stop: CancellationToken,
}

struct Shared {
    options: Options,
    /// The topology in force, which is declared again at each connection, and what is known of it.
    watch: ArcSwap<Watch>,
    /// What the broker refuses of it.
    faults: Mutex<BTreeMap<Subject, Fault>>,
    /// Whether anything is refused or missing: a publish that goes where all is well looks no further.
    trouble: AtomicBool,
    clock: Clock,
    /// Asks the control link for a look at what is wanted.
    wake: Notify,
    /// Told after each look, and when there is nobody to look.
    looked: Notify,
    /// Told when another topology is in force.
    changed: Notify,
    control_is_up: AtomicBool,
    /// Whether what is in force was declared and looked at on the link of now.
    settled: channel::Sender<bool>,
    /// One declaration at a time.
    declaring: tokio::sync::Mutex<()>,
    counts: Counts,
    pending: Pending,
    /// Where replies come to; changes with each connection of the caller.
    reply_to: Mutex<Option<String>>,
    late_replies: AtomicU64,
}

impl Shared {
    fn new(options: Options) -> Self {
        let pending = Pending::new(options.replies.clone());
        Self {
            options,
            watch: ArcSwap::from_pointee(Watch::new(Topology::default(), None)),
            faults: Mutex::default(),
            trouble: AtomicBool::new(false),
            clock: Clock::default(),
            wake: Notify::new(),
            looked: Notify::new(),
            changed: Notify::new(),
            control_is_up: AtomicBool::new(false),
            settled: channel::Sender::new(false),
            declaring: tokio::sync::Mutex::default(),
            counts: Counts::default(),
            pending,
            reply_to: Mutex::default(),
            late_replies: AtomicU64::new(0),
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn put_in_force(&self, topology: Topology) {
        let watch = Watch::new(topology, Some(&self.watch.load()));
        held(&self.faults).retain(|subject, _| match subject {
            Subject::Queue(name) => watch.topology.queues.contains_key(name),
            Subject::Exchange(name) => {
                watch.topology.exchanges.contains_key(name) || watch.topology.samples.contains_key(name)
            }
            Subject::Replies => watch.topology.calls,
        });
        self.watch.store(Arc::new(watch));
        self.note_trouble();
        self.changed.notify_one();
    }

    /// Notes what the broker refuses of all that is in force, or of a part of it; what is new is logged.
    fn note_faults(&self, faults: Vec<Fault>, part: Option<&BTreeSet<Subject>>) {
        let mut known = held(&self.faults);
        let mut before = std::mem::take(&mut *known);
        if let Some(part) = part {
            let (again, others) = before.into_iter().partition(|(subject, _)| part.contains(subject));
            (before, *known) = (again, others);
        }
        for fault in faults {
            if before.get(&fault.subject) != Some(&fault) {
                tracing::error!("{}", fault.why);
            }
            known.insert(fault.subject.clone(), fault);
        }
        drop(known);
        self.note_trouble();
    }

    fn note_trouble(&self) {
        let refused = held(&self.faults).values().any(|fault| fault.refuses);
        let trouble = refused || self.watch.load().all().any(|watched| !watched.is_there());
        self.trouble.store(trouble, Ordering::Release);
    }
}

impl Amqp {
    /// Starts to connect and returns at once; a broker that is away is tried until it is there. Needs a runtime.
    pub fn connect(options: Options) -> Arc<Self> {
        let shared = Arc::new(Shared::new(options));
        let stop = CancellationToken::new();
        let publisher = Publisher::start(shared.clone(), false, stop.clone());
        control::start(shared.clone(), stop.clone());
        counts::start(shared.clone(), stop.clone());
        Arc::new(Self { shared, publisher, caller: ArcSwapOption::empty(), stop })
    }

    /// What this process needs of a topology.
    fn needed(&self, topology: &Topology) -> Topology {
        let mut needed = topology.clone();
        if !self.shared.options.serves_routes {
            needed.calls = false;
            needed.samples.clear();
        }
        needed
    }

    /// The link for calls, begun where a table has calls. It stays for requests on an earlier table until
    /// [`Amqp::end_unneeded`].
    fn begin_calls(&self, topology: &Topology) {
        if topology.calls && self.caller.load().is_none() {
            let stop = self.stop.child_token();
            let publisher = Publisher::start(self.shared.clone(), true, stop.clone());
            self.caller.store(Some(Arc::new(Caller { publisher, stop })));
        }
    }

    /// Waits for a moment until calls can be made, so that the first one after a table took effect finds its link.
    async fn calls_begun(&self) {
        let Some(caller) = self.caller.load_full() else { return };
        let deadline = Instant::now() + CALLS_WITHIN;
        while caller.publisher.link() == Link::Down && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn end_unneeded(&self, topology: &Topology) {
        if !topology.calls
            && let Some(caller) = self.caller.swap(None)
        {
            caller.stop.cancel();
        }
    }

    /// Waits until what a message would reach was looked at, or it is known that it can't be published. Where the broker is
    /// slow to answer, what is known from before has to do, as long as the link counts as alive.
    async fn look_first(&self, message: &Message, deadline: Instant) -> Option<Outcome> {
        let patience = deadline.min(Instant::now() + LOOKED_WITHIN);
        loop {
            let looked = self.shared.looked.notified();
            tokio::pin!(looked);
            looked.as_mut().enable();
            match self.shared.watch.load().reach(message, self.shared.clock.now(), watch::FRESH) {
                Reach::There => return None,
                Reach::Missing => return Some(Outcome::Unroutable),
                Reach::Unsure => {}
            }
            if !self.shared.control_is_up.load(Ordering::Acquire) {
                return Some(Outcome::NotSent(Away::Down));
            }
            self.shared.wake.notify_one();
            if tokio::time::timeout_at(patience.into(), looked).await.is_err() {
                return match self.shared.watch.load().reach(message, self.shared.clock.now(), control::LOOK_WITHIN) {
                    Reach::There => None,
                    Reach::Missing => Some(Outcome::Unroutable),
                    Reach::Unsure => Some(Outcome::NotSent(Away::Down)),
                };
            }
        }
    }
}

impl Drop for Amqp {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Bus for Amqp {
    async fn start(&self, topology: &Topology) -> Result<(), BusError> {
        let topology = self.needed(topology);
        self.shared.settled.send_replace(false);
        self.begin_calls(&topology);
        self.shared.put_in_force(topology);
        let mut settled = self.shared.settled.subscribe();
        let _ = settled.wait_for(|settled| *settled).await;
        self.calls_begun().await;
        let faults: Vec<Fault> = held(&self.shared.faults).values().filter(|fault| fault.refuses).cloned().collect();
        if faults.is_empty() { Ok(()) } else { Err(BusError::Topology(faults)) }
    }

    async fn declare(&self, topology: &Topology) -> Result<(), BusError> {
        let topology = self.needed(topology);
        let _one_at_a_time = self.shared.declaring.lock().await;
        let in_force = self.shared.watch.load_full();
        if in_force.topology == topology {
            // Nothing that only an earlier table needed is needed any more.
            self.end_unneeded(&topology);
            if *self.shared.settled.borrow() && held(&self.shared.faults).is_empty() {
                return Ok(());
            }
        }
        let faults = declare::candidate(&self.shared.options, &topology, &in_force.topology).await?;
        self.begin_calls(&topology);
        self.shared.put_in_force(topology);
        self.shared.note_faults(faults, None);
        self.calls_begun().await;
        Ok(())
    }

    async fn publish(&self, message: Message, deadline: Instant) -> Outcome {
        if message.mandatory && !message.exchange.is_empty() && self.publisher.link() == Link::Up {
            let reach = self.shared.watch.load().reach(&message, self.shared.clock.now(), watch::FRESH);
            // In a box: it is rare, and every publish's future would have the room for it.
            if reach != Reach::There
                && let Some(outcome) = Box::pin(self.look_first(&message, deadline)).await
            {
                return outcome;
            }
        }
        self.publisher.publish(message, deadline).await
    }

    async fn call(&self, mut message: Message, deadline: Instant) -> Result<Reply, CallError> {
        let down = Err(CallError::NotSent(Away::Down));
        let Some(caller) = self.caller.load_full() else { return down };
        if message.exchange.is_empty() && caller.publisher.link() == Link::Up {
            // An `rpc` queue is there only while a worker consumes it: the broker returns what finds none.
            let keeps = self.shared.watch.load().topology.queues.get(&message.key).map(|queue| queue.kind);
            if keeps.is_some_and(|kind| kind != QueueKind::Rpc) {
                let (counts, now) = (&self.shared.counts, self.shared.clock.now());
                let unconsumed = counts.is_unconsumed(&message.key, now, watch::FRESH, CONSUMER_KNOWN_WITHIN);
                if Box::pin(unconsumed).await == Some(true) {
                    return Err(CallError::NoWorker);
                }
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let correlation = stamp_call(&mut message, held(&self.shared.reply_to).clone(), left);
        let mut expected = self.shared.pending.expect(correlation.clone());
        caller.publisher.call(message, deadline, correlation).await.map_err(CallError::NotSent)?;
        expected.answered(deadline).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Deliveries, BusError> {
        let queues = self.shared.watch.load_full();
        let rpc = queues.topology.queues.get(queue).is_some_and(|queue| queue.kind == QueueKind::Rpc);
        consumer::consume(&self.shared.options, queue, prefetch, rpc, self.stop.child_token()).await
    }

    fn state(&self) -> BusState {
        let watch = self.shared.watch.load();
        let mut faults = held(&self.shared.faults).clone();
        let waits_for_replies = watch.topology.calls && !faults.contains_key(&Subject::Replies);
        let caller = self.caller.load();
        let calls = caller.as_ref().map_or(Link::Down, |caller| caller.publisher.link());
        let link = match (self.publisher.link(), if waits_for_replies { calls } else { Link::Up }) {
            // Nobody looks whether queues are there: not all that must work does.
            _ if !*self.shared.settled.borrow() => Link::Down,
            (Link::Down, _) | (_, Link::Down) => Link::Down,
            (Link::Blocked, _) | (_, Link::Blocked) => Link::Blocked,
            (Link::Up, Link::Up) => Link::Up,
        };
        let mut missing = BTreeSet::new();
        for watched in watch.all().filter(|watched| !watched.is_there()) {
            let subject = watched.subject.clone();
            if let Subject::Queue(name) | Subject::Exchange(name) = &subject {
                missing.insert(name.clone());
            }
            let why = watch::missing(&subject);
            let fault = Fault { subject: subject.clone(), refuses: true, broker_answers: false, why };
            match faults.get(&subject) {
                Some(known) if known.refuses => {}
                _ => drop(faults.insert(subject, fault)),
            }
        }
        BusState {
            link,
            missing,
            faults: faults.into_values().collect(),
            late_replies: self.shared.late_replies.load(Ordering::Relaxed),
        }
    }

    fn refuses(&self, message: &Message) -> Option<String> {
        if !self.shared.trouble.load(Ordering::Acquire) {
            return None;
        }
        self.shared.watch.load().refuses(message, &held(&self.shared.faults))
    }

    fn queues(&self) -> BTreeMap<String, Option<QueueNow>> {
        self.shared.counts.all(self.shared.clock.now())
    }

    fn retries(&self) -> bool {
        true
    }

    async fn close(&self) {
        // Settlements and confirms are sent as they come; what is left is the links' orderly end.
        self.stop.cancel();
        self.publisher.ended().await;
        if let Some(caller) = self.caller.load_full() {
            caller.publisher.ended().await;
        }
    }
}
