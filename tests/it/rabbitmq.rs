//! RabbitMQ: the bus contract, then the whole path (POST, GET, the feed over web-MQTT) on a private node. One node for
//! all of it: a start takes longer than the cases.

use std::{collections::HashSet, time::Duration};

use fpesa::{
    bus::amqp::{Amqp, Options},
    message::Outcome,
    topology::{Queue, QueueKind},
};
use serde_json::Value;

use crate::{
    bus_contract as contract,
    support::{app::Start, eventually, rabbit::Rabbit},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bus_contract_and_the_whole_path() {
    let mut rabbit = Rabbit::start().await;
    let bus: contract::Shared = Amqp::connect(Options::at(&rabbit.url()).unwrap());
    eventually("the link to be up", || async { (bus.state().link == fpesa::bus::Link::Up).then_some(()) }).await;
    macro_rules! on_rabbitmq {
        ($($case:ident),*) => {
            $(
                println!("case {}", stringify!($case));
                contract::$case(bus.clone(), format!("t.{}", stringify!($case))).await;
            )*
        };
    }
    crate::bus_cases!(on_rabbitmq);
    no_outcome_is_another_publishs(&bus).await;
    // The node dies and comes back: the link follows by itself.
    rabbit.kill9();
    eventually("the link to be down", || async { (bus.state().link == fpesa::bus::Link::Down).then_some(()) }).await;
    let away = bus.publish(contract::to("nobody", "x"), contract::soon()).await;
    assert_eq!(away, fpesa::message::Outcome::NotSent(fpesa::message::Away::Down));
    rabbit.restart().await;
    eventually("the link to be up again", || async { (bus.state().link == fpesa::bus::Link::Up).then_some(()) }).await;
    contract::publish_and_consume(bus.clone(), "t.after_a_restart".into()).await;
    bus.close().await;
    the_whole_path(&rabbit).await;
}

/// Many publishes at a time, some to a queue, some to none, some to one that is full and rejects: each gets its own
/// outcome. (lapin by itself attaches returns to whichever confirm completes next.)
async fn no_outcome_is_another_publishs(bus: &contract::Shared) {
    const TASKS: usize = 64;
    const EACH: usize = 500;
    let full = Queue { max_length: Some(5), ..contract::queue(QueueKind::Classic) };
    let queues = [("t.kept".to_owned(), contract::queue(QueueKind::Quorum)), ("t.full".to_owned(), full)];
    bus.declare(&contract::topology(queues)).await.unwrap();
    // What a slow consumer takes from the full queue must be what was told to be routed, and nothing else.
    let mut deliveries = bus.consume("t.full", 1).await.unwrap();
    let delivered = tokio::spawn(async move {
        let mut ids = HashSet::new();
        while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(5), deliveries.next()).await {
            ids.insert(delivery.message.properties.message_id.clone().unwrap());
            delivery.ticket.ack();
        }
        ids
    });
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let bus = bus.clone();
            tokio::spawn(async move {
                let (mut routed, mut rejected) = (Vec::new(), 0);
                for n in 0..EACH {
                    let queue = ["t.kept", "t.nowhere", "t.full"][(task + n) % 3];
                    let message = contract::to(queue, "x");
                    let id = message.properties.message_id.clone().unwrap();
                    match (queue, bus.publish(message, contract::soon()).await) {
                        ("t.kept", Outcome::Routed) | ("t.nowhere", Outcome::Unroutable) => {}
                        ("t.full", Outcome::Routed) => routed.push(id),
                        ("t.full", Outcome::Rejected) => rejected += 1,
                        (queue, outcome) => panic!("{queue}: {outcome:?}"),
                    }
                }
                (routed, rejected)
            })
        })
        .collect();
    let (mut routed, mut rejected) = (HashSet::new(), 0);
    for task in tasks {
        let (ids, refused) = task.await.unwrap();
        routed.extend(ids);
        rejected += refused;
    }
    assert!(rejected > 0 && !routed.is_empty(), "{rejected} {}", routed.len());
    assert_eq!(delivered.await.unwrap(), routed);
}

/// One process with everything, the embedded store and RabbitMQ.
async fn the_whole_path(rabbit: &Rabbit) {
    let start = Start::up()
        .args(&["--bus", &rabbit.url()])
        .env("FPESA_FEED__PASSWORD", "look")
        .env("FPESA_FEED__URL", &format!("ws://127.0.0.1:{}/mqtt", rabbit.web_mqtt));
    let app = start.start().await;
    eventually("readiness", || async { (app.get("/readyz").await.status() == 200).then_some(()) }).await;
    let feed = app.json("/feed.json").await;
    assert_eq!(feed["username"], "browser");
    assert_eq!(feed["password"], "look");

    let mut listener = crate::feed::tail(&app, "messages/#").await;
    let id = app.keep(r#"{"text":"through RabbitMQ","topic":"orders"}"#).await;
    let line = listener.line().await;
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["id"], *id);

    eventually("history to have it", || async {
        let page = app.json("/api/v1/messages").await;
        (page["items"][0]["id"] == *id).then_some(())
    })
    .await;
    let one = app.json(&format!("/api/v1/messages/{id}")).await;
    assert_eq!(one["subject"], "messages/orders");
    let refused = app.get("/api/v1/messages?before=bent").await;
    assert_eq!(refused.status(), 422);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn a_broker_that_is_away_is_no_reason_to_end() {
    let port = crate::support::free_port();
    let app = Start::up().args(&["--bus", &format!("amqp://guest:s3cret@127.0.0.1:{port}")]).start().await;
    let ready = app.get("/readyz").await;
    assert_eq!(ready.status(), 503);
    assert_eq!(ready.json::<Value>().await.unwrap()["bus"], "down");
    let start = std::time::Instant::now();
    let refused = app.post("/api/v1/messages", r#"{"text":"x"}"#).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["type"], "https://fpesa.dev/problems/broker-unavailable");
    assert_eq!(problem["outcome"], "not-sent");
    let call = app.get("/api/v1/messages").await;
    assert_eq!(call.status(), 503);
    assert!(!app.stderr().contains("s3cret"), "{}", app.stderr());
}
