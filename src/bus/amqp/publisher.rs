//! Confirmed publishes and calls: how they come to the one task that owns their link, and how the link is kept up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{Shared, held, link::supervise, owner};
use crate::{
    bus::{Link, Subject},
    message::{Away, CallError, Message, Outcome, Properties},
    topology::QueueKind,
};

/// Publishes that wait for their turn.
const WAITING: usize = 4_096;

/// Publishes on a link of its own.
pub(super) struct Publisher {
    requests: mpsc::Sender<Request>,
    link: Arc<LinkNow>,
    ended: watch::Receiver<bool>,
}

/// One publish, on its way to the owner of the link; kept there until its outcome is known.
pub(super) struct Request {
    pub message: Message,
    pub deadline: Instant,
    pub done: Done,
    /// It was sent already, on a channel that is gone: it may have arrived.
    pub sent: bool,
    /// It may be the one for which the broker closed its channel.
    pub suspect: bool,
}

impl Request {
    pub fn new(message: Message, deadline: Instant, done: Done) -> Self {
        Self { message, deadline, done, sent: false, suspect: false }
    }

    /// What a return is told by.
    pub fn id(&self) -> &str {
        id_of(&self.message.properties)
    }

    pub fn tell(self, shared: &Shared, outcome: Outcome) {
        match self.done {
            // Where nobody waits nobody is told.
            Done::Publish(done) => drop(done.send(outcome)),
            Done::Call(correlation) => {
                if let Some(error) = call_error(shared, &self.message, outcome) {
                    shared.pending.fail(&correlation, error);
                }
            }
        }
    }

    /// Its turn does not come.
    pub fn give_up(self, shared: &Shared, away: Away) {
        let outcome = if self.sent { Outcome::Unknown } else { Outcome::NotSent(away) };
        self.tell(shared, outcome);
    }
}

/// What names a publish on its channel. A worker's reply has no message id: its call's correlation id names it.
pub(super) fn id_of(properties: &Properties) -> &str {
    properties.message_id.as_deref().or(properties.correlation_id.as_deref()).unwrap_or_default()
}

fn call_error(shared: &Shared, request: &Message, outcome: Outcome) -> Option<CallError> {
    if outcome == Outcome::Rejected && request.exchange.is_empty() {
        // RabbitMQ 4 rejects what goes to a queue whose node is dead; 3.10 returns it. A queue that can't be full can't mean
        // anything else by it.
        let watch = shared.watch.load();
        let queue = watch.topology.queues.get(&request.key);
        let is_it = |subject: &Subject| matches!(subject, Subject::Queue(name) if *name == request.key);
        let gone = watch.all().any(|watched| is_it(&watched.subject) && !watched.is_there());
        if gone || queue.is_none_or(|queue| queue.kind == QueueKind::Rpc) {
            return Some(CallError::NoWorker);
        }
    }
    CallError::of(outcome)
}

/// Whom to tell how a publish ended.
pub(super) enum Done {
    /// Who published.
    Publish(oneshot::Sender<Outcome>),
    /// Who called, by correlation id. That the request was routed is no news: the reply is what is waited for.
    Call(String),
}

impl Done {
    /// Whether nobody waits any more.
    pub fn is_closed(&self, shared: &Shared) -> bool {
        match self {
            Self::Publish(done) => done.is_closed(),
            Self::Call(correlation) => !shared.pending.expects(correlation),
        }
    }
}

/// How a link is, for everyone to see.
pub(super) struct LinkNow(AtomicU8);

impl Default for LinkNow {
    fn default() -> Self {
        Self(AtomicU8::new(Link::Down as u8))
    }
}

impl LinkNow {
    pub fn set(&self, link: Link) {
        self.0.store(link as u8, Ordering::Release);
    }

    pub fn get(&self) -> Link {
        match self.0.load(Ordering::Acquire) {
            up if up == Link::Up as u8 => Link::Up,
            blocked if blocked == Link::Blocked as u8 => Link::Blocked,
            _ => Link::Down,
        }
    }
}

impl Publisher {
    /// `replies`: whether replies to calls come back on this link.
    pub fn start(shared: Arc<Shared>, replies: bool, stop: CancellationToken) -> Self {
        let (requests, received) = mpsc::channel(WAITING);
        let link = Arc::new(LinkNow::default());
        let (ending, ended) = watch::channel(false);
        let now = link.clone();
        tokio::spawn(async move {
            let role = if replies { "call" } else { "publish" };
            let received = tokio::sync::Mutex::new(received);
            supervise(role, &stop, || async {
                let mut received = received.lock().await;
                let ended = owner::run(&shared, replies, role, &now, &mut received, &stop).await;
                now.set(Link::Down);
                // What waits was never sent.
                while let Ok(request) = received.try_recv() {
                    request.give_up(&shared, Away::Down);
                }
                if replies {
                    *held(&shared.reply_to) = None;
                    shared.pending.broken();
                }
                ended
            })
            .await;
            let _ = ending.send(true);
        });
        Self { requests, link, ended }
    }

    pub fn link(&self) -> Link {
        self.link.get()
    }

    pub async fn publish(&self, message: Message, deadline: Instant) -> Outcome {
        let (done, result) = oneshot::channel();
        if let Err(away) = self.send(Request::new(message, deadline, Done::Publish(done))).await {
            return Outcome::NotSent(away);
        }
        // The link ended under it, or its time is over: it may have been sent.
        tokio::time::timeout_at(deadline.into(), result).await.ok().and_then(Result::ok).unwrap_or(Outcome::Unknown)
    }

    /// Hands over the request of a call; what becomes of it, its [`Pending`](crate::bus::pending::Pending) tells.
    pub async fn call(&self, message: Message, deadline: Instant, correlation: String) -> Result<(), Away> {
        self.send(Request::new(message, deadline, Done::Call(correlation))).await
    }

    async fn send(&self, request: Request) -> Result<(), Away> {
        match self.link() {
            Link::Up => {}
            Link::Blocked => return Err(Away::Blocked),
            Link::Down => return Err(Away::Down),
        }
        let Err(refused) = self.requests.try_send(request) else { return Ok(()) };
        let request = refused.into_inner();
        let until = request.deadline.into();
        // Rare, and in a box so that it does not make every publish's future big.
        let sent = Box::pin(self.requests.send(request));
        match tokio::time::timeout_at(until, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Away::Blocked),
        }
    }

    /// Once the link has ended for good.
    pub async fn ended(&self) {
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}
