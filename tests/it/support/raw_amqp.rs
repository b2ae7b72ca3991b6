//! A publisher that writes AMQP 0-9-1 byte by byte, so that it can send what client libraries refuse to.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const CHANNEL: u16 = 1;
/// Bodies are cut at this, in bytes.
const BODY_FRAME: usize = 100_000;

/// A property's bit among the flags.
pub mod flag {
    pub const CONTENT_TYPE: u16 = 1 << 15;
    pub const CONTENT_ENCODING: u16 = 1 << 14;
    pub const HEADERS: u16 = 1 << 13;
    pub const DELIVERY_MODE: u16 = 1 << 12;
    pub const CORRELATION_ID: u16 = 1 << 10;
    pub const REPLY_TO: u16 = 1 << 9;
    pub const EXPIRATION: u16 = 1 << 8;
    pub const MESSAGE_ID: u16 = 1 << 7;
    pub const TIMESTAMP: u16 = 1 << 6;
    pub const TYPE: u16 = 1 << 5;
    pub const USER_ID: u16 = 1 << 4;
    pub const APP_ID: u16 = 1 << 3;
    pub const CLUSTER_ID: u16 = 1 << 2;
}

/// Properties as bytes, by their flags; each value is written as it is given.
#[derive(Clone, Default)]
pub struct RawProperties(Vec<(u16, Vec<u8>)>);

impl RawProperties {
    /// With this property in addition, or instead of what it was.
    pub fn with(mut self, flag: u16, value: impl Into<Vec<u8>>) -> Self {
        self.0.retain(|(other, _)| *other != flag);
        self.0.push((flag, value.into()));
        self
    }

    /// With a short string.
    pub fn text(self, flag: u16, text: impl AsRef<[u8]>) -> Self {
        self.with(flag, short(text.as_ref()))
    }

    /// Flags, and the values in their order.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = self.0.clone();
        all.sort_by_key(|(flag, _)| std::cmp::Reverse(*flag));
        let flags = all.iter().fold(0, |flags, (flag, _)| flags | flag);
        let mut out = flags.to_be_bytes().to_vec();
        out.extend(all.into_iter().flat_map(|(_, value)| value));
        out
    }
}

/// At most 255 bytes after their number.
pub fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// Bytes after their number: a long string, a table's or a list's.
pub fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// One entry of a table: its name, its type's letter and its value as it is.
pub fn entry(name: &[u8], letter: u8, value: &[u8]) -> Vec<u8> {
    [&short(name)[..], &[letter], value].concat()
}

pub struct RawAmqp {
    stream: TcpStream,
    received: Vec<u8>,
    /// Publishes so far, and how many of them are confirmed.
    published: u64,
    confirmed: u64,
}

impl RawAmqp {
    /// Logs in as the guest, and opens a channel with confirms.
    pub async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut raw = Self { stream, received: Vec::new(), published: 0, confirmed: 0 };
        raw.stream.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        raw.expect(10, 10).await;
        let start = [&long(b"")[..], &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"en_US")].concat();
        raw.method(0, 10, 11, &start).await;
        let tune = raw.expect(10, 30).await;
        // Channels and frame size as the broker likes, no heartbeats.
        raw.method(0, 10, 31, &[&tune[..6], &[0, 0]].concat()).await;
        raw.method(0, 10, 40, &[&short(b"/")[..], &short(b""), &[0]].concat()).await;
        raw.expect(10, 41).await;
        raw.method(CHANNEL, 20, 10, &short(b"")).await;
        raw.expect(20, 11).await;
        raw.method(CHANNEL, 85, 10, &[0]).await;
        raw.expect(85, 11).await;
        raw
    }

    /// Sends a message and does not wait; one that the broker closes the connection for is seen at [`Self::confirmed`].
    pub async fn send(&mut self, exchange: &[u8], key: &[u8], properties: &[u8], body: &[u8]) {
        let arguments = [&[0, 0][..], &short(exchange), &short(key), &[0]].concat();
        let mut frames = frame(1, CHANNEL, &[&[0, 60, 0, 40][..], &arguments].concat());
        let size = (body.len() as u64).to_be_bytes();
        frames.extend(frame(2, CHANNEL, &[&[0, 60, 0, 0][..], &size, properties].concat()));
        frames.extend(body.chunks(BODY_FRAME).flat_map(|part| frame(3, CHANNEL, part)));
        self.published += 1;
        // A broker that has closed is read from all the same.
        let _ = self.stream.write_all(&frames).await;
    }

    /// Waits until all is confirmed; the error is what the broker closed with.
    pub async fn confirmed(&mut self) -> Result<(), String> {
        while self.confirmed < self.published {
            let (class, method, arguments) = self.next().await.ok_or("the connection ended")?;
            match (class, method) {
                (60, 80) => {
                    let tag = u64::from_be_bytes(arguments[..8].try_into().unwrap());
                    self.confirmed = if arguments[8] & 1 == 1 { tag } else { self.confirmed + 1 };
                }
                (10, 50) | (20, 40) => return Err(String::from_utf8_lossy(&arguments[3..]).into_owned()),
                _ => return Err(format!("method {class}.{method}")),
            }
        }
        Ok(())
    }

    /// Sends a message, which the broker must take.
    pub async fn publish(&mut self, key: &[u8], properties: &RawProperties, body: &[u8]) {
        self.send(b"", key, &properties.bytes(), body).await;
        self.confirmed().await.unwrap();
    }

    async fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
        self.stream.write_all(&frame(1, channel, &payload)).await.unwrap();
    }

    async fn expect(&mut self, class: u16, method: u16) -> Vec<u8> {
        let (got_class, got_method, arguments) = self.next().await.expect("the broker answers");
        assert_eq!((got_class, got_method), (class, method), "{}", String::from_utf8_lossy(&arguments));
        arguments
    }

    /// The next method; `None` where the connection has ended.
    async fn next(&mut self) -> Option<(u16, u16, Vec<u8>)> {
        loop {
            let size = self
                .received
                .get(3..7)
                .map_or(8, |size| 8 + usize::try_from(u32::from_be_bytes(size.try_into().unwrap())).unwrap());
            if self.received.len() >= size {
                let frame: Vec<u8> = self.received.drain(..size).collect();
                if frame[0] == 1 {
                    let number = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
                    return Some((number(7), number(9), frame[11..size - 1].to_vec()));
                }
                continue;
            }
            let mut buffer = vec![0; 16 * 1024];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.received.extend(&buffer[..read]),
            }
        }
    }
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &channel.to_be_bytes(), &long(payload), &[0xCE]].concat()
}
