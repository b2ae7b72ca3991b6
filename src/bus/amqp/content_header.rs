//! Reads a content header (AMQP 0-9-1, 2.3.5.2 and 4.2.6.1) whatever is in it: anybody who may publish to a queue chooses
//! these bytes, so what can't be read is that message's own trouble and never the connection's. What can be read is read,
//! and the rest is kept as it came.
//!
//! Linear in the size of the frame, without recursion: a value that is not used here stays bytes.

use std::time::Duration;

use bytes::Bytes;

use crate::message::{HeaderValue, Headers, Properties, Unreadable};

/// Class, weight and body size.
const FIXED: usize = 12;

/// What comes between a message's method and its body.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContentHeader {
    pub body_size: u64,
    /// With [`Properties::unreadable`] where not all of them could be read.
    pub properties: Properties,
}

/// Reads the payload of a header frame.
pub(super) fn read(payload: &[u8]) -> ContentHeader {
    let body_size = payload.get(4..FIXED).and_then(|size| size.try_into().ok()).map_or(0, u64::from_be_bytes);
    ContentHeader { body_size, properties: read_properties(payload.get(FIXED..).unwrap_or_default()) }
}

/// Reads the property flags and the values after them.
fn read_properties(raw: &[u8]) -> Properties {
    let mut properties = Properties::default();
    let mut values = Values { rest: raw, trouble: None };
    if values.read_all(&mut properties).is_none() {
        values.note(|| "they end in the middle".into());
    } else if !values.rest.is_empty() {
        values.note(|| "there is more than the standard knows".into());
    }
    properties.unreadable = values.trouble.map(|why| {
        let why = format!("the message's properties can't be read: {why}");
        Box::new(Unreadable { why, raw: Bytes::copy_from_slice(raw) })
    });
    properties
}

struct Values<'a> {
    rest: &'a [u8],
    /// The first thing that could not be read.
    trouble: Option<String>,
}

impl<'a> Values<'a> {
    fn note(&mut self, why: impl FnOnce() -> String) {
        if self.trouble.is_none() {
            self.trouble = Some(why());
        }
    }

    /// Every property that the flags name, in their order; `None` where the bytes end before that.
    fn read_all(&mut self, properties: &mut Properties) -> Option<()> {
        // The last two are of no property; RabbitMQ reads nothing for them.
        let flags = u16::from_be_bytes(self.array()?);
        let has = |bit: u16| flags & (1 << bit) != 0;
        if has(15) {
            self.text("content_type", &mut properties.content_type)?;
        }
        if has(14) {
            self.text("content_encoding", &mut properties.content_encoding)?;
        }
        if has(13) {
            let table = self.long()?;
            self.headers(table, &mut properties.headers);
        }
        if has(12) {
            properties.persistent = self.array()? == [2];
        }
        if has(11) {
            properties.priority = Some(self.array::<1>()?[0]);
        }
        if has(10) {
            self.text("correlation_id", &mut properties.correlation_id)?;
        }
        if has(9) {
            self.text("reply_to", &mut properties.reply_to)?;
        }
        if has(8) {
            let mut millis = None;
            self.text("expiration", &mut millis)?;
            properties.expiration = millis.and_then(|text| text.parse().ok()).map(Duration::from_millis);
        }
        if has(7) {
            self.text("message_id", &mut properties.message_id)?;
        }
        if has(6) {
            properties.timestamp = Some(u64::from_be_bytes(self.array()?));
        }
        if has(5) {
            self.text("type", &mut properties.kind)?;
        }
        // Of the user the broker makes sure, and who publishes again is another; the cluster's name is long out of use.
        if has(4) {
            self.text("user_id", &mut None)?;
        }
        if has(3) {
            self.text("app_id", &mut properties.app_id)?;
        }
        if has(2) {
            self.text("cluster_id", &mut None)?;
        }
        Some(())
    }

    fn headers(&mut self, table: &[u8], headers: &mut Headers) {
        let mut rest = table;
        while !rest.is_empty() {
            let Some((name, letter, value)) = take_entry(&mut rest) else {
                // Where a value ends is not known, so neither is where the next begins.
                let names = headers.len();
                return self
                    .note(|| format!("the header after the first {names} has a type or a size that is unknown"));
            };
            match std::str::from_utf8(name) {
                Ok(name) => {
                    headers.insert(name.to_owned(), header_value(letter, value));
                }
                Err(_) => self.note(|| "the name of a header is not UTF-8".into()),
            }
        }
    }

    /// A short string, where it is UTF-8.
    fn text(&mut self, name: &str, into: &mut Option<String>) -> Option<()> {
        let bytes = take_short(&mut self.rest)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => *into = Some(text.to_owned()),
            Err(_) => self.note(|| format!("`{name}` is not UTF-8")),
        }
        Some(())
    }

    fn long(&mut self) -> Option<&'a [u8]> {
        take_long(&mut self.rest)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        take(&mut self.rest, N)?.try_into().ok()
    }
}

fn take<'a>(rest: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(size)?;
    *rest = after;
    Some(taken)
}

/// Bytes after their number, in one byte.
pub(super) fn take_short<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let size = take(rest, 1)?[0];
    take(rest, size.into())
}

/// Bytes after their number, in four.
fn take_long<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let size = take(rest, 4)?.try_into().map(u32::from_be_bytes).ok()?;
    take(rest, usize::try_from(size).ok()?)
}

/// One entry of a table: name, type and value.
fn take_entry<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], u8, &'a [u8])> {
    let name = take_short(rest)?;
    let letter = take(rest, 1)?[0];
    Some((name, letter, take_value(rest, letter)?))
}

/// The bytes of one value, its size included where it has one; `None` where its type is unknown or it is not whole.
///
/// The types are RabbitMQ's ("AMQP 0-9-1 Errata", table types): `s` is a number there.
fn take_value<'a>(rest: &mut &'a [u8], letter: u8) -> Option<&'a [u8]> {
    let size = match letter {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'u' | b'U' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'l' | b'L' | b'd' | b'T' => 8,
        b'S' | b'x' | b'F' | b'A' => {
            let size: &[u8; 4] = rest.first_chunk()?;
            4 + usize::try_from(u32::from_be_bytes(*size)).ok()?
        }
        _ => return None,
    };
    let value = take(rest, size)?;
    match letter {
        b'F' | b'A' => holds_values(letter, value).then_some(value),
        _ => Some(value),
    }
}

/// Whether a table or list holds whole values of known types, however deep: passed on otherwise, a broker would end the
/// connection for it.
fn holds_values(letter: u8, value: &[u8]) -> bool {
    // What is left of each table or list that is open, and which it is: the innermost last.
    let mut open = vec![(letter, value.get(4..).unwrap_or_default())];
    while let Some((letter, rest)) = open.last_mut() {
        if rest.is_empty() {
            open.pop();
            continue;
        }
        let named = *letter == b'A' || take_short(rest).is_some();
        let Some(&[inner]) = take(rest, 1).filter(|_| named) else { return false };
        if matches!(inner, b'F' | b'A') {
            let Some(values) = take_long(rest) else { return false };
            open.push((inner, values));
        } else if take_value(rest, inner).is_none() {
            return false;
        }
    }
    true
}

/// Numbers, texts and flags as themselves; everything else as its bytes.
fn header_value(letter: u8, value: &[u8]) -> HeaderValue {
    let raw = || HeaderValue::Raw { letter, bytes: value.to_vec() };
    let number = || {
        // Two's complement or not, widened to eight bytes.
        let signed = matches!(letter, b'b' | b's' | b'U' | b'I' | b'l' | b'L');
        let filler = if signed && value.first().is_some_and(|first| *first >= 0x80) { 0xFF } else { 0 };
        let mut wide = [filler; 8];
        wide[8 - value.len()..].copy_from_slice(value);
        HeaderValue::Int(i64::from_be_bytes(wide))
    };
    match (letter, value) {
        (b'S', _) => value
            .get(4..)
            .and_then(|text| std::str::from_utf8(text).ok())
            .map_or_else(raw, |text| HeaderValue::Text(text.to_owned())),
        (b't', [flag]) => HeaderValue::Bool(*flag != 0),
        (b'b' | b'B' | b's' | b'u' | b'U' | b'I' | b'i' | b'l' | b'L', _) if value.len() <= 8 => number(),
        _ => raw(),
    }
}

#[cfg(test)]
mod tests {
    use amq_protocol::frame::{AMQPFrame, parse_frame};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Class, weight, a body of 7 bytes; then the flags and values.
    fn header(flags: u16, values: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        out.extend(flags.to_be_bytes());
        out.extend(values);
        out
    }

    fn table(entries: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(entries.len()).unwrap().to_be_bytes().to_vec();
        out.extend(entries);
        out
    }

    /// A table within a table, and so on, as one entry.
    fn nested(depth: u32) -> Vec<u8> {
        let mut out = Vec::new();
        for left in (0..depth).rev() {
            // Each level is a name, a type and a size around the one within; the innermost holds nothing.
            out.extend(b"\x01aF");
            out.extend((3 + 7 * left).to_be_bytes());
        }
        out.extend(b"\x01aV");
        out
    }

    /// Bytes that are kept of what came.
    fn kept(properties: &Properties) -> usize {
        let value = |value: &HeaderValue| match value {
            HeaderValue::Text(text) => text.capacity(),
            HeaderValue::Raw { bytes, .. } => bytes.capacity(),
            HeaderValue::Int(_) | HeaderValue::Bool(_) => 0,
        };
        let headers = properties.headers.iter().map(|(name, header)| name.capacity() + value(header));
        let texts = [&properties.content_type, &properties.message_id, &properties.app_id, &properties.kind];
        let texts = texts.into_iter().flatten().map(String::capacity);
        let unreadable = properties.unreadable.as_ref().map_or(0, |unreadable| unreadable.raw.len());
        headers.chain(texts).sum::<usize>() + unreadable
    }

    #[test]
    fn what_is_kept_is_bounded_by_what_came() {
        let many: Vec<u8> = (0..60_000_u32).flat_map(|n| [&[4][..], &n.to_be_bytes(), b"V"].concat()).collect();
        let liar = [&b"\x01aS"[..], &u32::MAX.to_be_bytes()].concat();
        for entries in [many, liar, nested(100_000), nested(100_000)[..600_000].to_vec(), vec![0xFF; 1_000_000]] {
            let payload = header(1 << 13, &table(&entries));
            let read = read(&payload).properties;
            assert!(kept(&read) <= 2 * payload.len(), "{} of {}", kept(&read), payload.len());
            let why = read.unreadable.map(|unreadable| unreadable.why.len()).unwrap_or_default();
            assert!(why < 300, "{why}");
        }
    }

    fn why(flags: u16, values: &[u8]) -> Option<String> {
        let read = read(&header(flags, values));
        assert_eq!(read.body_size, 7);
        read.properties.unreadable.map(|unreadable| {
            assert_eq!(unreadable.raw, header(flags, values)[FIXED..]);
            unreadable.why
        })
    }

    #[test]
    fn a_bad_property_hides_no_other() {
        let mut values = Vec::new();
        for text in [&b"text/\xFF"[..], b"gzip"] {
            values.push(u8::try_from(text.len()).unwrap());
            values.extend(text);
        }
        values.extend(table(b"\x01a?oops"));
        values.extend(b"\x02\x03one");
        let read = read(&header(0b1111_0100_0000_0000, &values)).properties;
        assert_eq!(read.content_type, None);
        assert_eq!(read.content_encoding.as_deref(), Some("gzip"));
        assert_eq!(read.correlation_id.as_deref(), Some("one"));
        assert!(read.persistent);
        let why = read.unreadable.unwrap().why;
        assert!(why.ends_with("`content_type` is not UTF-8"), "{why}");
    }

    #[test]
    fn every_text_says_its_name() {
        for (bit, name) in [
            (15, "content_type"),
            (14, "content_encoding"),
            (10, "correlation_id"),
            (9, "reply_to"),
            (8, "expiration"),
            (7, "message_id"),
            (5, "type"),
            (4, "user_id"),
            (3, "app_id"),
            (2, "cluster_id"),
        ] {
            assert_eq!(why(1 << bit, b"\x02ok"), None);
            assert!(why(1 << bit, b"\x02\xC3\x28").unwrap().contains(&format!("`{name}`")));
            assert!(why(1 << bit, b"\x09short").unwrap().contains("end in the middle"));
        }
    }

    #[test]
    fn what_is_strange_and_valid_is_kept() {
        let deep = nested(100_000);
        for entry in [
            &b"\x01aV"[..],
            b"\x01aD\x02\0\0\x01\0",
            b"\x01af\x7F\xC0\0\0",
            b"\x01ad\x7F\xF0\0\0\0\0\0\0",
            b"\x01aT\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
            b"\x01ax\0\0\0\x02\xFF\xFE",
            b"\x01aS\0\0\0\x02\xFF\xFE",
            b"\x01aA\0\0\0\x04VVt\x01",
            &deep,
        ] {
            let read = read(&header(1 << 13, &table(entry))).properties;
            assert_eq!(read.unreadable, None, "{entry:.9?}");
            let HeaderValue::Raw { letter, bytes } = &read.headers["a"] else { panic!("{entry:.9?}") };
            assert_eq!([&b"\x01a"[..], &[*letter], bytes].concat(), entry);
        }
        for (entry, number) in [
            (&b"\x01ab\xFF"[..], -1),
            (b"\x01aB\xFF", 255),
            (b"\x01as\xFF\xFE", -2),
            (b"\x01au\xFF\xFE", 65_534),
            (b"\x01aI\xFF\xFF\xFF\xFE", -2),
            (b"\x01ai\xFF\xFF\xFF\xFE", 4_294_967_294),
            (b"\x01al\x80\0\0\0\0\0\0\0", i64::MIN),
        ] {
            let read = read(&header(1 << 13, &table(entry))).properties;
            assert_eq!((&read.headers["a"], read.unreadable), (&HeaderValue::Int(number), None));
        }
    }

    #[test]
    fn what_can_not_be_read_says_why() {
        for (flags, values, expected) in [
            (1 << 13, table(b"\x02\xFF\xFEV"), "the name of a header is not UTF-8"),
            (1 << 13, table(b"\x01aV\x01bZ"), "the header after the first 1 has a type"),
            (1 << 13, table(b"\x01aS\0\0\0\x09short"), "the header after the first 0 has a type"),
            (1 << 13, table(b"\x01aF\0\0\0\x03\x01bZ"), "the header after the first 0 has a type"),
            (1 << 13, vec![0, 0, 1, 0, 1], "end in the middle"),
            (1 << 6, vec![0; 7], "end in the middle"),
            (1 << 1, vec![1], "more than the standard knows"),
            (1, vec![0], "more than the standard knows"),
        ] {
            let why = why(flags, &values).unwrap();
            assert!(why.contains(expected), "{why}");
        }
        for size in 0..FIXED + 2 {
            assert!(read(&vec![0; size]).properties.unreadable.is_some());
        }
    }

    /// Mostly what could be a header, bent here and there.
    fn payload() -> impl Strategy<Value = Vec<u8>> {
        let entry = (vec(any::<u8>(), 0..4), "[tbBsuUIiflLdDTSxFAVZ]", vec(0_u8..6, 0..12)).prop_map(
            |(name, letter, value)| {
                let mut out = vec![u8::try_from(name.len()).unwrap()];
                out.extend(name);
                out.extend(letter.bytes());
                out.extend(value);
                out
            },
        );
        let built = (any::<u16>(), vec(entry, 0..12), vec(0_u8..4, 0..40)).prop_map(|(flags, entries, rest)| {
            header(flags & !0b1100_0000_0000_0000, &[table(&entries.concat()), rest].concat())
        });
        prop_oneof![built, vec(any::<u8>(), 0..200)]
    }

    proptest! {
        /// What the library reads is read, and it is the same.
        #[test]
        fn reads_what_the_library_reads(payload in payload()) {
            let ours = read(&payload);
            let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
            let frame = [&[2, 0, 1], &size[..], &payload, &[0xCE]].concat();
            if let Ok((_, AMQPFrame::Header(_, theirs))) = parse_frame(frame.as_slice()) {
                prop_assert_eq!(ours.body_size, theirs.body_size);
                let text = |value: &Option<_>| value.as_ref().map(ToString::to_string);
                let (properties, theirs) = (ours.properties, theirs.properties);
                prop_assert_eq!(&properties.unreadable, &None);
                prop_assert_eq!(properties.message_id, text(theirs.message_id()));
                prop_assert_eq!(properties.correlation_id, text(theirs.correlation_id()));
                prop_assert_eq!(properties.app_id, text(theirs.app_id()));
                prop_assert_eq!(properties.timestamp, *theirs.timestamp());
                let names = theirs.headers().as_ref().map_or(0, |headers| headers.inner().len());
                prop_assert_eq!(properties.headers.len(), names);
            }
        }
    }
}
