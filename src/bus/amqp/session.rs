//! One AMQP connection of our own: frames in the order that they come, and bytes that leave as few writes. The frames'
//! grammar is the library's; a caller looks at each frame itself, which is what exact confirms need.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use amq_protocol::{
    frame::{AMQPFrame, WriteContext, gen_frame},
    protocol::{AMQPClass, channel, connection, constants::FRAME_HEADER},
};
use futures::{AsyncRead, AsyncWrite};

use super::incoming::{self, Incoming};

/// How much is read at once, and room that is made for it.
const READ: usize = 64 * 1024;
/// Room that is kept for writing: what a burst of big messages took more goes back.
const KEPT: usize = 1024 * 1024;
/// Bytes that may wait to be written before nothing more should be appended.
const BACKLOG: usize = 4 * 1024 * 1024;
/// Type, channel and size.
const HEAD: usize = 7;
/// What is around a frame's payload, in bytes: its last byte comes on top.
pub(super) const AROUND: usize = HEAD + 1;
/// The largest frame of a broker that sets no limit.
const LARGEST: usize = 16 * 1024 * 1024;

/// What bytes go over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// An open connection. Errors are sentences for the log, without secrets.
pub(super) struct Session {
    stream: Pin<Box<dyn Stream>>,
    /// `received[start..end]` is read and not parsed.
    received: Vec<u8>,
    start: usize,
    end: usize,
    /// Frames that wait to be written, of which `written` bytes are.
    outgoing: Vec<u8>,
    written: usize,
    flushed: bool,
    /// In bytes, with what is around a payload; 0 is no limit.
    pub frame_max: usize,
    /// The highest channel number; 0 is no limit.
    pub channel_max: u16,
    /// How often something is written at least: half of the agreed heartbeat (AMQP 0-9-1, 4.2.7), `None` without one. A
    /// broker that is silent for four of them is dead.
    pub beat: Option<Duration>,
    last_read: Instant,
    last_write: Instant,
}

impl Session {
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::pin(stream),
            received: vec![0; READ],
            start: 0,
            end: 0,
            outgoing: Vec::new(),
            written: 0,
            flushed: true,
            frame_max: 0,
            channel_max: 0,
            beat: None,
            last_read: Instant::now(),
            last_write: Instant::now(),
        }
    }

    /// Where frames are appended that leave with the next [`Session::ready`].
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }

    /// Whether the broker reads slower than is written: what is appended now waits here, where nobody can give it up.
    pub fn is_full(&self) -> bool {
        self.outgoing.len() - self.written > BACKLOG
    }

    /// Appends one frame.
    pub fn push(&mut self, frame: &AMQPFrame) -> Result<(), String> {
        let start = self.outgoing.len();
        let context = WriteContext::from(std::mem::take(&mut self.outgoing));
        match gen_frame(frame)(context) {
            Ok(context) => {
                self.outgoing = context.into_inner().0;
                Ok(())
            }
            // The buffer is gone with the error: nothing of it can be sent any more.
            Err(error) => Err(format!("a frame can't be written after {start} bytes: {error}")),
        }
    }

    /// Appends a method.
    pub fn say(&mut self, channel: u16, method: AMQPClass) -> Result<(), String> {
        self.push(&AMQPFrame::Method(channel, method))
    }

    /// Writes what is appended and waits until a frame has come, or there is room again ([`Session::is_full`]). May be
    /// dropped at any time: nothing is lost by it.
    pub async fn ready(&mut self) -> Result<(), String> {
        std::future::poll_fn(|context| self.poll_ready(context)).await.map_err(|error| error.to_string())
    }

    /// A frame that has come whole.
    pub fn frame(&mut self) -> Result<Option<Incoming>, String> {
        let Some(size) = self.whole().map_err(|error| error.to_string())? else { return Ok(None) };
        let frame = incoming::read(&self.received[self.start..self.start + size])?;
        self.start += size;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        Ok(Some(frame))
    }

    /// Waits for a frame.
    pub async fn next(&mut self) -> Result<Incoming, String> {
        loop {
            self.ready().await?;
            if let Some(frame) = self.frame()? {
                return Ok(frame);
            }
        }
    }

    /// Says a method and waits for what the broker says on that channel. For the time before there is anything else.
    pub async fn ask(&mut self, channel: u16, method: AMQPClass) -> Result<AMQPClass, String> {
        self.say(channel, method)?;
        loop {
            if let Incoming::Frame(AMQPFrame::Method(on, answer)) = self.next().await? {
                refused(&answer)?;
                if on == channel {
                    return Ok(answer);
                }
            }
        }
    }

    /// Keeps the link alive where nothing else is written. To be called about once in each [`Session::beat`]; the error says
    /// that the broker is silent.
    pub fn keep_alive(&mut self) -> Result<(), String> {
        let Some(beat) = self.beat else { return Ok(()) };
        if self.last_read.elapsed() > beat * 4 {
            return Err("the broker sends no heartbeat".into());
        }
        if self.outgoing.is_empty() && self.last_write.elapsed() > beat {
            self.push(&AMQPFrame::Heartbeat)?;
        }
        Ok(())
    }

    /// The orderly end.
    pub async fn close(&mut self) {
        let close = connection::Close { reply_code: 200, reply_text: "bye".into(), class_id: 0, method_id: 0 };
        let closed = AMQPClass::Connection(connection::AMQPMethod::CloseOk(connection::CloseOk {}));
        if self.say(0, AMQPClass::Connection(connection::AMQPMethod::Close(close))).is_ok() {
            while let Ok(frame) = self.next().await {
                if frame == Incoming::Frame(AMQPFrame::Method(0, closed.clone())) {
                    break;
                }
            }
        }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let full = self.is_full();
        // Whether it can be written at once or not, the answers to earlier frames are read meanwhile; and where it can't be
        // at all, what the broker said last.
        let broken = match self.poll_write(context) {
            Poll::Ready(written) => written.err(),
            Poll::Pending => None,
        };
        if full && !self.is_full() {
            return Poll::Ready(Ok(()));
        }
        while self.whole()?.is_none() {
            self.make_room();
            let room = &mut self.received[self.end..];
            let ended = match self.stream.as_mut().poll_read(context, room) {
                Poll::Ready(Ok(0)) => io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended"),
                Poll::Ready(Ok(read)) => {
                    self.end += read;
                    self.last_read = Instant::now();
                    continue;
                }
                Poll::Ready(Err(error)) => error,
                Poll::Pending if broken.is_none() => return Poll::Pending,
                Poll::Pending => io::ErrorKind::BrokenPipe.into(),
            };
            return Poll::Ready(Err(broken.unwrap_or(ended)));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is written goes even where something always waits behind it.
        if self.written > KEPT && self.written * 2 > self.outgoing.len() {
            self.outgoing.drain(..self.written);
            self.written = 0;
        }
        while self.written < self.outgoing.len() {
            match ready!(self.stream.as_mut().poll_write(context, &self.outgoing[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
            self.flushed = false;
            self.last_write = Instant::now();
        }
        self.outgoing.clear();
        self.outgoing.shrink_to(KEPT);
        self.written = 0;
        if !self.flushed {
            ready!(self.stream.as_mut().poll_flush(context))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// The size of the first frame, once all of it is here.
    fn whole(&self) -> io::Result<Option<usize>> {
        let bytes = &self.received[self.start..self.end];
        let Some(size) = frame_size(bytes) else { return Ok(None) };
        // A broker adds headers to a message that it dead-letters, and sends them as one frame whatever was agreed on.
        let unlimited = self.frame_max == 0 || bytes.first() == Some(&FRAME_HEADER);
        let most = if unlimited { LARGEST } else { self.frame_max };
        if size > most {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the broker sent a frame over the limit"));
        }
        Ok((bytes.len() >= size).then_some(size))
    }

    /// Room for more of the first frame.
    fn make_room(&mut self) {
        if self.received.len() - self.end >= READ / 8 {
            return;
        }
        self.received.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let needed = frame_size(&self.received[..self.end]).unwrap_or_default().max(self.end + 1);
        if needed > self.received.len() {
            self.received.resize(needed, 0);
        }
    }
}

/// Of the frame that begins here, as far as it is known.
fn frame_size(bytes: &[u8]) -> Option<usize> {
    let head: &[u8; HEAD] = bytes.first_chunk()?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    Some(usize::try_from(size).unwrap_or(usize::MAX).saturating_add(AROUND))
}

/// Whether the broker ends the connection or a channel with this, and why.
pub(super) fn refused(method: &AMQPClass) -> Result<(), String> {
    let (what, code, text) = match method {
        AMQPClass::Connection(connection::AMQPMethod::Close(close)) => {
            ("connection", close.reply_code, &close.reply_text)
        }
        AMQPClass::Channel(channel::AMQPMethod::Close(close)) => ("channel", close.reply_code, &close.reply_text),
        _ => return Ok(()),
    };
    Err(format!("the broker closed the {what}: {code} {text}"))
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        pin::Pin,
        sync::{Arc, Mutex},
        task::{Context, Poll},
        time::{Duration, Instant},
    };

    use amq_protocol::{
        frame::{AMQPFrame, parse_frame},
        protocol::{AMQPClass, basic::AMQPMethod, basic::Ack},
    };
    use futures::{AsyncRead, AsyncWrite, FutureExt as _};
    use proptest::{collection::vec, prelude::*};

    use super::{BACKLOG, Incoming, READ, Session};

    /// A broker that has said something, and that reads and is read a few bytes at a time.
    struct Piecemeal {
        said: Vec<u8>,
        pieces: Vec<usize>,
        turn: usize,
        heard: Arc<Mutex<Vec<u8>>>,
    }

    impl Piecemeal {
        /// The next piece's size; 0 is that it is not ready.
        fn piece(&mut self) -> usize {
            self.turn += 1;
            self.pieces[self.turn % self.pieces.len()]
        }
    }

    impl AsyncRead for Piecemeal {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
            assert!(!room.is_empty());
            let size = self.piece().min(room.len()).min(self.said.len());
            if size == 0 && !self.said.is_empty() {
                return Poll::Pending;
            }
            room[..size].copy_from_slice(&self.said[..size]);
            self.said.drain(..size);
            Poll::Ready(Ok(size))
        }
    }

    impl AsyncWrite for Piecemeal {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let size = self.piece().min(bytes.len());
            if size == 0 {
                return Poll::Pending;
            }
            self.heard.lock().unwrap().extend_from_slice(&bytes[..size]);
            Poll::Ready(Ok(size))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn bytes(frames: &[AMQPFrame]) -> Vec<u8> {
        let mut session = Session::new(Piecemeal { said: vec![], pieces: vec![1], turn: 0, heard: Arc::default() });
        for frame in frames {
            session.push(frame).unwrap();
        }
        std::mem::take(session.outgoing())
    }

    fn frame() -> impl Strategy<Value = AMQPFrame> {
        prop_oneof![
            any::<u64>().prop_map(|delivery_tag| {
                AMQPFrame::Method(1, AMQPClass::Basic(AMQPMethod::Ack(Ack { delivery_tag, multiple: true })))
            }),
            (0_usize..3 * READ).prop_map(|size| AMQPFrame::Body(3, vec![7; size])),
            Just(AMQPFrame::Heartbeat),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn frames_come_and_go_whole(
            said in vec(frame(), 0..8),
            says in vec(frame(), 0..8),
            pieces in vec(0_usize..40_000, 1..6).prop_filter("some go on", |pieces| pieces.iter().any(|size| *size > 0)),
        ) {
            let heard = Arc::new(Mutex::new(Vec::new()));
            // An odd number of turns, so that reading and writing both meet every piece.
            let pieces = if pieces.len() % 2 == 0 { [pieces, vec![1_000]].concat() } else { pieces };
            let mut session = Session::new(Piecemeal { said: bytes(&said), pieces, turn: 0, heard: heard.clone() });
            for frame in &says {
                session.push(frame).unwrap();
            }
            let mut came = Vec::new();
            let mut ended = None;
            for _ in 0..5_000_000 {
                while let Some(incoming) = session.frame().unwrap() {
                    let Incoming::Frame(frame) = incoming else { panic!("{incoming:?}") };
                    came.push(frame);
                }
                // Each wait is given up where it can't go on, as a `select!` does.
                ended = session.ready().now_or_never().and_then(Result::err);
                if ended.is_some() && heard.lock().unwrap().len() == bytes(&says).len() {
                    break;
                }
            }
            prop_assert_eq!(ended.as_deref(), Some("the connection ended"));
            prop_assert_eq!(came, said);
            let heard = heard.lock().unwrap();
            let mut rest = heard.as_slice();
            for frame in &says {
                let (after, read) = parse_frame(rest).unwrap();
                prop_assert_eq!(&read, frame);
                rest = after;
            }
        }
    }

    #[test]
    fn what_is_written_does_not_pile_up_behind_what_waits() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut session =
            Session::new(Piecemeal { said: vec![], pieces: vec![100_000, 0, 50_000], turn: 0, heard: heard.clone() });
        let mut said = Vec::new();
        let mut most = 0;
        for n in 0..400_usize {
            while !session.is_full() {
                let frame = AMQPFrame::Body(1, vec![n.to_le_bytes()[0]; 300_000]);
                said.extend(bytes(std::slice::from_ref(&frame)));
                session.push(&frame).unwrap();
            }
            let _ = session.ready().now_or_never();
            most = most.max(session.outgoing.len());
        }
        let heard = heard.lock().unwrap();
        assert!(heard.len() > 3 * BACKLOG, "{}", heard.len());
        assert!(heard[..] == said[..heard.len()], "what leaves is what was appended");
        assert!(most < 3 * BACKLOG, "{most} bytes");
    }

    #[test]
    fn a_frame_over_the_limit_and_nonsense_end_it() {
        for (said, frame_max, expected) in [
            (bytes(&[AMQPFrame::Body(1, vec![0; 5_000])]), 4_096, "the broker sent a frame over the limit"),
            (vec![1, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF], 0, "the broker sent a frame over the limit"),
            (vec![9, 0, 0, 0, 0, 0, 0, 0xCE], 0, "the broker sent a frame that can't be read"),
        ] {
            let mut session = Session::new(Piecemeal { said, pieces: vec![READ], turn: 0, heard: Arc::default() });
            session.frame_max = frame_max;
            assert_eq!(session.next().now_or_never().unwrap().unwrap_err(), expected);
        }
    }

    #[test]
    fn heartbeats() {
        let mut session = Session::new(Piecemeal { said: vec![], pieces: vec![1], turn: 0, heard: Arc::default() });
        session.last_write = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        session.keep_alive().unwrap();
        assert!(session.outgoing.is_empty(), "none were agreed on");
        session.beat = Some(Duration::from_secs(1));
        session.keep_alive().unwrap();
        session.keep_alive().unwrap();
        assert_eq!(session.outgoing, bytes(&[AMQPFrame::Heartbeat]), "one is enough");
        session.last_read = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        assert_eq!(session.keep_alive().unwrap_err(), "the broker sends no heartbeat");
    }
}
