//! One AMQP connection of our own: frames in the order that they come, and bytes that leave as few writes. The frames'
//! grammar is the library's; a caller looks at each frame itself, which is what exact confirms need.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use amq_protocol::{
    frame::{AMQPFrame, WriteContext, gen_frame, parse_frame},
    protocol::{AMQPClass, channel, connection},
};
use futures::{AsyncRead, AsyncWrite};

/// How much is read at once, and room that is made for it.
const READ: usize = 64 * 1024;
/// Type, channel and size.
const HEAD: usize = 7;
/// A frame's last byte comes on top.
const AROUND: usize = HEAD + 1;
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
    /// Half of the time after which a silent side counts as dead; `None` without heartbeats.
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
            beat: None,
            last_read: Instant::now(),
            last_write: Instant::now(),
        }
    }

    /// Where frames are appended that leave with the next [`Session::ready`].
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
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

    /// Writes what is appended and waits until a frame has come. May be dropped at any time: nothing is lost by it.
    pub async fn ready(&mut self) -> Result<(), String> {
        std::future::poll_fn(|context| self.poll_ready(context)).await.map_err(|error| error.to_string())
    }

    /// A frame that has come whole.
    pub fn frame(&mut self) -> Result<Option<AMQPFrame>, String> {
        let Some(size) = self.whole().map_err(|error| error.to_string())? else { return Ok(None) };
        let bytes = &self.received[self.start..self.start + size];
        // Nothing of the bytes may stand in the error: they are somebody's message.
        let (_, frame) = parse_frame(bytes).map_err(|_| "the broker sent a frame that can't be read".to_owned())?;
        self.start += size;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        Ok(Some(frame))
    }

    /// Waits for a frame.
    pub async fn next(&mut self) -> Result<AMQPFrame, String> {
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
            if let AMQPFrame::Method(on, answer) = self.next().await? {
                refused(&answer)?;
                if on == channel {
                    return Ok(answer);
                }
            }
        }
    }

    /// Keeps the link alive where nothing else is written. To be called some times in each [`Session::beat`]; the error
    /// says that the broker is silent.
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
                if frame == AMQPFrame::Method(0, closed.clone()) {
                    break;
                }
            }
        }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whether it can be written at once or not, the answers to earlier frames are read meanwhile.
        if let Poll::Ready(written) = self.poll_write(context) {
            written?;
        }
        while self.whole()?.is_none() {
            self.make_room();
            let room = &mut self.received[self.end..];
            match ready!(self.stream.as_mut().poll_read(context, room))? {
                0 => return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended"))),
                read => self.end += read,
            }
            self.last_read = Instant::now();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.outgoing.len() {
            match ready!(self.stream.as_mut().poll_write(context, &self.outgoing[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
            self.flushed = false;
            self.last_write = Instant::now();
        }
        self.outgoing.clear();
        self.outgoing.shrink_to(READ);
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
        let most = if self.frame_max == 0 { LARGEST } else { self.frame_max };
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
