//! What the broker has otherwise, refuses or loses: a candidate leaves no trace, each fault is its own route's, a user needs
//! no more than is printed, and a thousand queues cost little. One node for all of it.

use std::time::Duration;

use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;

use crate::support::{
    app::{App, Start},
    eventually,
    rabbit::Rabbit,
    release::Release,
    tap::Tap,
};

crate::on_each_rabbitmq!(what_a_broker_has_otherwise);

async fn what_a_broker_has_otherwise(release: Release) {
    let rabbit = Rabbit::without_feed(release).await;
    let owner = Owner::connect(&rabbit).await;
    a_candidate_leaves_no_trace(&rabbit, &owner).await;
    each_refusal_is_its_own_routes(&rabbit, &owner).await;
    the_messages_own_key_decides(&rabbit, &owner).await;
    no_consumer_is_told_at_once(&rabbit, &owner).await;
    just_what_is_needed(&rabbit, &owner).await;
    idle_queues_are_looked_at_seldom(&rabbit, &owner).await;
    if release != Release::Debian12 {
        one_difference_is_allowed(&rabbit, &owner).await;
    }
}

/// Somebody else on the broker, who may do everything.
struct Owner(Connection);

impl Owner {
    async fn connect(rabbit: &Rabbit) -> Self {
        Self(Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap())
    }

    async fn channel(&self) -> Channel {
        self.0.create_channel().await.unwrap()
    }

    async fn declare(&self, queue: &str, arguments: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel().await.queue_declare(queue.into(), options, table).await.unwrap();
    }

    async fn bind(&self, queue: &str, key: &str) {
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        self.channel()
            .await
            .queue_bind(queue.into(), "amq.topic".into(), key.into(), options, arguments)
            .await
            .unwrap();
    }

    async fn delete(&self, queue: &str) {
        self.channel().await.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }

    async fn has_queue(&self, queue: &str) -> bool {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        self.channel().await.queue_declare(queue.into(), options, FieldTable::default()).await.is_ok()
    }

    async fn has_exchange(&self, exchange: &str) -> bool {
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let channel = self.channel().await;
        channel.exchange_declare(exchange.into(), ExchangeKind::Topic, options, FieldTable::default()).await.is_ok()
    }
}

fn route(id: &str, exchange: &str, key: &str) -> String {
    format!(
        "  - {{ id: {id}, method: POST, path: /{id}, body: {{}}, publish: {{ exchange: '{exchange}', key: '{key}' }} }}\n"
    )
}

fn table(routes: &str, rest: &str) -> String {
    format!("version: 1\nroutes:\n{routes}{rest}")
}

async fn gateway(bus: &str, table: &str) -> App {
    Start::up().table(table).command(&["gateway", "--bus", bus]).start().await
}

async fn ready(app: &App) {
    eventually("readiness", || async { (app.get("/readyz?all").await.status() == 200).then_some(()) }).await;
}

async fn post(app: &App, path: &str) -> (u16, Value) {
    let response = app.post(path, "{}").await;
    (response.status().as_u16(), response.json().await.unwrap())
}

/// The entry of a route or queue in `degraded`.
async fn degraded(app: &App, kind: &str, name: &str) -> String {
    eventually(&format!("{kind} {name} to be degraded"), || async {
        let body = app.json("/readyz").await;
        let entries = body["degraded"].as_array()?.clone();
        let entry = entries.into_iter().find(|entry| entry[kind] == name)?;
        Some(entry["why"].as_str().unwrap().to_owned())
    })
    .await
}

fn line_of(table: &str, text: &str) -> u64 {
    table.lines().position(|line| line.contains(text)).unwrap() as u64 + 1
}

/// Process ids of our connections by what they are for.
fn links(rabbit: &Rabbit) -> Vec<String> {
    let listed = rabbit.ctl(&["-q", "list_connections", "pid", "client_properties"]);
    let mut links: Vec<String> = listed
        .lines()
        .filter_map(|line| {
            let name = line.split("\"fpesa ").nth(1).or_else(|| line.split("<<\"fpesa ").nth(1))?.split('"').next()?;
            Some(format!("{} {name}", line.split_whitespace().next()?))
        })
        .filter(|link| !link.contains("declare") && !link.contains("counts"))
        .collect();
    links.sort();
    links
}

async fn a_candidate_leaves_no_trace(rabbit: &Rabbit, owner: &Owner) {
    let good = table(
        &route("one", "amq.topic", "cand.one"),
        "queues:\n  cand.one: { bind: [{ exchange: amq.topic, key: cand.one }] }\n",
    );
    let app = gateway(&rabbit.url(), &good).await;
    ready(&app).await;
    assert_eq!(post(&app, "/one").await.0, 202);
    owner.declare("cand.differs", &[]).await;
    let before = links(rabbit);
    let routes = route("one", "amq.topic", "cand.one") + &route("two", "cand.new", "k");
    let bad = table(
        &routes,
        "exchanges:
  cand.new: { type: direct }
  cand.odd: { type: x-nobody-has-it }
  cand.odder: { type: x-nor-this }
queues:
  cand.one:
    bind: [{ exchange: amq.topic, key: cand.one }, { exchange: amq.topic, key: cand.more }]
  cand.two: { bind: [{ exchange: cand.new, key: k }] }
  cand.differs: {}
  cand.theirs: { declare: passive }
",
    );
    app.edit("routes.yaml", &bad);
    let (status, answer) = {
        let response = app.client.post(app.url("/reload")).send().await.unwrap();
        (response.status(), response.json::<Value>().await.unwrap())
    };
    assert_eq!(status, 409, "{answer}");
    let problems = answer["problems"].as_array().unwrap();
    for (name, words) in [
        ("cand.odd:", "x-nobody-has-it"),
        ("cand.odder:", "x-nor-this"),
        ("cand.differs:", "PRECONDITION_FAILED"),
        ("cand.theirs:", "is not on the broker"),
    ] {
        let line = line_of(&bad, name);
        let told = problems.iter().find(|problem| problem["line"] == line && problem["code"] == "topology");
        let told = told.unwrap_or_else(|| panic!("{name} line {line}: {answer}"));
        assert!(told["message"].as_str().unwrap().contains(words), "{told}");
    }
    let (status, _, stderr) = Start::beside(&app).command(&["reload", "--wait", "--url", &app.base]).run().await;
    assert!(status == 1 && stderr.contains("cand.odder") && stderr.contains("cand.differs"), "{stderr}");
    // What is in force is untouched, and nothing of the candidate is left.
    assert_eq!(app.get("/readyz?all").await.status(), 200);
    assert_eq!(post(&app, "/one").await.0, 202);
    assert_eq!(links(rabbit), before, "no link was lost");
    assert!(!owner.has_exchange("cand.new").await && !owner.has_queue("cand.two").await);
    let bindings = rabbit.ctl(&["-q", "list_bindings", "routing_key", "destination_name"]);
    assert!(!bindings.contains("cand.more"), "{bindings}");
    app.edit("routes.yaml", &good);
    eventually("the table to be good again", || async {
        (app.json("/readyz").await["reload"]["ok"] == true).then_some(())
    })
    .await;
}

async fn each_refusal_is_its_own_routes(rabbit: &Rabbit, owner: &Owner) {
    owner.declare("start.differs", &[]).await;
    let routes = route("good", "amq.topic", "start.good")
        + &route("differs", "", "start.differs")
        + &route("odd", "start.odd", "k")
        + &route("theirs", "", "start.theirs");
    let rest = "exchanges:
  start.odd: { type: x-nobody-has-it }
queues:
  start.good: { bind: [{ exchange: amq.topic, key: start.good }] }
  start.differs: {}
  start.theirs: { declare: passive }
";
    let app = gateway(&rabbit.url(), &table(&routes, rest)).await;
    for (route, words) in
        [("differs", "PRECONDITION_FAILED"), ("odd", "x-nobody-has-it"), ("theirs", "is not on the broker")]
    {
        let why = degraded(&app, "route", route).await;
        assert!(why.contains(words), "{why}");
        let (status, problem) = post(&app, &format!("/{route}")).await;
        assert_eq!((status, &problem["outcome"]), (503, &"unroutable".into()), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(&format!("start.{route}")), "{problem}");
    }
    assert_eq!(post(&app, "/good").await.0, 202);
    assert_eq!(
        (app.get("/readyz").await.status(), app.get("/readyz?all").await.status()),
        (200.try_into().unwrap(), 503.try_into().unwrap())
    );
    // What is mended on the broker serves again by itself.
    owner.delete("start.differs").await;
    owner.declare("start.theirs", &[]).await;
    for path in ["/differs", "/theirs"] {
        eventually("it to serve", || async { (post(&app, path).await.0 == 202).then_some(()) }).await;
    }
    let bad = gateway(
        &rabbit.url(),
        &table(&route("odd", "start.odd", "k"), "exchanges: { start.odd: { type: x-nobody-has-it } }\n"),
    )
    .await;
    degraded(&bad, "route", "odd").await;
    assert_eq!(bad.get("/readyz").await.status(), 503, "no route serves");
}

async fn the_messages_own_key_decides(rabbit: &Rabbit, owner: &Owner) {
    // As a browser's queue does, this one satisfies `mandatory`.
    owner.declare("key.browser", &[]).await;
    owner.bind("key.browser", "key.#").await;
    owner.declare("key.theirs", &[]).await;
    owner.bind("key.theirs", "key.theirs").await;
    let routes = "  - { id: any, method: POST, path: '/any/{k}', params: { path: { k: { type: string } } }, body: {}, publish: { exchange: amq.topic, key: 'key.{path.k}' } }\n";
    let rest = "queues:
  key.ours: { bind: [{ exchange: amq.topic, key: key.ours }] }
  key.theirs: { declare: passive, bind: [{ exchange: amq.topic, key: key.theirs }] }
";
    let app = gateway(&rabbit.url(), &table(routes, rest)).await;
    ready(&app).await;
    assert_eq!((post(&app, "/any/ours").await.0, post(&app, "/any/theirs").await.0), (202, 202));
    owner.delete("key.theirs").await;
    degraded(&app, "route", "any").await;
    let (status, problem) = post(&app, "/any/theirs").await;
    assert_eq!((status, &problem["outcome"]), (503, &"unroutable".into()), "{problem}");
    assert_eq!(post(&app, "/any/ours").await.0, 202);
    assert_eq!(app.get("/readyz").await.status(), 200, "some keys are served");
}

async fn no_consumer_is_told_at_once(rabbit: &Rabbit, owner: &Owner) {
    owner.declare("calls.classic", &[]).await;
    let routes = "  - { id: ask, method: GET, path: /ask, call: { queue: calls.classic, timeout: 20s } }\n";
    let app = gateway(&rabbit.url(), &table(routes, "queues: { calls.classic: { type: classic } }\n")).await;
    ready(&app).await;
    let refused = app.json("/ask").await;
    assert!(refused["type"].as_str().unwrap().ends_with("/no-worker"), "{refused}");
    // With a consumer the request is on its way: it is there to be read.
    let channel = owner.channel().await;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut consumer =
        channel.basic_consume("calls.classic".into(), "".into(), options, FieldTable::default()).await.unwrap();
    let asking = app.client.get(app.url("/ask")).send();
    let asked = async { futures::StreamExt::next(&mut consumer).await.unwrap().unwrap() };
    tokio::select! {
        delivery = asked => assert!(!delivery.data.is_empty()),
        answer = asking => panic!("{:?}", answer.unwrap().status()),
    }
}

/// A user with exactly what is printed runs the main job; with less of it, that is told.
async fn just_what_is_needed(rabbit: &Rabbit, owner: &Owner) {
    rabbit.ctl(&["add_user", "lean", "lean"]);
    let lean = rabbit.url().replace("guest:guest", "lean:lean");
    let shipped = std::fs::read_to_string(crate::support::root().join("routes.yaml")).unwrap();
    let (status, printed, stderr) = Start::up().command(&["broker", "permissions", "--format", "json"]).run().await;
    assert_eq!(status, 0, "{stderr}");
    let needs: Value = serde_json::from_str(&printed).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let grant = |configure: &str, write: &str, read: &str| {
        rabbit.ctl(&["set_permissions", "-p", "/", "lean", configure, write, read]);
    };
    let up = &needs["up"];
    let (configure, write, read) = (text(&up["configure"]), text(&up["write"]), text(&up["read"]));
    grant(&configure, &write, &read);
    for topic in up["topics"].as_array().unwrap() {
        let args = [text(&topic["exchange"]), text(&topic["write"]), text(&topic["read"])];
        rabbit.ctl(&["set_topic_permissions", "-p", "/", "lean", &args[0], &args[1], &args[2]]);
    }
    let app = Start::up().table(&shipped).args(&["--bus", &lean]).start().await;
    ready(&app).await;
    app.keep(r#"{"text":"lean"}"#).await;
    app.kept(1).await;
    drop(app);
    let less = |all: &str, part: &str| all.replace(&format!("{part}|"), "").replace(&format!("|{part}"), "");
    for (configure, write, read, route, words) in [
        (less(&configure, r"messages\.persist"), write.clone(), read.clone(), "post-message", "may not be declared"),
        (configure.clone(), less(&write, r"amq\.topic"), read.clone(), "post-message", "may not publish"),
        (configure.clone(), write.clone(), less(&read, r"amq\.topic"), "post-message", "may not be bound"),
        (less(&configure, r"fpesa\.reply\..*"), write.clone(), read.clone(), "list-messages", "queue for replies"),
    ] {
        grant(&configure, &write, &read);
        let app = gateway(&lean, &shipped).await;
        let why = degraded(&app, "route", route).await;
        assert!(why.contains(words) && why.contains("ACCESS_REFUSED"), "{why}");
        assert_eq!(app.get("/readyz?all").await.status(), 503);
    }
    // Who only publishes may only publish, and has no link for calls.
    owner.declare("lean.theirs", &[]).await;
    owner.bind("lean.theirs", "lean.only").await;
    grant("^$", r"^amq\.topic$", "^$");
    rabbit.ctl(&["clear_topic_permissions", "-p", "/", "lean"]);
    let publishes = route("only", "amq.topic", "lean.only");
    let theirs = "queues:\n  lean.theirs: { declare: passive, bind: [{ exchange: amq.topic, key: lean.only }] }\n";
    let app = gateway(&lean, &table(&publishes, theirs)).await;
    ready(&app).await;
    assert_eq!(post(&app, "/only").await.0, 202);
    let calls = |app: &App| {
        let name = format!("call {}", app.pid());
        links(rabbit).iter().any(|link| link.ends_with(&name))
    };
    assert!(!calls(&app), "no route calls");
    // Until one does.
    grant(&configure, &write, &read);
    let call = "  - { id: ask, method: GET, path: /ask, call: { queue: lean.rpc } }\n";
    app.edit("routes.yaml", &table(&(publishes + call), &format!("{theirs}  lean.rpc: {{ type: rpc }}\n")));
    eventually("the call to be refused for want of a worker", || async {
        (app.get("/ask").await.status() == 503).then_some(())
    })
    .await;
    ready(&app).await;
    assert!(calls(&app));
}

/// A gateway looks at what is published to, and seldom at the rest; yet no publish goes where nobody looked.
async fn idle_queues_are_looked_at_seldom(rabbit: &Rabbit, owner: &Owner) {
    const QUEUES: usize = 500;
    owner.declare("idle.browser", &[]).await;
    owner.bind("idle.browser", "idle.#").await;
    let mut rest = "queues:\n".to_owned();
    for n in 0..QUEUES {
        let name = format!("idle.{n}");
        owner.declare(&name, &[]).await;
        let bind = format!("[{{ exchange: amq.topic, key: {name} }}]");
        rest.push_str(&["  ", &name, ": { declare: passive, type: classic, bind: ", &bind, " }\n"].concat());
    }
    let routes = "  - { id: any, method: POST, path: '/any/{k}', params: { path: { k: { type: string } } }, body: {}, publish: { exchange: amq.topic, key: 'idle.{path.k}' } }\n";
    let tap = Tap::start(rabbit.port).await;
    let bus = format!("amqp://guest:guest@127.0.0.1:{}/%2f", tap.port);
    let app = gateway(&bus, &table(routes, &rest)).await;
    ready(&app).await;
    tap.forget();
    let mut looks = eventually("ten looks at a busy queue", || async {
        assert_eq!(post(&app, "/any/0").await.0, 202);
        Some(tap.looks()).filter(|looks| looks.get("idle.0").is_some_and(|count| *count >= 10))
    })
    .await;
    let busy = looks.remove("idle.0").unwrap();
    let idle: usize = looks.values().sum();
    assert!(idle <= (busy + 1) * 100, "{idle} looks at idle queues, {busy} at a busy one");
    assert!(looks.len() > QUEUES - 100, "every queue has its turn: {}", looks.len());
    // Gone, and nobody has looked since: the publish waits for a look.
    for n in QUEUES - 10..QUEUES {
        owner.delete(&format!("idle.{n}")).await;
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for n in QUEUES - 10..QUEUES {
        assert_eq!(post(&app, &format!("/any/{n}")).await.0, 503, "idle.{n}");
    }
    for n in 0..QUEUES - 10 {
        owner.delete(&format!("idle.{n}")).await;
    }
}

/// From RabbitMQ 4 on: a queue from before an upgrade may lack the limit, and nothing else.
async fn one_difference_is_allowed(rabbit: &Rabbit, owner: &Owner) {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let quorum = ("x-queue-type", text("quorum"));
    owner.declare("old.before", std::slice::from_ref(&quorum)).await;
    owner.declare("old.classic", &[]).await;
    owner.declare("old.short", &[quorum.clone(), ("x-max-length", AMQPValue::LongLongInt(1))]).await;
    owner.declare("old.ttl", &[quorum.clone(), ("x-message-ttl", AMQPValue::LongLongInt(500))]).await;
    owner.declare("old.limit", &[quorum, ("x-delivery-limit", AMQPValue::LongLongInt(1))]).await;
    owner.declare("old.stream", &[("x-queue-type", text("stream"))]).await;
    let names = ["before", "classic", "short", "ttl", "limit", "stream"];
    let routes: String = names.iter().map(|name| route(name, "", &format!("old.{name}"))).collect();
    let queues: String = names.iter().map(|name| format!("  old.{name}: {{}}\n")).collect();
    let app = gateway(&rabbit.url(), &table(&routes, &format!("queues:\n{queues}"))).await;
    let why = degraded(&app, "queue", "old.before").await;
    assert!(why.contains("delivery-limit: -1") && why.contains("delivery_limit: policy"), "{why}");
    assert_eq!(post(&app, "/before").await.0, 202, "told, and not refused");
    for name in &names[1..] {
        let why = degraded(&app, "route", name).await;
        assert!(why.contains("PRECONDITION_FAILED"), "{why}");
        assert_eq!(post(&app, &format!("/{name}")).await.0, 503, "{name}");
    }
    let by_policy = "queues:\n  old.before: { delivery_limit: policy }\n";
    app.edit("routes.yaml", &table(&route("before", "", "old.before"), by_policy));
    ready(&app).await;
    let (_, printed, stderr) = Start::beside(&app)
        .command(&["broker", "definitions", "--bus", &rabbit.url()])
        .table(&table(&route("new", "", "new.one"), "queues:\n  new.one: {}\n"))
        .env("FPESA_FEED__PASSWORD", "look")
        .run()
        .await;
    let definitions: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    assert_eq!(definitions["queues"][0]["arguments"]["x-delivery-limit"], -1, "{definitions}");
}

/// Nothing that RabbitMQ 4 deprecates is needed.
async fn without_what_is_deprecated(release: Release) {
    let denied = "deprecated_features.permit.transient_nonexcl_queues = false\n\
                  deprecated_features.permit.global_qos = false\n\
                  deprecated_features.permit.management_metrics_collection = false";
    let rabbit = Rabbit::on_with(release, denied).await;
    let app = Start::up().args(&["--bus", &rabbit.url()]).start().await;
    ready(&app).await;
    app.keep(r#"{"text":"x"}"#).await;
    app.kept(1).await;
}

crate::on_each! { [denied_v4_0 Debian13] [without_what_is_deprecated] }
