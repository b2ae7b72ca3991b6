//! The nouns of the wire: what is published, what comes back, and how each attempt ended.
//! Pure: no I/O and no bus library may enter, so that every adapter speaks the same words.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// `app_id` of every message this version publishes: the version of the wire contract.
pub const APP_ID: &str = "fpesa/1";

/// Content type of a published event: one CloudEvents 1.0 event in structured JSON mode.
pub const CLOUDEVENT: &str = "application/cloudevents+json";

/// Content type of a problem (RFC 9457).
pub const PROBLEM: &str = "application/problem+json";

/// One message, on its way to the bus or from it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// Name of the exchange; empty is the default exchange, which routes to the queue named by `key`.
    pub exchange: String,
    /// Routing key, at most 255 bytes.
    pub key: String,
    /// AMQP basic properties and headers.
    pub properties: Properties,
    /// The payload, untouched.
    pub body: Bytes,
    /// Whether a message that no queue takes is [`Outcome::Unroutable`] (AMQP `mandatory`).
    pub mandatory: bool,
}

/// The AMQP 0-9-1 basic properties that fpesa uses, in that standard's names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Properties {
    /// Identifies the message for ever: the event's id.
    pub message_id: Option<String>,
    /// Joins a reply to its call.
    pub correlation_id: Option<String>,
    /// Queue that a reply goes to, through the default exchange.
    pub reply_to: Option<String>,
    /// MIME type of the body.
    pub content_type: Option<String>,
    /// How the body is compressed, if it is (AMQP `content_encoding`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// The event's type (AMQP `type`).
    pub kind: Option<String>,
    /// Who published: [`APP_ID`].
    pub app_id: Option<String>,
    /// Unix time in whole seconds.
    pub timestamp: Option<u64>,
    /// How long the message is worth delivering; on the wire in milliseconds.
    pub expiration: Option<Duration>,
    /// 0 to 9.
    pub priority: Option<u8>,
    /// Survives a restart of the broker (`delivery_mode` 2).
    pub persistent: bool,
    /// Everything else, by name.
    pub headers: Headers,
    /// What came on the wire where not all of it could be read; what is in the other fields then is the rest. Never sent.
    #[serde(skip)]
    pub unreadable: Option<Box<Unreadable>>,
}

/// Why a message can't be read, and what it came with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// A sentence.
    pub why: String,
    /// The properties as they came; empty where they are not what can't be read.
    pub raw: Bytes,
}

/// Message headers, sorted by name.
pub type Headers = BTreeMap<String, HeaderValue>;

/// A header's value: the AMQP field types that fpesa reads or writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum HeaderValue {
    /// UTF-8 text.
    Text(String),
    /// Any integer field.
    Int(i64),
    /// A boolean field.
    Bool(bool),
    /// A field of another type, or a text that is not UTF-8: passed on as it came, and not looked into.
    Raw {
        /// The letter of its AMQP type.
        letter: u8,
        /// Its value on the wire.
        bytes: Vec<u8>,
    },
}

impl HeaderValue {
    /// The value as text, the way a person would write it; `None` for one that is not looked into.
    pub fn to_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(text.into()),
            Self::Int(number) => Some(number.to_string().into()),
            Self::Bool(flag) => Some(flag.to_string().into()),
            Self::Raw { .. } => None,
        }
    }
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// How a publish ended. Nothing but [`Outcome::Routed`] is a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The bus has it, durably, on every durable queue it was routed to.
    Routed,
    /// The bus said no (`basic.nack`, or a full queue that rejects): it was not kept everywhere it had to be.
    Rejected,
    /// The bus refused this one message, and will refuse it each time.
    Refused(Refusal),
    /// No queue takes it and the message was `mandatory`, or its exchange does not exist.
    Unroutable,
    /// It was never sent.
    NotSent(Away),
    /// It was sent, and the answer never came: it may have been kept.
    Unknown,
}

/// Why the bus will never take a message. Its own words go to the log: they name what is the operator's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No permission to write there, or a property that the bus can't take.
    Forbidden,
    /// Its body is larger than the bus takes.
    TooLarge {
        /// The most that it takes in bytes, where it says so.
        limit: Option<u64>,
    },
}

/// Why nothing could be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    /// No connection to the broker.
    Down,
    /// The broker raised a memory or disk alarm (`connection.blocked`).
    Blocked,
    /// The embedded bus's disk has no room.
    StorageFull,
    /// The embedded bus's disk fails.
    StorageFailed,
}

/// A worker's answer to a call, as it came from the bus.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// Properties and headers; `status` and `http.*` among the latter.
    pub properties: Properties,
    /// The payload, untouched.
    pub body: Bytes,
}

/// Why a call has no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallError {
    /// No worker consumes the queue.
    NoWorker,
    /// The deadline passed.
    Timeout,
    /// The request was never sent.
    NotSent(Away),
    /// The bus rejected the request (a full queue).
    Rejected,
    /// The bus refused this one request, and will refuse it each time.
    Refused(Refusal),
    /// The link broke while the reply was awaited: the work may have been done.
    Unknown,
    /// The reply is larger than replies may be.
    ReplyTooLarge,
    /// There is no room for the reply among what this process holds now.
    Overloaded,
}

impl CallError {
    /// What a call is told of its request; `None` for one that was routed, and whose reply is waited for.
    pub fn of(outcome: Outcome) -> Option<Self> {
        Some(match outcome {
            Outcome::Routed => return None,
            Outcome::Unroutable => Self::NoWorker,
            Outcome::Rejected => Self::Rejected,
            Outcome::Refused(refusal) => Self::Refused(refusal),
            Outcome::NotSent(away) => Self::NotSent(away),
            Outcome::Unknown => Self::Unknown,
        })
    }
}
