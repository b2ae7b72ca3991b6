//! The examples: each has a table without a warning, cases that pass, and works for real.

use std::{fs, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    app::{App, Start},
    eventually,
    python::Script,
    rabbit::Rabbit,
    release::Release,
    root,
};

/// A copy of an example, so that nothing is written beside the original.
fn example(name: &str) -> Start {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let folder = TempDir::new().unwrap();
    copy(&root().join("examples").join(name), folder.path());
    Start::up().folder(Arc::new(folder))
}

#[tokio::test]
async fn every_one_has_a_clean_table_and_cases_that_pass() {
    let names: Vec<String> = fs::read_dir(root().join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let (status, _, stderr) = example(&name).command(&["check", "--deny-warnings"]).run().await;
        assert_eq!(status, 0, "{name}: {stderr}");
        let (status, stdout, stderr) = example(&name).command(&["test"]).run().await;
        assert_eq!(status, 0, "{name}: {stdout}{stderr}");
        assert!(root().join("examples").join(&name).join("README.md").exists(), "{name} has no README");
    }
}

#[tokio::test]
async fn orders() {
    let app = example("orders").start().await;
    let place = |tenant: &'static str, item: &'static str| {
        let order = json!({ "item": item, "count": 2 });
        app.client.post(app.url("/shop/orders")).header("x-tenant", tenant).json(&order).send()
    };
    let placed = place("acme", "tea").await.unwrap();
    assert_eq!(placed.status(), 202);
    let location = placed.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(place("globex", "coffee").await.unwrap().status(), 202);
    assert_eq!(place("Acme", "tea").await.unwrap().status(), 422);
    let order = eventually("the order in history", || async {
        let answer = app.get(&location).await;
        (answer.status() == 200).then_some(answer.json::<Value>().await.unwrap())
    })
    .await;
    assert_eq!((&order["subject"], &order["type"]), (&json!("orders/acme/normal"), &json!("shop.order.placed")));
    assert_eq!(order["data"], json!({ "item": "tea", "count": 2 }));
    eventually("the other tenant's order", || async {
        let page = app.json("/shop/orders?topic=orders/globex/%23").await;
        (page["items"].as_array()?.len() == 1 && page["items"][0]["data"]["item"] == "coffee").then_some(())
    })
    .await;
}

#[tokio::test]
async fn upload() {
    let app = example("upload").start().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let put = |kind: &'static str, body: Vec<u8>| {
        app.client.put(app.url("/files/docs/all%20bytes.bin")).header("content-type", kind).body(body).send()
    };
    assert_eq!(put("application/octet-stream", bytes.clone()).await.unwrap().status(), 201);
    assert_eq!(put("text/plain", bytes.clone()).await.unwrap().status(), 415);
    assert_eq!(put("application/octet-stream", vec![0; 5 * 1024 * 1024 + 1]).await.unwrap().status(), 413);
    let file = eventually("the file in history", || async {
        let page = app.json("/files/docs?topic=files/docs").await;
        page["items"].get(0).cloned()
    })
    .await;
    assert_eq!(file["datacontenttype"], "application/octet-stream");
    assert_eq!(BASE64.decode(file["data_base64"].as_str().unwrap()).unwrap(), bytes);
}

crate::on_each_rabbitmq!(on_rabbitmq);

/// One node for both: a start takes longer than the cases.
async fn on_rabbitmq(on: Release) {
    let rabbit = Rabbit::without_feed(on).await;
    search(&rabbit).await;
    attach(&rabbit).await;
}

async fn gateway(name: &str, rabbit: &Rabbit) -> App {
    example(name).command(&["gateway", "--bus", &rabbit.url()]).start().await
}

async fn search(rabbit: &Rabbit) {
    let app = gateway("search", rabbit).await;
    eventually("readiness", || async { (app.get("/readyz").await.status() == 200).then_some(()) }).await;
    let nobody = app.get("/library/books?q=sea").await;
    assert_eq!(nobody.status(), 503);
    assert_eq!(nobody.json::<Value>().await.unwrap()["type"], "https://fpesa.dev/problems/no-worker");
    let mut worker = Script::start("examples/search/worker.py", &["--bus", &rabbit.url()], "working: search");
    let found = app.json("/library/books?q=SEA&tags=novel,poem&limit=2").await;
    let titles: Vec<&str> = found["books"].as_array().unwrap().iter().map(|b| b["title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["The Old Man and the Sea", "Sea Fever"]);
    assert_eq!(app.get("/library/books?q=s").await.status(), 422);
    worker.term();
    assert!(worker.wait(std::time::Duration::from_secs(10)).await);
}

async fn attach(rabbit: &Rabbit) {
    let app = gateway("attach", rabbit).await;
    let invoice = json!({ "customer": 4711, "total": 12.5 });
    let send = |kind: &str| app.client.post(app.url(&format!("/billing/invoices/{kind}"))).json(&invoice).send();
    // Nothing of it is there, and fpesa makes none of it.
    eventually("what is missing to be told", || async {
        let ready = app.get("/readyz").await;
        (ready.status() == 503 && ready.text().await.unwrap().contains("legacy.")).then_some(())
    })
    .await;
    assert!(send("invoice").await.unwrap().status().is_server_error());
    let channel = legacy(rabbit).await;
    eventually("readiness", || async { (app.get("/readyz").await.status() == 200).then_some(()) }).await;
    assert_eq!(send("invoice").await.unwrap().status(), 202);
    assert_eq!(send("reminder").await.unwrap().status(), 503, "nobody bound a queue to reminders");
    let message = channel.basic_get("legacy.invoices".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&message.data).unwrap(), invoice);
    let properties = &message.properties;
    assert_eq!(properties.kind().as_ref().map(lapin::types::ShortString::as_str), Some("Billing.Invoice"));
    assert_eq!(properties.priority(), &Some(5));
    let headers = properties.headers().as_ref().unwrap();
    assert_eq!(headers.inner().get("customer"), Some(&AMQPValue::LongString("4711".into())));
}

/// The old system's topology, as it was before fpesa came.
async fn legacy(rabbit: &Rabbit) -> Channel {
    let connection = Connection::connect(&rabbit.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let exchange = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let queue = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let none = FieldTable::default;
    channel.exchange_declare("legacy.events".into(), ExchangeKind::Direct, exchange, none()).await.unwrap();
    channel.queue_declare("legacy.invoices".into(), queue, none()).await.unwrap();
    let bind = QueueBindOptions::default();
    channel.queue_bind("legacy.invoices".into(), "legacy.events".into(), "invoice".into(), bind, none()).await.unwrap();
    channel
}
