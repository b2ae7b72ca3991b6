//! Consumers and messages of the topology's queues, on a link that is there only while somebody asks: the page, or a call to
//! a queue that need not have a worker. Each look asks the queue itself, which costs the broker ten times what a look for its
//! existence does.
//!
//! A look at an `rpc` queue that nobody consumes renews its `x-expires`, and so would keep it alive, to swallow calls: once it
//! is seen without a consumer it is left alone for much longer than it lives, however many gateways look.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use amq_protocol::protocol::{AMQPClass, queue};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Shared, held,
    rpc::{Failure, Rpc, passive_queue},
};
use crate::{
    bus::QueueNow,
    topology::{QueueKind, Topology},
};

/// From one look at a queue to the next, while the page is read.
const USUALLY: Duration = Duration::from_secs(4);
/// The same for an `rpc` queue that nobody consumes, doubled each time; gone after `x-expires`, 5 s.
const IDLE: Duration = Duration::from_secs(12);
const LONGEST: Duration = Duration::from_secs(300);
/// Looks at a time: more of them wait for the next turn.
const MAX_LOOKS: usize = 50;
const TURN: Duration = Duration::from_secs(1);
/// The link ends once nobody has asked for so long.
const UNTIL_UNASKED: Duration = Duration::from_secs(30);
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// What was counted, and what is asked for.
#[derive(Default)]
pub(super) struct Counts {
    known: Mutex<BTreeMap<String, Known>>,
    /// Queues that calls wait to hear of.
    wanted: Mutex<Vec<String>>,
    /// When all were asked for last ([`super::watch::Clock`]); 0 for never.
    asked: AtomicU64,
    wake: Notify,
    counted: Notify,
}

struct Known {
    now: Option<QueueNow>,
    /// When the look began ([`super::watch::Clock`]).
    looked: u64,
    next: Instant,
    pause: Duration,
}

impl Counts {
    /// What is known of all queues; keeps it up to date for a while.
    pub fn all(&self, now: u64) -> BTreeMap<String, Option<QueueNow>> {
        self.asked.store(now, Ordering::Relaxed);
        self.wake.notify_one();
        held(&self.known).iter().map(|(name, known)| (name.clone(), known.now)).collect()
    }

    /// Whether a queue is without any consumer, by a look that is not older than `fresh` and, where it found none, not older
    /// than this call. `None` when that can't be learned within `limit`.
    pub async fn is_unconsumed(&self, queue: &str, now: u64, fresh: Duration, limit: Duration) -> Option<bool> {
        let waiting = async {
            loop {
                let counted = self.counted.notified();
                tokio::pin!(counted);
                counted.as_mut().enable();
                let seen = held(&self.known).get(queue).map(|known| (known.looked, known.now));
                match seen {
                    Some((looked, Some(QueueNow { consumers: 1.., .. })))
                        if looked + u64::try_from(fresh.as_millis()).unwrap_or(0) >= now =>
                    {
                        return false;
                    }
                    // One that is not there at all is told by the broker, which returns the request.
                    Some((looked, counts)) if looked >= now => {
                        return counts.is_some_and(|counts| counts.consumers == 0);
                    }
                    _ => {}
                }
                self.want(queue);
                counted.await;
            }
        };
        tokio::time::timeout(limit, waiting).await.ok()
    }
}

impl Counts {
    fn want(&self, queue: &str) {
        let mut wanted = held(&self.wanted);
        if !wanted.iter().any(|name| name == queue) {
            wanted.push(queue.to_owned());
        }
        drop(wanted);
        self.wake.notify_one();
    }
}

pub(super) fn start(shared: Arc<Shared>, stop: CancellationToken) {
    tokio::spawn(async move {
        tokio::select! {
            () = run(&shared) => {}
            () = stop.cancelled() => {}
        }
    });
}

async fn run(shared: &Shared) {
    loop {
        shared.counts.wake.notified().await;
        match Rpc::connect(&shared.options, "counts").await {
            Ok(mut rpc) => {
                if let Err(why) = count(shared, &mut rpc).await {
                    tracing::debug!(why, "the link that counts consumers ended");
                } else {
                    rpc.close().await;
                }
            }
            Err(why) => {
                tracing::debug!(why, "consumers can't be counted");
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
        // Nothing of it is true any more.
        held(&shared.counts.known).clear();
    }
}

/// Counts until nobody asks.
async fn count(shared: &Shared, rpc: &mut Rpc) -> Result<(), String> {
    let counts = &shared.counts;
    let mut turn = tokio::time::interval(TURN);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last_asked = Instant::now();
    loop {
        let began = shared.clock.now();
        let mut due = std::mem::take(&mut *held(&counts.wanted));
        let watch = shared.watch.load_full();
        let asked = counts.asked.load(Ordering::Relaxed);
        let all = asked != 0 && began.saturating_sub(asked) < u64::try_from(UNTIL_UNASKED.as_millis()).unwrap_or(0);
        if all || !due.is_empty() {
            last_asked = Instant::now();
        } else if last_asked.elapsed() > UNTIL_UNASKED {
            return Ok(());
        }
        if all {
            due.extend(counts.due(&watch.topology));
        }
        for name in due {
            let found = match rpc.ask(passive_queue(&name, false)).await {
                Ok(AMQPClass::Queue(queue::AMQPMethod::DeclareOk(found))) => {
                    Some(QueueNow { consumers: found.consumer_count, messages: found.message_count.into() })
                }
                Ok(_) => None,
                Err(Failure::Refused(refusal)) if !refusal.ended_connection => None,
                Err(Failure::Refused(refusal)) => return Err(refusal.text),
                Err(Failure::Broken(why)) => return Err(why),
            };
            counts.seen(&watch.topology, name, found, began);
        }
        held(&counts.known).retain(|name, _| watch.topology.queues.contains_key(name));
        counts.counted.notify_waiters();
        rpc.keep_alive()?;
        tokio::select! {
            why = rpc.end() => return Err(why),
            () = counts.wake.notified(), if !held(&counts.wanted).is_empty() || !all => {}
            _ = turn.tick() => {}
        }
    }
}

impl Counts {
    /// Queues whose turn it is.
    fn due(&self, topology: &Topology) -> Vec<String> {
        let now = Instant::now();
        let known = held(&self.known);
        let due = |name: &&String| known.get(*name).is_none_or(|known| known.next <= now);
        topology.queues.keys().filter(due).take(MAX_LOOKS).cloned().collect()
    }

    fn seen(&self, topology: &Topology, name: String, now: Option<QueueNow>, looked: u64) {
        let rpc = topology.queues.get(&name).is_some_and(|queue| queue.kind == QueueKind::Rpc);
        let mut all = held(&self.known);
        let pause = match now {
            Some(QueueNow { consumers: 0, .. }) if rpc => {
                let before = all.get(&name).map(|known| known.pause).filter(|pause| *pause >= IDLE);
                before.map_or(IDLE, |pause| (pause * 2).min(LONGEST))
            }
            _ => USUALLY,
        };
        all.insert(name, Known { now, looked, next: Instant::now() + pause, pause });
    }
}
