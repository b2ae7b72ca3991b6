//! A publish as AMQP 0-9-1 puts it on the wire: method, content header and body frames (sections 2.3.5 and 4.2), written
//! from our own types without another copy in between.

use amq_protocol::protocol::constants::{FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_METHOD};

use super::session::AROUND;
use crate::message::{HeaderValue, Message, Properties};

const BASIC: u16 = 60;
const PUBLISH: u16 = 40;
const MANDATORY: u8 = 1;
/// The longest short string, in bytes.
const LONGEST: usize = 255;
/// The largest body frame where the broker sets no limit.
const UNLIMITED: usize = 1 << 20;

/// What AMQP can't carry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unencodable {
    /// A short string holds at most 255 bytes.
    #[error("a name, an id or another property is longer than 255 bytes")]
    LongText,
    /// The standard wants them in one frame.
    #[error("its properties do not fit into one frame of the broker (`frame_max`)")]
    LargeProperties,
}

/// Appends the frames of one publish; `frame_max` in bytes, 0 for no limit. Where it fails nothing is appended.
pub(super) fn publish(out: &mut Vec<u8>, channel: u16, frame_max: usize, message: &Message) -> Result<(), Unencodable> {
    let frame_max = if frame_max == 0 { UNLIMITED } else { frame_max };
    let Properties { message_id, correlation_id, reply_to, content_type, kind, app_id, headers, .. } =
        &message.properties;
    let texts = [message_id, correlation_id, reply_to, content_type, kind, app_id].into_iter().flatten();
    let names = [&message.exchange, &message.key].into_iter().chain(headers.keys());
    if names.chain(texts).any(|text| text.len() > LONGEST) {
        return Err(Unencodable::LongText);
    }
    let start = out.len();
    frame(out, FRAME_METHOD, channel, |out| {
        out.extend(BASIC.to_be_bytes());
        out.extend(PUBLISH.to_be_bytes());
        // Reserved, once the access ticket.
        out.extend([0, 0]);
        short(out, &message.exchange);
        short(out, &message.key);
        out.push(if message.mandatory { MANDATORY } else { 0 });
    });
    let header = out.len();
    frame(out, FRAME_HEADER, channel, |out| {
        out.extend(BASIC.to_be_bytes());
        // Weight, always 0.
        out.extend([0, 0]);
        out.extend((message.body.len() as u64).to_be_bytes());
        properties(out, &message.properties);
    });
    if out.len() - header > frame_max {
        out.truncate(start);
        return Err(Unencodable::LargeProperties);
    }
    for part in message.body.chunks(frame_max - AROUND) {
        frame(out, FRAME_BODY, channel, |out| out.extend_from_slice(part));
    }
    Ok(())
}

fn frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    out.extend(channel.to_be_bytes());
    sized(out, payload);
    out.push(FRAME_END);
}

/// Something with its length before it, as a long unsigned integer.
fn sized(out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0; 4]);
    payload(out);
    let size = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

fn short(out: &mut Vec<u8>, text: &str) {
    let (size, text) = u8::try_from(text.len()).map_or((0, ""), |size| (size, text));
    out.push(size);
    out.extend_from_slice(text.as_bytes());
}

/// Flags of what is there, from the highest bit down, then the values in the same order (section 4.2.6.1).
fn properties(out: &mut Vec<u8>, given: &Properties) {
    let at = out.len();
    out.extend([0; 2]);
    let mut flags = 0;
    let text = |out: &mut Vec<u8>, flags: &mut u16, bit: u16, value: Option<&str>| {
        if let Some(value) = value {
            *flags |= 1 << bit;
            short(out, value);
        }
    };
    text(out, &mut flags, 15, given.content_type.as_deref());
    text(out, &mut flags, 14, given.content_encoding.as_deref());
    if !given.headers.is_empty() {
        flags |= 1 << 13;
        sized(out, |out| {
            for (name, value) in &given.headers {
                short(out, name);
                field(out, value);
            }
        });
    }
    flags |= 1 << 12;
    out.push(if given.persistent { 2 } else { 1 });
    if let Some(priority) = given.priority {
        flags |= 1 << 11;
        out.push(priority);
    }
    text(out, &mut flags, 10, given.correlation_id.as_deref());
    text(out, &mut flags, 9, given.reply_to.as_deref());
    let expiration = given.expiration.map(|expiration| expiration.as_millis().max(1).to_string());
    text(out, &mut flags, 8, expiration.as_deref());
    text(out, &mut flags, 7, given.message_id.as_deref());
    if let Some(timestamp) = given.timestamp {
        flags |= 1 << 6;
        out.extend(timestamp.to_be_bytes());
    }
    text(out, &mut flags, 5, given.kind.as_deref());
    text(out, &mut flags, 3, given.app_id.as_deref());
    out[at..at + 2].copy_from_slice(&flags.to_be_bytes());
}

/// A header's value, after the letter of its type.
fn field(out: &mut Vec<u8>, value: &HeaderValue) {
    match value {
        HeaderValue::Text(text) => {
            out.push(b'S');
            sized(out, |out| out.extend_from_slice(text.as_bytes()));
        }
        HeaderValue::Int(number) => {
            out.push(b'l');
            out.extend(number.to_be_bytes());
        }
        HeaderValue::Bool(flag) => out.extend([b't', u8::from(*flag)]),
        HeaderValue::Raw { letter, bytes } => {
            out.push(*letter);
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use amq_protocol::{
        frame::{AMQPFrame, parse_frame},
        protocol::{AMQPClass, basic::AMQPMethod},
    };
    use proptest::{collection, option, prelude::*};

    use super::{Unencodable, publish};
    use crate::{
        bus::amqp::incoming::{Incoming, read},
        message::{HeaderValue, Message, Properties},
    };

    fn value() -> impl Strategy<Value = HeaderValue> {
        prop_oneof![
            ".{0,300}".prop_map(HeaderValue::Text),
            any::<i64>().prop_map(HeaderValue::Int),
            any::<bool>().prop_map(HeaderValue::Bool),
            any::<[u8; 8]>().prop_map(|bytes| HeaderValue::Raw { letter: b'd', bytes: bytes.to_vec() }),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        let text = || option::of("[ -~]{0,255}");
        let times = (option::of(any::<u64>()), option::of(1_u64..9_000_000_000), option::of(0_u8..10), any::<bool>());
        let texts = (text(), text(), text(), text(), text(), text(), text());
        let places = ("[ -~]{0,255}", "[ -~]{0,255}", any::<bool>());
        let headers = collection::btree_map("[a-z-]{1,40}", value(), 0..6);
        (places, texts, times, headers, collection::vec(any::<u8>(), 0..20_000)).prop_map(
            |((exchange, key, mandatory), texts, (timestamp, expiration, priority, persistent), headers, body)| {
                Message {
                    exchange,
                    key,
                    properties: Properties {
                        message_id: texts.0,
                        correlation_id: texts.1,
                        reply_to: texts.2,
                        content_type: texts.3,
                        kind: texts.4,
                        app_id: texts.5,
                        content_encoding: texts.6,
                        unreadable: None,
                        timestamp,
                        expiration: expiration.map(Duration::from_millis),
                        priority,
                        persistent,
                        headers,
                    },
                    body: body.into(),
                    mandatory,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn the_library_reads_what_is_written(message in message(), small in any::<bool>()) {
            let frame_max = if small { 4_096 } else { 0 };
            let mut out = b"before".to_vec();
            publish(&mut out, 7, frame_max, &message).unwrap();
            let mut rest = &out[6..];
            let mut frames = Vec::new();
            while !rest.is_empty() {
                let (after, frame) = parse_frame(rest).unwrap();
                prop_assert!(frame_max == 0 || rest.len() - after.len() <= frame_max);
                prop_assert_eq!(frame.channel_id(), 7);
                frames.push(frame);
                if let Incoming::Header(_, header) = read(&rest[..rest.len() - after.len()]).unwrap() {
                    prop_assert_eq!(&header.properties, &message.properties);
                }
                rest = after;
            }
            let mut frames = frames.into_iter();
            let Some(AMQPFrame::Method(_, AMQPClass::Basic(AMQPMethod::Publish(method)))) = frames.next() else { panic!() };
            prop_assert_eq!(method.exchange.as_str(), &message.exchange);
            prop_assert_eq!(method.routing_key.as_str(), &message.key);
            prop_assert_eq!((method.mandatory, method.immediate), (message.mandatory, false));
            let Some(AMQPFrame::Header(_, header)) = frames.next() else { panic!() };
            prop_assert_eq!(header.body_size, message.body.len() as u64);
            let mut body = Vec::new();
            for frame in frames {
                let AMQPFrame::Body(_, part) = frame else { panic!() };
                body.extend(part);
            }
            prop_assert_eq!(body, message.body);
        }
    }

    #[test]
    fn what_can_not_be_sent() {
        let long = "x".repeat(256);
        let mut out = Vec::new();
        let with = |properties| Message { properties, ..Message::default() };
        for bent in [
            Message { key: long.clone(), ..Message::default() },
            Message { exchange: long.clone(), ..Message::default() },
            with(Properties { message_id: Some(long.clone()), ..Properties::default() }),
            with(Properties { content_type: Some(long.clone()), ..Properties::default() }),
            with(Properties { headers: [(long.clone(), HeaderValue::Bool(true))].into(), ..Properties::default() }),
        ] {
            assert_eq!(publish(&mut out, 1, 4_096, &bent), Err(Unencodable::LongText));
        }
        let headers = [("long".to_owned(), "x".repeat(5_000).into())].into();
        let large = with(Properties { headers, ..Properties::default() });
        assert_eq!(publish(&mut out, 1, 4_096, &large), Err(Unencodable::LargeProperties));
        assert!(out.is_empty());
    }
}
