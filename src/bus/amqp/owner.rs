//! The one task that owns a link for publishing: many publishes are outstanding, each learns what the broker said of it
//! and of no other, and replies to calls come in on the way.

use std::{
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
    held,
    incoming::Incoming,
    lanes::Lanes,
    link::{ANSWER_WITHIN, CLOSE_WITHIN, Ended, LOOK_EVERY, SILENT_AFTER},
    methods::{close_channel, open_channel, select_confirms},
    publisher::{LinkNow, Request, id_of},
    session::{Session, refused},
};
use crate::{
    bus::Link,
    message::{Away, CallError, Outcome, Reply},
};

/// Channels: replies come on one; one asks for signs of life; the others are for publishes.
const INBOX: u16 = 1;
const LOOK: u16 = 2;
const FIRST: u16 = 3;

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
    let mut owner = Owner::new(shared, role, now, publish_channels(&session));
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

/// How many channels there are for publishes.
fn publish_channels(session: &Session) -> u16 {
    let most = if session.channel_max == 0 { u16::MAX } else { session.channel_max };
    (most - (FIRST - 1).min(most)).min(Lanes::MAX_CHANNELS)
}

/// A channel with confirms and, for calls, the queue that their replies come to: without it no call can be answered.
async fn prepare(session: &mut Session, shared: &Shared, replies: bool) -> Result<(), String> {
    if publish_channels(session) < Lanes::MIN_CHANNELS {
        let (least, most) = (FIRST - 1 + Lanes::MIN_CHANNELS, session.channel_max);
        return Err(format!(
            "the broker allows {most} channels on a connection: set its channel_max to {least} or more"
        ));
    }
    if replies {
        let ReplyQueue { name, declare, consume } = ReplyQueue::new();
        session.ask(INBOX, open_channel()).await?;
        session.ask(INBOX, declare).await?;
        session.ask(INBOX, consume).await?;
        *held(&shared.reply_to) = Some(name);
    }
    session.ask(FIRST, open_channel()).await?;
    session.ask(FIRST, select_confirms()).await?;
    Ok(())
}

/// The queue that replies come to: it is one connection's alone, and goes with it.
pub(super) struct ReplyQueue {
    pub name: String,
    pub declare: AMQPClass,
    pub consume: AMQPClass,
}

impl ReplyQueue {
    pub fn new() -> Self {
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
        Self {
            name,
            declare: AMQPClass::Queue(queue::AMQPMethod::Declare(declare)),
            consume: AMQPClass::Basic(basic::AMQPMethod::Consume(consume)),
        }
    }
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
        owner.lanes.advance(session)?;
        tokio::select! {
            biased;
            ready = session.ready() => {
                ready?;
                while let Some(incoming) = session.frame()? {
                    owner.take_in(session, incoming)?;
                }
            }
            _ = look.tick() => owner.look(session)?,
            _ = second.tick() => owner.lanes.second(session)?,
            request = received.recv(), if owner.has_room(session) => {
                let Some(request) = request else { return Ok(()) };
                // Handlers that are ready hand theirs over first: what leaves as one write costs us and the broker less.
                tokio::task::yield_now().await;
                owner.send(session, request)?;
                while owner.has_room(session) && let Ok(request) = received.try_recv() {
                    owner.send(session, request)?;
                }
            }
        }
    }
}

/// The task's own state.
pub(super) struct Owner<'a> {
    shared: &'a Shared,
    role: &'static str,
    now: &'a LinkNow,
    pub lanes: Lanes<'a>,
    /// A reply that is coming in.
    reply: Option<Content>,
    /// Since when the broker owes a sign of life.
    asked: Option<Instant>,
}

impl<'a> Owner<'a> {
    pub fn new(shared: &'a Shared, role: &'static str, now: &'a LinkNow, channels: u16) -> Self {
        let lanes = Lanes::new(shared, role, FIRST, channels);
        Self { shared, role, now, lanes, reply: None, asked: None }
    }

    /// Whether more requests are taken: an alarm's are, to be told at once.
    fn has_room(&self, session: &Session) -> bool {
        self.now.get() == Link::Blocked || self.lanes.has_room(session)
    }

    pub fn send(&mut self, session: &mut Session, request: Request) -> Result<(), String> {
        if self.now.get() == Link::Blocked {
            request.give_up(self.shared, Away::Blocked);
            return Ok(());
        }
        self.lanes.submit(session, request)
    }

    fn take_in_header(&mut self, on: u16, header: ContentHeader) {
        if self.content(on).and_then(Option::as_mut).is_some_and(|content| content.header(header)) {
            self.came_in(on);
        }
    }

    /// Takes in what the broker says. The error ends the link.
    pub fn take_in(&mut self, session: &mut Session, incoming: Incoming) -> Result<(), String> {
        match incoming {
            Incoming::Deliver(..) => self.reply = Some(Content::up_to(self.shared.pending.max_reply_bytes())),
            Incoming::Header(on, header) => self.take_in_header(on, header),
            Incoming::Frame(frame) => return self.take_in_frame(session, frame),
        }
        Ok(())
    }

    fn take_in_frame(&mut self, session: &mut Session, frame: AMQPFrame) -> Result<(), String> {
        match frame {
            AMQPFrame::Method(on, AMQPClass::Basic(method)) => return self.take_in_basic(on, method),
            AMQPFrame::Body(on, part) => {
                if self.content(on).and_then(Option::as_mut).is_some_and(|content| content.part(part)) {
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
                if on == LOOK {
                    session.say(on, close_channel())?;
                }
            }
            AMQPFrame::Method(LOOK, AMQPClass::Channel(channel::AMQPMethod::CloseOk(_))) => self.asked = None,
            AMQPFrame::Method(on, AMQPClass::Channel(channel::AMQPMethod::CloseOk(_))) => self.lanes.channel_closed(on),
            AMQPFrame::Method(on, AMQPClass::Channel(channel::AMQPMethod::Close(close))) if on >= FIRST => {
                self.is_alive();
                self.lanes.channel_refused(session, on, close.reply_code, close.reply_text.as_str())?;
            }
            AMQPFrame::Method(on, AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(_))) => self.lanes.marked(on),
            AMQPFrame::Method(_, method) => return refused(&method),
            AMQPFrame::Header(..)
            | AMQPFrame::Heartbeat
            | AMQPFrame::ProtocolHeader(_)
            | AMQPFrame::InvalidHeartbeat(_) => {}
        }
        Ok(())
    }

    fn take_in_basic(&mut self, on: u16, method: basic::AMQPMethod) -> Result<(), String> {
        match method {
            basic::AMQPMethod::Ack(ack) => {
                self.lanes.confirmed(on, ack.delivery_tag, ack.multiple, Outcome::Routed);
                self.is_alive();
            }
            basic::AMQPMethod::Nack(nack) => {
                self.lanes.confirmed(on, nack.delivery_tag, nack.multiple, Outcome::Rejected);
                self.is_alive();
            }
            // What comes back is known: its properties are enough.
            basic::AMQPMethod::Return(_) => {
                if let Some(content) = self.content(on) {
                    *content = Some(Content::up_to(0));
                }
            }
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
    fn content(&mut self, on: u16) -> Option<&mut Option<Content>> {
        if on == INBOX { Some(&mut self.reply) } else { self.lanes.returned(on) }
    }

    fn came_in(&mut self, on: u16) {
        let Some(content) = self.content(on).and_then(Option::take) else { return };
        let properties = content.properties;
        if on != INBOX {
            // Unroutable. Its ack is still to come.
            self.lanes.unroutable(on, id_of(&properties));
        } else if content.is_too_large {
            let correlation = properties.correlation_id.as_deref().unwrap_or_default();
            self.shared.pending.fail(correlation, CallError::ReplyTooLarge);
        } else if !self.shared.pending.answer(Reply { properties, body: content.body.into() }) {
            self.shared.late_replies.fetch_add(1, Ordering::Relaxed);
        }
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
                session.say(LOOK, open_channel())
            }
        }
    }

    /// What was sent may have arrived, what waits did not.
    fn give_up(&mut self, away: Away) {
        self.lanes.give_up(away);
    }
}
