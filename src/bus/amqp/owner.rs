//! The one task that owns a link for publishing: many publishes are outstanding, each learns what the broker said of it
//! and of no other, and replies to calls come in on the way.

use std::{
    collections::VecDeque,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use amq_protocol::{
    frame::AMQPFrame,
    protocol::{AMQPClass, basic, channel, confirm, connection, queue},
    types::FieldTable,
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Shared,
    content::Content,
    content_header::ContentHeader,
    encode, held,
    incoming::Incoming,
    link::{ANSWER_WITHIN, CLOSE_WITHIN, Ended, LOOK_EVERY, SILENT_AFTER},
    outstanding::Outstanding,
    publisher::{Done, LinkNow, Request},
    renewal::Renewal,
    session::{Session, refused},
};
use crate::{
    bus::Link,
    message::{Away, CallError, Outcome, Properties, Reply},
};

/// Most publishes without their confirm.
const OUTSTANDING: usize = 512;
/// Channels: publishes take turns on two of them (see [`Renewal`]); replies come on a third; the fourth asks for signs of
/// life.
const FIRST: u16 = 1;
const SECOND: u16 = 2;
const INBOX: u16 = 3;
const LOOK: u16 = 4;

/// Connects and serves until the link ends.
pub(super) async fn run(
    shared: &Shared,
    replies: bool,
    role: &'static str,
    now: &LinkNow,
    received: &mut mpsc::Receiver<Request>,
    stop: &CancellationToken,
) -> Ended {
    let opening = async {
        let mut session = shared.options.open(role).await?;
        let prepared = tokio::time::timeout(ANSWER_WITHIN, prepare(&mut session, shared, replies)).await;
        prepared.unwrap_or_else(|_| Err("the broker does not answer".into())).map(|()| session)
    };
    let mut session = tokio::select! {
        opened = opening => match opened {
            Ok(session) => session,
            Err(why) => return Ended::never_up(why),
        },
        () = stop.cancelled() => return Ended::never_up(closed_bus()),
    };
    now.set(Link::Up);
    let mut owner = Owner::new(shared, role, now);
    let why = tokio::select! {
        ended = serve(&mut owner, &mut session, received) => ended.err().unwrap_or_else(closed_bus),
        () = stop.cancelled() => {
            let _ = tokio::time::timeout(CLOSE_WITHIN, session.close()).await;
            closed_bus()
        }
    };
    owner.give_up(Away::Down);
    Ended::after_up(why)
}

fn closed_bus() -> String {
    "the bus is closed".into()
}

/// A channel with confirms and, for calls, the queue that their replies come to: without it no call can be answered.
async fn prepare(session: &mut Session, shared: &Shared, replies: bool) -> Result<(), String> {
    if replies {
        let name = format!("fpesa.reply.{}", Uuid::new_v4().simple());
        let declare = queue::Declare {
            queue: name.as_str().into(),
            passive: false,
            durable: false,
            exclusive: true,
            auto_delete: true,
            nowait: false,
            arguments: FieldTable::default(),
        };
        let consume = basic::Consume {
            queue: name.as_str().into(),
            consumer_tag: "".into(),
            no_local: false,
            no_ack: true,
            exclusive: true,
            nowait: false,
            arguments: FieldTable::default(),
        };
        session.ask(INBOX, opened()).await?;
        session.ask(INBOX, AMQPClass::Queue(queue::AMQPMethod::Declare(declare))).await?;
        session.ask(INBOX, AMQPClass::Basic(basic::AMQPMethod::Consume(consume))).await?;
        *held(&shared.reply_to) = Some(name);
    }
    session.ask(FIRST, opened()).await?;
    session.ask(FIRST, confirming()).await?;
    Ok(())
}

fn opened() -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}))
}

fn confirming() -> AMQPClass {
    AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false }))
}

fn closed() -> AMQPClass {
    let close = channel::Close { reply_code: 200, reply_text: "done".into(), class_id: 0, method_id: 0 };
    AMQPClass::Channel(channel::AMQPMethod::Close(close))
}

/// Until the link ends; the error says why, and without one nobody publishes any more.
async fn serve(
    owner: &mut Owner<'_>,
    session: &mut Session,
    received: &mut mpsc::Receiver<Request>,
) -> Result<(), String> {
    let mut look = interval(LOOK_EVERY);
    let mut second = interval(Duration::from_secs(1));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        owner.renew(session)?;
        owner.send_held_back(session);
        tokio::select! {
                   biased;
                   ready = session.ready() => {
                       ready?;
                       while let Some(incoming) = session.frame()? {
                           match incoming {
                               Incoming::Deliver(..) => {
        owner.reply = Some(Content::up_to(owner.shared.pending.max_reply_bytes()));
        }
                               Incoming::Header(on, header) => owner.take_in_header(on, header),
                               Incoming::Frame(frame) => owner.take_in(session, frame)?,
                           }
                       }
                   }
                   _ = look.tick() => owner.look(session)?,
                   _ = second.tick() => owner.second(),
                   request = received.recv(), if owner.has_room(session) => {
                       let Some(request) = request else { return Ok(()) };
                       // Handlers that are ready hand theirs over first: what leaves as one write costs us and the broker less.
                       tokio::task::yield_now().await;
                       owner.send(session, request);
                       while owner.has_room(session) && let Ok(request) = received.try_recv() {
                           owner.send(session, request);
                       }
                   }
               }
    }
}

/// What a return is told by. A worker's reply has no message id: its call's correlation id names it.
fn id_of(properties: &Properties) -> &str {
    properties.message_id.as_deref().or(properties.correlation_id.as_deref()).unwrap_or_default()
}

/// The task's own state.
struct Owner<'a> {
    shared: &'a Shared,
    role: &'static str,
    now: &'a LinkNow,
    /// What publishes go out on.
    channel: u16,
    outstanding: Outstanding<Done>,
    /// Publishes whose id is outstanding already.
    held_back: VecDeque<Request>,
    /// A message that is coming back.
    returned: Option<Content>,
    /// A reply that is coming in.
    reply: Option<Content>,
    /// Rejected since it was last looked at.
    rejected: usize,
    renewal: Renewal,
    /// Whether the other channel is being opened, or still being closed.
    changing: Changing,
    /// Since when the broker owes a sign of life.
    asked: Option<Instant>,
}

#[derive(PartialEq, Eq)]
enum Changing {
    No,
    Opening,
    Closing,
}

impl<'a> Owner<'a> {
    fn new(shared: &'a Shared, role: &'static str, now: &'a LinkNow) -> Self {
        Self {
            shared,
            role,
            now,
            channel: FIRST,
            outstanding: Outstanding::default(),
            held_back: VecDeque::new(),
            returned: None,
            reply: None,
            rejected: 0,
            renewal: Renewal::default(),
            changing: Changing::No,
            asked: None,
        }
    }

    /// Whether more requests are taken: an alarm's are, to be told at once.
    fn has_room(&self, session: &Session) -> bool {
        let held = self.outstanding.len() + self.held_back.len();
        self.now.get() == Link::Blocked || (self.may_send(session) && held < OUTSTANDING)
    }

    fn may_send(&self, session: &Session) -> bool {
        !self.renewal.is_due()
            && self.changing != Changing::Opening
            && self.outstanding.len() < OUTSTANDING
            && !session.is_full()
    }

    fn second(&mut self) {
        self.renewal.second(std::mem::take(&mut self.rejected));
        // Whoever waited for one that was held back has given up: it was never sent.
        self.held_back.retain(|request| !request.done.is_closed(self.shared));
    }

    fn other(&self) -> u16 {
        if self.channel == FIRST { SECOND } else { FIRST }
    }

    /// Sends a publish, or holds it back while another of the same id is outstanding.
    fn send(&mut self, session: &mut Session, request: Request) {
        let away = Outcome::NotSent(Away::Blocked);
        if self.now.get() == Link::Blocked {
            return request.done.tell(self.shared, away);
        }
        if request.done.is_closed(self.shared) || request.deadline <= Instant::now() {
            // Nobody waits any more, and it was never sent.
            return request.done.tell(self.shared, away);
        }
        let id = id_of(&request.message.properties);
        if self.outstanding.holds(id) {
            return self.held_back.push_back(request);
        }
        let frame_max = session.frame_max;
        match encode::publish(session.outgoing(), self.channel, frame_max, &request.message) {
            Ok(()) => self.outstanding.sent(id, request.done),
            Err(encode::TooBig) => {
                tracing::warn!(role = self.role, frame_max, "a message's properties are over what AMQP can carry");
                request.done.tell(self.shared, Outcome::Rejected);
            }
        }
    }

    /// Sends what was held back and can go now.
    fn send_held_back(&mut self, session: &mut Session) {
        while self.may_send(session)
            && let Some(at) =
                self.held_back.iter().position(|request| !self.outstanding.holds(id_of(&request.message.properties)))
            && let Some(request) = self.held_back.remove(at)
        {
            self.send(session, request);
        }
    }

    fn take_in_header(&mut self, on: u16, header: ContentHeader) {
        if self.content(on).as_mut().is_some_and(|content| content.header(header)) {
            self.came_in(on);
        }
    }

    /// Takes in what the broker says. The error ends the link.
    fn take_in(&mut self, session: &mut Session, frame: AMQPFrame) -> Result<(), String> {
        match frame {
            AMQPFrame::Method(on, AMQPClass::Basic(method)) => return self.take_in_basic(on, method),
            AMQPFrame::Body(on, part) => {
                if self.content(on).as_mut().is_some_and(|content| content.part(part)) {
                    self.came_in(on);
                }
            }
            AMQPFrame::Method(_, AMQPClass::Connection(connection::AMQPMethod::Blocked(_))) => {
                tracing::warn!(role = self.role, "the broker takes nothing (an alarm)");
                self.now.set(Link::Blocked);
                self.give_up(Away::Blocked);
            }
            AMQPFrame::Method(_, AMQPClass::Connection(connection::AMQPMethod::Unblocked(_))) => {
                self.is_alive();
                self.now.set(Link::Up);
            }
            AMQPFrame::Method(on, AMQPClass::Channel(channel::AMQPMethod::OpenOk(_))) => {
                self.is_alive();
                session.say(on, if on == LOOK { closed() } else { confirming() })?;
            }
            AMQPFrame::Method(on, AMQPClass::Channel(channel::AMQPMethod::CloseOk(_))) => {
                if on == LOOK {
                    self.asked = None;
                } else {
                    self.changing = Changing::No;
                }
            }
            AMQPFrame::Method(on, AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(_))) => {
                // Nothing was outstanding on the old one, and nothing was sent since.
                session.say(self.channel, closed())?;
                self.channel = on;
                self.outstanding = Outstanding::default();
                self.changing = Changing::Closing;
                self.renewal.done();
            }
            AMQPFrame::Method(_, method) => return refused(&method),
            AMQPFrame::Header(..)
            | AMQPFrame::Heartbeat
            | AMQPFrame::ProtocolHeader(_)
            | AMQPFrame::InvalidHeartbeat(_) => {}
        }
        Ok(())
    }

    fn take_in_basic(&mut self, on: u16, method: basic::AMQPMethod) -> Result<(), String> {
        let tell = |done: Done, outcome| done.tell(self.shared, outcome);
        match method {
            // Tags count from 1 on each channel: what an old one might still say is not of these publishes.
            basic::AMQPMethod::Ack(ack) if on == self.channel => {
                self.outstanding.confirmed(ack.delivery_tag, ack.multiple, Outcome::Routed, tell);
                self.is_alive();
            }
            basic::AMQPMethod::Nack(nack) if on == self.channel => {
                self.rejected += self.outstanding.confirmed(nack.delivery_tag, nack.multiple, Outcome::Rejected, tell);
                self.is_alive();
            }
            // What comes back is known: its properties are enough.
            basic::AMQPMethod::Return(_) => self.returned = Some(Content::up_to(0)),
            basic::AMQPMethod::Cancel(_) => return Err("the queue of replies is gone".into()),
            _ => {}
        }
        Ok(())
    }

    /// The broker does its work: what it owes counts from now. (A look waits behind everything that is being written.)
    fn is_alive(&mut self) {
        self.asked = self.asked.map(|_| Instant::now());
    }

    /// What is coming in on a channel: a reply, or a message that comes back.
    fn content(&mut self, on: u16) -> &mut Option<Content> {
        if on == INBOX { &mut self.reply } else { &mut self.returned }
    }

    fn came_in(&mut self, on: u16) {
        let Some(content) = self.content(on).take() else { return };
        let properties = content.properties;
        if on != INBOX {
            // Unroutable. Its ack is still to come.
            self.outstanding.returned(id_of(&properties), |done, outcome| done.tell(self.shared, outcome));
        } else if content.is_too_large {
            let correlation = properties.correlation_id.as_deref().unwrap_or_default();
            self.shared.pending.fail(correlation, CallError::ReplyTooLarge);
        } else if !self.shared.pending.answer(Reply { properties, body: content.body.into() }) {
            self.shared.late_replies.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Begins to exchange the channel, once it is due and nothing is outstanding.
    fn renew(&mut self, session: &mut Session) -> Result<(), String> {
        if self.renewal.is_due() && self.changing == Changing::No && self.outstanding.is_empty() {
            self.changing = Changing::Opening;
            session.say(self.other(), opened())?;
        }
        Ok(())
    }

    /// Asks for a sign of life, sooner than heartbeats tell. A broker opens a channel whatever its queues do; one that is
    /// blocked by an alarm need not.
    fn look(&mut self, session: &mut Session) -> Result<(), String> {
        session.keep_alive()?;
        if self.now.get() == Link::Blocked {
            return Ok(());
        }
        match self.asked {
            Some(since) if since.elapsed() > SILENT_AFTER => Err("the broker answers nothing".into()),
            Some(_) => Ok(()),
            None => {
                self.asked = Some(Instant::now());
                session.say(LOOK, opened())
            }
        }
    }

    /// What was sent may have arrived, what was held back did not.
    fn give_up(&mut self, away: Away) {
        self.outstanding.tell_all(Outcome::Unknown, |done, outcome| done.tell(self.shared, outcome));
        for request in self.held_back.drain(..) {
            request.done.tell(self.shared, Outcome::NotSent(away));
        }
    }
}
