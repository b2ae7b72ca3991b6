//! Confirmed publishes: one task owns the channel, many are outstanding, and none is decided before it is certain.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures::{
    StreamExt as _,
    task::{ArcWake, waker},
};
use lapin::{
    Channel, Confirmation, Connection, Event,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Shared,
    convert::{message, short, to_amqp},
    held,
    link::{ANSWER_WITHIN, CLOSE_WITHIN, Ended, silence, supervise},
};
use crate::{
    bus::Link,
    message::{Away, Message, Outcome, Reply},
};

/// Most publishes without their confirm. lapin looks through all of them at each `multiple` confirm.
const OUTSTANDING: usize = 512;
/// Publishes that wait for their turn.
const WAITING: usize = 4_096;

/// Publishes on a link of its own.
pub(super) struct Publisher {
    requests: mpsc::Sender<Request>,
    link: Arc<AtomicU8>,
    ended: watch::Receiver<bool>,
}

struct Request {
    message: Message,
    deadline: Instant,
    done: oneshot::Sender<Outcome>,
}

impl Publisher {
    /// `replies`: whether replies to calls come back on this link.
    pub fn start(shared: Arc<Shared>, replies: bool, stop: CancellationToken) -> Self {
        let (requests, received) = mpsc::channel(WAITING);
        let link = Arc::new(AtomicU8::new(0));
        let (ending, ended) = watch::channel(false);
        let state = link.clone();
        tokio::spawn(async move {
            let role = if replies { "call" } else { "publish" };
            let received = tokio::sync::Mutex::new(received);
            supervise(role, &stop, || async {
                let mut received = received.lock().await;
                let ended = run(&shared, replies, role, &state, &mut received, &stop).await;
                state.store(0, Ordering::Release);
                if replies {
                    *held(&shared.reply_to) = None;
                    shared.pending.broken();
                }
                // What waits was never sent.
                while let Ok(request) = received.try_recv() {
                    let _ = request.done.send(Outcome::NotSent(Away::Down));
                }
                ended
            })
            .await;
            let _ = ending.send(true);
        });
        Self { requests, link, ended }
    }

    pub fn link(&self) -> Link {
        match self.link.load(Ordering::Acquire) {
            0 => Link::Down,
            1 => Link::Up,
            _ => Link::Blocked,
        }
    }

    pub async fn publish(&self, message: Message, deadline: Instant) -> Outcome {
        match self.link() {
            Link::Up => {}
            Link::Blocked => return Outcome::NotSent(Away::Blocked),
            Link::Down => return Outcome::NotSent(Away::Down),
        }
        let (done, result) = oneshot::channel();
        let until = tokio::time::Instant::from_std(deadline);
        let request = Request { message, deadline, done };
        if let Err(refused) = self.requests.try_send(request) {
            // Rare, and in a box so that it does not make every publish's future big.
            let sent = Box::pin(self.requests.send(refused.into_inner()));
            if !matches!(tokio::time::timeout_at(until, sent).await, Ok(Ok(()))) {
                return Outcome::NotSent(Away::Blocked);
            }
        }
        match tokio::time::timeout_at(until, result).await {
            Ok(Ok(outcome)) => outcome,
            // The link ended under it, or its time is over: it may have been sent.
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        }
    }

    /// Once the link has ended for good.
    pub async fn ended(&self) {
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

async fn run(
    shared: &Arc<Shared>,
    replies: bool,
    role: &str,
    state: &AtomicU8,
    received: &mut mpsc::Receiver<Request>,
    stop: &CancellationToken,
) -> Ended {
    let connection = match shared.options.connect(role).await {
        Ok(connection) => connection,
        Err(why) => return Ended::never_up(why),
    };
    let mut events = Box::pin(connection.events_listener());
    // Without the queue that replies come to, no call can be answered.
    let inbox = CancellationToken::new();
    let preparing = prepare(&connection, shared, replies, inbox.clone());
    let channel = match tokio::time::timeout(ANSWER_WITHIN, preparing).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return Ended::never_up(error.to_string()),
        Err(_) => return Ended::never_up("the broker does not answer".into()),
    };
    state.store(1, Ordering::Release);
    let mut owner = Owner::new(channel);
    let woken = owner.woken.clone();
    let mut batch = Vec::with_capacity(OUTSTANDING);
    let mut renewal = Renewal::default();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let silent = silence(&connection, || state.load(Ordering::Acquire) == 2);
    tokio::pin!(silent);
    loop {
        if renewal.is_due() && owner.outstanding == 0 {
            match tokio::time::timeout(ANSWER_WITHIN, confirming(&connection)).await {
                Ok(Ok(channel)) => owner.channel = Arc::new(channel),
                Ok(Err(error)) => return Ended::after_up(error),
                Err(_) => return Ended::after_up("the broker does not answer"),
            }
            renewal.done();
        }
        while let Some(request) = if renewal.is_due() { None } else { owner.next_held_back() } {
            if let Err(why) = owner.take(request) {
                return Ended::after_up(why);
            }
        }
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(_)) => {
                    tracing::warn!(role, "the broker takes nothing (an alarm)");
                    state.store(2, Ordering::Release);
                    owner.tell_all(Outcome::Unknown);
                    while let Ok(request) = received.try_recv() {
                        let _ = request.done.send(Outcome::NotSent(Away::Blocked));
                    }
                }
                Some(Event::ConnectionUnblocked) => state.store(1, Ordering::Release),
                Some(Event::Error(error)) => return Ended::after_up(error),
                Some(_) => {}
                None => return Ended::after_up("the connection ended"),
            },
            () = inbox.cancelled() => return Ended::after_up("the queue of replies is gone"),
            why = &mut silent => return Ended::after_up(why),
            () = woken.some.notified() => {
                if let Err(why) = owner.land(Vec::new()) {
                    return Ended::after_up(why);
                }
            }
            _ = second.tick() => renewal.second(std::mem::take(&mut owner.rejected)),
            request = received.recv(), if !renewal.is_due() && owner.outstanding < OUTSTANDING => {
                let Some(request) = request else { return Ended::after_up("the bus is closed") };
                batch.push(request);
                // Handlers that are ready hand theirs over first: what leaves as one write costs us and the broker less.
                tokio::task::yield_now().await;
                while owner.outstanding + batch.len() < OUTSTANDING
                    && let Ok(request) = received.try_recv()
                {
                    batch.push(request);
                }
                let mut broken = None;
                for request in batch.drain(..) {
                    if broken.is_some() {
                        let _ = request.done.send(Outcome::NotSent(Away::Down));
                    } else if state.load(Ordering::Acquire) == 2 {
                        let _ = request.done.send(Outcome::NotSent(Away::Blocked));
                    } else {
                        broken = owner.take(request).err();
                    }
                }
                if let Some(why) = broken {
                    return Ended::after_up(why);
                }
            }
            () = stop.cancelled() => {
                let _ = tokio::time::timeout(CLOSE_WITHIN, connection.close(200, "bye".into())).await;
                return Ended::after_up("the bus is closed");
            }
        }
    }
}

/// A channel with confirms.
async fn confirming(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// When a channel is exchanged for a new one. A channel whose first publish to a quorum queue came while the queue's leader
/// was lost remembers the dead node, and rejects every publish to that queue for as long as the node is away (seen with
/// RabbitMQ 3.10.8): so one that rejects is exchanged once nothing is outstanding on it. That a queue is really full looks
/// the same: the pauses grow.
struct Renewal {
    /// Seconds in a row in which publishes were rejected.
    rejecting: u32,
    /// How many make it due.
    after: u32,
    /// Seconds that it has been due: in-flight publishes that do not land must not keep others out.
    due: Option<u32>,
}

impl Default for Renewal {
    fn default() -> Self {
        Self { rejecting: 0, after: 1, due: None }
    }
}

impl Renewal {
    const LONGEST: u32 = 16;
    const WAITS: u32 = 2;

    fn is_due(&self) -> bool {
        self.due.is_some()
    }

    /// A second has passed, with so many rejected publishes.
    fn second(&mut self, rejected: usize) {
        if let Some(waited) = &mut self.due {
            *waited += 1;
            if *waited > Self::WAITS {
                self.done();
            }
        } else if rejected == 0 {
            *self = Self::default();
        } else {
            self.rejecting += 1;
            if self.rejecting >= self.after {
                self.due = Some(0);
            }
        }
    }

    fn done(&mut self) {
        *self = Self { rejecting: 0, after: (self.after * 2).min(Self::LONGEST), due: None };
    }
}

/// A channel with confirms and, for calls, the queue that their replies come to.
async fn prepare(
    connection: &Connection,
    shared: &Arc<Shared>,
    replies: bool,
    inbox_gone: CancellationToken,
) -> lapin::Result<Channel> {
    let channel = confirming(connection).await?;
    if !replies {
        return Ok(channel);
    }
    let inbox = connection.create_channel().await?;
    let name = format!("fpesa.reply.{}", Uuid::new_v4().simple());
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    inbox.queue_declare(short(&name), options, FieldTable::default()).await?;
    let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
    let mut consumer = inbox.basic_consume(short(&name), "".into(), options, FieldTable::default()).await?;
    *held(&shared.reply_to) = Some(name);
    let shared = shared.clone();
    tokio::spawn(async move {
        // The channel lives as long as its consumer is read.
        let _inbox = inbox;
        let _gone = inbox_gone.drop_guard();
        while let Some(Ok(delivery)) = consumer.next().await {
            let message = message("", "", &delivery.properties, delivery.data);
            if !shared.pending.answer(Reply { properties: message.properties, body: message.body }) {
                shared.late_replies.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    Ok(channel)
}

type Landed = (u64, lapin::Result<Confirmation>);
type Flight = Pin<Box<dyn Future<Output = Landed> + Send>>;

/// Publishes whose confirm woke them, by number. lapin completes confirms one after the other, each with its wake-up:
/// whatever completed before one that is seen to be complete stands in here already.
#[derive(Default)]
struct Woken {
    numbers: Mutex<Vec<u64>>,
    some: Notify,
}

/// Wakes one publish.
struct Wake {
    number: u64,
    woken: Arc<Woken>,
}

impl ArcWake for Wake {
    fn wake_by_ref(wake: &Arc<Self>) {
        held(&wake.woken.numbers).push(wake.number);
        wake.woken.some.notify_one();
    }
}

/// One publish that is not settled.
struct Waiting {
    id: Arc<str>,
    /// `None` once its confirm is here.
    flight: Option<Flight>,
    waker: Waker,
    /// `None` once its outcome is told.
    done: Option<oneshot::Sender<Outcome>>,
}

/// The one task's own state.
///
/// lapin attaches a `basic.return` to whichever confirm completes next, not to the one it belongs to, so an ack alone
/// says little. What holds: a message's return comes before its own ack, and each completing confirm takes at most one
/// return, the oldest. So, with everything taken in that has completed (see [`Woken`]):
///
/// 1. a message whose id came back is unroutable, whoever brought the return;
/// 2. an ack without a return found none waiting: its own, had there been one, was brought by an earlier confirm, and
///    is known by now. It is routed;
/// 3. an ack that brought another's return may have left its own waiting: it is routed once a *later* confirm came
///    without a return, or nothing is outstanding any more.
struct Owner {
    channel: Arc<Channel>,
    /// How many have no confirm yet.
    outstanding: usize,
    woken: Arc<Woken>,
    next: u64,
    waiting: HashMap<u64, Waiting>,
    /// Publishes by message id: of each id one at a time, so that a return names one publish.
    by_id: HashMap<Arc<str>, u64>,
    /// Publishes whose id is outstanding already.
    held_back: VecDeque<Request>,
    /// Acked with another's return, and not known to be routed yet.
    undecided: Vec<u64>,
    /// Rejected since it was last looked at.
    rejected: usize,
}

impl Owner {
    fn new(channel: Channel) -> Self {
        Self {
            channel: Arc::new(channel),
            outstanding: 0,
            woken: Arc::default(),
            next: 0,
            waiting: HashMap::new(),
            by_id: HashMap::new(),
            held_back: VecDeque::new(),
            undecided: Vec::new(),
            rejected: 0,
        }
    }

    /// Sends a publish, or holds it back while another of the same id is outstanding.
    fn take(&mut self, request: Request) -> Result<(), String> {
        if request.done.is_closed() || request.deadline <= Instant::now() {
            // Nobody waits any more, and it was never sent.
            let _ = request.done.send(Outcome::NotSent(Away::Blocked));
            return Ok(());
        }
        let id: Arc<str> = request.message.properties.message_id.as_deref().unwrap_or_default().into();
        if self.by_id.contains_key(&id) {
            self.held_back.push_back(request);
            return Ok(());
        }
        self.next += 1;
        let number = self.next;
        self.by_id.insert(id.clone(), number);
        let (channel, message) = (self.channel.clone(), request.message);
        let flight: Flight = Box::pin(async move {
            let options = BasicPublishOptions { mandatory: message.mandatory, ..BasicPublishOptions::default() };
            let sent = channel.basic_publish(
                short(message.exchange),
                short(message.key),
                options,
                &message.body,
                to_amqp(message.properties),
            );
            let confirmed = async { sent.await?.await };
            (number, confirmed.await)
        });
        let waker = waker(Arc::new(Wake { number, woken: self.woken.clone() }));
        self.waiting.insert(number, Waiting { id, flight: Some(flight), waker, done: Some(request.done) });
        self.outstanding += 1;
        // The first poll takes the delivery tag and queues the frames: publishes leave in the order that they came.
        let first = self.poll(number);
        if first.is_some() { self.land(first.into_iter().collect()) } else { Ok(()) }
    }

    fn poll(&mut self, number: u64) -> Option<Landed> {
        let waiting = self.waiting.get_mut(&number)?;
        let flight = waiting.flight.as_mut()?;
        match flight.as_mut().poll(&mut Context::from_waker(&waiting.waker)) {
            Poll::Ready(landed) => {
                waiting.flight = None;
                self.outstanding -= 1;
                Some(landed)
            }
            Poll::Pending => None,
        }
    }

    /// Takes in everything that has completed, and decides what is certain by it.
    fn land(&mut self, mut landed: Vec<Landed>) -> Result<(), String> {
        loop {
            let numbers = std::mem::take(&mut *held(&self.woken.numbers));
            if numbers.is_empty() {
                break;
            }
            landed.extend(numbers.into_iter().filter_map(|number| self.poll(number)));
        }
        let mut acks = Vec::with_capacity(landed.len());
        for (number, result) in landed {
            let (acked, returned) = match result.map_err(|error| error.to_string())? {
                Confirmation::Ack(returned) => (true, returned),
                Confirmation::Nack(returned) => (false, returned),
                Confirmation::NotRequested => return Err("confirms are off".into()),
            };
            if let Some(returned) = &returned {
                let id = returned.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
                self.came_back(&id);
            }
            acks.push((number, acked, returned.is_some()));
        }
        let before = std::mem::take(&mut self.undecided);
        let none_was_left = acks.iter().any(|(_, _, brought)| !brought);
        for (number, acked, brought) in acks {
            match (acked, brought) {
                (false, _) => {
                    self.rejected += 1;
                    self.settle(number, Outcome::Rejected);
                }
                (true, false) => self.settle(number, Outcome::Routed),
                (true, true) => self.undecided.push(number),
            }
        }
        if none_was_left {
            for number in before {
                self.settle(number, Outcome::Routed);
            }
        } else {
            self.undecided.extend(before);
        }
        if self.outstanding == 0 {
            for number in std::mem::take(&mut self.undecided) {
                self.settle(number, Outcome::Routed);
            }
        }
        Ok(())
    }

    /// The message with this id is unroutable, whether its own confirm is here yet or not.
    fn came_back(&mut self, id: &str) {
        let waiting = self.by_id.get(id).and_then(|number| self.waiting.get_mut(number));
        if let Some(done) = waiting.and_then(|waiting| waiting.done.take()) {
            let _ = done.send(Outcome::Unroutable);
        }
    }

    /// The publish is over; where its outcome is not told yet it is this one.
    fn settle(&mut self, number: u64, outcome: Outcome) {
        if let Some(waiting) = self.waiting.remove(&number) {
            if let Some(done) = waiting.done {
                let _ = done.send(outcome);
            }
            self.by_id.remove(&waiting.id);
        }
    }

    /// Tells everyone who waits; their confirms are still taken in when they come.
    fn tell_all(&mut self, outcome: Outcome) {
        for done in self.waiting.values_mut().filter_map(|waiting| waiting.done.take()) {
            let _ = done.send(outcome);
        }
        for request in self.held_back.drain(..) {
            let _ = request.done.send(Outcome::NotSent(Away::Blocked));
        }
    }

    /// A publish that was held back and can go now.
    fn next_held_back(&mut self) -> Option<Request> {
        let free = |request: &Request| {
            !self.by_id.contains_key(request.message.properties.message_id.as_deref().unwrap_or_default())
        };
        let at = self.held_back.iter().position(free)?;
        self.held_back.remove(at)
    }
}
