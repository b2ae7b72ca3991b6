//! Links to RabbitMQ that break: what clients are told meanwhile, and how soon it serves again by itself.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use fpesa::{
    bus::amqp::{Amqp, Options},
    message::{HeaderValue, Message, Outcome, Properties},
    topology::QueueKind,
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use serde_json::Value;

use crate::{
    bus_contract::{Shared, echo, queue, soon, to, topology},
    support::{
        app::{App, Start},
        eventually,
        poster::{Answer, Poster, Probe, counts},
        proxy::{Mode, Proxy},
        rabbit::Rabbit,
        release::Release,
    },
};

/// What is known must be told within this, beside what a request takes that waits for nothing.
const AT_ONCE: Duration = Duration::from_millis(250);
/// Serving again after the broker's return.
const BACK_WITHIN: Duration = Duration::from_secs(5);

async fn ready(app: &App) {
    eventually("readiness", || async { (app.get("/readyz").await.status() == 200).then_some(()) }).await;
}

/// What is known is told at once.
fn at_once(answers: &[Answer], pace: Duration) {
    let within = AT_ONCE + pace;
    let late: Vec<_> = answers.iter().filter(|answer| answer.status != 202 && answer.took > within).collect();
    assert!(late.is_empty(), "{} were told later than {within:?}: {:?}", late.len(), late.first());
}

crate::on_each_rabbitmq!(a_network_that_goes_silent_resets_and_cuts, one_node_and_what_happens_to_it);

async fn a_network_that_goes_silent_resets_and_cuts(on: Release) {
    let rabbit = Rabbit::on(on).await;
    let proxy = Proxy::start(rabbit.port).await;
    let bus = format!("amqp://guest:guest@127.0.0.1:{}/%2f", proxy.port);
    let table = std::fs::read_to_string(crate::support::root().join("routes.yaml")).unwrap();
    let table = table.replace("    publish:\n", "    publish:\n      confirm_timeout: 1s\n");
    let app = Start::up().table(&table).args(&["--bus", &bus]).start().await;
    ready(&app).await;
    let probe = Probe::new(&app);

    // Reset: what was under way is unknown at once, and the link comes back by itself.
    let poster = Poster::start(&[&app], 16);
    for _ in 0..5 {
        probe.until("").await;
        proxy.set(Mode::Reset);
        probe.until("broker-unavailable").await;
        proxy.set(Mode::Pass);
        let took = probe.until("").await;
        assert!(took < BACK_WITHIN, "{took:?} after a reset");
    }
    // Cut somewhere in the middle of a frame.
    for bytes in [1, 10, 100, 333, 4_000] {
        proxy.cut_after(bytes).await;
        let took = probe.until("").await;
        assert!(took < BACK_WITHIN, "{took:?} after a cut");
    }
    proxy.set(Mode::Pass);
    let pace = poster.pace();
    let answers = poster.end().await;
    println!("resets and cuts: {:?}", counts(&answers));
    // A broken link is told at once: nobody waits for the confirm timeout.
    at_once(&answers, pace);
    assert!(answers.iter().all(|answer| matches!(answer.status, 202 | 503 | 504)));
    probe.add(answers);

    // Silence: unknown at the confirm timeout, and away as soon as the heartbeat tells.
    ready(&app).await;
    let poster = Poster::start(&[&app], 16);
    probe.until("").await;
    proxy.set(Mode::Silent);
    let known = probe.until("broker-unavailable").await;
    println!("silence was known after {known:?}");
    assert!(known < Duration::from_secs(7), "{known:?}");
    proxy.set(Mode::Pass);
    let took = probe.until("").await;
    println!("serving {took:?} after the silence");
    assert!(took < BACK_WITHIN, "{took:?} after a silence");
    let answers = poster.end().await;
    println!("silence: {:?}", counts(&answers));
    assert!(answers.iter().any(|answer| answer.kind == "confirm-timeout" && answer.id.is_some()));
    assert!(answers.iter().all(|answer| answer.took < Duration::from_secs(2)), "nothing hangs");
    assert!(answers.iter().all(|answer| matches!(answer.status, 202 | 503 | 504)));
    probe.add(answers);
    probe.judge().await;
}

/// The shipped table, with routes of the tests' own beside it.
const TABLE: &str = "
  - id: post-own
    method: POST
    path: /own
    body: { schema: message.json }
    publish: { exchange: own, key: k, confirm_timeout: 2s }
  - id: post-passive
    method: POST
    path: /passive
    body: { schema: message.json }
    publish: { exchange: '', key: own.passive }
  - id: get-echo
    method: GET
    path: /echo
    params: { query: { n: { type: integer } } }
    call: { queue: echo, timeout: 20s }

exchanges:
  own: { type: direct }

queues:
  own.kept: { bind: [{ exchange: own, key: k }] }
  own.passive: { declare: passive, type: classic }
  echo: { type: rpc }
";

async fn started(rabbit: &Rabbit) -> App {
    let table = std::fs::read_to_string(crate::support::root().join("routes.yaml")).unwrap();
    let table =
        table.replace("\nqueues:\n", TABLE).replace("    publish:\n", "    publish:\n      confirm_timeout: 2s\n");
    let app = Start::up()
        .table(&table)
        .args(&["--bus", &rabbit.url()])
        .env("FPESA_FEED__PASSWORD", "look")
        .env("FPESA_FEED__URL", &format!("ws://127.0.0.1:{}/mqtt", rabbit.web_mqtt))
        .start()
        .await;
    ready(&app).await;
    app
}

async fn one_node_and_what_happens_to_it(on: Release) {
    let mut rabbit = Rabbit::on(on).await;
    let bus: Shared = Amqp::connect(Options::at(&rabbit.url()).unwrap());
    // What others declare is there before the gateway comes.
    let others = topology([("own.passive".to_owned(), queue(QueueKind::Classic))]);
    eventually("the link", || async { bus.declare(&others).await.ok() }).await;
    let app = started(&rabbit).await;
    a_thousand_calls_at_a_time(&app, &bus).await;
    poison_reaches_the_dead_letter_queue(&app, &bus).await;
    a_queue_is_deleted_while_a_browser_listens(&app, &rabbit).await;
    others_queue_is_deleted(&app, &rabbit).await;
    the_broker_closes_the_channel(&app, &rabbit).await;
    an_alarm_blocks_and_ends(&app, &rabbit).await;
    bus.close().await;
    restarts(&app, &mut rabbit).await;
}

/// Every client gets its own answer, though replies leave in another order than calls came.
async fn a_thousand_calls_at_a_time(app: &App, bus: &Shared) {
    const CALLS: usize = 1_000;
    bus.declare(&topology([("echo".to_owned(), queue(QueueKind::Rpc))])).await.unwrap();
    let calls = bus.consume("echo", 1_000).await.unwrap();
    // They wait for one another, and leave last first.
    echo(bus, calls, |n| Duration::from_millis(2_000_u64.saturating_sub(n * 2)));
    let mut asked: FuturesUnordered<_> = (0..CALLS)
        .map(|n| async move {
            let answer = app.json(&format!("/api/v1/echo?n={n}")).await;
            assert_eq!(answer["params"]["query"]["n"], n, "{answer}");
        })
        .collect();
    let mut answered = 0;
    while asked.next().await.is_some() {
        answered += 1;
    }
    assert_eq!(answered, CALLS);
}

async fn poison_reaches_the_dead_letter_queue(app: &App, bus: &Shared) {
    let id = app.keep(r#"{"text":"first"}"#).await;
    app.kept(1).await;
    let mut dead = bus.consume("messages.dead", 10).await.unwrap();
    let same_id = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/x","type":"other","time":"2026-01-01T00:00:00Z","data":1}}"#
    );
    for (body, reason) in [("no event", "not-an-event"), (same_id.as_str(), "id-conflict")] {
        let properties = Properties {
            content_type: Some("application/cloudevents+json".into()),
            persistent: true,
            ..Properties::default()
        };
        let poison = Message { properties, ..to("messages.persist", body.to_owned()) };
        assert_eq!(bus.publish(poison, soon()).await, Outcome::Routed);
        let buried = tokio::time::timeout(Duration::from_secs(20), dead.next()).await.unwrap().unwrap();
        assert_eq!(buried.message.body, body);
        let headers = &buried.message.properties.headers;
        assert_eq!(headers["fpesa-reason"], HeaderValue::Text(reason.into()));
        assert_eq!(headers["fpesa-queue"], HeaderValue::Text("messages.persist".into()));
        assert!(headers.contains_key("fpesa-detail"));
        buried.ticket.ack();
    }
}

/// A browser's queue satisfies `mandatory`: that the queue which keeps messages is gone must be known all the same.
async fn a_queue_is_deleted_while_a_browser_listens(app: &App, rabbit: &Rabbit) {
    let mut browser = crate::feed::tail(app, "messages/#").await;
    let id = app.keep(r#"{"text":"to everyone"}"#).await;
    assert!(browser.line().await.contains(&id));
    app.kept(2).await;
    // With its consumer away nothing but the watch brings it back: as in a gateway of its own.
    let deleted = Instant::now();
    rabbit.ctl(&["delete_queue", "messages.persist"]);
    let told = Instant::now();
    let (status, ready) = eventually("readiness to say so, or the queue to be back", || async {
        let ready = app.get("/readyz").await;
        let status = ready.status();
        let body: Value = ready.json().await.unwrap();
        (body["missing"][0] == "messages.persist").then_some((status, body))
    })
    .await;
    // Other routes serve.
    assert_eq!((status.as_u16(), &ready["ready"]), (200, &true.into()));
    assert_eq!(ready["degraded"][0]["route"], "post-message", "{ready}");
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
    println!("noticed {:?} after the command, {:?} after its end", deleted.elapsed(), told.elapsed());
    self::ready(app).await;
    let id = eventually("a 202", || async {
        let response = app.post("/api/v1/messages", r#"{"text":"again"}"#).await;
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        if status == 202 {
            return Some(body["id"].as_str().unwrap().to_owned());
        }
        assert_eq!((status, &body["outcome"]), (503, &"unroutable".into()), "{body}");
        None
    })
    .await;
    eventually("it to be kept", || async {
        (app.get(&format!("/api/v1/messages/{id}")).await.status() == 200).then_some(())
    })
    .await;
}

/// A queue that others declare is not ours to make: 503 until they do.
async fn others_queue_is_deleted(app: &App, rabbit: &Rabbit) {
    let post = || async { app.post("/api/v1/passive", r#"{"text":"x"}"#).await.status().as_u16() };
    assert_eq!(post().await, 202);
    rabbit.ctl(&["delete_queue", "own.passive"]);
    let gone = Instant::now();
    eventually("503", || async { (post().await == 503).then_some(()) }).await;
    assert!(gone.elapsed() < Duration::from_secs(1), "{:?}", gone.elapsed());
    // Two looks later it is still so, and the other routes go on.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let refused = app.post("/api/v1/passive", r#"{"text":"x"}"#).await;
    assert_eq!(refused.json::<Value>().await.unwrap()["outcome"], "unroutable");
    let body = app.json("/readyz").await;
    assert_eq!(body["missing"], serde_json::json!(["own.passive"]), "{body}");
    app.keep(r#"{"text":"meanwhile"}"#).await;
    let bus: Shared = Amqp::connect(Options::at(&rabbit.url()).unwrap());
    let others = topology([("own.passive".to_owned(), queue(QueueKind::Classic))]);
    eventually("the link", || async { bus.declare(&others).await.ok() }).await;
    eventually("202", || async { (post().await == 202).then_some(()) }).await;
    bus.close().await;
}

/// A publish to an exchange that is gone closes the channel, which is no news to any other message.
async fn the_broker_closes_the_channel(app: &App, rabbit: &Rabbit) {
    let post = || async {
        let response = app.post("/api/v1/own", r#"{"text":"x"}"#).await;
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap())
    };
    assert_eq!(post().await.0, 202);
    rabbit.ctl(&[
        "eval",
        "rabbit_exchange:delete(rabbit_misc:r(<<\"/\">>, exchange, <<\"own\">>), false, <<\"test\">>).",
    ]);
    let gone = Instant::now();
    let mut told = HashSet::new();
    // The table declares the exchange: it is there again by itself, and its bindings.
    loop {
        let (status, body) = post().await;
        if status == 202 && gone.elapsed() > Duration::from_secs(1) {
            break;
        }
        told.insert((status, body["outcome"].as_str().unwrap_or_default().to_owned()));
        assert!(gone.elapsed() < Duration::from_secs(10), "{told:?}");
        assert!(status == 202 || (status == 503 && body["outcome"] == "unroutable"), "{status} {body}");
        app.keep(r#"{"text":"another route's"}"#).await;
    }
    println!("with the exchange gone: {told:?}");
    self::ready(app).await;
}

/// A memory alarm: nothing hangs, everything is told, and it serves again when the alarm ends.
async fn an_alarm_blocks_and_ends(app: &App, rabbit: &Rabbit) {
    let before = crate::support::poster::history(app).await.len();
    let poster = Poster::start(&[app], 16);
    tokio::time::sleep(Duration::from_millis(300)).await;
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.00001"]);
    eventually("the alarm to be known", || async { (app.json("/readyz").await["bus"] == "blocked").then_some(()) })
        .await;
    let blocked = Instant::now();
    while blocked.elapsed() < Duration::from_secs(2) {
        let start = Instant::now();
        let refused = app.post("/api/v1/messages", r#"{"text":"x"}"#).await;
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
        let problem: Value = refused.json().await.unwrap();
        assert!(problem["type"].as_str().unwrap().ends_with("/broker-blocked"), "{problem}");
        assert_eq!(problem["outcome"], "not-sent");
        assert!(start.elapsed() < AT_ONCE + poster.pace());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.6"]);
    let ended = Instant::now();
    self::ready(app).await;
    assert!(ended.elapsed() < BACK_WITHIN);
    let pace = poster.pace();
    let answers = poster.end().await;
    println!("an alarm: {:?}", counts(&answers));
    at_once(&answers, pace);
    // Those of the ledger, and nothing that was told not to be sent.
    let kept = answers.iter().filter(|answer| answer.status == 202).count();
    let unknown = answers.iter().filter(|answer| answer.status == 504).count();
    assert!(unknown <= 16, "no more than were under way");
    let there = eventually("all to be kept", || async {
        let there = crate::support::poster::history(app).await.len() - before;
        (there >= kept).then_some(there)
    })
    .await;
    assert!(there <= kept + unknown, "{there} of {kept} and {unknown}");
}

/// An orderly restart and a `kill -9`: 202s before and after, and honest answers between.
async fn restarts(app: &App, rabbit: &mut Rabbit) {
    for kill in [false, true] {
        let probe = Probe::new(app);
        let before = crate::support::poster::history(app).await;
        let poster = Poster::start(&[app], 16);
        probe.until("").await;
        if kill {
            rabbit.kill9();
        } else {
            rabbit.stop();
        }
        probe.until("broker-unavailable").await;
        rabbit.restart().await;
        let took = probe.until("").await;
        println!("serving {took:?} after the broker's return");
        assert!(took < BACK_WITHIN, "{took:?}");
        let pace = poster.pace();
        let answers = poster.end().await;
        println!("a restart: {:?}", counts(&answers));
        at_once(&answers, pace);
        probe.add(answers);
        // What was there before is no stranger.
        let known = before.into_keys().map(|id| Answer {
            at: Instant::now(),
            took: Duration::ZERO,
            status: 202,
            kind: String::new(),
            id: Some(id),
        });
        probe.add(known.collect());
        probe.judge().await;
    }
}
