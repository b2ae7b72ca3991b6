//! Confirmed publishes: one task owns the channel, many are outstanding, and none is decided before it is certain.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::Poll,
    time::Instant,
};

use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use lapin::{
    Channel, Confirmation, Connection, Event,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Shared,
    convert::{message, short, to_amqp},
    held,
    link::{Ended, supervise},
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
        if !matches!(tokio::time::timeout_at(until, self.requests.send(request)).await, Ok(Ok(()))) {
            return Outcome::NotSent(Away::Blocked);
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
    let channel = match prepare(&connection, shared, replies).await {
        Ok(channel) => channel,
        Err(error) => return Ended::never_up(error.to_string()),
    };
    state.store(1, Ordering::Release);
    let mut owner = Owner::new(channel);
    loop {
        while let Some(request) = owner.next_held_back() {
            if let Err(why) = owner.take(request).await {
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
            landed = owner.flying.next(), if !owner.flying.is_empty() => {
                if let Some(landed) = landed
                    && let Err(why) = owner.land(landed)
                {
                    return Ended::after_up(why);
                }
            }
            request = received.recv(), if owner.flying.len() < OUTSTANDING => match request {
                Some(request) => {
                    if state.load(Ordering::Acquire) == 2 {
                        let _ = request.done.send(Outcome::NotSent(Away::Blocked));
                    } else if let Err(why) = owner.take(request).await {
                        return Ended::after_up(why);
                    }
                }
                None => return Ended::after_up("the bus is closed"),
            },
            () = stop.cancelled() => {
                let _ = connection.close(200, "bye".into()).await;
                return Ended::after_up("the bus is closed");
            }
        }
    }
}

/// A channel with confirms and, for calls, the queue that their replies come to.
async fn prepare(connection: &Connection, shared: &Arc<Shared>, replies: bool) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
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

/// The one task's own state.
///
/// lapin attaches a `basic.return` to whichever confirm completes next, not to the one it belongs to, so an ack alone
/// says little. What holds: a message's return comes before its own ack, and each completing confirm takes at most one
/// return, the oldest. So (1) a message whose id came back is unroutable, whoever brought the return; and (2) once a
/// confirm completes *without* a return, no return was left waiting at that moment: every message that completed before
/// it and has not come back is routed. Until one of the two, an ack that carried another's return stays undecided.
struct Owner {
    channel: Channel,
    flying: FuturesUnordered<Flight>,
    next: u64,
    /// Who waits, by number of the publish.
    waiting: HashMap<u64, (String, oneshot::Sender<Outcome>)>,
    /// Ids that are outstanding or undecided: of each one at a time, so that a return names one publish.
    ids: HashSet<String>,
    /// Publishes whose id is outstanding already.
    held_back: VecDeque<Request>,
    /// Acked, and not known to be routed yet.
    undecided: Vec<u64>,
}

impl Owner {
    fn new(channel: Channel) -> Self {
        Self {
            channel,
            flying: FuturesUnordered::new(),
            next: 0,
            waiting: HashMap::new(),
            ids: HashSet::new(),
            held_back: VecDeque::new(),
            undecided: Vec::new(),
        }
    }

    /// Sends a publish, or holds it back while another of the same id is outstanding.
    async fn take(&mut self, request: Request) -> Result<(), String> {
        if request.done.is_closed() || request.deadline <= Instant::now() {
            // Nobody waits any more, and it was never sent.
            let _ = request.done.send(Outcome::NotSent(Away::Blocked));
            return Ok(());
        }
        let id = request.message.properties.message_id.clone().unwrap_or_default();
        if self.ids.contains(&id) {
            self.held_back.push_back(request);
            return Ok(());
        }
        self.ids.insert(id.clone());
        self.next += 1;
        let number = self.next;
        self.waiting.insert(number, (id, request.done));
        let (channel, message) = (self.channel.clone(), request.message);
        let mut flight: Flight = Box::pin(async move {
            let options = BasicPublishOptions { mandatory: message.mandatory, ..BasicPublishOptions::default() };
            let sent = channel.basic_publish(
                short(&message.exchange),
                short(&message.key),
                options,
                &message.body,
                to_amqp(&message.properties),
            );
            let confirmed = async { sent.await?.await };
            (number, confirmed.await)
        });
        // The first poll takes the delivery tag and queues the frames: publishes leave in the order that they came.
        let first = poll_fn(|context| Poll::Ready(flight.as_mut().poll(context))).await;
        match first {
            Poll::Pending => {
                self.flying.push(flight);
                Ok(())
            }
            Poll::Ready(landed) => self.land(landed),
        }
    }

    /// Takes in a confirm and all others that are here already, in the order that they completed.
    fn land(&mut self, first: Landed) -> Result<(), String> {
        let mut next = Some(first);
        while let Some((number, result)) = next {
            let confirmation = result.map_err(|error| error.to_string())?;
            let (acked, returned) = match confirmation {
                Confirmation::Ack(returned) => (true, returned),
                Confirmation::Nack(returned) => (false, returned),
                Confirmation::NotRequested => return Err("confirms are off".into()),
            };
            if acked {
                self.undecided.push(number);
            } else {
                self.tell(number, Outcome::Rejected);
            }
            match returned {
                Some(returned) => {
                    let id = returned.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
                    self.came_back(&id);
                }
                None => self.decide_all(),
            }
            next = self.flying.next().now_or_never().flatten();
        }
        if self.flying.is_empty() {
            self.decide_all();
        }
        Ok(())
    }

    /// The message with this id is unroutable, whether its own confirm is here yet or not.
    fn came_back(&mut self, id: &str) {
        let number = self.waiting.iter().find(|(_, (waiting, _))| waiting == id).map(|(number, _)| *number);
        if let Some(number) = number
            && let Some((id, done)) = self.waiting.remove(&number)
        {
            let _ = done.send(Outcome::Unroutable);
            if self.undecided.contains(&number) {
                self.undecided.retain(|other| *other != number);
                self.free(&id);
            } else {
                // Its confirm is still to come; until then the id stays taken.
                self.waiting.insert(number, (id, oneshot::channel().0));
            }
        }
    }

    fn decide_all(&mut self) {
        for number in std::mem::take(&mut self.undecided) {
            self.tell(number, Outcome::Routed);
        }
    }

    fn tell(&mut self, number: u64, outcome: Outcome) {
        if let Some((id, done)) = self.waiting.remove(&number) {
            let _ = done.send(outcome);
            self.free(&id);
        }
    }

    fn free(&mut self, id: &str) {
        self.ids.remove(id);
    }

    /// Tells everyone who waits; their confirms are still taken in when they come.
    fn tell_all(&mut self, outcome: Outcome) {
        for (_, done) in self.waiting.values_mut() {
            let done = std::mem::replace(done, oneshot::channel().0);
            let _ = done.send(outcome);
        }
        for request in self.held_back.drain(..) {
            let _ = request.done.send(Outcome::NotSent(Away::Blocked));
        }
    }

    /// A publish that was held back and can go now.
    fn next_held_back(&mut self) -> Option<Request> {
        let free = |request: &Request| {
            let id = request.message.properties.message_id.as_deref().unwrap_or_default();
            !self.ids.contains(id)
        };
        let at = self.held_back.iter().position(free)?;
        self.held_back.remove(at)
    }
}
