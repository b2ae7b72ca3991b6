//! Stores that are away, silent or read-only, and workers that die at the worst moment: workers as processes of their own
//! on RabbitMQ, judged by the ledger. The same for every store that processes share.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fpesa::{
    bus::{
        Bus as _,
        amqp::{Amqp, Options},
    },
    message::HeaderValue,
};
use fpesa_workers::store::{self, PageQuery, Store};
use mongodb::bson::doc;
use serde_json::Value;

use crate::{
    store_contract::{at, newest},
    support::{
        app::{App, Start},
        eventually,
        mongodb::Mongodb,
        poster::{self, Poster},
        postgres::Postgres,
        proxy::{Mode, Proxy},
        rabbit::Rabbit,
        release::Release,
    },
};

/// Sooner than a call that waits for the store would be answered.
const AT_ONCE: Duration = Duration::from_secs(1);

enum Server {
    Postgres(Postgres),
    Mongodb(Mongodb),
}

impl Server {
    fn database(&self) -> (String, u16) {
        match self {
            Self::Postgres(server) => (server.database(), server.port()),
            // Direct, or the driver would ask the server for its own address and leave the proxy out.
            Self::Mongodb(server) => (format!("{}directConnection=true", server.database()), server.port()),
        }
    }

    fn kill9(&mut self) {
        match self {
            Self::Postgres(server) => server.kill9(),
            Self::Mongodb(server) => server.kill9(),
        }
    }

    fn restart(&mut self) {
        match self {
            Self::Postgres(server) => server.restart(),
            Self::Mongodb(server) => server.restart(),
        }
    }

    /// An operator's rule that some content never passes.
    async fn refuse_poison(&self, url: &str) {
        match self {
            Self::Postgres(_) => {
                let rule =
                    "ALTER TABLE fpesa_event ADD CHECK (convert_from(text, 'UTF8') NOT LIKE '%messages/poison%')";
                Postgres::sql(url, rule);
            }
            Self::Mongodb(_) => {
                let rule = doc! { "collMod": "fpesa_event", "validator": { "topic": { "$ne": "messages/poison" } } };
                Mongodb::open(url).await.run_command(rule).await.unwrap();
            }
        }
    }
}

/// A gateway on a broker, and a store; workers reach both through proxies.
struct House {
    server: Server,
    rabbit: Rabbit,
    gateway: App,
    bus: Proxy,
    link: Proxy,
    /// The store's URL without and with the proxy.
    url: String,
    proxied: String,
}

impl House {
    async fn start(on: Release, server: Server) -> Self {
        let rabbit = Rabbit::without_feed(on).await;
        let gateway = Start::up().command(&["gateway", "--bus", &rabbit.url()]).start().await;
        let (url, port) = server.database();
        let (bus, link) = (Proxy::start(rabbit.port).await, Proxy::start(port).await);
        let proxied = url.replace(&format!(":{port}/"), &format!(":{}/", link.port));
        ready(&gateway).await;
        Self { server, rabbit, gateway, bus, link, url, proxied }
    }

    async fn work(&self, names: &[&str], bus: u16, store: &str) -> App {
        let bus = format!("amqp://guest:guest@127.0.0.1:{bus}/%2f");
        let settings = ["--bus", &bus, "--store", store];
        Start::beside(&self.gateway).command(&["work"]).args(names).args(&settings).start().await
    }

    /// Posts, each of which gets a 202 whatever the store does.
    async fn post(&self, topic: &str, count: usize) {
        for n in 0..count {
            self.gateway.keep(&format!(r#"{{"text":"message {n}","topic":"{topic}"}}"#)).await;
        }
    }

    /// How many messages the queue holds, those with a worker too, as the broker counts them.
    async fn queued(&self, queue: &str, what: &str, count: usize) {
        eventually(&format!("{count} {what} in {queue}"), || async {
            let lines = self.rabbit.ctl(&["-q", "list_queues", "name", what]);
            let mut rows = lines.lines().filter_map(|line| line.split_once('\t'));
            rows.any(|(name, found)| name == queue && found.trim() == count.to_string()).then_some(())
        })
        .await;
    }

    async fn store(&self) -> std::sync::Arc<dyn Store> {
        store::open(at(&self.url)).await.unwrap()
    }
}

async fn ready(app: &App) {
    eventually("readiness", || async { (app.get("/readyz").await.status() == 200).then_some(()) }).await;
}

async fn stop(mut app: App) {
    app.term();
    assert!(app.wait(Duration::from_secs(10)).await.success());
}

/// What a persist worker said of its messages, by verdict.
async fn said(worker: &App) -> BTreeMap<String, u64> {
    let text = worker.get("/metrics").await.text().await.unwrap();
    let counts = text.lines().filter(|line| line.starts_with("fpesa_worker_events_total{worker=\"persist\""));
    counts
        .map(|line| {
            let (labels, count) = line.rsplit_once(' ').unwrap();
            (labels.split('"').nth(3).unwrap().to_owned(), count.parse().unwrap())
        })
        .collect()
}

/// The commit goes through, the acks do not, and the worker is gone: all come again, and none is kept twice.
async fn killed_between_commit_and_ack(house: &House) {
    const MESSAGES: usize = 50;
    let mut worker = house.work(&["persist"], house.bus.port, &house.proxied).await;
    house.link.set(Mode::Silent);
    house.post("once", MESSAGES).await;
    house.queued("messages.persist", "messages_unacknowledged", MESSAGES).await;
    house.bus.set(Mode::Silent);
    house.link.set(Mode::Pass);
    let (store, all) = (house.store().await, PageQuery { count: true, ..newest(1) });
    eventually("the commit", || async { (store.page(&all).await.ok()?.total == Some(MESSAGES as u64)).then_some(()) })
        .await;
    worker.kill9();
    house.bus.set(Mode::Reset);
    let next = house.work(&["persist"], house.rabbit.port, &house.url).await;
    house.queued("messages.persist", "messages", 0).await;
    house.bus.set(Mode::Pass);
    let said = said(&next).await;
    assert_eq!((said["duplicate"], said["kept"], said["rejected"]), (MESSAGES as u64, 0, 0), "{said:?}");
    assert_eq!(store.page(&all).await.unwrap().total, Some(MESSAGES as u64));
    stop(next).await;
}

/// Workers die again and again under load, each in the middle of its work.
async fn killed_in_a_loop(house: &House) {
    let history = house.work(&["history"], house.rabbit.port, &house.url).await;
    let mut workers = vec![
        house.work(&["persist"], house.rabbit.port, &house.url).await,
        house.work(&["persist"], house.rabbit.port, &house.url).await,
    ];
    eventually("an answer", || async { (house.gateway.get("/api/v1/messages").await.status() == 200).then_some(()) })
        .await;
    let before = poster::history(&house.gateway).await;
    let load = Poster::start(&[&house.gateway], 8);
    for _ in 0..6 {
        let mut worker = workers.remove(0);
        eventually("it to have kept some", || async { (said(&worker).await["kept"] > 100).then_some(()) }).await;
        worker.kill9();
        workers.push(house.work(&["persist"], house.rabbit.port, &house.url).await);
    }
    let answers = load.end().await;
    assert!(answers.iter().all(|answer| answer.status == 202), "{:?}", poster::counts(&answers));
    house.gateway.kept((before.len() + answers.len()) as u64).await;
    let there = poster::history(&house.gateway).await;
    assert!(there.values().all(|count| *count == 1), "none twice");
    assert!(answers.iter().all(|answer| there.contains_key(answer.id.as_ref().unwrap())), "none missing");
    house.queued("messages.dead", "messages", 0).await;
    println!("{} messages, 6 workers killed", answers.len());
    for worker in workers {
        stop(worker).await;
    }
    stop(history).await;
}

/// While the store is away: readiness and metrics say so, calls are told so at once, nothing is acked; then it goes on.
async fn away_and_back(house: &mut House) {
    let worker = house.work(&["persist", "history"], house.rabbit.port, &house.proxied).await;
    ready(&worker).await;
    for outage in ["reset", "silent", "killed"] {
        let kept = total(&house.gateway).await;
        match outage {
            "reset" => house.link.set(Mode::Reset),
            "silent" => house.link.set(Mode::Silent),
            _ => house.server.kill9(),
        }
        house.post("waits", 5).await;
        eventually("readiness to tell", || async { is_down(&worker).await.then_some(()) }).await;
        let metrics = worker.get("/metrics").await.text().await.unwrap();
        assert!(metrics.contains("fpesa_store_up 0"), "{outage}");
        // The first may have to find out; then whoever asks is told at once.
        eventually("calls to be told at once", || async {
            let start = Instant::now();
            let response = house.gateway.get("/api/v1/messages").await;
            let took = start.elapsed();
            assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
            let problem: Value = response.json().await.unwrap();
            assert!(problem["type"].as_str().unwrap().ends_with("/store-unavailable"), "{outage}: {problem}");
            (took < AT_ONCE).then_some(())
        })
        .await;
        house.queued("messages.persist", "messages", 5).await;
        match outage {
            "killed" => house.server.restart(),
            _ => house.link.set(Mode::Pass),
        }
        ready(&worker).await;
        eventually("an answer", || async {
            (house.gateway.get("/api/v1/messages").await.status() == 200).then_some(())
        })
        .await;
        house.gateway.kept(kept + 5).await;
        house.queued("messages.persist", "messages", 0).await;
    }
    house.queued("messages.dead", "messages", 0).await;
    stop(worker).await;
}

/// Whether a worker says that its store is down.
async fn is_down(worker: &App) -> bool {
    let response = worker.get("/readyz").await;
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    status == 503 && body["ready"] == false && body["store"] == "down"
}

async fn total(app: &App) -> u64 {
    eventually("an answer", || async {
        let response = app.get("/api/v1/messages?limit=1&count=true").await;
        if response.status() == 200 { response.json::<Value>().await.ok()?["total"].as_u64() } else { None }
    })
    .await
}

/// Only what can never be stored goes to the dead-letter queue, and keeps nothing else out.
async fn what_can_never_be_stored(house: &House) {
    house.server.refuse_poison(&house.url).await;
    let before = house.store().await.page(&PageQuery { count: true, ..newest(1) }).await.unwrap().total.unwrap();
    // All in one batch: they are there before the worker is.
    house.post("good", 10).await;
    let poison = house.gateway.keep(r#"{"text":"drink me","topic":"poison"}"#).await;
    house.post("good", 10).await;
    let worker = house.work(&["persist", "history"], house.rabbit.port, &house.url).await;
    house.gateway.kept(before + 20).await;
    let bus = Amqp::connect(Options::at(&house.rabbit.url()).unwrap());
    let mut dead = eventually("to consume", || async { bus.consume("messages.dead", 10).await.ok() }).await;
    let letter = dead.next().await.unwrap();
    let header = |name: &str| match letter.message.properties.headers.get(name) {
        Some(HeaderValue::Text(text)) => text.clone(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(letter.message.properties.message_id.as_ref(), Some(&poison));
    assert_eq!((header("fpesa-reason").as_str(), header("fpesa-queue").as_str()), ("not-storable", "messages.persist"));
    assert!(header("fpesa-detail").contains("refuses"), "{}", header("fpesa-detail"));
    letter.ticket.ack();
    house.queued("messages.dead", "messages", 0).await;
    assert_eq!(said(&worker).await["rejected"], 1);
    bus.close().await;
    stop(worker).await;
}

/// A database that is made read-only under a worker's feet: readiness tells before a message does, reading goes on.
async fn read_only(house: &House) {
    let worker = house.work(&["persist", "history"], house.rabbit.port, &house.url).await;
    ready(&worker).await;
    let kept = total(&house.gateway).await;
    let set = |on: &str| {
        Postgres::sql(&house.url, &format!("ALTER SYSTEM SET default_transaction_read_only = {on}"));
        Postgres::sql(&house.url, "SELECT pg_reload_conf()");
    };
    set("on");
    eventually("readiness to tell", || async { is_down(&worker).await.then_some(()) }).await;
    house.post("waits", 5).await;
    assert_eq!(total(&house.gateway).await, kept);
    house.queued("messages.persist", "messages", 5).await;
    set("off");
    house.gateway.kept(kept + 5).await;
    ready(&worker).await;
    house.queued("messages.dead", "messages", 0).await;
    stop(worker).await;
}

crate::on_each_rabbitmq!(of_postgres, of_mongodb);

async fn of_postgres(on: Release) {
    let mut house = House::start(on, Server::Postgres(Postgres::on(on))).await;
    killed_between_commit_and_ack(&house).await;
    killed_in_a_loop(&house).await;
    away_and_back(&mut house).await;
    read_only(&house).await;
    what_can_never_be_stored(&house).await;
}

async fn of_mongodb(on: Release) {
    let mut house = House::start(on, Server::Mongodb(Mongodb::own(&[]))).await;
    killed_between_commit_and_ack(&house).await;
    killed_in_a_loop(&house).await;
    away_and_back(&mut house).await;
    what_can_never_be_stored(&house).await;
}
