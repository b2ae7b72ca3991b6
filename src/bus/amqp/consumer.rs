//! One consumer: a connection of its own, read frame by frame by the one task that also settles. A message that can't be
//! read is delivered as that ([`Properties::unreadable`](crate::message::Properties::unreadable)) and harms no other.

use std::{collections::BTreeMap, time::Instant};

use amq_protocol::{
    frame::AMQPFrame,
    protocol::{AMQPClass, basic, channel, queue},
    types::{AMQPValue, FieldTable},
};
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    content::Content,
    convert::short,
    incoming::{Deliver, Incoming},
    link::{ANSWER_WITHIN, CLOSE_WITHIN, LOOK_EVERY, Options, SILENT_AFTER},
    session::{Session, refused},
};
use crate::{
    bus::{BusError, Deliveries, Delivery, Settlement, Ticket},
    message::{Message, Unreadable},
};

/// What messages come on.
const CONSUME: u16 = 1;
/// What asks whether the broker still knows the consumer.
const WATCH: u16 = 2;
/// What asks for a sign of life where nothing else gives one.
const PROBE: u16 = 3;

/// Our consumer's name on its channel.
const TAG: &str = "fpesa";

/// Looks in a row that show no consumer before it counts as forgotten: one that was just made need not be counted yet.
const MAX_LOOKS_WITHOUT: u8 = 3;

/// Consumes a queue; an `rpc` one is declared here and nowhere else.
pub(super) async fn consume(
    options: &Options,
    queue: &str,
    prefetch: u16,
    rpc: bool,
    closing: CancellationToken,
) -> Result<Deliveries, BusError> {
    let mut session = options.open(&format!("consume {queue}")).await.map_err(BusError::Down)?;
    let late = |_| Err(BusError::Down("the broker does not answer".into()));
    let preparing = prepare(&mut session, queue, prefetch, rpc);
    if let Err(error) = tokio::time::timeout(ANSWER_WITHIN, preparing).await.unwrap_or_else(late) {
        let _ = tokio::time::timeout(CLOSE_WITHIN, session.close()).await;
        return Err(error);
    }
    // A place for each message that the broker may send: handing over never waits.
    let (deliveries, received) = mpsc::channel(usize::from(prefetch.max(1)));
    let (settle, settled) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let consumer = Consumer::new(queue, deliveries, settle);
    let stopping = stop.clone();
    tokio::spawn(async move {
        consumer.run(&mut session, settled, stopping, closing).await;
        let _ = tokio::time::timeout(CLOSE_WITHIN, session.close()).await;
    });
    Ok(Deliveries::new(received, move || stop.cancel()))
}

async fn prepare(session: &mut Session, queue: &str, prefetch: u16, rpc: bool) -> Result<(), BusError> {
    let down = |refusal: Refusal| BusError::Down(refusal.why);
    request(session, CONSUME, open()).await.map_err(down)?;
    let qos = basic::Qos { prefetch_count: prefetch.max(1), global: false };
    request(session, CONSUME, AMQPClass::Basic(basic::AMQPMethod::Qos(qos))).await.map_err(down)?;
    if rpc {
        let mut arguments = FieldTable::default();
        arguments.insert("x-expires".into(), AMQPValue::LongInt(5_000));
        let declare =
            queue::Declare { passive: false, durable: true, auto_delete: true, arguments, ..passive_declare(queue) };
        request(session, CONSUME, AMQPClass::Queue(queue::AMQPMethod::Declare(declare))).await.map_err(|refusal| {
            match refusal.code {
                Some(_) => {
                    BusError::queue(queue, format!("the rpc queue `{queue}` can't be declared: {}", refusal.why))
                }
                None => BusError::Down(refusal.why),
            }
        })?;
    }
    request(session, WATCH, open()).await.map_err(down)?;
    // The default priority, said: a classic or quorum queue takes it, a stream refuses a consumer that names one. Consumed
    // without an offset a stream would skip what came while nobody consumed it.
    let mut arguments = FieldTable::default();
    arguments.insert("x-priority".into(), AMQPValue::LongInt(0));
    let consume = basic::Consume {
        queue: short(queue),
        consumer_tag: TAG.into(),
        no_local: false,
        no_ack: false,
        exclusive: false,
        nowait: false,
        arguments,
    };
    let consume = AMQPClass::Basic(basic::AMQPMethod::Consume(consume));
    request(session, CONSUME, consume).await.map_err(|refusal| match refusal.code {
        Some(NOT_FOUND) => BusError::NoQueue(queue.to_owned()),
        Some(PRECONDITION_FAILED) => BusError::queue(
            queue,
            format!("the broker does not let queue `{queue}` be consumed (a stream can't be): {}", refusal.why),
        ),
        Some(_) => BusError::queue(queue, format!("queue `{queue}` can't be consumed: {}", refusal.why)),
        None => BusError::Down(refusal.why),
    })?;
    Ok(())
}

/// Reply codes (AMQP 0-9-1, 1.2).
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

/// Why a request was not answered.
struct Refusal {
    /// What the broker closed the channel or connection with; `None` where the link broke.
    code: Option<u16>,
    why: String,
}

/// Says a method and waits for what the broker answers on that channel.
async fn request(session: &mut Session, channel: u16, method: AMQPClass) -> Result<(), Refusal> {
    let broken = |why| Refusal { code: None, why };
    session.say(channel, method).map_err(broken)?;
    loop {
        let Incoming::Frame(AMQPFrame::Method(on, answer)) = session.next().await.map_err(broken)? else { continue };
        refused(&answer).map_err(|why| {
            let code = match &answer {
                AMQPClass::Channel(channel::AMQPMethod::Close(close)) => Some(close.reply_code),
                _ => None,
            };
            Refusal { code, why }
        })?;
        if on == channel {
            return Ok(());
        }
    }
}

fn open() -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}))
}

fn passive_declare(queue: &str) -> queue::Declare {
    queue::Declare {
        queue: short(queue),
        passive: true,
        durable: false,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: FieldTable::default(),
    }
}

type Settled = (u64, Settlement);

/// What a channel that only asks is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// Nothing.
    Idle,
    /// Being opened.
    Opening,
    /// A question is out.
    Asked,
    /// Being closed.
    Closing,
}

struct Consumer {
    queue: String,
    /// Dropped when nothing more is delivered.
    deliveries: Option<mpsc::Sender<Delivery>>,
    settle: mpsc::UnboundedSender<Settled>,
    /// What is out, in order of tag, and whether it is acked.
    unsettled: BTreeMap<u64, bool>,
    /// A message that is coming.
    coming: Option<(Deliver, Content)>,
    /// Since when the broker was asked for no more.
    cancelling: Option<Instant>,
    watch: Asking,
    looks_without: u8,
    probe: Asking,
    /// Whether anything came since the last look.
    heard: bool,
    /// Since when the broker owes a sign of life.
    silent: Option<Instant>,
}

impl Consumer {
    fn new(queue: &str, deliveries: mpsc::Sender<Delivery>, settle: mpsc::UnboundedSender<Settled>) -> Self {
        Self {
            queue: queue.to_owned(),
            deliveries: Some(deliveries),
            settle,
            unsettled: BTreeMap::new(),
            coming: None,
            cancelling: None,
            watch: Asking::Idle,
            looks_without: 0,
            probe: Asking::Idle,
            heard: false,
            silent: None,
        }
    }

    /// Until nothing more is delivered and all is settled, the bus is closed, or the link or the consumer is lost.
    async fn run(
        mut self,
        session: &mut Session,
        mut settled: mpsc::UnboundedReceiver<Settled>,
        stop: CancellationToken,
        closing: CancellationToken,
    ) {
        let ended = self.serve(session, &mut settled, &stop, &closing).await;
        if let Err(why) = ended
            && self.cancelling.is_none()
        {
            tracing::warn!(queue = self.queue, why, "a consumer is lost");
        }
    }

    /// The error ends the link.
    async fn serve(
        &mut self,
        session: &mut Session,
        settled: &mut mpsc::UnboundedReceiver<Settled>,
        stop: &CancellationToken,
        closing: &CancellationToken,
    ) -> Result<(), String> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.deliveries.is_some() || !self.unsettled.is_empty() {
            tokio::select! {
                ready = session.ready() => {
                    ready?;
                    while let Some(incoming) = session.frame()? {
                        self.take_in(session, incoming)?;
                    }
                }
                Some(first) = settled.recv() => self.send_settled(session, Some(first), settled)?,
                _ = look.tick() => self.look(session)?,
                () = stop.cancelled(), if self.cancelling.is_none() => {
                    self.cancelling = Some(Instant::now());
                    let cancel = basic::Cancel { consumer_tag: TAG.into(), nowait: false };
                    session.say(CONSUME, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)))?;
                }
                () = closing.cancelled() => {
                    // What is settled already still goes out, with the connection's orderly end.
                    return self.send_settled(session, None, settled);
                }
            }
        }
        Ok(())
    }

    fn take_in(&mut self, session: &mut Session, incoming: Incoming) -> Result<(), String> {
        self.heard = true;
        let content = self.coming.as_mut().map(|(_, content)| content);
        let is_whole = match incoming {
            Incoming::Deliver(CONSUME, deliver) => {
                self.coming = Some((deliver, Content::default()));
                false
            }
            Incoming::Header(CONSUME, header) => content.is_some_and(|content| content.header(header)),
            Incoming::Frame(AMQPFrame::Body(CONSUME, part)) => content.is_some_and(|content| content.part(part)),
            Incoming::Frame(AMQPFrame::Method(on, method)) => return self.take_in_method(session, on, &method),
            _ => false,
        };
        if is_whole {
            self.deliver();
        }
        Ok(())
    }

    fn take_in_method(&mut self, session: &mut Session, on: u16, method: &AMQPClass) -> Result<(), String> {
        match (on, method) {
            // Cancelled by us, or its queue is deleted: what came already is still worked on.
            (CONSUME, AMQPClass::Basic(basic::AMQPMethod::Cancel(_) | basic::AMQPMethod::CancelOk(_))) => {
                self.deliveries = None;
            }
            (WATCH, AMQPClass::Queue(queue::AMQPMethod::DeclareOk(found))) => {
                self.watch = Asking::Idle;
                self.looks_without = if found.consumer_count == 0 { self.looks_without + 1 } else { 0 };
                if self.looks_without >= MAX_LOOKS_WITHOUT && self.cancelling.is_none() {
                    return Err("the broker has forgotten the consumer".into());
                }
            }
            (WATCH, AMQPClass::Channel(channel::AMQPMethod::OpenOk(_))) => self.watch = Asking::Idle,
            (WATCH, AMQPClass::Channel(channel::AMQPMethod::Close(close))) => {
                if close.reply_code == NOT_FOUND {
                    return Err("the queue is gone".into());
                }
                // A queue without a leader, say: others tell.
                session.say(WATCH, AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})))?;
                session.say(WATCH, open())?;
                self.watch = Asking::Opening;
            }
            (PROBE, AMQPClass::Channel(channel::AMQPMethod::OpenOk(_))) => {
                self.probe = Asking::Closing;
                let close = channel::Close { reply_code: 200, reply_text: "looked".into(), class_id: 0, method_id: 0 };
                session.say(PROBE, AMQPClass::Channel(channel::AMQPMethod::Close(close)))?;
            }
            (PROBE, AMQPClass::Channel(channel::AMQPMethod::CloseOk(_))) => self.probe = Asking::Idle,
            (_, method) => return refused(method),
        }
        Ok(())
    }

    /// Asks whether the broker still knows the consumer: a quorum queue that is deleted and declared again within moments
    /// may come back without its consumers, who are not told (seen with RabbitMQ 3.10.8). Where nothing comes at all, asks
    /// for a sign of life, sooner than heartbeats tell: a broker opens a channel whatever its queues do.
    fn look(&mut self, session: &mut Session) -> Result<(), String> {
        session.keep_alive()?;
        if self.cancelling.is_some_and(|since| since.elapsed() > ANSWER_WITHIN) {
            return Err("the broker does not answer".into());
        }
        if self.watch == Asking::Idle {
            self.watch = Asking::Asked;
            let declare = queue::AMQPMethod::Declare(passive_declare(&self.queue));
            session.say(WATCH, AMQPClass::Queue(declare))?;
        }
        if std::mem::take(&mut self.heard) {
            self.silent = None;
            return Ok(());
        }
        let since = *self.silent.get_or_insert_with(Instant::now);
        if since.elapsed() > SILENT_AFTER {
            return Err("the broker answers nothing".into());
        }
        if self.probe == Asking::Idle {
            self.probe = Asking::Opening;
            session.say(PROBE, open())?;
        }
        Ok(())
    }

    /// Hands over the message that has come whole.
    fn deliver(&mut self) {
        let Some((deliver, content)) = self.coming.take() else { return };
        let (tag, settle) = (deliver.tag, self.settle.clone());
        self.unsettled.insert(tag, false);
        let delivery = Delivery {
            redelivered: deliver.redelivered,
            message: message(deliver, content),
            ticket: Ticket::new(move |how| {
                // Where the task has ended the broker gives the message back by itself.
                let _ = settle.send((tag, how));
            }),
        };
        if let Some(deliveries) = &self.deliveries {
            // There is a place. A reader that is gone drops it, and the ticket gives it back.
            let _ = deliveries.try_send(delivery);
        }
    }

    /// Sends what is settled: acks without a gap before them as one.
    fn send_settled(
        &mut self,
        session: &mut Session,
        first: Option<Settled>,
        settled: &mut mpsc::UnboundedReceiver<Settled>,
    ) -> Result<(), String> {
        let mut next = first.or_else(|| settled.try_recv().ok());
        while let Some((delivery_tag, how)) = next {
            let method = match how {
                Settlement::Ack => {
                    self.unsettled.insert(delivery_tag, true);
                    None
                }
                // From RabbitMQ 4.3 on a quorum queue counts this one as a failed delivery, and not `basic.nack`.
                Settlement::Retry => Some(basic::AMQPMethod::Reject(basic::Reject { delivery_tag, requeue: true })),
                Settlement::Reject => Some(basic::AMQPMethod::Reject(basic::Reject { delivery_tag, requeue: false })),
                Settlement::Return => {
                    Some(basic::AMQPMethod::Nack(basic::Nack { delivery_tag, multiple: false, requeue: true }))
                }
            };
            if let Some(method) = method {
                self.unsettled.remove(&delivery_tag);
                session.say(CONSUME, AMQPClass::Basic(method))?;
            }
            next = settled.try_recv().ok();
        }
        let mut prefix = None;
        while let Some((tag, true)) = self.unsettled.first_key_value().map(|(tag, acked)| (*tag, *acked)) {
            self.unsettled.remove(&tag);
            prefix = Some((tag, true));
        }
        let alone = self.unsettled.extract_if(.., |_, acked| *acked).map(|(tag, _)| (tag, false));
        for (delivery_tag, multiple) in prefix.into_iter().chain(alone) {
            session.say(CONSUME, AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple })))?;
        }
        Ok(())
    }
}

fn message(deliver: Deliver, content: Content) -> Message {
    let mut properties = content.properties;
    let mut text = |what, bytes: Vec<u8>| {
        String::from_utf8(bytes).unwrap_or_else(|error| {
            let why = format!("the message's {what} is not UTF-8: `{}`", error.as_bytes().escape_ascii());
            properties.unreadable.get_or_insert_with(|| Box::new(Unreadable { why, ..Unreadable::default() }));
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        })
    };
    let (exchange, key) = (text("exchange", deliver.exchange), text("routing key", deliver.key));
    Message { exchange, key, properties, body: content.body.into(), mandatory: false }
}
