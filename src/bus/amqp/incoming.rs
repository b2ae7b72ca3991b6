//! One frame of the broker's, read so that no message can make it unreadable: texts that a client chose need not be UTF-8.
//! Everything else is read by the library.

use amq_protocol::{
    frame::{AMQPFrame, parse_frame},
    protocol::{
        AMQPClass, basic, channel, connection,
        constants::{FRAME_END, FRAME_HEADER, FRAME_METHOD},
    },
};

use super::{
    content_header::{self, ContentHeader, take_short},
    convert::short,
};

/// Type, channel and size of a frame.
const HEAD: usize = 7;

/// Class and method, as one number.
const DELIVER: u32 = method(60, 60);
const RETURN: u32 = method(60, 50);
const CLOSE_CHANNEL: u32 = method(20, 40);
const CLOSE_CONNECTION: u32 = method(10, 50);

const fn method(class: u16, method: u16) -> u32 {
    ((class as u32) << 16) | method as u32
}

/// What the broker says.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// `basic.deliver`, and on which channel.
    Deliver(u16, Deliver),
    /// A content header, and on which channel.
    Header(u16, ContentHeader),
    /// Everything else. A text that is not UTF-8 has replacement characters.
    Frame(AMQPFrame),
}

/// A message comes: its content header is next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deliver {
    pub tag: u64,
    pub redelivered: bool,
    /// Not always UTF-8.
    pub exchange: Vec<u8>,
    /// Not always UTF-8.
    pub key: Vec<u8>,
}

/// Reads one whole frame. The error says nothing of its bytes: they may be somebody's message.
pub(super) fn read(frame: &[u8]) -> Result<Incoming, String> {
    let error = || "the broker sent a frame that can't be read".to_owned();
    let (Some(&[kind, high, low, ..]), Some(payload)) =
        (frame.first_chunk::<HEAD>(), frame.get(HEAD..frame.len().saturating_sub(1)))
    else {
        return Err(error());
    };
    let channel = u16::from_be_bytes([high, low]);
    if kind == FRAME_HEADER && frame.last() == Some(&FRAME_END) {
        return Ok(Incoming::Header(channel, content_header::read(payload)));
    }
    if kind == FRAME_METHOD
        && let Some((&[a, b, c, d], arguments)) = payload.split_first_chunk()
    {
        let method = u32::from_be_bytes([a, b, c, d]);
        if method == DELIVER {
            return deliver(arguments).map(|deliver| Incoming::Deliver(channel, deliver)).ok_or_else(error);
        }
        if let Ok((_, frame)) = parse_frame(frame) {
            return Ok(Incoming::Frame(frame));
        }
        let class = lossy(method, arguments).ok_or_else(error)?;
        return Ok(Incoming::Frame(AMQPFrame::Method(channel, class)));
    }
    parse_frame(frame).map(|(_, frame)| Incoming::Frame(frame)).map_err(|_| error())
}

fn deliver(mut rest: &[u8]) -> Option<Deliver> {
    take_short(&mut rest)?;
    let (tag, after) = rest.split_first_chunk()?;
    let ([flags], after) = after.split_first_chunk()?;
    rest = after;
    let exchange = take_short(&mut rest)?.to_vec();
    let key = take_short(&mut rest)?.to_vec();
    Some(Deliver { tag: u64::from_be_bytes(*tag), redelivered: flags & 1 != 0, exchange, key })
}

/// The methods that repeat what a client chose: a message that comes back, and why the broker closes. (RabbitMQ cuts the
/// reason at 255 bytes, in the middle of a character where there is one.)
fn lossy(method: u32, arguments: &[u8]) -> Option<AMQPClass> {
    let (&code, mut rest) = arguments.split_first_chunk()?;
    let reply_code = u16::from_be_bytes(code);
    let reply_text = lossy_text(&mut rest)?;
    if method == RETURN {
        let (exchange, routing_key) = (lossy_text(&mut rest)?, lossy_text(&mut rest)?);
        let returned = basic::Return { reply_code, reply_text, exchange, routing_key };
        return Some(AMQPClass::Basic(basic::AMQPMethod::Return(returned)));
    }
    let &[a, b, c, d] = rest.first_chunk()?;
    let (class_id, method_id) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    match method {
        CLOSE_CHANNEL => {
            let close = channel::Close { reply_code, reply_text, class_id, method_id };
            Some(AMQPClass::Channel(channel::AMQPMethod::Close(close)))
        }
        CLOSE_CONNECTION => {
            let close = connection::Close { reply_code, reply_text, class_id, method_id };
            Some(AMQPClass::Connection(connection::AMQPMethod::Close(close)))
        }
        _ => None,
    }
}

/// With replacement characters, and cut where they make it too long for a short string.
fn lossy_text(rest: &mut &[u8]) -> Option<amq_protocol::types::ShortString> {
    const LONGEST: usize = 255;
    let mut text = String::from_utf8_lossy(take_short(rest)?).into_owned();
    text.truncate(text.floor_char_boundary(LONGEST));
    Some(short(text))
}

#[cfg(test)]
mod tests {
    use amq_protocol::{
        frame::{AMQPFrame, WriteContext, gen_frame},
        protocol::{AMQPClass, basic, channel},
    };
    use proptest::{collection::vec, prelude::*};

    use super::{Deliver, Incoming, read};

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 9], &size[..], payload, &[0xCE]].concat()
    }

    #[test]
    fn a_delivery_whatever_its_key_is() {
        let arguments = b"\x03tag\0\0\0\0\0\0\0\x07\x01\x02\xFF\xFE\x03a.\xFF";
        let read = read(&frame(1, &[&[0, 60, 0, 60][..], arguments].concat())).unwrap();
        let expected = Deliver { tag: 7, redelivered: true, exchange: vec![0xFF, 0xFE], key: b"a.\xFF".to_vec() };
        assert_eq!(read, Incoming::Deliver(9, expected));
    }

    #[test]
    fn a_reason_that_is_cut_within_a_character() {
        let mut arguments = vec![0, 20, 0, 40, 1, 148, 255];
        arguments.extend(&"ü".repeat(128).as_bytes()[..255]);
        arguments.extend([0, 60, 0, 40]);
        let Incoming::Frame(AMQPFrame::Method(9, AMQPClass::Channel(channel::AMQPMethod::Close(close)))) =
            read(&frame(1, &arguments)).unwrap()
        else {
            panic!()
        };
        assert_eq!((close.reply_code, close.class_id, close.method_id), (404, 60, 40));
        assert!(close.reply_text.as_str().starts_with("üü"));
        let returned = b"\0\x3C\0\x32\x01\x38\x08NO_ROUTE\x01\xFF\x02k\xFF";
        let Incoming::Frame(AMQPFrame::Method(9, AMQPClass::Basic(basic::AMQPMethod::Return(returned)))) =
            read(&frame(1, returned)).unwrap()
        else {
            panic!()
        };
        assert_eq!((returned.reply_code, returned.routing_key.as_str()), (312, "k\u{FFFD}"));
    }

    #[test]
    fn what_the_library_reads() {
        let ack = AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag: 5, multiple: true }));
        for expected in [AMQPFrame::Method(3, ack), AMQPFrame::Body(4, vec![1, 2]), AMQPFrame::Heartbeat] {
            let (bytes, _) = gen_frame(&expected)(WriteContext::from(Vec::new())).unwrap().into_inner();
            assert_eq!(read(&bytes).unwrap(), Incoming::Frame(expected));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(kind in 0_u8..10, payload in vec(any::<u8>(), 0..300), class in 0_u8..100, method in 0_u8..100) {
            let _ = read(&payload);
            let _ = read(&frame(kind, &payload));
            let _ = read(&frame(1, &[&[0, class, 0, method], &payload[..]].concat()));
        }
    }
}
