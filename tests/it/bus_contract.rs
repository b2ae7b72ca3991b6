//! The contract of the bus port: every adapter passes every case. A case gets a bus and a prefix of its own, so that
//! many run on one broker.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fpesa::{
    bus::{Bus, BusError, Deliveries, Delivery, Link},
    message::{CallError, HeaderValue, Message, Outcome, Properties},
    topology::{Binding, Declare, DeliveryLimit, Exchange, Queue, QueueKind, Topology},
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use uuid::Uuid;

pub type Shared = Arc<dyn Bus>;

/// Runs each case by name; `$run` is given the case.
#[macro_export]
macro_rules! bus_cases {
    ($run:ident) => {
        $run!(
            publish_and_consume,
            properties_survive,
            outcomes,
            no_such_exchange,
            a_refused_message_harms_no_neighbour,
            a_full_queue_rejects,
            first_in_first_out,
            bindings_route,
            several_queues_get_one_each,
            competing_consumers,
            retry_comes_back,
            failed_deliveries_are_counted,
            a_dropped_ticket_comes_back,
            reject_goes_to_the_dead_letter_queue,
            too_many_deliveries_are_dead_lettered,
            stop_leaves_what_is_here,
            no_such_queue,
            what_differs_is_told,
            declaring_again_is_harmless,
            a_call_is_answered,
            calls_find_their_own_replies,
            a_reply_that_is_too_large_is_that_calls_alone,
            no_worker,
            a_call_times_out,
            a_late_reply_is_counted,
            an_expired_message_is_not_delivered
        );
    };
}

pub fn queue(kind: QueueKind) -> Queue {
    Queue {
        kind,
        bind: Vec::new(),
        max_length: None,
        delivery_limit: None,
        dead_letter: None,
        arguments: BTreeMap::new(),
        declare: Declare::Active,
    }
}

fn bound(exchange: &str, key: &str) -> Queue {
    let bind = vec![Binding { exchange: exchange.into(), key: key.into(), arguments: BTreeMap::new() }];
    Queue { bind, ..queue(QueueKind::Quorum) }
}

pub fn topology(queues: impl IntoIterator<Item = (String, Queue)>) -> Topology {
    let queues: BTreeMap<String, Queue> = queues.into_iter().collect();
    let watched_queues: BTreeSet<String> =
        queues.iter().filter(|(_, queue)| queue.kind != QueueKind::Rpc).map(|(name, _)| name.clone()).collect();
    let calls = queues.values().any(|queue| queue.kind == QueueKind::Rpc);
    Topology { queues, watched_queues, calls, ..Topology::default() }
}

pub fn to(queue: &str, body: impl Into<Bytes>) -> Message {
    published("", queue, body)
}

pub fn published(exchange: &str, key: &str, body: impl Into<Bytes>) -> Message {
    Message {
        exchange: exchange.into(),
        key: key.into(),
        properties: Properties {
            message_id: Some(Uuid::now_v7().to_string()),
            persistent: true,
            ..Properties::default()
        },
        body: body.into(),
        mandatory: true,
    }
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

async fn next(deliveries: &mut Deliveries) -> Delivery {
    tokio::time::timeout(Duration::from_secs(20), deliveries.next())
        .await
        .expect("a delivery in time")
        .expect("a delivery")
}

async fn nothing(deliveries: &mut Deliveries) {
    let more = tokio::time::timeout(Duration::from_millis(300), deliveries.next()).await;
    assert!(more.is_err(), "nothing was to come: {more:?}");
}

async fn keep(bus: &Shared, message: Message) {
    assert_eq!(bus.publish(message, soon()).await, Outcome::Routed);
}

/// Answers every call of a queue with its own body, reversed or not in time.
pub fn echo(bus: &Shared, mut calls: Deliveries, pause: impl Fn(u64) -> Duration + Send + Sync + 'static) {
    let (bus, pause) = (bus.clone(), Arc::new(pause));
    tokio::spawn(async move {
        let mut count = 0;
        while let Some(call) = calls.next().await {
            let (bus, pause) = (bus.clone(), pause(count));
            count += 1;
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                let reply = Message {
                    key: call.message.properties.reply_to.clone().unwrap(),
                    properties: Properties {
                        message_id: Some(Uuid::now_v7().to_string()),
                        correlation_id: call.message.properties.correlation_id.clone(),
                        ..Properties::default()
                    },
                    body: call.message.body.clone(),
                    mandatory: true,
                    ..Message::default()
                };
                bus.publish(reply, soon()).await;
                call.ticket.ack();
            });
        }
    });
}

pub async fn publish_and_consume(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Quorum))])).await.unwrap();
    assert_eq!(bus.state().link, Link::Up);
    assert!(bus.state().missing.is_empty());
    keep(&bus, to(&p, "one")).await;
    let mut deliveries = bus.consume(&p, 10).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert_eq!((&delivery.message.body[..], delivery.redelivered), (&b"one"[..], false));
    delivery.ticket.ack();
    drop(deliveries);
    let mut deliveries = bus.consume(&p, 10).await.unwrap();
    nothing(&mut deliveries).await;
}

pub async fn properties_survive(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Classic))])).await.unwrap();
    let mut message = to(&p, vec![0_u8, 255, 1, 254]);
    message.properties = Properties {
        message_id: Some("0193f1c2-7d3a-7c3e-9d4e-0123456789ab".into()),
        correlation_id: Some("c".into()),
        reply_to: Some("r".into()),
        content_type: Some("image/png".into()),
        content_encoding: Some("gzip".into()),
        kind: Some("upload".into()),
        app_id: Some("fpesa/1".into()),
        timestamp: Some(1_700_000_000),
        expiration: Some(Duration::from_secs(60)),
        priority: Some(3),
        persistent: true,
        headers: [
            ("text".to_owned(), HeaderValue::from("ü")),
            ("int".to_owned(), HeaderValue::Int(-5)),
            ("bool".to_owned(), HeaderValue::Bool(true)),
            ("double".to_owned(), HeaderValue::Raw { letter: b'd', bytes: vec![64, 9, 33, 251, 84, 68, 45, 24] }),
        ]
        .into(),
        unreadable: None,
    };
    keep(&bus, message.clone()).await;
    let mut deliveries = bus.consume(&p, 1).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.message.properties, message.properties);
    assert_eq!(delivery.message.body, message.body);
    assert_eq!((delivery.message.exchange, delivery.message.key), (String::new(), p));
    delivery.ticket.ack();
}

pub async fn outcomes(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Quorum))])).await.unwrap();
    assert_eq!(bus.publish(to(&p, "x"), soon()).await, Outcome::Routed);
    assert_eq!(bus.publish(to(&format!("{p}.nowhere"), "x"), soon()).await, Outcome::Unroutable);
    let unroutable = published("amq.topic", &format!("{p}.nowhere"), "x");
    assert_eq!(bus.publish(unroutable.clone(), soon()).await, Outcome::Unroutable);
    // Nobody listening is normal where it was said so.
    assert_eq!(bus.publish(Message { mandatory: false, ..unroutable }, soon()).await, Outcome::Routed);
}

pub async fn no_such_exchange(bus: Shared, p: String) {
    // A link for calls is made where a topology has some.
    bus.declare(&Topology { calls: true, ..Topology::default() }).await.unwrap();
    let nowhere = published(&format!("{p}.nowhere"), "k", "x");
    assert_eq!(bus.publish(nowhere.clone(), soon()).await, Outcome::Unroutable);
    // That nobody listens may be normal; that the exchange is not there is not.
    assert_eq!(bus.publish(Message { mandatory: false, ..nowhere.clone() }, soon()).await, Outcome::Unroutable);
    assert_eq!(bus.call(nowhere, soon()).await, Err(CallError::NoWorker));
}

pub async fn a_refused_message_harms_no_neighbour(bus: Shared, p: String) {
    let calls = format!("{p}.calls");
    bus.declare(&topology([(p.clone(), queue(QueueKind::Quorum)), (calls.clone(), queue(QueueKind::Rpc))]))
        .await
        .unwrap();
    let answered = bus.consume(&calls, 100).await.unwrap();
    echo(&bus, answered, |_| Duration::ZERO);
    let nowhere = format!("{p}.nowhere");
    let each = (0..300).map(|n| {
        let (bus, p, calls, nowhere) = (bus.clone(), &p, &calls, &nowhere);
        async move {
            match n % 6 {
                0 => assert_eq!(bus.publish(published(nowhere, "k", "x"), soon()).await, Outcome::Unroutable),
                1 => assert_eq!(bus.call(published(nowhere, "k", "x"), soon()).await, Err(CallError::NoWorker)),
                2 | 3 => assert_eq!(bus.call(to(calls, n.to_string()), soon()).await.unwrap().body, n.to_string()),
                _ => assert_eq!(bus.publish(to(p, "x"), soon()).await, Outcome::Routed),
            }
        }
    });
    each.collect::<FuturesUnordered<_>>().collect::<()>().await;
    assert_eq!(bus.state().link, Link::Up);
}

pub async fn a_full_queue_rejects(bus: Shared, p: String) {
    let full = Queue { max_length: Some(2), ..queue(QueueKind::Classic) };
    bus.declare(&topology([(p.clone(), full)])).await.unwrap();
    keep(&bus, to(&p, "1")).await;
    keep(&bus, to(&p, "2")).await;
    assert_eq!(bus.publish(to(&p, "3"), soon()).await, Outcome::Rejected);
    let mut deliveries = bus.consume(&p, 10).await.unwrap();
    for body in ["1", "2"] {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.message.body, body);
        delivery.ticket.ack();
    }
    nothing(&mut deliveries).await;
    keep(&bus, to(&p, "4")).await;
    assert_eq!(next(&mut deliveries).await.message.body, "4");
}

pub async fn first_in_first_out(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Quorum))])).await.unwrap();
    for n in 0..200 {
        keep(&bus, to(&p, n.to_string())).await;
    }
    let mut deliveries = bus.consume(&p, 50).await.unwrap();
    for n in 0..200 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.message.body, n.to_string());
        delivery.ticket.ack();
    }
}

pub async fn bindings_route(bus: Shared, p: String) {
    let exchange = |kind: &str| Exchange { kind: kind.into(), arguments: BTreeMap::new(), declare: Declare::Active };
    let (direct, fanout) = (format!("{p}.direct"), format!("{p}.fanout"));
    let name = |queue: &str| format!("{p}.{queue}");
    let mut topology = topology([
        (name("topic"), bound("amq.topic", &format!("{p}.*.new"))),
        (name("all"), bound("amq.topic", &format!("{p}.#"))),
        (name("direct"), bound(&direct, "a")),
        (name("fanout"), bound(&fanout, "")),
    ]);
    topology.exchanges = [(direct.clone(), exchange("direct")), (fanout.clone(), exchange("fanout"))].into();
    bus.declare(&topology).await.unwrap();
    let cases = [
        ("amq.topic", format!("{p}.a.new"), vec!["topic", "all"]),
        ("amq.topic", format!("{p}.a"), vec!["all"]),
        ("amq.topic", p.clone(), vec!["all"]),
        (direct.as_str(), "a".to_owned(), vec!["direct"]),
        (direct.as_str(), "b".to_owned(), vec![]),
        (fanout.as_str(), "anything".to_owned(), vec!["fanout"]),
    ];
    for (exchange, key, queues) in cases {
        let expected = if queues.is_empty() { Outcome::Unroutable } else { Outcome::Routed };
        assert_eq!(bus.publish(published(exchange, &key, key.clone()), soon()).await, expected, "{exchange} {key}");
        for queue in queues {
            let mut deliveries = bus.consume(&name(queue), 1).await.unwrap();
            let delivery = next(&mut deliveries).await;
            assert_eq!((&delivery.message.exchange[..], &delivery.message.key), (exchange, &key));
            delivery.ticket.ack();
            deliveries.stop();
            while deliveries.next().await.is_some() {}
        }
    }
}

pub async fn several_queues_get_one_each(bus: Shared, p: String) {
    let names = [format!("{p}.a"), format!("{p}.b")];
    bus.declare(&topology(names.clone().map(|name| (name, bound("amq.topic", &p))))).await.unwrap();
    keep(&bus, published("amq.topic", &p, "x")).await;
    for name in names {
        let mut deliveries = bus.consume(&name, 5).await.unwrap();
        next(&mut deliveries).await.ticket.ack();
        nothing(&mut deliveries).await;
    }
}

pub async fn competing_consumers(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Quorum))])).await.unwrap();
    let mut one = bus.consume(&p, 3).await.unwrap();
    let mut two = bus.consume(&p, 3).await.unwrap();
    for n in 0..10 {
        keep(&bus, to(&p, n.to_string())).await;
    }
    // Nobody gets more than it may hold.
    let mut held = Vec::new();
    for consumer in [&mut one, &mut two] {
        for _ in 0..3 {
            held.push(next(consumer).await);
        }
        nothing(consumer).await;
    }
    let mut seen: BTreeSet<Bytes> = BTreeSet::new();
    for delivery in held {
        assert!(seen.insert(delivery.message.body.clone()), "delivered twice");
        delivery.ticket.ack();
    }
    while seen.len() < 10 {
        let delivery = tokio::select! { one = next(&mut one) => one, two = next(&mut two) => two };
        assert!(seen.insert(delivery.message.body.clone()), "delivered twice");
        delivery.ticket.ack();
    }
}

pub async fn retry_comes_back(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Quorum))])).await.unwrap();
    keep(&bus, to(&p, "x")).await;
    let mut deliveries = bus.consume(&p, 1).await.unwrap();
    next(&mut deliveries).await.ticket.retry();
    let again = next(&mut deliveries).await;
    assert!(again.redelivered);
    again.ticket.ack();
    nothing(&mut deliveries).await;
}

pub async fn failed_deliveries_are_counted(bus: Shared, p: String) {
    let (_, topology) = with_dead_letter(&p, Some(5));
    bus.declare(&topology).await.unwrap();
    keep(&bus, to(&p, "x")).await;
    let mut deliveries = bus.consume(&p, 1).await.unwrap();
    for failed in 0..4 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.redelivered, failed > 0);
        let headers = &delivery.message.properties.headers;
        let count = ["x-delivery-count", "x-acquired-count"].iter().filter_map(|name| match headers.get(*name) {
            Some(HeaderValue::Int(count)) => Some(*count),
            _ => None,
        });
        assert_eq!(count.max().unwrap_or_default(), failed, "{headers:?}");
        if failed < 3 { delivery.ticket.retry() } else { delivery.ticket.ack() }
    }
}

pub async fn a_dropped_ticket_comes_back(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Quorum))])).await.unwrap();
    keep(&bus, to(&p, "x")).await;
    let mut first = bus.consume(&p, 1).await.unwrap();
    drop(next(&mut first).await);
    drop(first);
    let mut second = bus.consume(&p, 1).await.unwrap();
    let again = next(&mut second).await;
    assert!(again.redelivered);
    again.ticket.ack();
}

fn with_dead_letter(p: &str, limit: Option<u32>) -> (String, Topology) {
    let dead = format!("{p}.dead");
    let alive = Queue {
        dead_letter: Some(dead.clone()),
        delivery_limit: limit.map(DeliveryLimit::Count),
        ..queue(QueueKind::Quorum)
    };
    let topology = topology([(p.to_owned(), alive), (dead.clone(), queue(QueueKind::Quorum))]);
    (dead, topology)
}

pub async fn reject_goes_to_the_dead_letter_queue(bus: Shared, p: String) {
    let (dead, topology) = with_dead_letter(&p, None);
    bus.declare(&topology).await.unwrap();
    keep(&bus, to(&p, "poison")).await;
    let mut deliveries = bus.consume(&p, 1).await.unwrap();
    next(&mut deliveries).await.ticket.reject();
    let mut buried = bus.consume(&dead, 1).await.unwrap();
    let delivery = next(&mut buried).await;
    assert_eq!(delivery.message.body, "poison");
    assert_eq!(delivery.message.properties.headers["x-first-death-reason"], HeaderValue::from("rejected"));
    assert_eq!(delivery.message.properties.headers["x-first-death-queue"], HeaderValue::from(&*p));
    delivery.ticket.ack();
    nothing(&mut deliveries).await;
}

pub async fn too_many_deliveries_are_dead_lettered(bus: Shared, p: String) {
    let (dead, topology) = with_dead_letter(&p, Some(2));
    bus.declare(&topology).await.unwrap();
    keep(&bus, to(&p, "poison")).await;
    let mut deliveries = bus.consume(&p, 1).await.unwrap();
    for _ in 0..3 {
        next(&mut deliveries).await.ticket.retry();
    }
    let mut buried = bus.consume(&dead, 1).await.unwrap();
    let delivery = next(&mut buried).await;
    assert_eq!(delivery.message.properties.headers["x-first-death-reason"], HeaderValue::from("delivery_limit"));
    delivery.ticket.ack();
    nothing(&mut deliveries).await;
}

pub async fn stop_leaves_what_is_here(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Quorum))])).await.unwrap();
    for n in 0..5 {
        keep(&bus, to(&p, n.to_string())).await;
    }
    let mut deliveries = bus.consume(&p, 2).await.unwrap();
    let first = next(&mut deliveries).await;
    deliveries.stop();
    first.ticket.ack();
    let mut here = 1;
    while let Some(delivery) = tokio::time::timeout(Duration::from_secs(20), deliveries.next()).await.unwrap() {
        delivery.ticket.ack();
        here += 1;
    }
    // The rest is for others.
    let mut rest = bus.consume(&p, 10).await.unwrap();
    for _ in here..5 {
        next(&mut rest).await.ticket.ack();
    }
    nothing(&mut rest).await;
}

pub async fn no_such_queue(bus: Shared, p: String) {
    assert!(matches!(bus.consume(&p, 1).await, Err(BusError::NoQueue(name)) if name == p));
}

pub async fn what_differs_is_told(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Quorum))])).await.unwrap();
    let error = bus.declare(&topology([(p.clone(), queue(QueueKind::Classic))])).await.unwrap_err();
    assert!(matches!(error, BusError::Topology(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&p) && text.contains("quorum"), "{text}");
    let passive = Queue { declare: Declare::Passive, ..queue(QueueKind::Quorum) };
    let error = bus.declare(&topology([(format!("{p}.others"), passive)])).await.unwrap_err();
    assert!(matches!(error, BusError::Topology(_)), "{error:?}");
}

pub async fn declaring_again_is_harmless(bus: Shared, p: String) {
    let (_, topology) = with_dead_letter(&p, Some(3));
    bus.declare(&topology).await.unwrap();
    keep(&bus, to(&p, "x")).await;
    bus.declare(&topology).await.unwrap();
    let mut deliveries = bus.consume(&p, 1).await.unwrap();
    next(&mut deliveries).await.ticket.ack();
}

pub async fn a_call_is_answered(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Rpc))])).await.unwrap();
    let mut calls = bus.consume(&p, 5).await.unwrap();
    let asked = tokio::spawn({
        let (bus, p) = (bus.clone(), p.clone());
        async move { bus.call(to(&p, "2+2"), soon()).await }
    });
    let call = next(&mut calls).await;
    let properties = call.message.properties.clone();
    assert!(properties.expiration.is_some_and(|left| left <= Duration::from_secs(20) && !left.is_zero()));
    assert!(properties.headers.contains_key("fpesa-deadline"));
    let reply = Message {
        key: properties.reply_to.unwrap(),
        properties: Properties {
            correlation_id: properties.correlation_id,
            content_type: Some("text/plain".into()),
            headers: [("status".to_owned(), HeaderValue::Int(201))].into(),
            ..Properties::default()
        },
        body: "4".into(),
        mandatory: true,
        ..Message::default()
    };
    assert_eq!(bus.publish(reply, soon()).await, Outcome::Routed);
    call.ticket.ack();
    let reply = asked.await.unwrap().unwrap();
    assert_eq!(reply.body, "4");
    assert_eq!(reply.properties.content_type.as_deref(), Some("text/plain"));
    assert_eq!(reply.properties.headers["status"], HeaderValue::Int(201));
}

pub async fn calls_find_their_own_replies(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Rpc))])).await.unwrap();
    let calls = bus.consume(&p, 500).await.unwrap();
    // Replies leave in another order than their calls came.
    echo(&bus, calls, |n| Duration::from_millis((n * 7919) % 50));
    let mut asked: FuturesUnordered<_> = (0..300)
        .map(|n| {
            let (bus, p) = (bus.clone(), p.clone());
            async move { (n, bus.call(to(&p, format!("call {n}")), soon()).await) }
        })
        .collect();
    while let Some((n, reply)) = asked.next().await {
        assert_eq!(reply.unwrap().body, format!("call {n}"));
    }
}

pub async fn a_reply_that_is_too_large_is_that_calls_alone(bus: Shared, p: String) {
    const MAX: usize = 8 * 1024 * 1024;
    bus.declare(&topology([(p.clone(), queue(QueueKind::Rpc))])).await.unwrap();
    let mut calls = bus.consume(&p, 5).await.unwrap();
    let asked: Vec<_> = [MAX, MAX + 1, 1]
        .map(|size| {
            let (bus, p) = (bus.clone(), p.clone());
            tokio::spawn(async move { (size, bus.call(to(&p, size.to_string()), soon()).await) })
        })
        .into();
    for _ in 0..3 {
        let call = next(&mut calls).await;
        let size: usize = std::str::from_utf8(&call.message.body).unwrap().parse().unwrap();
        let reply = Message {
            key: call.message.properties.reply_to.clone().unwrap(),
            properties: Properties {
                correlation_id: call.message.properties.correlation_id.clone(),
                ..Properties::default()
            },
            body: vec![7; size].into(),
            ..Message::default()
        };
        bus.publish(reply, soon()).await;
        call.ticket.ack();
    }
    for asked in asked {
        match asked.await.unwrap() {
            (size, Ok(reply)) => assert!(size <= MAX && reply.body.len() == size, "{size}"),
            (size, Err(error)) => assert_eq!((size, error), (MAX + 1, CallError::ReplyTooLarge)),
        }
    }
}

pub async fn no_worker(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Rpc))])).await.unwrap();
    let start = Instant::now();
    assert_eq!(bus.call(to(&p, "x"), soon()).await, Err(CallError::NoWorker));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    // The queue goes with its last worker.
    let mut calls = bus.consume(&p, 1).await.unwrap();
    calls.stop();
    while calls.next().await.is_some() {}
    drop(calls);
    crate::support::eventually("no worker again", || async {
        (bus.call(to(&p, "x"), Instant::now() + Duration::from_millis(500)).await == Err(CallError::NoWorker))
            .then_some(())
    })
    .await;
}

pub async fn a_call_times_out(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Rpc))])).await.unwrap();
    let _silent = bus.consume(&p, 5).await.unwrap();
    let start = Instant::now();
    assert_eq!(bus.call(to(&p, "x"), start + Duration::from_millis(400)).await, Err(CallError::Timeout));
    assert!(start.elapsed() >= Duration::from_millis(400));
}

pub async fn a_late_reply_is_counted(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Rpc))])).await.unwrap();
    let before = bus.state().late_replies;
    let calls = bus.consume(&p, 5).await.unwrap();
    echo(&bus, calls, |_| Duration::from_millis(600));
    assert_eq!(bus.call(to(&p, "x"), Instant::now() + Duration::from_millis(200)).await, Err(CallError::Timeout));
    crate::support::eventually("a late reply", || async { (bus.state().late_replies == before + 1).then_some(()) })
        .await;
}

pub async fn an_expired_message_is_not_delivered(bus: Shared, p: String) {
    bus.declare(&topology([(p.clone(), queue(QueueKind::Classic))])).await.unwrap();
    let mut short = to(&p, "short-lived");
    short.properties.expiration = Some(Duration::from_millis(1));
    keep(&bus, short).await;
    keep(&bus, to(&p, "lasting")).await;
    // Its time is over by a wide margin before anyone asks.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut deliveries = bus.consume(&p, 5).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.message.body, "lasting");
    delivery.ticket.ack();
}
