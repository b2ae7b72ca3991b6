//! One message harms no other: what RabbitMQ refuses of one request is that request's answer, and nobody else notices.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use reqwest::Client;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::{
    app::{App, Start},
    eventually,
    rabbit::Rabbit,
    release::Release,
};

crate::on_each_rabbitmq!(one_message_harms_no_other);

/// What the broker takes at most.
const MAX_MESSAGE_BYTES: usize = 65_536;

const TABLE: &str = r##"
version: 1
routes:
  - { id: good, method: POST, path: /good, body: {}, publish: { exchange: amq.topic, key: good.posts } }
  - { id: ask, method: GET, path: /ask, call: { queue: answers, timeout: 10s } }
  - { id: silent, method: GET, path: /silent, call: { queue: silent, timeout: 300ms } }
  # Refused, each for a reason of its own.
  - { id: closed, method: POST, path: /closed, body: {}, publish: { exchange: closed, key: any } }
  - { id: guarded, method: POST, path: "/guarded/{k}", params: { path: { k: { type: string } } }, body: {}, publish: { exchange: guarded, key: "{path.k}" } }
  - { id: large, method: POST, path: /large, body: { max_size: 1MiB }, publish: { exchange: amq.topic, key: good.large } }
  - { id: gone, method: POST, path: /gone, body: {}, publish: { exchange: doomed, key: any, unroutable: accept } }
  - { id: bent, method: POST, path: /bent, body: {}, publish: { exchange: amq.topic, key: good.bent, headers: { CC: text } } }
  - { id: ask-closed, method: GET, path: /ask-closed, call: { exchange: closed, key: any } }
  - { id: ask-large, method: POST, path: /ask-large, body: { max_size: 1MiB }, call: { queue: answers } }
exchanges:
  closed: { type: topic }
  guarded: { type: topic }
  doomed: { type: fanout, declare: passive }
queues:
  kept: { bind: [{ exchange: amq.topic, key: "good.#" }, { exchange: closed, key: "#" }, { exchange: guarded, key: "#" }] }
  answers: { declare: passive }
  silent: { declare: passive }
"##;

/// A request that the broker refuses, and what its client is told.
struct Refused {
    route: &'static str,
    post: bool,
    path: &'static str,
    body: usize,
    status: u16,
    kind: &'static str,
    outcome: &'static str,
    exchange: &'static str,
}

const fn refused(route: &'static str, path: &'static str, exchange: &'static str) -> Refused {
    Refused { route, post: true, path, body: 2, status: 502, kind: "broker-refused", outcome: "rejected", exchange }
}

const REFUSED: [Refused; 7] = [
    refused("closed", "/closed", "closed"),
    refused("guarded", "/guarded/denied", "guarded"),
    Refused { body: 200_000, status: 413, kind: "body-too-large", ..refused("large", "/large", "amq.topic") },
    Refused { status: 503, kind: "unroutable", outcome: "unroutable", ..refused("gone", "/gone", "doomed") },
    refused("bent", "/bent", "amq.topic"),
    Refused { post: false, ..refused("ask-closed", "/ask-closed", "closed") },
    Refused { body: 200_000, status: 413, kind: "body-too-large", ..refused("ask-large", "/ask-large", "") },
];

async fn one_message_harms_no_other(release: Release) {
    let rabbit = Rabbit::on_with(release, &format!("max_message_size = {MAX_MESSAGE_BYTES}")).await;
    rabbit.ctl(&["add_user", "gate", "gate"]);
    rabbit.ctl(&["set_permissions", "gate", ".*", "^(?!closed).*", ".*"]);
    rabbit.ctl(&["set_topic_permissions", "gate", "guarded", "^(?!denied).*", ".*"]);
    let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let others = others(&channel).await;
    let url = format!("amqp://gate:gate@127.0.0.1:{}/%2f", rabbit.port);
    let app = Start::up().table(TABLE).args(&["--bus", &url]).start().await;
    eventually("readiness", || async { (app.get("/readyz").await.status() == 200).then_some(()) }).await;
    channel.exchange_delete("doomed".into(), ExchangeDeleteOptions::default()).await.unwrap();

    let before = connections(&rabbit);
    let posts = Load::start(&app, true, "/good", 8);
    let calls = Load::start(&app, false, "/ask", 2);
    eventually("answers", || async { (posts.answered() > 100 && calls.answered() > 20).then_some(()) }).await;
    // The very first refusal of each kind disturbs most: twice, so that those of later ones are there too.
    let mut pace = tokio::time::interval(Duration::from_millis(500));
    for round in 0..2 {
        for case in &REFUSED {
            pace.tick().await;
            judge(&app, case, round).await;
            // A good one of a route that is refused at times is kept all the same.
            let guarded = app.post("/guarded/allowed", "{}").await;
            assert_eq!(guarded.status(), 202, "{}", case.route);
        }
    }
    let (posts, calls) = (posts.end().await, calls.end().await);
    println!("posts {posts:?}, calls {calls:?}");
    let (kept, answered) = (posts.get(&202).copied().unwrap_or_default(), calls.get(&200).copied().unwrap_or_default());
    assert!(kept * 100 >= posts.values().sum::<usize>() * 99 && !posts.contains_key(&503), "{posts:?}");
    assert!(answered * 100 >= calls.values().sum::<usize>() * 99 && !calls.contains_key(&503), "{calls:?}");
    // Each is still the same; one that counts consumers may have come on top.
    let lost = |now: Vec<String>| before.iter().filter(|pid| !now.contains(pid)).cloned().collect::<Vec<_>>();
    assert_eq!(lost(connections(&rabbit)), Vec::<String>::new(), "no connection was made anew");

    told_to_operators(&app).await;
    many_refusals_at_once(&app).await;
    assert_eq!(lost(connections(&rabbit)), Vec::<String>::new(), "no connection was made anew");
    the_correlation_id_is_the_one_on_the_wire(&app, &channel).await;
    others.abort();
}

/// What the table leaves to others: an exchange, a worker that answers at once, and a queue that nobody answers.
async fn others(channel: &Channel) -> JoinHandle<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare("doomed".into(), ExchangeKind::Fanout, durable, FieldTable::default()).await.unwrap();
    for queue in ["answers", "silent"] {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
    }
    let consuming = BasicConsumeOptions::default();
    let mut calls = channel.basic_consume("answers".into(), "".into(), consuming, FieldTable::default()).await.unwrap();
    let channel = channel.clone();
    tokio::spawn(async move {
        while let Some(Ok(call)) = calls.next().await {
            let properties = BasicProperties::default()
                .with_correlation_id(call.properties.correlation_id().clone().unwrap())
                .with_content_type("application/json".into());
            let to = call.properties.reply_to().clone().unwrap();
            channel.basic_publish("".into(), to, BasicPublishOptions::default(), b"{}", properties).await.unwrap();
            call.ack(BasicAckOptions::default()).await.unwrap();
        }
    })
}

/// The process ids that the broker gives to its connections.
fn connections(rabbit: &Rabbit) -> Vec<String> {
    let listed = rabbit.ctl(&["list_connections", "--silent", "pid", "user"]);
    let mut pids: Vec<String> = listed.lines().filter(|line| line.contains("gate")).map(str::to_owned).collect();
    assert!(pids.len() > 2, "{listed}");
    pids.sort();
    pids
}

async fn judge(app: &App, case: &Refused, round: usize) {
    let answer = if case.post {
        app.post(case.path, format!("\"{}\"", "x".repeat(case.body - 2))).await
    } else {
        app.get(case.path).await
    };
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = answer.text().await.unwrap();
    let problem: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{} {status} {text}", case.route));
    let route = case.route;
    assert_eq!(status, case.status, "{route} {round}: {problem}");
    assert_eq!(problem["type"], format!("https://fpesa.dev/problems/{}", case.kind), "{route} {round}");
    assert_eq!(problem["outcome"], case.outcome, "{route} {round}");
    assert!(!headers.contains_key("retry-after"), "{route} {round}");
    let limit = (case.status == 413).then_some(MAX_MESSAGE_BYTES as u64);
    assert_eq!(problem["limit"].as_u64(), limit, "{route} {round}");
    for secret in ["REFUSED", "PRECONDITION", "gate'", "vhost"] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// The log has the broker's words with where the message was to go, once for each route; metrics count every refusal.
async fn told_to_operators(app: &App) {
    let log = app.stderr();
    // What is missing is known before the broker has to refuse a message.
    assert!(log.contains("doomed"), "{log}");
    for case in REFUSED.iter().filter(|case| case.outcome == "rejected") {
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| {
                line.contains("the broker refused a message") && line.contains(&format!("\"{}\"", case.route))
            })
            .collect();
        assert!((1..=2).contains(&lines.len()), "{}: {lines:?}", case.route);
        assert!(lines[0].contains(case.exchange) && lines[0].contains("code"), "{lines:?}");
    }
    assert!(log.contains("ACCESS_REFUSED") && log.contains("\"denied\""), "{log}");
    let metrics = app.get("/metrics").await.text().await.unwrap();
    for case in REFUSED.iter().filter(|case| case.outcome == "rejected") {
        let name = if case.route.starts_with("ask") { "call" } else { "publish" };
        let series = format!("fpesa_{name}_total{{route=\"{}\",outcome=\"rejected\"}} 2", case.route);
        assert!(metrics.contains(&series), "{series}\n{metrics}");
    }
}

/// A crowd of refused requests beside a crowd of good ones of the same route.
async fn many_refusals_at_once(app: &App) {
    let requests = (0..200).map(|n| async move {
        let path = if n % 2 == 0 { "/guarded/denied" } else { "/guarded/allowed" };
        (n % 2, app.post(path, "{}").await.status().as_u16())
    });
    let answers: Vec<(usize, u16)> = futures::future::join_all(requests).await;
    for (good, status) in answers {
        assert_eq!(status, if good == 1 { 202 } else { 502 });
    }
}

async fn the_correlation_id_is_the_one_on_the_wire(app: &App, channel: &Channel) {
    let consuming = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut silent = channel.basic_consume("silent".into(), "".into(), consuming, FieldTable::default()).await.unwrap();
    let timeout = app.get("/silent").await;
    assert_eq!(timeout.status(), 504);
    let problem: Value = timeout.json().await.unwrap();
    let call = silent.next().await.unwrap().unwrap();
    let told = problem["correlation_id"].as_str().unwrap();
    assert_eq!(call.properties.correlation_id().as_ref().unwrap().as_str(), told);
}

/// Clients that ask without a pause, and count statuses.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<std::sync::atomic::AtomicUsize>,
    clients: Vec<JoinHandle<BTreeMap<u16, usize>>>,
}

impl Load {
    fn start(app: &App, post: bool, path: &str, clients: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let clients = (0..clients)
            .map(|_| tokio::spawn(ask(app.client.clone(), post, app.url(path), stop.clone(), Arc::clone(&answered))))
            .collect();
        Self { stop, answered, clients }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    async fn end(self) -> BTreeMap<u16, usize> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = BTreeMap::new();
        for client in self.clients {
            for (status, count) in client.await.unwrap() {
                *sum.entry(status).or_default() += count;
            }
        }
        sum
    }
}

async fn ask(
    client: Client,
    post: bool,
    url: String,
    stop: Arc<AtomicBool>,
    answered: Arc<std::sync::atomic::AtomicUsize>,
) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let request = if post {
            client.post(&url).header("content-type", "application/json").body("{}")
        } else {
            client.get(&url)
        };
        let status = request.send().await.unwrap().status().as_u16();
        *statuses.entry(status).or_default() += 1;
        answered.fetch_add(1, Ordering::Relaxed);
    }
    statuses
}
