//! Which queues are looked at when, besides those that publish routes reach. A look at an `rpc` queue that nobody consumes
//! renews its `x-expires` (RabbitMQ's `stat` does), and so would keep it alive, to swallow calls: once a queue is seen
//! without a consumer it is left alone for much longer than it lives, however many gateways look.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    bus::QueueNow,
    topology::{QueueKind, Topology},
};

/// From one look at a queue to the next.
const USUALLY: Duration = Duration::from_secs(4);
/// The same for an `rpc` queue that nobody consumes, doubled each time; gone after `x-expires`, 5 s.
const IDLE: Duration = Duration::from_secs(12);
/// The longest.
const LONGEST: Duration = Duration::from_secs(300);

/// What is known of the queues on one link.
#[derive(Debug, Default)]
pub(super) struct Census {
    queues: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    now: Option<QueueNow>,
    next: Instant,
    pause: Duration,
}

impl Census {
    /// Queues whose turn it is.
    pub fn due(&self, topology: &Topology) -> Vec<String> {
        let now = Instant::now();
        let due = |name: &&String| self.queues.get(*name).is_none_or(|known| known.next <= now);
        let others = topology.queues.keys().filter(|name| !topology.watched_queues.contains(*name));
        others.filter(due).cloned().collect()
    }

    /// What a look showed; `None`: it is not there.
    pub fn seen(&mut self, topology: &Topology, name: String, now: Option<QueueNow>) {
        let rpc = topology.queues.get(&name).is_some_and(|queue| queue.kind == QueueKind::Rpc);
        let pause = match now {
            Some(QueueNow { consumers: 0, .. }) if rpc => {
                let before = self.queues.get(&name).map(|known| known.pause).filter(|pause| *pause >= IDLE);
                before.map_or(IDLE, |pause| (pause * 2).min(LONGEST))
            }
            _ => USUALLY,
        };
        self.queues.insert(name, Known { now, next: Instant::now() + pause, pause });
    }

    /// Tells what is known of the topology's queues.
    pub fn tell(&mut self, topology: &Topology, told: &mut BTreeMap<String, Option<QueueNow>>) {
        self.queues.retain(|name, _| topology.queues.contains_key(name));
        *told = self.queues.iter().map(|(name, known)| (name.clone(), known.now)).collect();
    }
}
