//! RabbitMQ: the bus contract, then the whole path (POST, GET, the feed over web-MQTT) on a private node. One node for
//! all of it: a start takes longer than the cases.

use std::{collections::HashSet, future::Future, time::Duration};

use fpesa::{
    bus::amqp::{Amqp, Options},
    message::{Message, Outcome},
    topology::{Queue, QueueKind},
};
use lapin::{
    BasicProperties, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use serde_json::Value;

use crate::{
    bus_contract as contract,
    support::{app::Start, certificates::Certificates, eventually, free_port, rabbit::Rabbit, release::Release},
};

crate::on_each_rabbitmq!(the_bus_contract_and_the_whole_path, the_link_by_tls);

async fn the_bus_contract_and_the_whole_path(on: Release) {
    let mut rabbit = Rabbit::on(on).await;
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
    a_naive_publisher_fails(&bus, &rabbit).await;
    // The node dies and comes back: the link follows by itself.
    rabbit.kill9();
    eventually("the link to be down", || async { (bus.state().link == fpesa::bus::Link::Down).then_some(()) }).await;
    let away = bus.publish(contract::to("nobody", "x"), contract::soon()).await;
    assert_eq!(away, fpesa::message::Outcome::NotSent(fpesa::message::Away::Down));
    rabbit.restart().await;
    eventually("the link to be up again", || async { (bus.state().link == fpesa::bus::Link::Up).then_some(()) }).await;
    contract::publish_and_consume(bus.clone(), "t.after_a_restart".into()).await;
    bus.close().await;
    assert_eq!(bus.state().link, fpesa::bus::Link::Down, "the links have come to their orderly end");
    the_whole_path(&rabbit).await;
    crate::reload::on_rabbitmq(&mut rabbit).await;
}

/// What a publisher said of many publishes at a time, some to a queue, some to none, some to one that is full and rejects.
#[derive(Debug, Default)]
struct Told {
    routed: usize,
    unroutable: usize,
    rejected: usize,
    /// Outcomes that belong to another publish, or to none.
    wrong: usize,
}

/// Publishes from 64 tasks, and judges each outcome by where the message went.
async fn outcomes<F: Future<Output = Outcome> + Send>(
    bus: &contract::Shared,
    each: usize,
    publish: impl Fn(Message) -> F + Clone + Send + Sync + 'static,
) -> Told {
    const TASKS: usize = 64;
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
            let publish = publish.clone();
            tokio::spawn(async move {
                let (mut told, mut ids) = (Told::default(), Vec::new());
                for n in 0..each {
                    let queue = ["t.kept", "t.nowhere", "t.full"][(task + n) % 3];
                    let message = contract::to(queue, "x");
                    let id = message.properties.message_id.clone().unwrap();
                    match (queue, publish(message).await) {
                        ("t.kept", Outcome::Routed) => told.routed += 1,
                        ("t.nowhere", Outcome::Unroutable) => told.unroutable += 1,
                        ("t.full", Outcome::Routed) => ids.push(id),
                        ("t.full", Outcome::Rejected) => told.rejected += 1,
                        _ => told.wrong += 1,
                    }
                }
                (told, ids)
            })
        })
        .collect();
    let (mut sum, mut routed) = (Told::default(), HashSet::new());
    for task in tasks {
        let (told, ids) = task.await.unwrap();
        sum.routed += told.routed;
        sum.unroutable += told.unroutable;
        sum.rejected += told.rejected;
        sum.wrong += told.wrong;
        routed.extend(ids);
    }
    assert!(!routed.is_empty());
    sum.wrong += delivered.await.unwrap().symmetric_difference(&routed).count();
    sum.routed += routed.len();
    sum
}

/// 100,000 publishes of which none gets another's outcome; `FPESA_TEST_OUTCOME_RUNS` asks for more runs of it.
async fn no_outcome_is_another_publishs(bus: &contract::Shared) {
    let runs = std::env::var("FPESA_TEST_OUTCOME_RUNS").map_or(1, |runs| runs.parse().unwrap());
    for run in 1..=runs {
        let ours = bus.clone();
        let told = outcomes(bus, 1_563, move |message| {
            let bus = ours.clone();
            async move { bus.publish(message, contract::soon()).await }
        })
        .await;
        println!("run {run}: {told:?}");
        assert!(told.routed > 0 && told.unroutable > 0 && told.rejected > 0, "{told:?}");
        assert_eq!(told.wrong, 0, "{told:?}");
    }
}

/// The same, by a publisher that shares a channel among its tasks and trusts each confirm: so the test can fail.
async fn a_naive_publisher_fails(bus: &contract::Shared, rabbit: &Rabbit) {
    let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let mut wrong = 0;
    for _ in 0..5 {
        let channel = channel.clone();
        let told = outcomes(bus, 200, move |message| {
            let channel = channel.clone();
            async move {
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let id = message.properties.message_id.unwrap();
                let properties = BasicProperties::default().with_message_id(id.as_str().into());
                let key = message.key.as_str().into();
                let sent = channel.basic_publish("".into(), key, options, &message.body, properties).await.unwrap();
                match sent.await.unwrap() {
                    Confirmation::Ack(None) => Outcome::Routed,
                    Confirmation::Ack(Some(_)) => Outcome::Unroutable,
                    _ => Outcome::Rejected,
                }
            }
        })
        .await;
        println!("naive: {told:?}");
        wrong += told.wrong;
        if wrong > 0 {
            break;
        }
    }
    assert!(wrong > 0, "the naive publisher was right each time: the test of ours says nothing");
    connection.close(200, "bye".into()).await.unwrap();
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
    crate::feed::by_the_real_plugin(&app, rabbit).await;
    eventually("the consumers of all queues to be known", || async {
        let table = app.json("/table.json").await;
        let queues = table["queues"].as_array()?.iter();
        let told: Vec<_> = queues.map(|queue| (queue["name"].as_str(), queue["consumers"].as_u64())).collect();
        let wanted = [("messages.dead", 0), ("messages.history", 1), ("messages.persist", 1)];
        (told == wanted.map(|(name, consumers)| (Some(name), Some(consumers)))).then_some(())
    })
    .await;
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

/// TLS with an authority of one's own and a client certificate, the password from a file; nothing of either is told.
async fn the_link_by_tls(on: Release) {
    let certificates = Certificates::make();
    let port = free_port();
    let rabbit = Rabbit::on_with(
        on,
        &format!(
            "listeners.ssl.default = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
         ssl_options.keyfile = {}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true",
            certificates.text("ca.pem"),
            certificates.text("server.pem"),
            certificates.text("server.key"),
        ),
    )
    .await;
    rabbit.ctl(&["add_user", "gate", "s3cret of the file"]);
    rabbit.ctl(&["set_permissions", "gate", ".*", ".*", ".*"]);
    std::fs::write(certificates.path("password"), "s3cret of the file\n").unwrap();
    let url = format!("amqps://gate@127.0.0.1:{port}/%2f");
    let start = |ca: &str, identity: Option<&str>| {
        let mut start = Start::up()
            .args(&["--bus", &url])
            .env("FPESA_BUS_PASSWORD_FILE", &certificates.text("password"))
            .env("FPESA_BUS_TLS__CA_FILE", &certificates.text(ca));
        if let Some(name) = identity {
            start = start
                .env("FPESA_BUS_TLS__CERT_FILE", &certificates.text(&format!("{name}.pem")))
                .env("FPESA_BUS_TLS__KEY_FILE", &certificates.text(&format!("{name}.key")));
        }
        start
    };
    let app = start("ca.pem", Some("client")).start().await;
    eventually("readiness", || async { (app.get("/readyz").await.status() == 200).then_some(()) }).await;
    let id = app.keep(r#"{"text":"by TLS"}"#).await;
    app.kept(1).await;
    assert_eq!(app.json(&format!("/api/v1/messages/{id}")).await["data"]["text"], "by TLS");
    // Neither a broker that another authority vouches for, nor one that wants a certificate which we have not.
    for (ca, identity) in [("other.pem", Some("client")), ("ca.pem", None)] {
        let app = start(ca, identity).start().await;
        eventually("the failure to be told", || async { app.stderr().contains("down").then_some(()) }).await;
        assert_eq!(app.get("/readyz").await.status(), 503, "{ca} {identity:?}");
        let refused = app.post("/api/v1/messages", r#"{"text":"x"}"#).await.text().await.unwrap();
        for told in [app.stderr(), refused] {
            assert!(!told.contains("s3cret") && !told.contains("gate"), "{told}");
        }
    }
}
