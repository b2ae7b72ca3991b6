//! The broker's state: the topology in force and its queues, and how messages move between them in memory. What must
//! reach the disk is handed out as [`Op`]s, which the writer commits.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
};

use tokio::sync::mpsc;

use super::{
    Shared,
    command::{Command, Op, Sender},
    now_ms,
    queue::{Consumer, Kept, Queue},
    routing,
};
use crate::{
    bus::{BusError, Delivery, Fault, Settlement, Ticket},
    message::{CallError, HeaderValue, Message},
    topology::{Declare, DeliveryLimit, Exchange, Queue as Spec, QueueKind, Topology},
};

/// Topologies whose bindings are still honoured beside those of the one in force.
const MOST_BEFORE: usize = 8;

/// Why a message was dead-lettered, as RabbitMQ's `x-first-death-reason` has it.
#[derive(Debug, Clone, Copy)]
enum Death {
    Rejected,
    Expired,
    DeliveryLimit,
}

impl Death {
    fn word(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

#[derive(Default)]
pub(super) struct Broker {
    pub topology: Topology,
    /// Those before it, newest last, whose bindings still hold for requests that began with their tables.
    before: Vec<Topology>,
    pub queues: HashMap<String, Queue>,
    /// Kinds of the durable queues, as they were first declared.
    pub kinds: HashMap<String, QueueKind>,
    pub writer: Option<Sender>,
    /// Rows up to this one were there when the bus was opened after a crash: any may have been delivered.
    pub recovered: i64,
    next_consumer: u64,
    next_in_memory: i64,
}

impl Broker {
    /// Whether a topology can be declared beside what is there.
    pub fn check(&self, topology: &Topology) -> Result<(), BusError> {
        let exchanges = topology.exchanges.iter().filter_map(|(name, exchange)| self.check_exchange(name, exchange));
        let queues = topology.queues.iter().filter_map(|(name, queue)| self.check_queue(name, queue));
        let faults: Vec<Fault> = exchanges.chain(queues).collect();
        if faults.is_empty() { Ok(()) } else { Err(BusError::Topology(faults)) }
    }

    fn check_exchange(&self, name: &str, exchange: &Exchange) -> Option<Fault> {
        let there = routing::kind(name, &self.topology);
        if exchange.declare == Declare::Passive {
            if there.is_none() {
                return Some(Fault::exchange(
                    name,
                    format!(
                        "exchange `{name}` is `declare: passive`, and the embedded bus has no other one to make it"
                    ),
                ));
            }
            return None;
        }
        if !matches!(exchange.kind.as_str(), "topic" | "direct" | "fanout" | "headers") {
            let kind = &exchange.kind;
            return Some(Fault::exchange(
                name,
                format!(
                    "exchange `{name}`: the embedded bus has no type `{kind}`, only topic, direct, fanout and headers: \
                         choose one of these, or use RabbitMQ"
                ),
            ));
        }
        if let Some(argument) = exchange.arguments.keys().next() {
            return Some(Fault::exchange(
                name,
                format!("exchange `{name}`: the embedded bus has no argument `{argument}`: delete it, or use RabbitMQ"),
            ));
        }
        if let Some(there) = there.filter(|there| *there != exchange.kind) {
            return Some(Fault::exchange(
                name,
                format!("exchange `{name}` exists with type `{there}`, and the table says `{}`", exchange.kind),
            ));
        }
        None
    }

    fn check_queue(&self, name: &str, queue: &Spec) -> Option<Fault> {
        if let Some(argument) = queue.arguments.keys().next().filter(|_| queue.declare == Declare::Active) {
            return Some(Fault::queue(
                name,
                format!("queue `{name}`: the embedded bus has no argument `{argument}`: delete it, or use RabbitMQ"),
            ));
        }
        match self.kinds.get(name) {
            Some(there) if *there != queue.kind => {
                return Some(Fault::queue(
                    name,
                    format!(
                        "queue `{name}` exists with type `{}`, and the table says `{}`: give it another name, or its old type",
                        word(*there),
                        word(queue.kind)
                    ),
                ));
            }
            None if queue.declare == Declare::Passive && queue.kind != QueueKind::Rpc => {
                return Some(Fault::queue(name, format!("queue `{name}` is `declare: passive`, and it is not there")));
            }
            _ => {}
        }
        None
    }

    /// Puts a checked topology in force; `ids` are the rows of its new queues.
    pub fn apply(&mut self, topology: &Topology, ids: BTreeMap<String, i64>) {
        for (name, id) in ids {
            let Some(spec) = topology.queues.get(&name) else { continue };
            self.kinds.insert(name.clone(), spec.kind);
            self.queues.entry(name).or_insert_with(|| Queue::new(Some(id), spec.clone()));
        }
        for (name, spec) in &topology.queues {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.spec = spec.clone();
            }
        }
        // What was bound before stays bound until the same topology is declared again: then nobody needs it any more.
        if *topology == self.topology {
            self.before.clear();
        } else {
            self.before.push(std::mem::replace(&mut self.topology, topology.clone()));
            if self.before.len() > MOST_BEFORE {
                self.before.remove(0);
            }
        }
    }

    /// Names of the queues that take a message.
    pub fn route(&self, message: &Message) -> Vec<String> {
        if message.exchange.is_empty() {
            return self.queues.contains_key(&message.key).then(|| message.key.clone()).into_iter().collect();
        }
        let mut bound = routing::bound(message, &self.topology);
        for topology in &self.before {
            bound.extend(routing::bound(message, topology));
        }
        if !self.before.is_empty() {
            bound.sort_unstable();
            bound.dedup();
        }
        bound.into_iter().filter(|name| self.queues.contains_key(*name)).map(str::to_owned).collect()
    }

    /// Whether there is an exchange of this name.
    pub fn has_exchange(&self, name: &str) -> bool {
        self.before.iter().chain([&self.topology]).any(|topology| routing::kind(name, topology).is_some())
    }

    /// Takes a place on each durable queue; `None` when one of them is full.
    pub fn reserve(&mut self, targets: &[String]) -> Option<Vec<String>> {
        let durable: Vec<String> = targets
            .iter()
            .filter(|name| self.queues.get(*name).is_some_and(|queue| queue.id.is_some()))
            .cloned()
            .collect();
        if durable.iter().any(|name| self.queues.get(name).is_some_and(Queue::is_full)) {
            return None;
        }
        for name in &durable {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.waiting += 1;
            }
        }
        Some(durable)
    }

    /// Gives reserved places back: the message was not kept.
    pub fn give_back(&mut self, queues: &[String]) {
        for name in queues {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.waiting = queue.waiting.saturating_sub(1);
            }
        }
    }

    /// Delivers to a queue that lives in memory only.
    pub fn deliver_in_memory(&mut self, name: &str, message: &Arc<Message>, shared: &Arc<Shared>) {
        self.next_in_memory += 1;
        let seq = -self.next_in_memory;
        if let Some(queue) = self.queues.get_mut(name) {
            queue.waiting += 1;
            let expires = expires(message);
            queue.admit(Kept { seq, message: message.clone(), returns: 0, redelivered: false, expires });
        }
        self.dispatch(name, shared);
    }

    /// A committed row: into the window where there is room, else it waits on disk.
    pub fn arrived(&mut self, name: &str, seq: i64, message: &Arc<Message>, shared: &Arc<Shared>) {
        if let Some(queue) = self.queues.get_mut(name)
            && !queue.beyond
        {
            let expires = expires(message);
            queue.admit(Kept { seq, message: message.clone(), returns: 0, redelivered: false, expires });
        }
        self.dispatch(name, shared);
    }

    /// Rows that were loaded; `all` when no more wait on disk.
    pub fn loaded(&mut self, name: &str, rows: Vec<Kept>, all: bool, shared: &Arc<Shared>) {
        let recovered = self.recovered;
        if let Some(queue) = self.queues.get_mut(name) {
            queue.loading = false;
            let mut fits = true;
            for row in rows {
                let redelivered = row.returns > 0 || row.seq <= recovered;
                fits = fits && queue.admit(Kept { redelivered, ..row });
            }
            queue.beyond = !(all && fits);
        }
        self.dispatch(name, shared);
    }

    pub fn add_consumer(
        &mut self,
        name: &str,
        prefetch: u16,
        shared: &Arc<Shared>,
    ) -> Result<(u64, mpsc::Receiver<Delivery>), BusError> {
        if !self.queues.contains_key(name) {
            let spec = self.topology.queues.get(name).filter(|spec| spec.kind == QueueKind::Rpc);
            let spec = spec.cloned().ok_or_else(|| BusError::NoQueue(name.to_owned()))?;
            self.queues.insert(name.to_owned(), Queue::new(None, spec));
        }
        let credit = usize::from(prefetch.max(1));
        let (sender, received) = mpsc::channel(credit);
        self.next_consumer += 1;
        let id = self.next_consumer;
        if let Some(queue) = self.queues.get_mut(name) {
            queue.consumers.push_back(Consumer { id, sender, credit });
        }
        self.dispatch(name, shared);
        Ok((id, received))
    }

    /// Ends a consumer. An rpc queue goes with its last one, and who waits for it is told.
    pub fn remove_consumer(&mut self, name: &str, id: u64, shared: &Arc<Shared>) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        queue.consumers.retain(|consumer| consumer.id != id);
        if queue.id.is_none() && queue.consumers.is_empty() {
            for kept in &queue.ready {
                if let Some(correlation) = &kept.message.properties.correlation_id {
                    shared.pending.fail(correlation, CallError::NoWorker);
                }
            }
            self.queues.remove(name);
        }
    }

    /// Settles a delivery and tells what the disk must learn.
    pub fn settle(&mut self, name: &str, seq: i64, how: Settlement, shared: &Arc<Shared>) -> Option<Op> {
        let queue = self.queues.get_mut(name)?;
        let (consumer, mut kept) = queue.unsettled.remove(&seq)?;
        if let Some(consumer) = queue.consumers.iter_mut().find(|other| other.id == consumer) {
            consumer.credit += 1;
        }
        let op = match how {
            Settlement::Ack => Some(Op::Delete(seq)),
            Settlement::Reject => Some(self.bury(name, &kept, Death::Rejected)),
            Settlement::Return => {
                kept.redelivered = true;
                let returns = kept.returns;
                queue.give_back(kept);
                Some(Op::Returned(seq, returns))
            }
            Settlement::Retry => {
                kept.returns += 1;
                kept.redelivered = true;
                if matches!(queue.spec.delivery_limit, Some(DeliveryLimit::Count(limit)) if kept.returns > limit) {
                    Some(self.bury(name, &kept, Death::DeliveryLimit))
                } else {
                    let returns = kept.returns;
                    queue.give_back(kept);
                    Some(Op::Returned(seq, returns))
                }
            }
        };
        self.dispatch(name, shared);
        op.filter(|_| seq > 0)
    }

    /// To the queue's dead-letter queue, or away where there is none.
    fn bury(&self, name: &str, kept: &Kept, death: Death) -> Op {
        let dead = self.queues.get(name).and_then(|queue| queue.spec.dead_letter.clone());
        let Some(to) = dead.filter(|dead| self.queues.get(dead).is_some_and(|queue| queue.id.is_some())) else {
            return Op::Delete(kept.seq);
        };
        let mut message = Message::clone(&kept.message);
        let headers = &mut message.properties.headers;
        headers.entry("x-first-death-queue".into()).or_insert_with(|| HeaderValue::from(name));
        headers.entry("x-first-death-reason".into()).or_insert_with(|| HeaderValue::from(death.word()));
        message.properties.expiration = None;
        message.exchange = String::new();
        message.key.clone_from(&to);
        Op::Move { seq: kept.seq, to, message: Arc::new(message) }
    }

    /// Takes what has expired from the heads of queues, also of those that nobody consumes.
    pub fn expire(&mut self, shared: &Arc<Shared>) {
        let due = self.queues.iter().filter(|(_, queue)| queue.first_has_expired());
        let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        for name in due {
            self.dispatch(&name, shared);
        }
    }

    /// Hands ready messages to consumers with credit, in turn.
    fn dispatch(&mut self, name: &str, shared: &Arc<Shared>) {
        loop {
            let Some(queue) = self.queues.get_mut(name) else { return };
            if queue.first_has_expired() {
                let Some(kept) = queue.next() else { break };
                let op = self.bury(name, &kept, Death::Expired);
                if let (Some(writer), true) = (&self.writer, kept.seq > 0) {
                    writer.send(Command::Op(op));
                }
                continue;
            }
            // Round robin: the consumer that is served goes to the end of the line.
            let Some(at) = queue.consumers.iter().position(|c| c.credit > 0 && !c.sender.is_closed()) else { break };
            let Some(kept) = queue.next() else { break };
            let Some(mut consumer) = queue.consumers.remove(at) else { break };
            consumer.credit -= 1;
            let ticket = ticket(Arc::downgrade(shared), name.into(), kept.seq, self.writer.clone());
            let mut message = Message::clone(&kept.message);
            if kept.returns > 0 {
                // As RabbitMQ's quorum queues say it.
                message.properties.headers.insert("x-delivery-count".into(), HeaderValue::Int(kept.returns.into()));
            }
            let delivery = Delivery { message, redelivered: kept.redelivered, ticket };
            if kept.seq > queue.delivered {
                queue.delivered = kept.seq;
                queue.delivered_dirty = true;
            }
            queue.unsettled.insert(kept.seq, (consumer.id, kept));
            // The channel holds as many as there is credit; should its receiver be gone, the ticket gives it back.
            let _ = consumer.sender.try_send(delivery);
            queue.consumers.push_back(consumer);
        }
        if let Some(queue) = self.queues.get_mut(name)
            && queue.wants_more()
            && let Some(writer) = &self.writer
        {
            queue.loading = true;
            writer.send(Command::Load(name.to_owned()));
        }
    }
}

/// Settling never takes a lock: it is told to the writer, whoever drops the ticket and wherever.
fn ticket(shared: Weak<Shared>, queue: Arc<str>, seq: i64, writer: Option<Sender>) -> Ticket {
    Ticket::new(move |how| {
        if let (Some(writer), true) = (&writer, shared.strong_count() > 0) {
            writer.send(Command::Settle { queue, seq, how });
        }
    })
}

fn expires(message: &Message) -> Option<i64> {
    let left = i64::try_from(message.properties.expiration?.as_millis()).unwrap_or(i64::MAX);
    Some(now_ms().saturating_add(left))
}

fn word(kind: QueueKind) -> &'static str {
    match kind {
        QueueKind::Quorum => "quorum",
        QueueKind::Classic => "classic",
        QueueKind::Stream => "stream",
        QueueKind::Rpc => "rpc",
    }
}

/// A queue as it stands on disk before its table is declared: it keeps what it has and takes nothing new by binding.
pub(super) fn undeclared(kind: QueueKind) -> Spec {
    Spec {
        kind,
        bind: Vec::new(),
        max_length: None,
        delivery_limit: None,
        dead_letter: None,
        arguments: BTreeMap::new(),
        declare: Declare::Active,
    }
}
