//! `fpesa replay`, on RabbitMQ: history published again, each message confirmed.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use fpesa::{
    bus::{
        Delivery, Link,
        amqp::{Amqp, Options},
    },
    message::HeaderValue,
    topology::{Arguments, Binding, Declare, Exchange, Queue, QueueKind},
};
use uuid::Uuid;

use crate::{
    bus_contract::{self as contract, Shared},
    support::{
        app::Start,
        eventually,
        history::{embedded, event, events, fill, open},
        rabbit::Rabbit,
        release::Release,
    },
};

async fn run(args: &[&str]) -> (i32, String, String) {
    Start::up().command(args).run().await
}

/// An exchange of the test's own, with a queue that is bound to it.
async fn declare(bus: &Shared, exchange: &str, queue: &str, key: &str) {
    let binding = Binding { exchange: exchange.into(), key: key.into(), arguments: Arguments::new() };
    let made = Queue { bind: vec![binding], ..contract::queue(QueueKind::Quorum) };
    let mut topology = contract::topology([(queue.to_owned(), made)]);
    let kind = Exchange { kind: "topic".into(), arguments: Arguments::new(), declare: Declare::Active };
    topology.exchanges.insert(exchange.to_owned(), kind);
    bus.declare(&topology).await.unwrap();
}

/// So many deliveries, and nothing after them.
async fn take(bus: &Shared, queue: &str, count: usize) -> Vec<Delivery> {
    let mut deliveries = bus.consume(queue, 1_000).await.unwrap();
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(20), deliveries.next()).await;
        taken.push(next.unwrap_or_else(|_| panic!("{} of {count}", taken.len())).unwrap());
    }
    assert!(deliveries.next_now().is_none());
    taken
}

crate::on_each_rabbitmq!(history_is_published_again);

async fn history_is_published_again(on: Release) {
    let rabbit = Rabbit::without_feed(on).await;
    let url = rabbit.url();
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(folder.path());
    let kept = events(700);
    fill(&open(&store).await, &kept).await;
    let bus: Shared = Amqp::connect(Options::at(&url).unwrap());
    declare(&bus, "again", "t.again", "m.#").await;
    let replay = |more: &[&str]| {
        let mut args = vec!["replay", "--since", "36500d", "--bus", &url, "--store", &store];
        args.extend(more);
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        async move { run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    // Oldest first, with the ids and the bytes of before.
    let (status, stdout, stderr) = replay(&["--to-exchange", "again"]).await;
    assert_eq!(status, 0, "{stdout}{stderr}");
    assert_eq!(stdout, "routed 700, rejected 0, unroutable 0, not-sent 0, unknown 0\n");
    for (delivery, event) in take(&bus, "t.again", kept.len()).await.into_iter().zip(&kept) {
        let (message, properties) = (&delivery.message, &delivery.message.properties);
        assert_eq!(message.body, event.text);
        assert_eq!(message.key, event.subject.as_deref().unwrap().replace('/', "."));
        assert_eq!(properties.message_id.as_deref(), Some(event.id.to_string().as_str()));
        assert_eq!(properties.content_type.as_deref(), Some("application/cloudevents+json"));
        assert_eq!((properties.kind.as_deref(), properties.app_id.as_deref()), (Some("t"), Some("fpesa/1")));
        assert_eq!(properties.timestamp, Some(u64::try_from(event.time).unwrap() / 1_000_000));
        assert_eq!(properties.headers.get("fpesa-replay"), Some(&HeaderValue::Bool(true)));
        assert!(properties.persistent);
        delivery.ticket.ack();
    }
    // A part of it, slowly, to one queue.
    let start = Instant::now();
    let (status, stdout, stderr) =
        replay(&["--to-exchange", "", "--key", "t.again", "--topic", "m/3", "--rate", "200"]).await;
    assert_eq!((status, stdout.starts_with("routed 140, ")), (0, true), "{stdout}{stderr}");
    assert!(start.elapsed() >= Duration::from_millis(690), "{:?}", start.elapsed());
    for delivery in take(&bus, "t.again", 140).await {
        assert_eq!(delivery.message.key, "t.again");
        delivery.ticket.ack();
    }
    // What no queue takes is named; the rest arrives.
    let long = event(5_000, 10_000, &format!("m/{}", "x".repeat(300)), "0");
    fill(&open(&store).await, &[event(5_001, 10_001, "nobody/listens", "0"), long.clone()]).await;
    let (status, stdout, stderr) = replay(&["--to-exchange", "again"]).await;
    assert_eq!(stdout, "routed 700, rejected 1, unroutable 1, not-sent 0, unknown 0\n", "{stderr}");
    assert_eq!(status, 1);
    for (n, why) in [(5_000, "too long"), (5_001, "no queue takes it")] {
        let id = Uuid::from_u128(n).to_string();
        let line = stderr.lines().find(|line| line.contains(&id)).unwrap_or_else(|| panic!("{n}: {stderr}"));
        assert!(line.contains(why), "{line}");
    }
    for delivery in take(&bus, "t.again", 700).await {
        delivery.ticket.ack();
    }
    links_break(&rabbit, &bus, &store).await;
    // An exchange that is not there is told, and nothing is sent.
    let (status, _, stderr) = replay(&["--to-exchange", "nowhere"]).await;
    assert_eq!(status, 1, "{stderr}");
    assert!(stderr.contains("no exchange `nowhere`"), "{stderr}");
    bus.close().await;
    drop(rabbit);
    let (status, stdout, stderr) = replay(&["--to-exchange", "again"]).await;
    assert_eq!((status, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.contains("waiting for the broker amqp://guest:***@127.0.0.1:"), "{stderr}");
    assert!(stderr.contains("is away") && !stderr.contains("guest:guest"), "{stderr}");
}

/// Every link is closed while messages are on their way: what was told to be routed is there, and the rest is sent later.
async fn links_break(rabbit: &Rabbit, bus: &Shared, store: &str) {
    let url = rabbit.url();
    let args = ["replay", "--since", "36500d", "--topic", "m/+", "--to-exchange", "again", "--rate", "50"];
    let start = Start::up().command(&args).args(&["--bus", &url, "--store", store]);
    let replaying = tokio::spawn(start.run());
    let mut arrived = HashSet::new();
    let mut deliveries = bus.consume("t.again", 1).await.unwrap();
    while arrived.len() < 20 {
        let delivery = tokio::time::timeout(Duration::from_secs(20), deliveries.next()).await.unwrap().unwrap();
        arrived.insert(delivery.message.properties.message_id.clone().unwrap());
        delivery.ticket.ack();
    }
    drop(deliveries);
    rabbit.ctl(&["close_all_connections", "a test"]);
    let (status, stdout, stderr) = replaying.await.unwrap();
    let number = |word: &str| -> usize {
        let part = stdout.trim().split(", ").find_map(|part| part.strip_prefix(&format!("{word} ")));
        part.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{stdout}{stderr}"))
    };
    // (The long subject is of this topic too.)
    assert_eq!(number("routed") + number("unknown"), 700, "{stdout}{stderr}");
    assert_eq!((number("rejected"), number("not-sent"), status), (1, 0, 1), "{stdout}{stderr}");
    let unknown: Vec<&str> = stderr.lines().filter(|line| line.contains(": unknown: ")).collect();
    assert_eq!(unknown.len(), number("unknown"), "{stderr}");
    eventually("the link to be up again", || async { (bus.state().link == Link::Up).then_some(()) }).await;
    let mut deliveries = eventually("a consumer", || async { bus.consume("t.again", 1_000).await.ok() }).await;
    while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(2), deliveries.next()).await {
        arrived.insert(delivery.message.properties.message_id.clone().unwrap());
        delivery.ticket.ack();
    }
    for n in 1..=700 {
        let id = Uuid::from_u128(n).to_string();
        assert!(arrived.contains(&id) || unknown.iter().any(|line| line.contains(&id)), "{n} is lost");
    }
}

#[tokio::test]
async fn what_can_not_work_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(folder.path());
    fill(&open(&store).await, &events(1)).await;
    let bus = "amqp://u:s3cret@127.0.0.1:1";
    for (args, why) in [
        (&["replay", "--since", "1h", "--to-exchange", "x", "--store", &store][..], "--bus amqp://"),
        (&["replay", "--since", "soon", "--to-exchange", "x", "--store", &store, "--bus", bus], "--since"),
        (&["replay", "--to-exchange", "x", "--store", &store, "--bus", bus], "--since"),
        (&["replay", "--since", "1h", "--store", &store, "--bus", bus], "--to-exchange"),
        (&["replay", "--since", "1h", "--to-exchange", "x", "--rate", "0", "--store", &store, "--bus", bus], "--rate"),
    ] {
        let (status, stdout, stderr) = run(args).await;
        assert_eq!((status, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(why) && !stderr.contains("s3cret"), "{args:?}: {stderr}");
    }
}
