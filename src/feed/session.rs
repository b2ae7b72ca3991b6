//! One client's session: a state machine over frames of bytes, in which packets may be split or merged.

use std::{collections::HashSet, num::NonZeroU16, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use fpesa_workers::topic::Filter;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::{
    Feed, SessionPlace,
    outbox::Outbox,
    wire::{Bye, Connect, Grant, In, MAX_IN, Qos, Welcome, Wire},
};

/// How long a client may take to say `CONNECT`.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long one write may take; a client that reads nothing for so long is cut.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// Messages of `QoS` 1 that may be without their ack, if the client does not ask for fewer.
const WINDOW: u16 = 20;
/// Most subscriptions of a session.
const MOST_FILTERS: usize = 64;
/// About how many bytes are written at a time.
const WRITE_SIZE: usize = 64 * 1024;

/// What comes from a client's socket.
#[derive(Debug)]
pub enum Frame {
    /// Bytes of the MQTT stream.
    Binary(Bytes),
    /// A text frame, which MQTT forbids.
    Text,
}

/// Runs one session until it ends, for whatever reason.
pub async fn serve<I>(place: SessionPlace, mut io: I)
where
    I: Stream<Item = Frame> + Sink<Bytes> + Unpin,
{
    let feed = place.0.clone();
    let mut wire = Wire::New;
    let mut bytes = BytesMut::new();
    let first = timeout(CONNECT_WITHIN, next_packet(&mut io, &mut wire, &mut bytes)).await;
    let Ok(Ok(Some(In::Connect(connect)))) = first else {
        // Without a CONNECT there is no version to say anything in, unless it was a later packet of a known one.
        let _ = timeout(WRITE_WITHIN, io.close()).await;
        return;
    };
    let assigned = connect.client.is_empty().then(|| Uuid::new_v4().simple().to_string());
    let client = assigned.clone().unwrap_or_else(|| connect.client.clone());
    let mut welcome = match &wire {
        _ if connect.will => Welcome::NotAuthorized,
        Wire::V3(_) if connect.client.is_empty() && !connect.clean => Welcome::BadClient,
        _ => Welcome::Accepted,
    };
    let entered = if welcome == Welcome::Accepted { feed.enter(&client) } else { None };
    if welcome == Welcome::Accepted && entered.is_none() {
        welcome = Welcome::Unavailable;
    }
    let answer = wire.connack(welcome, assigned.as_deref());
    let sent = write(&mut io, answer).await;
    if let Some((id, outbox)) = entered {
        let mut session = Session {
            feed: feed.clone(),
            id,
            outbox,
            wire,
            filters: HashSet::new(),
            unacked: HashSet::new(),
            window: usize::from(connect.receive_max.min(WINDOW)),
            next_id: 0,
            max_packet: connect.max_packet.map_or(usize::MAX, |most| most as usize),
        };
        if sent {
            session.run(&mut io, &mut bytes, &connect).await;
        }
        feed.leave(id, &client);
    }
    let _ = timeout(WRITE_WITHIN, io.close()).await;
}

struct Session {
    feed: Arc<Feed>,
    id: u64,
    outbox: Arc<Outbox>,
    wire: Wire,
    filters: HashSet<Filter>,
    unacked: HashSet<NonZeroU16>,
    window: usize,
    next_id: u16,
    max_packet: usize,
}

impl Session {
    async fn run<I>(&mut self, io: &mut I, bytes: &mut BytesMut, connect: &Connect)
    where
        I: Stream<Item = Frame> + Sink<Bytes> + Unpin,
    {
        let keep_alive = (connect.keep_alive > 0).then(|| Duration::from_secs(connect.keep_alive.into()) * 3 / 2);
        let mut heard = Instant::now();
        loop {
            // What came together is handled before anything is waited for.
            loop {
                match self.wire.decode(bytes) {
                    Ok(None) => break,
                    Ok(Some(packet)) => {
                        heard = Instant::now();
                        match self.handle(packet) {
                            Next::Answer(answer) => {
                                if !write(io, answer).await {
                                    return;
                                }
                            }
                            Next::Gone => return,
                            Next::End(bye) => return self.end(io, bye).await,
                        }
                    }
                    Err(_) => return self.end(io, Bye::Malformed).await,
                }
            }
            if let Some(bye) = self.outbox.ended() {
                return self.end(io, bye).await;
            }
            let out = self.gather();
            if !out.is_empty() {
                if !write(io, out).await {
                    return;
                }
                // There may be more; but what the client says meanwhile (acks above all) is heard first.
                self.outbox.changed.notify_one();
            }
            let silent = async {
                match keep_alive {
                    Some(most) => sleep_until(heard + most).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                frame = io.next() => match frame {
                    Some(Frame::Binary(more)) => {
                        bytes.extend_from_slice(&more);
                        if bytes.len() > MAX_IN as usize + 5 {
                            return self.end(io, Bye::Malformed).await;
                        }
                    }
                    Some(Frame::Text) => return self.end(io, Bye::Malformed).await,
                    None => return,
                },
                () = self.outbox.changed.notified() => {}
                () = silent => return self.end(io, Bye::KeepAlive).await,
            }
        }
    }

    fn handle(&mut self, packet: In) -> Next {
        match packet {
            In::Subscribe { id, filters } => {
                let grants: Vec<Grant> = filters.iter().map(|(filter, qos)| self.grant(filter, *qos)).collect();
                Next::Answer(self.wire.suback(id, &grants))
            }
            In::Unsubscribe { id, filters } => {
                let there: Vec<bool> = filters.iter().map(|filter| self.withdraw(filter)).collect();
                Next::Answer(self.wire.unsuback(id, &there))
            }
            In::Ack(id) => {
                self.unacked.remove(&id);
                Next::Answer(Bytes::new())
            }
            In::Ping => Next::Answer(self.wire.pong()),
            In::Disconnect => Next::Gone,
            In::Publish { qos: 2, .. } => Next::End(Bye::QosNotSupported),
            // The feed is read-only. Version 5 can refuse the one message; before it the session has to end.
            In::Publish { id, .. } => match id.and_then(|id| self.wire.refuse_publish(id)) {
                Some(answer) => Next::Answer(answer),
                None => Next::End(Bye::NotAuthorized),
            },
            In::Connect(_) | In::Other => Next::End(Bye::Protocol),
        }
    }

    fn grant(&mut self, filter: &str, qos: u8) -> Grant {
        if filter.starts_with("$share/") {
            return Grant::Shared;
        }
        let Ok(filter) = filter.parse::<Filter>() else { return Grant::Invalid };
        if self.filters.len() >= MOST_FILTERS && !self.filters.contains(&filter) {
            return Grant::TooMany;
        }
        let qos = if qos == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce };
        if !self.feed.subscribe(self.id, filter.clone(), qos) {
            return Grant::NotAuthorized;
        }
        self.filters.insert(filter);
        Grant::Granted(qos)
    }

    fn withdraw(&mut self, filter: &str) -> bool {
        let Ok(filter) = filter.parse::<Filter>() else { return false };
        self.filters.remove(&filter);
        self.feed.unsubscribe(self.id, &filter)
    }

    /// Packets for as many messages as the window and one write allow.
    fn gather(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        while out.len() < WRITE_SIZE {
            let free = self.unacked.len() < self.window;
            let Some(item) = self.outbox.pop(|item| free || item.qos == Qos::AtMostOnce) else { break };
            let id = (item.qos == Qos::AtLeastOnce).then(|| self.free_id());
            let packet = self.wire.publish(&item.topic, &item.payload, id);
            // A packet that is larger than the client takes is not sent (MQTT 5, 3.1.2.11.4).
            if packet.len() <= self.max_packet {
                self.unacked.extend(id);
                out.extend_from_slice(&packet);
            }
        }
        out.freeze()
    }

    fn free_id(&mut self) -> NonZeroU16 {
        loop {
            self.next_id = self.next_id.wrapping_add(1);
            if let Some(id) = NonZeroU16::new(self.next_id).filter(|id| !self.unacked.contains(id)) {
                return id;
            }
        }
    }

    async fn end<I: Sink<Bytes> + Unpin>(&mut self, io: &mut I, bye: Bye) {
        tracing::debug!(?bye, "a session of the feed is ended");
        write(io, self.wire.bye(bye)).await;
    }
}

/// What follows from a packet.
enum Next {
    /// This is sent, if it is anything.
    Answer(Bytes),
    /// The client went.
    Gone,
    /// The session ends with a word.
    End(Bye),
}

/// Whether it was written in time.
async fn write<I: Sink<Bytes> + Unpin>(io: &mut I, bytes: Bytes) -> bool {
    bytes.is_empty() || matches!(timeout(WRITE_WITHIN, io.send(bytes)).await, Ok(Ok(())))
}

/// The first packet, over as many frames as it takes.
async fn next_packet<I: Stream<Item = Frame> + Unpin>(
    io: &mut I,
    wire: &mut Wire,
    bytes: &mut BytesMut,
) -> Result<Option<In>, super::wire::Malformed> {
    loop {
        if let Some(packet) = wire.decode(bytes)? {
            return Ok(Some(packet));
        }
        match io.next().await {
            Some(Frame::Binary(more)) if bytes.len() + more.len() <= MAX_IN as usize + 5 => {
                bytes.extend_from_slice(&more);
            }
            _ => return Ok(None),
        }
    }
}
