//! The publishing link against a model of a broker that refuses some messages, frame by frame and in any order of events.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, parse_frame},
    protocol::{AMQPClass, basic, channel, confirm},
};
use futures::io::Cursor;
use proptest::{collection::vec, prelude::*};
use tokio::sync::oneshot;

use super::{
    Shared, incoming,
    link::Options,
    owner::Owner,
    publisher::{Done, LinkNow, Request},
    session::Session,
};
use crate::{
    bus::Link,
    message::{Message, Outcome, Refusal},
};

const CHANNEL_MAX: u16 = 11;
const FIRST: u16 = 3;
const TOO_LARGE: usize = 1_000;

/// One channel of the broker, as RabbitMQ keeps it.
#[derive(Default)]
struct Channel {
    confirms: bool,
    published: u64,
    unconfirmed: Vec<(u64, bool)>,
    /// It has sent `channel.close` and ignores everything but the answer to that.
    closing: bool,
    publish: Option<basic::Publish>,
    header: Option<AMQPContentHeader>,
    body: usize,
}

#[derive(Default)]
struct Broker {
    channels: HashMap<u16, Channel>,
    /// What we wrote and it has not processed, and what it said and we have not read.
    came: VecDeque<AMQPFrame>,
    said: VecDeque<AMQPFrame>,
    /// How often it took each message.
    taken: BTreeMap<String, usize>,
    exceptions: usize,
}

impl Broker {
    fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (rest, frame) = parse_frame(bytes).unwrap();
            self.came.push_back(frame);
            bytes = rest;
        }
    }

    fn process(&mut self) {
        let Some(frame) = self.came.pop_front() else { return };
        let on = frame.channel_id();
        assert!((FIRST..=CHANNEL_MAX).contains(&on), "channel {on}");
        if let AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::Open(_))) = frame {
            assert!(self.channels.insert(on, Channel::default()).is_none(), "channel {on} is open already");
            let answer = channel::AMQPMethod::OpenOk(channel::OpenOk {});
            self.said.push_back(AMQPFrame::Method(on, AMQPClass::Channel(answer)));
            return;
        }
        let Some(channel) = self.channels.get_mut(&on) else { panic!("channel {on} is not open: {frame}") };
        match frame {
            AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::CloseOk(_))) => {
                assert!(channel.closing);
                self.channels.remove(&on);
            }
            _ if channel.closing => {}
            AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::Close(_))) => {
                assert!(channel.unconfirmed.is_empty(), "closed with publishes outstanding");
                self.channels.remove(&on);
                let answer = channel::AMQPMethod::CloseOk(channel::CloseOk {});
                self.said.push_back(AMQPFrame::Method(on, AMQPClass::Channel(answer)));
            }
            AMQPFrame::Method(_, AMQPClass::Confirm(confirm::AMQPMethod::Select(_))) => {
                channel.confirms = true;
                let answer = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
                self.said.push_back(AMQPFrame::Method(on, AMQPClass::Confirm(answer)));
            }
            AMQPFrame::Method(_, AMQPClass::Basic(basic::AMQPMethod::Publish(publish))) => {
                assert!(channel.publish.replace(publish).is_none());
            }
            AMQPFrame::Header(_, header) => {
                channel.header = Some(header);
                self.judge(on);
            }
            AMQPFrame::Body(_, part) => {
                channel.body += part.len();
                self.judge(on);
            }
            other => panic!("{other}"),
        }
    }

    /// A publish is whole.
    fn judge(&mut self, on: u16) {
        let Some(channel) = self.channels.get_mut(&on) else { return };
        if channel.header.as_ref().is_none_or(|header| header.body_size > channel.body as u64) {
            return;
        }
        let (Some(publish), Some(header)) = (channel.publish.take(), channel.header.take()) else { panic!() };
        let body = std::mem::take(&mut channel.body);
        let key = publish.routing_key.as_str();
        let id = header.properties.message_id().as_ref().unwrap().to_string();
        let refused = match key {
            "forbidden" => Some((403, "ACCESS_REFUSED".to_owned())),
            "gone" => Some((404, "NOT_FOUND".to_owned())),
            _ if body >= TOO_LARGE => {
                Some((406, format!("PRECONDITION_FAILED - message size {body} is larger than max size 999")))
            }
            _ => None,
        };
        if let Some((reply_code, text)) = refused {
            self.exceptions += 1;
            channel.closing = true;
            // Confirms that it owes are never sent.
            channel.unconfirmed.clear();
            let close = channel::Close { reply_code, reply_text: text.as_str().into(), class_id: 60, method_id: 40 };
            self.said.push_back(AMQPFrame::Method(on, AMQPClass::Channel(channel::AMQPMethod::Close(close))));
            return;
        }
        assert!(channel.confirms);
        channel.published += 1;
        channel.unconfirmed.push((channel.published, key != "full"));
        if key == "unroutable" {
            let back = basic::Return {
                reply_code: 312,
                reply_text: "NO_ROUTE".into(),
                exchange: publish.exchange,
                routing_key: publish.routing_key,
            };
            self.said.push_back(AMQPFrame::Method(on, AMQPClass::Basic(basic::AMQPMethod::Return(back))));
            self.said.push_back(AMQPFrame::Header(on, AMQPContentHeader { body_size: 0, ..header }));
        }
        *self.taken.entry(id).or_default() += 1;
    }

    /// Confirms some of what it has taken.
    fn confirm(&mut self, nth: usize) {
        let mut open: Vec<u16> =
            self.channels.iter().filter(|(_, channel)| !channel.unconfirmed.is_empty()).map(|(on, _)| *on).collect();
        open.sort_unstable();
        let Some(on) = open.get(nth % open.len().max(1)) else { return };
        let Some(channel) = self.channels.get_mut(on) else { return };
        let at = nth % channel.unconfirmed.len();
        let (delivery_tag, ack) = channel.unconfirmed[at];
        let multiple = nth.is_multiple_of(2) && channel.unconfirmed[..=at].iter().all(|(_, other)| *other == ack);
        channel.unconfirmed.retain(|(tag, _)| if multiple { *tag > delivery_tag } else { *tag != delivery_tag });
        let method = if ack {
            basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple })
        } else {
            basic::AMQPMethod::Nack(basic::Nack { delivery_tag, multiple, requeue: false })
        };
        self.said.push_back(AMQPFrame::Method(*on, AMQPClass::Basic(method)));
    }
}

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Event {
    Publish { key: &'static str, route: u8, bytes: usize },
    Process(usize),
    Confirm(usize),
    Read(usize),
    Second,
}

fn event() -> impl Strategy<Value = Event> {
    let key = prop_oneof![
        8 => Just("good"), 2 => Just("forbidden"), 1 => Just("gone"), 1 => Just("unroutable"), 1 => Just("full"),
    ];
    let bytes = prop_oneof![9 => 0_usize..100, 1 => TOO_LARGE..TOO_LARGE * 2];
    let publish = (key, 0_u8..12, bytes).prop_map(|(key, route, bytes)| Event::Publish { key, route, bytes });
    prop_oneof![
        6 => publish,
        3 => (1_usize..20).prop_map(Event::Process),
        2 => (0_usize..50).prop_map(Event::Confirm),
        3 => (1_usize..20).prop_map(Event::Read),
        1 => Just(Event::Second),
    ]
}

fn message(id: &str, key: &str, route: u8, bytes: usize) -> Message {
    let mut message = Message { exchange: "x".into(), key: key.into(), mandatory: true, ..Message::default() };
    message.properties.message_id = Some(id.to_owned());
    message.properties.headers.insert("fpesa-route".into(), format!("route {route}").into());
    message.body = vec![0; bytes].into();
    message
}

fn expected(key: &str, bytes: usize) -> Outcome {
    match key {
        "forbidden" => Outcome::Refused(Refusal::Forbidden),
        "gone" => Outcome::Unroutable,
        _ if bytes >= TOO_LARGE => Outcome::Refused(Refusal::TooLarge { limit: Some(999) }),
        "unroutable" => Outcome::Unroutable,
        "full" => Outcome::Rejected,
        _ => Outcome::Routed,
    }
}

/// The link and its broker.
struct World<'a> {
    owner: Owner<'a>,
    session: Session,
    broker: Broker,
}

impl<'a> World<'a> {
    fn new(shared: &'a Shared, now: &'a LinkNow, channels: u16) -> Self {
        let mut session = Session::new(Cursor::new(Vec::new()));
        session.frame_max = 4_096;
        let mut broker = Broker::default();
        broker.channels.insert(FIRST, Channel { confirms: true, ..Channel::default() });
        Self { owner: Owner::new(shared, "publish", now, channels), session, broker }
    }

    fn write(&mut self) {
        self.owner.lanes.advance(&mut self.session).unwrap();
        let bytes = std::mem::take(self.session.outgoing());
        self.broker.receive(&bytes);
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Process(frames) => (0..frames).for_each(|_| self.broker.process()),
            Event::Confirm(nth) => self.broker.confirm(nth),
            Event::Read(frames) => {
                for _ in 0..frames {
                    let Some(frame) = self.broker.said.pop_front() else { break };
                    let mut other_end = Session::new(Cursor::new(Vec::new()));
                    other_end.push(&frame).unwrap();
                    let incoming = incoming::read(other_end.outgoing()).unwrap();
                    self.owner.take_in(&mut self.session, incoming).unwrap();
                }
            }
            Event::Second => self.owner.lanes.second(&mut self.session).unwrap(),
            Event::Publish { .. } => unreachable!(),
        }
        self.write();
    }

    /// Until nothing happens any more.
    fn settle(&mut self) {
        for round in 0..100_000 {
            self.step(Event::Process(50));
            self.step(Event::Confirm(round));
            self.step(Event::Read(50));
            let unconfirmed = self.broker.channels.values().any(|channel| !channel.unconfirmed.is_empty());
            if self.broker.came.is_empty() && self.broker.said.is_empty() && !unconfirmed {
                return;
            }
        }
        panic!("it goes on and on");
    }
}

fn shared() -> Shared {
    Shared::new(Options::at("amqp://nowhere").unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn each_is_told_the_truth_whatever_is_refused(events in vec(event(), 1..300), channels in 3_u16..10) {
        let (shared, now) = (shared(), LinkNow::default());
        now.set(Link::Up);
        let mut world = World::new(&shared, &now, channels);
        let mut published = Vec::new();
        for event in events {
            let Event::Publish { key, route, bytes } = event else {
                world.step(event);
                continue;
            };
            let (done, outcome) = oneshot::channel();
            let id = format!("m{}", published.len());
            let deadline = Instant::now() + Duration::from_secs(3_600);
            let request = Request::new(message(&id, key, route, bytes), deadline, Done::Publish(done));
            world.owner.send(&mut world.session, request).unwrap();
            world.write();
            published.push((id, key, bytes, outcome));
        }
        world.settle();
        for (id, key, bytes, mut outcome) in published {
            let expected = expected(key, bytes);
            prop_assert_eq!(outcome.try_recv().ok(), Some(expected), "{} {} {}", id, key, bytes);
            let taken = world.broker.taken.get(&id).copied().unwrap_or_default();
            let refused = matches!(key, "forbidden" | "gone") || bytes >= TOO_LARGE;
            prop_assert_eq!(taken == 0, refused, "{} {} was taken {} times", id, key, taken);
        }
    }
}

/// Of a route that is refused again and again, others notice the first refusal at most.
#[test]
fn a_refused_route_leaves_the_shared_channel_alone() {
    let (shared, now) = (shared(), LinkNow::default());
    now.set(Link::Up);
    let mut world = World::new(&shared, &now, 9);
    let (mut taken_twice, mut outcomes) = (0, Vec::new());
    for round in 0..200 {
        for (n, key) in ["good", "forbidden", "good", "good"].into_iter().enumerate() {
            let (done, outcome) = oneshot::channel();
            outcomes.push((key, outcome));
            // The good ones of the refused route are good all the same.
            let route = u8::from(n != 3);
            let deadline = Instant::now() + Duration::from_secs(3_600);
            let request = Request::new(message(&format!("{round}.{n}"), key, route, 10), deadline, Done::Publish(done));
            world.owner.send(&mut world.session, request).unwrap();
        }
        world.settle();
        if round == 0 {
            assert_eq!(world.broker.exceptions, 2, "once on the shared channel, once to find out");
        }
    }
    assert_eq!(world.broker.exceptions, 201);
    for (key, mut outcome) in outcomes {
        assert_eq!(outcome.try_recv().ok(), Some(expected(key, 10)));
    }
    for (id, taken) in &world.broker.taken {
        taken_twice += usize::from(id.ends_with(".3") && *taken > 1);
    }
    assert!(taken_twice <= 1, "{taken_twice} of another route went twice");
}
