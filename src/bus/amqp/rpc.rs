//! Methods and their answers on one channel of a connection of our own. Many methods leave as one write; the broker answers
//! them in order, so the number of answers says which one it refused.

use std::time::Duration;

use amq_protocol::{
    frame::AMQPFrame,
    protocol::{AMQPClass, channel, connection, exchange, queue, tx},
    types::FieldTable,
};

use super::{
    convert::short,
    encode,
    incoming::Incoming,
    link::{ANSWER_WITHIN, CLOSE_WITHIN, Options},
    session::Session,
};
use crate::{bus::Subject, message::Message, topology::Version};

const CHANNEL: u16 = 1;
/// AMQP reply codes (AMQP 0-9-1, 1.2).
pub(super) const CONNECTION_FORCED: u16 = 320;
pub(super) const ACCESS_REFUSED: u16 = 403;
pub(super) const NOT_FOUND: u16 = 404;
pub(super) const PRECONDITION_FAILED: u16 = 406;

/// A connection with one channel.
pub(super) struct Rpc {
    session: Session,
    /// Of the broker.
    pub version: Version,
}

/// Why a method has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The broker refused it.
    Refused(Refusal),
    /// The link ended, or is silent.
    Broken(String),
}

/// What the broker says of a method that it refuses.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// The AMQP reply code.
    pub code: u16,
    /// The broker's words.
    pub text: String,
    /// Whether the broker closed the connection for it; else the channel, which is open again.
    pub ended_connection: bool,
}

impl Rpc {
    /// Connects and opens the channel.
    pub async fn connect(options: &Options, role: &str) -> Result<Self, String> {
        let (session, version) = options.open_known(role).await?;
        let mut rpc = Self { session, version };
        let opening = rpc.session.ask(CHANNEL, opened());
        tokio::time::timeout(ANSWER_WITHIN, opening).await.unwrap_or_else(|_| Err(silent()))?;
        Ok(rpc)
    }

    /// Says methods that are answered, and gives the answers up to the first that fails. The channel is open afterwards
    /// unless the link is gone.
    pub async fn ask_all(&mut self, methods: &[AMQPClass]) -> (Vec<AMQPClass>, Option<Failure>) {
        for method in methods {
            if let Err(why) = self.session.say(CHANNEL, method.clone()) {
                return (Vec::new(), Some(Failure::Broken(why)));
            }
        }
        self.receive(methods.len()).await
    }

    /// The same for one method.
    pub async fn ask(&mut self, method: AMQPClass) -> Result<AMQPClass, Failure> {
        let (answers, failure) = self.ask_all(std::slice::from_ref(&method)).await;
        match (answers.into_iter().next(), failure) {
            (Some(answer), None) => Ok(answer),
            (_, failure) => Err(failure.unwrap_or_else(|| Failure::Broken(silent()))),
        }
    }

    /// Whether the broker's user may publish this: in a transaction that is rolled back, so that no queue gets it.
    pub async fn try_publish(&mut self, message: &Message) -> Result<(), Failure> {
        let select = AMQPClass::Tx(tx::AMQPMethod::Select(tx::Select {}));
        let rollback = AMQPClass::Tx(tx::AMQPMethod::Rollback(tx::Rollback {}));
        self.session.say(CHANNEL, select).map_err(Failure::Broken)?;
        let frame_max = self.session.frame_max;
        if encode::publish(self.session.outgoing(), CHANNEL, frame_max, message).is_err() {
            return Err(Failure::Broken("a probe can't be written".into()));
        }
        self.session.say(CHANNEL, rollback).map_err(Failure::Broken)?;
        let (_, failure) = self.receive(2).await;
        failure.map_or(Ok(()), Err)
    }

    /// Which of these queues and exchanges are not there. The broker only looks them up: no queue is asked, as a passive
    /// declaration that is answered would.
    pub async fn missing(&mut self, subjects: &[&Subject]) -> Result<Vec<usize>, Failure> {
        let mut missing = Vec::new();
        let mut ranges = Vec::new();
        ranges.push(0..subjects.len());
        while let Some(range) = ranges.pop() {
            if range.is_empty() {
                continue;
            }
            for subject in &subjects[range.clone()] {
                self.session.say(CHANNEL, look(subject)).map_err(Failure::Broken)?;
            }
            // Nothing answers but this, once everything before it was looked up.
            self.session.say(CHANNEL, passive_exchange("amq.direct", false)).map_err(Failure::Broken)?;
            match self.receive(1).await.1 {
                None => {}
                // Any other refusal (a queue that another connection has for itself) is of one that is there.
                Some(Failure::Refused(Refusal { ended_connection: false, code, .. })) if range.len() == 1 => {
                    missing.extend((code == NOT_FOUND).then_some(range.start));
                }
                Some(Failure::Refused(Refusal { ended_connection: false, .. })) => {
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                }
                Some(failure) => return Err(failure),
            }
        }
        Ok(missing)
    }

    /// Waits until the link ends, and says why. May be dropped at any time.
    pub async fn end(&mut self) -> String {
        loop {
            match self.session.next().await {
                Ok(Incoming::Frame(AMQPFrame::Method(
                    0,
                    AMQPClass::Connection(connection::AMQPMethod::Close(close)),
                ))) => {
                    return format!("the broker closed the connection: {} {}", close.reply_code, close.reply_text);
                }
                Ok(_) => {}
                Err(why) => return why,
            }
        }
    }

    /// Keeps the link alive while nothing else is said on it.
    pub fn keep_alive(&mut self) -> Result<(), String> {
        self.session.keep_alive()
    }

    /// The orderly end.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(CLOSE_WITHIN, self.session.close()).await;
    }

    async fn receive(&mut self, count: usize) -> (Vec<AMQPClass>, Option<Failure>) {
        let mut answers = Vec::with_capacity(count);
        while answers.len() < count {
            match self.next(ANSWER_WITHIN).await {
                Ok(AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Close(close)))) => {
                    let ok = connection::AMQPMethod::CloseOk(connection::CloseOk {});
                    if self.session.say(0, AMQPClass::Connection(ok)).is_ok() {
                        // The broker ends the connection once it has read this.
                        let _ = self.next(CLOSE_WITHIN).await;
                    }
                    let (code, text) = (close.reply_code, close.reply_text.to_string());
                    if code == CONNECTION_FORCED {
                        return (answers, Some(Failure::Broken(text)));
                    }
                    return (answers, Some(Failure::Refused(Refusal { code, text, ended_connection: true })));
                }
                Ok(AMQPFrame::Method(CHANNEL, AMQPClass::Channel(channel::AMQPMethod::Close(close)))) => {
                    let (code, text) = (close.reply_code, close.reply_text.to_string());
                    if let Err(why) = self.reopen().await {
                        return (answers, Some(Failure::Broken(why)));
                    }
                    return (answers, Some(Failure::Refused(Refusal { code, text, ended_connection: false })));
                }
                Ok(AMQPFrame::Method(CHANNEL, answer)) => answers.push(answer),
                Ok(_) => {}
                Err(why) => return (answers, Some(Failure::Broken(why))),
            }
        }
        (answers, None)
    }

    /// Opens the channel that the broker has closed.
    async fn reopen(&mut self) -> Result<(), String> {
        let closed = AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {}));
        self.session.say(CHANNEL, closed)?;
        self.session.say(CHANNEL, opened())?;
        loop {
            match self.next(ANSWER_WITHIN).await? {
                AMQPFrame::Method(CHANNEL, AMQPClass::Channel(channel::AMQPMethod::OpenOk(_))) => return Ok(()),
                AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Close(close))) => {
                    return Err(close.reply_text.to_string());
                }
                _ => {}
            }
        }
    }

    /// The next frame; nothing is delivered on this link.
    async fn next(&mut self, within: Duration) -> Result<AMQPFrame, String> {
        let next = async {
            loop {
                if let Incoming::Frame(frame) = self.session.next().await? {
                    return Ok(frame);
                }
            }
        };
        tokio::time::timeout(within, next).await.unwrap_or_else(|_| Err(silent()))
    }
}

fn silent() -> String {
    "the broker does not answer".into()
}

fn opened() -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}))
}

/// Looks whether something is there; answered only when it is not.
fn look(subject: &Subject) -> AMQPClass {
    match subject {
        Subject::Queue(name) => passive_queue(name, true),
        Subject::Exchange(name) => passive_exchange(name, true),
        Subject::Replies => passive_exchange("amq.direct", true),
    }
}

pub(super) fn passive_queue(name: &str, nowait: bool) -> AMQPClass {
    AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
        queue: short(name),
        passive: true,
        durable: false,
        exclusive: false,
        auto_delete: false,
        nowait,
        arguments: FieldTable::default(),
    }))
}

pub(super) fn passive_exchange(name: &str, nowait: bool) -> AMQPClass {
    AMQPClass::Exchange(exchange::AMQPMethod::Declare(exchange::Declare {
        exchange: short(name),
        kind: "".into(),
        passive: true,
        durable: false,
        auto_delete: false,
        internal: false,
        nowait,
        arguments: FieldTable::default(),
    }))
}
