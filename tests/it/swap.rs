//! Workers as processes of their own, on RabbitMQ and PostgreSQL: swapped under load, and in another language.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fpesa::{
    bus::amqp::{Amqp, Options},
    message::{HeaderValue, Message},
    topology::Topology,
};
use reqwest::Client;
use serde_json::Value;
use tokio::time::MissedTickBehavior;

use crate::{
    bus_contract::{Shared, soon},
    support::{
        app::{App, Start},
        eventually, poster,
        postgres::Postgres,
        python::Script,
        rabbit::Rabbit,
        release::Release,
    },
};

/// A gateway, and the two servers that workers need.
struct House {
    rabbit: Rabbit,
    store: String,
    gateway: App,
    _postgres: Postgres,
}

impl House {
    async fn start(on: Release) -> Self {
        let postgres = Postgres::on(on);
        let rabbit = Rabbit::without_feed(on).await;
        let gateway = Start::up().command(&["gateway", "--bus", &rabbit.url()]).start().await;
        eventually("readiness", || async { (gateway.get("/readyz").await.status() == 200).then_some(()) }).await;
        Self { rabbit, store: postgres.database(), gateway, _postgres: postgres }
    }

    async fn work(&self, names: &[&str]) -> App {
        let settings = ["--bus", &self.rabbit.url(), "--store", &self.store];
        Start::beside(&self.gateway).command(&["work"]).args(names).args(&settings).start().await
    }

    /// Who answers, as operators can see it.
    async fn bus(&self) -> Shared {
        let bus: Shared = Amqp::connect(Options::at(&self.rabbit.url()).unwrap());
        // A link for calls is made where a topology has some.
        bus.declare(&Topology { calls: true, ..Topology::default() }).await.unwrap();
        bus
    }
}

async fn who_answers(bus: &Shared) -> Option<String> {
    let mut call = Message { key: "messages.history".into(), ..Message::default() };
    call.body = r#"{"params":{"path":{},"query":{"limit":1}}}"#.into();
    let reply = bus.call(call, soon()).await.ok()?;
    match reply.properties.headers.get("fpesa-worker") {
        Some(HeaderValue::Text(worker)) => Some(worker.clone()),
        _ => None,
    }
}

/// Requests at a steady rate until told to stop; what failed, and the ids that got a 202.
struct Load {
    stop: Arc<AtomicBool>,
    posts: tokio::task::JoinHandle<Ledger>,
    gets: tokio::task::JoinHandle<Ledger>,
}

#[derive(Default)]
struct Ledger {
    kept: HashSet<String>,
    answered: usize,
    failed: Vec<String>,
}

impl Load {
    fn start(app: &App, posts: u32, gets: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let url = app.url("/api/v1/messages");
        let steady = |rate, post| tokio::spawn(steady(app.client.clone(), url.clone(), rate, post, stop.clone()));
        Self { posts: steady(posts, true), gets: steady(gets, false), stop }
    }

    async fn end(self) -> (Ledger, Ledger) {
        self.stop.store(true, Ordering::Relaxed);
        (self.posts.await.unwrap(), self.gets.await.unwrap())
    }
}

/// Open loop: a request leaves when its time has come, whatever became of those before.
async fn steady(client: Client, url: String, rate: u32, post: bool, stop: Arc<AtomicBool>) -> Ledger {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (done, mut results) = tokio::sync::mpsc::unbounded_channel();
    let sent = AtomicUsize::new(0);
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let n = sent.fetch_add(1, Ordering::Relaxed);
        let (client, url, done) = (client.clone(), url.clone(), done.clone());
        tokio::spawn(async move {
            let request = if post {
                let body = format!(r#"{{"text":"message {n}","topic":"swap"}}"#);
                client.post(url).header("content-type", "application/json").body(body)
            } else {
                client.get(url).query(&[("limit", "2")])
            };
            let answer = async {
                let response = request.send().await.map_err(|error| error.to_string())?;
                let status = response.status().as_u16();
                let body = response.text().await.map_err(|error| error.to_string())?;
                if status == if post { 202 } else { 200 } { Ok(body) } else { Err(format!("{status} {body}")) }
            };
            let _ = done.send(answer.await);
        });
    }
    drop(done);
    let mut ledger = Ledger::default();
    while let Some(result) = results.recv().await {
        match result {
            Ok(body) if post => {
                let body: Value = serde_json::from_str(&body).unwrap();
                ledger.kept.insert(body["id"].as_str().unwrap().to_owned());
            }
            Ok(_) => ledger.answered += 1,
            Err(why) => ledger.failed.push(why),
        }
    }
    ledger
}

/// A worker's own count of what it did.
async fn did(app: &App) -> BTreeMap<String, u64> {
    let text = app.get("/metrics").await.text().await.unwrap();
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("fpesa_worker_events_total{")) {
        let (labels, count) = line.rsplit_once(' ').unwrap();
        let worker = labels.split('"').nth(1).unwrap();
        *sums.entry(worker.to_owned()).or_default() += count.parse::<u64>().unwrap();
    }
    sums
}

/// Stops a worker as an operator would, and looks that it took part.
async fn stop(mut worker: App) {
    let name = eventually("the worker to have served", || async {
        let served = did(&worker).await;
        served.iter().find(|(_, count)| **count > 0).map(|(name, _)| name.clone())
    })
    .await;
    worker.term();
    let status = worker.wait(Duration::from_secs(10)).await;
    assert!(status.success(), "{name}: {status}");
}

crate::on_each_rabbitmq!(ten_swaps_under_load_lose_nothing, rust_for_python_and_back);

async fn ten_swaps_under_load_lose_nothing(on: Release) {
    const SWAPS: usize = 10;
    let house = House::start(on).await;
    let (mut persist, mut history) = (house.work(&["persist"]).await, house.work(&["history"]).await);
    let bus = house.bus().await;
    eventually("an answer", || who_answers(&bus)).await;
    let load = Load::start(&house.gateway, 500, 100);
    let mut seen = HashSet::new();
    for swap in 0..SWAPS {
        // The new one first, then the old one goes; both kinds at once, by turns in the other order.
        let next = house.work(&["persist"]).await;
        let also = house.work(&["history"]).await;
        for _ in 0..4 {
            seen.extend(who_answers(&bus).await);
        }
        let (old, older) = (std::mem::replace(&mut persist, next), std::mem::replace(&mut history, also));
        if swap % 2 == 0 {
            stop(old).await;
            stop(older).await;
        } else {
            stop(older).await;
            stop(old).await;
        }
    }
    let (posts, gets) = load.end().await;
    assert!(posts.failed.is_empty(), "{} posts failed: {:?}", posts.failed.len(), posts.failed.first());
    assert!(gets.failed.is_empty(), "{} GETs failed: {:?}", gets.failed.len(), gets.failed.first());
    assert!(posts.kept.len() > 1_000 && gets.answered > 200, "{} {}", posts.kept.len(), gets.answered);
    house.gateway.kept(posts.kept.len() as u64).await;
    let there = poster::history(&house.gateway).await;
    assert!(there.values().all(|count| *count == 1));
    assert_eq!(there.into_keys().collect::<HashSet<_>>(), posts.kept);
    println!("{} posts, {} GETs, answered by {} processes", posts.kept.len(), gets.answered, seen.len());
    assert!(seen.len() > SWAPS / 2, "{seen:?}");
    stop(persist).await;
    stop(history).await;
    bus.close().await;
}

/// The same worker in Python, on the same queue and store: swapped in and out, and its answers are the same.
async fn rust_for_python_and_back(on: Release) {
    let house = House::start(on).await;
    let persist = house.work(&["persist"]).await;
    let mut rust = house.work(&["history"]).await;
    let bus = house.bus().await;
    let mut ids = Vec::new();
    for n in 0..30 {
        let body = format!(r#"{{"text":"ü {n}","topic":"t{}.a","data":{{"n": 12345678901234567890.10}}}}"#, n % 3);
        ids.push(house.gateway.keep(&body.replace(".a", "-a")).await);
    }
    house.gateway.kept(30).await;
    let questions = questions(&house.gateway, &ids).await;
    let mut by_rust = Vec::new();
    for question in &questions {
        by_rust.push(ask(&house.gateway, question).await);
    }
    let load = Load::start(&house.gateway, 50, 50);
    let settings = ["--bus", &house.rabbit.url(), "--store", &house.store];
    let mut python = Script::start("workers/python/history.py", &settings, "working: history");
    rust.term();
    assert!(rust.wait(Duration::from_secs(10)).await.success());
    let pid = format!("@{}", python.pid());
    eventually("Python to answer", || async { who_answers(&bus).await.filter(|who| who.ends_with(&pid)) }).await;
    let (posts, gets) = load.end().await;
    assert_eq!((posts.failed, gets.failed), (vec![], vec![]));
    // The questions are of the messages before the load: what came since is later.
    for (question, rust) in questions.iter().zip(&by_rust) {
        let python = ask(&house.gateway, question).await;
        assert_eq!(python, *rust, "{question}");
    }
    let load = Load::start(&house.gateway, 50, 50);
    let rust = house.work(&["history"]).await;
    python.term();
    assert!(python.wait(Duration::from_secs(10)).await);
    let pid = format!("@{}", rust.pid());
    let who = who_answers(&bus).await;
    assert!(who.as_ref().is_some_and(|who| who.ends_with(&pid)), "{who:?} is not {pid}");
    let (posts, gets) = load.end().await;
    assert_eq!((posts.failed, gets.failed), (vec![], vec![]));
    stop(persist).await;
    stop(rust).await;
    bus.close().await;
}

/// Requests whose answers do not change when messages arrive later.
async fn questions(app: &App, ids: &[String]) -> Vec<String> {
    let page = app.json("/api/v1/messages?limit=7").await;
    let before = page["next"].as_str().unwrap();
    let until = page["items"][0]["time"].as_str().unwrap();
    let one = &ids[3];
    [
        format!("/{one}"),
        "/0193f1c2-7d3a-7c3e-9d4e-0123456789ab".into(),
        format!("?before={before}&limit=5"),
        format!("?before={before}&limit=5&topic=messages/t1-a&until={until}&count=true"),
        format!("?until={until}&limit=30&topic=messages/%2B"),
        format!("?until={until}&limit=30&topic=%23&count=true"),
        format!("?until={until}&after={one}&limit=4"),
        "?after=0193f1c2-7d3a-7c3e-9d4e-0123456789ab".into(),
        format!("?until={until}&topic=nothing/%23&count=true"),
        format!("?before={before}x"),
        format!("?before={before}&after={one}"),
        "?topic=a%23".into(),
        "?topic=a/b%2B".into(),
    ]
    .to_vec()
}

/// Status, link and body.
async fn ask(app: &App, question: &str) -> (u16, Option<String>, Value) {
    let start = Instant::now();
    let response = app.get(&format!("/api/v1/messages{question}")).await;
    assert!(start.elapsed() < Duration::from_secs(5));
    let link = response.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
    let status = response.status().as_u16();
    let mut body: Value = response.json().await.unwrap();
    if let Some(problem) = body.as_object_mut() {
        problem.remove("instance");
    }
    (status, link, body)
}
