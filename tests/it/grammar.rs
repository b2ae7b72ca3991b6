//! Every key of the table by what it does: requests are sent, and what comes out on the bus, in the store and in the answer
//! is looked at.

use std::time::Duration;

use futures::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{
    app::{App, Start},
    eventually,
    rabbit::Rabbit,
    release::Release,
};

const EMBEDDED: &str = r#"
version: 1
base_path: /shop
include: [more/*.yaml, "*/extra.yaml", "*.yaml"]
defaults: { timeout: 2s, max_size: 1KiB, payload: body, unroutable: accept }

exchanges:
  shop.topic: { type: topic }
  shop.direct: { type: direct }
  shop.fanout: { type: fanout }
  shop.headers: { type: headers }

routes:
  - id: whole
    method: POST
    path: /whole/{sku}
    params: { path: { sku: { type: string } }, header: { X-Tenant: { type: string, default: acme } } }
    body: { schema: order.json }
    publish: { exchange: shop.topic, key: "orders.{path.sku}.{body.size:-m}", payload: event, type: order.placed, status: 201 }

  - id: plain
    method: PUT
    path: /plain
    body: {}
    publish: { exchange: shop.direct, key: plain }

  - id: photo
    method: POST
    path: /photos/{*name}
    params: { path: { name: { type: string } } }
    body: { content_type: image/png, max_size: 64KiB, required: false }
    publish: { exchange: shop.fanout, key: "{path.name|raw}", payload: event, status: 200 }

  - id: by-header
    method: PATCH
    path: /by-header
    params: { query: { kind: { type: string, required: true } } }
    body: {}
    publish: { exchange: shop.headers, key: "", headers: { kind: "{query.kind}" }, payload: event, status: 204 }

  - id: late
    method: POST
    path: /late
    body: {}
    publish: { exchange: "", key: nobody, expires: 200ms, priority: 9, payload: event }

queues:
  kept:
    bind:
      - { exchange: shop.topic, key: "orders.*.#" }
      - { exchange: shop.direct, key: plain }
      - { exchange: shop.fanout }
      - { exchange: shop.headers, arguments: { x-match: all, kind: fruit } }
  nobody: { type: classic, dead_letter: kept }
  history: { type: rpc }

workers:
  keeper: { kind: persist, queue: kept, batch: 10, prefetch: 20, concurrency: 2 }
  history: { queue: history }
"#;

const INCLUDED: &str = r"
version: 1
routes:
  - id: list
    method: GET
    path: /list
    params: { query: { limit: { type: integer, default: 50 } } }
    call: { queue: history }

  - id: typed
    method: GET
    path: /typed/{day}/{number}
    params:
      path: { day: { type: string, format: date }, number: { type: integer, minimum: 1 } }
      query:
        tag: { type: array, items: { type: string, enum: [a, b] }, maxItems: 2 }
        deep: { type: boolean }
        rate: { type: number, exclusiveMinimum: 0 }
    call: { queue: history, reply: { schema: { type: object, required: [never] } } }

  - { id: typed-today, method: GET, path: /typed/today/1, call: { queue: history } }
";

async fn start() -> App {
    let start = Start::up().table(EMBEDDED);
    let folder = start.path();
    std::fs::create_dir_all(folder.join("more")).unwrap();
    start.write("more/list.yaml", INCLUDED);
    start.write(
        "more/extra.yaml",
        "routes:\n  - { id: extra, method: DELETE, path: /extra, call: { queue: history } }\n",
    );
    start.write(
        "schemas/order.json",
        r#"{ "type": "object", "properties": { "size": { "$ref": "parts/size.json#/$defs/size" } } }"#,
    );
    // `*.yaml` names the table too, which does not include itself.
    start.write("beside.yaml", "routes: []\n");
    std::fs::create_dir_all(folder.join("schemas/parts")).unwrap();
    start.write("schemas/parts/size.json", r#"{ "$defs": { "size": { "enum": ["s", "m", "l"] } } }"#);
    start.start().await
}

async fn send(app: &App, method: &str, path: &str, kind: &str, body: &'static [u8]) -> Response {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    app.client.request(method, app.url(path)).header("content-type", kind).body(body).send().await.unwrap()
}

/// What history holds of a route, by the event's type.
async fn kept(app: &App, kind: &str) -> Value {
    eventually(kind, || async {
        let page = app.json("/shop/list").await;
        page["items"].as_array()?.iter().find(|event| event["type"] == kind).cloned()
    })
    .await
}

async fn problem(response: Response) -> (u16, Value) {
    (response.status().as_u16(), response.json().await.unwrap())
}

const JSON: &str = "application/json";

#[tokio::test]
async fn publishes_to_exchanges_of_every_type() {
    let app = start().await;
    let whole = send(&app, "POST", "/shop/whole/a1", "application/vnd.shop+json", br#"{"size": "l", "n": 1.50}"#).await;
    assert_eq!(whole.status(), 201);
    let event = kept(&app, "order.placed").await;
    assert_eq!((&event["subject"], &event["source"]), (&json!("orders/a1/l"), &json!("/whole")));
    assert_eq!(event["datacontenttype"], "application/vnd.shop+json");
    assert_eq!(send(&app, "POST", "/shop/whole/a2", JSON, b"{}").await.status(), 201);
    eventually("the default of the key", || async {
        let page = app.json("/shop/list").await;
        page["items"].as_array()?.iter().any(|event| event["subject"] == "orders/a2/m").then_some(())
    })
    .await;
    let (status, refused) = problem(send(&app, "POST", "/shop/whole/a3", JSON, br#"{"size":"xl"}"#).await).await;
    assert_eq!((status, &refused["errors"][0]["pointer"]), (422, &json!("/size")));

    // `payload: body` of the defaults: the bytes themselves; the keeper rebuilds the event from the properties.
    assert_eq!(send(&app, "PUT", "/shop/plain", JSON, br#"{"b":1,"a":[1.0]}"#).await.status(), 202);
    let event = kept(&app, "plain").await;
    assert_eq!(event["data"].to_string(), r#"{"b":1,"a":[1.0]}"#);

    // Another content type is passed through; a fanout takes any key; a catch-all takes slashes, `|raw` dots.
    assert_eq!(send(&app, "POST", "/shop/photos/me.png", "image/png", b"\x89PNG\0").await.status(), 200);
    let event = kept(&app, "photo").await;
    assert_eq!((&event["data_base64"], &event["datacontenttype"]), (&json!("iVBORwA="), &json!("image/png")));
    assert_eq!(event["subject"], "me/png");
    let (status, refused) = problem(send(&app, "POST", "/shop/photos/a/b.png", "image/png", b"x").await).await;
    assert_eq!((status, &refused["errors"][0]["name"]), (422, &json!("name")));
    assert_eq!(send(&app, "POST", "/shop/photos/a", JSON, b"{}").await.status(), 415);
    assert_eq!(app.client.post(app.url("/shop/photos/none")).send().await.unwrap().status(), 200);

    // A headers exchange goes by the headers; what it does not route is accepted on this live-only route.
    assert_eq!(send(&app, "PATCH", "/shop/by-header?kind=metal", JSON, b"1").await.status(), 204);
    assert_eq!(send(&app, "PATCH", "/shop/by-header?kind=fruit", JSON, b"2").await.status(), 204);
    let event = kept(&app, "by-header").await;
    assert_eq!((&event["data"], event.get("subject")), (&json!(2), None));
    assert_eq!(send(&app, "PATCH", "/shop/by-header", JSON, b"3").await.status(), 422);

    // What expires is dead-lettered.
    assert_eq!(send(&app, "POST", "/shop/late", JSON, br#""too late""#).await.status(), 202);
    assert_eq!(kept(&app, "late").await["data"], "too late");

    // The defaults' size counts where a route says none.
    let (status, large) = problem(send(&app, "PUT", "/shop/plain", JSON, &[b' '; 2_000]).await).await;
    assert_eq!((status, &large["limit"]), (413, &json!(1024)));
}

#[tokio::test]
async fn calls_with_parameters_of_every_type() {
    let app = start().await;
    assert_eq!(app.get("/shop/list").await.status(), 200);
    assert_eq!(app.client.delete(app.url("/shop/extra")).send().await.unwrap().status(), 200);
    // A literal segment beats a parameter.
    assert_eq!(app.get("/shop/typed/today/1").await.status(), 200);
    for (path, part, name, keyword) in [
        ("/shop/typed/2026-13-01/1", "path", "day", "format"),
        ("/shop/typed/2026-11-25/0", "path", "number", "minimum"),
        ("/shop/typed/2026-11-25/one", "path", "number", "type"),
        ("/shop/typed/2026-11-25/1?tag=c", "query", "tag", "enum"),
        ("/shop/typed/2026-11-25/1?tag=a,b&tag=a", "query", "tag", "maxItems"),
        ("/shop/typed/2026-11-25/1?deep=yes", "query", "deep", "type"),
        ("/shop/typed/2026-11-25/1?rate=0", "query", "rate", "exclusiveMinimum"),
        ("/shop/typed/2026-11-25/1?rate=1&rate=2", "query", "rate", "type"),
        ("/shop/typed/2026-11-25/1?tagg=a", "query", "tagg", "unknown"),
    ] {
        let (status, refused) = problem(app.get(path).await).await;
        let error = &refused["errors"][0];
        assert_eq!(
            (status, &error["in"], &error["name"], &error["keyword"]),
            (422, &json!(part), &json!(name), &json!(keyword)),
            "{path}: {refused}"
        );
    }
    // The reply is not what `reply.schema` says.
    let (status, refused) = problem(app.get("/shop/typed/2026-11-25/1?tag=a&tag=b&deep=true&rate=0.5").await).await;
    assert_eq!((status, &refused["type"]), (502, &json!("https://fpesa.dev/problems/invalid-reply")));
}

#[tokio::test]
async fn what_the_embedded_bus_cannot_do_is_told_at_the_start() {
    for (parts, words) in [
        ("exchanges: { x: { type: x-consistent-hash } }", "the embedded bus has no type `x-consistent-hash`"),
        ("exchanges: { x: { type: topic, arguments: { alternate-exchange: y } } }", "no argument `alternate-exchange`"),
        ("exchanges: { x: { declare: passive } }", "exchange `x` is `declare: passive`"),
        ("queues: { q: { declare: passive } }", "queue `q` is `declare: passive`"),
        ("queues: { q: { arguments: { x-message-ttl: 1000 } } }", "no argument `x-message-ttl`"),
    ] {
        let start = Start::up().table(&format!("version: 1\nroutes: []\n{parts}\n"));
        let (status, stdout, stderr) = start.run().await;
        assert_eq!((status, stdout.as_str()), (1, ""), "{parts}: {stderr}");
        assert!(stderr.contains(words), "{parts}: {stderr}");
    }
}

const ATTACHED: &str = r#"
version: 1
defaults: { confirm_timeout: 4s }
exchanges:
  theirs: { declare: passive }
  shop.hash: { type: x-consistent-hash }
  shop.spare: { type: fanout }
  shop.topic: { type: topic, arguments: { alternate-exchange: shop.spare } }

routes:
  - id: all
    method: POST
    path: /all/{rest}
    params:
      path: { rest: { type: string } }
      query: { n: { type: integer, default: 7 } }
      header: { X-Tenant: { type: string, required: true } }
    body: {}
    publish:
      exchange: theirs
      key: "a.{path.rest|raw}.{body.deep.text:-none}"
      payload: body
      type: thing.made
      expires: 1m
      priority: 3
      headers: { tenant: "{header.x-tenant}", note: "{{{query.n}}} of {route}", id: "{id}" }

  - { id: hash, method: POST, path: /hash, body: {}, publish: { exchange: shop.hash, key: "{id}" } }
  - { id: spare, method: POST, path: /spare, body: {}, publish: { exchange: shop.topic, key: nowhere, unroutable: accept } }

  - id: ask
    method: POST
    path: /ask/{*way}
    params:
      path: { way: { type: string } }
      query:
        tag: { type: array, items: { type: integer } }
        deep: { type: boolean, default: false }
        rate: { type: number }
      header: { X-Level: { type: integer } }
    body: {}
    call: { queue: theirs.calls, timeout: 10s, headers: { level: "{header.x-level:-0}" } }

  - id: ask-by-key
    method: GET
    path: /ask
    call: { exchange: theirs, key: ask.me, timeout: 10s }

queues:
  theirs.kept: { declare: passive }
  theirs.calls: { declare: passive }
  hashed: { bind: [{ exchange: shop.hash, key: "1" }] }
  spare: { type: classic, bind: [{ exchange: shop.spare }], arguments: { x-max-priority: 5, x-message-ttl: 60000 } }
"#;

/// A topology that others have made, on a broker.
async fn theirs(rabbit: &Rabbit) -> (Connection, Channel) {
    let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare("theirs".into(), ExchangeKind::Topic, durable, FieldTable::default()).await.unwrap();
    for (queue, key) in [("theirs.kept", "a.#"), ("theirs.calls", "ask.#")] {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
        let bound = channel.queue_bind(
            queue.into(),
            "theirs".into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.unwrap();
    }
    (connection, channel)
}

/// Answers each call with what was asked, and the headers that came with it.
async fn echo(channel: Channel) {
    let options = BasicConsumeOptions::default();
    let mut calls =
        channel.basic_consume("theirs.calls".into(), "echo".into(), options, FieldTable::default()).await.unwrap();
    while let Some(Ok(call)) = calls.next().await {
        let asked: Value = serde_json::from_slice(&call.data).unwrap();
        let reply = json!({ "asked": asked, "headers": headers(&call.properties), "key": call.routing_key.as_str() });
        let properties = BasicProperties::default()
            .with_correlation_id(call.properties.correlation_id().clone().unwrap())
            .with_content_type("application/json".into());
        let to = call.properties.reply_to().clone().unwrap();
        let reply = reply.to_string();
        channel
            .basic_publish("".into(), to, BasicPublishOptions::default(), reply.as_bytes(), properties)
            .await
            .unwrap();
        call.ack(BasicAckOptions::default()).await.unwrap();
    }
}

fn headers(properties: &BasicProperties) -> Value {
    let table = properties.headers().clone().unwrap_or_default();
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => json!(text.to_string()),
        other => json!(format!("{other:?}")),
    };
    table.inner().iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

crate::on_each_rabbitmq!(on_rabbitmq_attached_to_what_others_made);

async fn on_rabbitmq_attached_to_what_others_made(on: Release) {
    let rabbit = Rabbit::without_feed(on).await;
    let (connection, channel) = theirs(&rabbit).await;
    let echoing = tokio::spawn(echo(connection.create_channel().await.unwrap()));
    let app = Start::up().table(ATTACHED).args(&["--bus", &rabbit.url()]).start().await;
    eventually("readiness", || async { (app.get("/readyz").await.status() == 200).then_some(()) }).await;

    let request = app.client.post(app.url("/all/x.y?n=12")).header("content-type", JSON).header("x-tenant", "acme");
    let answer = request.body(r#"{"deep": {"text": 5}}"#).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let id = answer.json::<Value>().await.unwrap()["id"].clone();
    let got = |queue: &'static str| {
        let channel = channel.clone();
        async move {
            eventually(queue, || async {
                channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap()
            })
            .await
            .delivery
        }
    };
    let message = got("theirs.kept").await;
    assert_eq!(message.routing_key.as_str(), "a.x.y.5");
    assert_eq!(message.data, br#"{"deep": {"text": 5}}"#);
    let properties = &message.properties;
    let short = |text: &Option<lapin::types::ShortString>| text.as_ref().map(ToString::to_string);
    assert_eq!(short(properties.message_id()), id.as_str().map(str::to_owned));
    assert_eq!(short(properties.kind()).as_deref(), Some("thing.made"));
    assert_eq!(short(properties.content_type()).as_deref(), Some(JSON));
    assert_eq!(short(properties.expiration()).as_deref(), Some("60000"));
    assert_eq!((properties.priority(), properties.delivery_mode()), (&Some(3), &Some(2)));
    let headers = headers(properties);
    assert_eq!((&headers["tenant"], &headers["note"]), (&json!("acme"), &json!("{12} of all")));
    assert_eq!((&headers["id"], &headers["fpesa-route"]), (&id, &json!("all")));

    assert_eq!(app.post("/hash", "1").await.status(), 202);
    assert_eq!(serde_json::from_slice::<Value>(&got("hashed").await.data).unwrap()["data"], 1);
    assert_eq!(app.post("/spare", "2").await.status(), 202);
    assert_eq!(serde_json::from_slice::<Value>(&got("spare").await.data).unwrap()["data"], 2);

    // What a worker is asked: every parameter by its type, the body as it came.
    let request = app.client.post(app.url("/ask/a/b%20c/d.e?tag=1,2&tag=3&rate=2.50")).header("content-type", JSON);
    let answer = request.header("x-level", "4").body(r#"{"z":1.0,"a":"ü"}"#).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    let asked = &answer["asked"];
    assert_eq!(
        asked["params"],
        json!({ "path": { "way": "a/b c/d.e" }, "query": { "tag": [1, 2, 3], "deep": false, "rate": 2.5 }, "header": { "x-level": 4 } })
    );
    assert_eq!((&asked["route"], &asked["method"]), (&json!("ask"), &json!("POST")));
    assert_eq!(asked["body"].to_string(), r#"{"z":1.0,"a":"ü"}"#);
    assert_eq!(answer["headers"]["level"], "4");
    // By an exchange and a key, to a queue that others bound.
    let answer = app.json("/ask").await;
    assert_eq!((&answer["key"], &answer["asked"]["body"]), (&json!("ask.me"), &Value::Null));

    // What is not there is told, and served again once it is.
    app.edit(
        "routes.yaml",
        &ATTACHED.replace("theirs: { declare: passive }", "theirs: { declare: passive }\n  gone: { declare: passive }"),
    );
    eventually("the missing exchange to be told", || async {
        let told = app.json("/readyz").await["reload"]["problems"].to_string();
        told.contains("exchange `gone` is not on the broker").then_some(())
    })
    .await;
    assert_eq!(app.get("/ask").await.status(), 200);
    echoing.abort();
    tokio::time::timeout(Duration::from_secs(10), connection.close(200, "bye".into())).await.unwrap().unwrap();
}
