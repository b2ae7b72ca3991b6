//! What the page is made from: the table as a map, the pulse, and files that are small on the wire.

use std::io::Read as _;

use serde_json::{Value, json};

use crate::support::{app::App, eventually};

fn queue<'t>(table: &'t Value, name: &str) -> &'t Value {
    table["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == name).unwrap()
}

#[tokio::test]
async fn the_table_tells_what_routes_lead_to_and_who_consumes() {
    let app = App::up().await;
    let table = app.json("/table.json").await;
    assert_eq!((&table["generation"], &table["bus"]), (&json!(1), &json!("up")));
    assert_eq!(
        table["routes"][0],
        json!({
            "id": "post-message", "method": "POST", "path": "/api/v1/messages",
            "summary": "Keep a message and send it to everyone who listens", "deprecated": false,
            "action": "publish", "exchange": "amq.topic", "key": "messages.{body.topic:-general}",
            "queues": ["messages.persist"], "accepts_unroutable": false,
        })
    );
    assert_eq!(
        (&table["routes"][1]["action"], &table["routes"][1]["queues"]),
        (&json!("call"), &json!(["messages.history"]))
    );
    assert_eq!(
        *queue(&table, "messages.persist"),
        json!({
            "name": "messages.persist", "type": "quorum", "bind": [{ "exchange": "amq.topic", "key": "messages.#" }],
            "dead_letter": "messages.dead", "max_length": null, "there": true, "consumers": 1, "messages": 0,
        })
    );
    assert_eq!(queue(&table, "messages.dead")["consumers"], 0);
    assert_eq!(table["workers"][0], json!({ "name": "history", "kind": "history", "queue": "messages.history" }));
    assert_eq!(table["feed"], json!(["messages/#"]));
    assert_eq!(table["reload"]["ok"], true);

    // A worker less: its rpc queue goes with it.
    let text = app.read("routes.yaml").replace("  history: { queue: messages.history }\n", "");
    app.edit("routes.yaml", &text);
    eventually("the queue to be gone", || async {
        (queue(&app.json("/table.json").await, "messages.history")["there"] == false).then_some(())
    })
    .await;
    app.edit("routes.yaml", &text.replace("exchange: amq.topic\n", "exchnage: amq.topic\n"));
    let problem = eventually("the edit to be refused", || async {
        let reload = app.json("/table.json").await["reload"].take();
        (reload["ok"] == false).then(|| reload["problems"][0].clone())
    })
    .await;
    assert_eq!((&problem["code"], &problem["excerpt"]["width"]), (&json!("unknown-key"), &json!(8)));
    assert_eq!(problem["excerpt"]["text"].as_str().map(str::trim), Some("exchnage: amq.topic"));
}

#[tokio::test]
async fn the_pulse_counts_the_tables_routes_alone() {
    let app = App::up().await;
    for _ in 0..3 {
        app.keep(r#"{"text":"beat"}"#).await;
    }
    assert_eq!(app.post("/api/v1/messages", "{}").await.status(), 422);
    assert_eq!(app.get("/api/v1/messages").await.status(), 200);
    let sum = |column: &Value| column.as_array().unwrap().iter().filter_map(Value::as_u64).sum::<u64>();
    let pulse = eventually("the sample with all of it", || async {
        let pulse = app.json("/pulse.json").await;
        (sum(&pulse["requests"]["2xx"]) >= 4).then_some(pulse)
    })
    .await;
    // Looking at the pulse is none of it.
    assert_eq!((sum(&pulse["requests"]["2xx"]), sum(&pulse["requests"]["4xx"])), (4, 1));
    assert_eq!((sum(&pulse["publishes"]["routed"]), sum(&pulse["publishes"]["rejected"])), (3, 0));
    let calls = pulse["calls"]["counts"].as_array().unwrap().iter().map(sum).sum::<u64>();
    assert_eq!(calls, 1);
    assert!(pulse["time"].as_array().unwrap().iter().all(|time| time.as_u64().unwrap() % 5 == 0));
    assert_eq!(app.post("/pulse.json", "{}").await.status(), 405);
}

#[tokio::test]
async fn files_are_compressed_for_those_who_take_it() {
    let app = App::up().await;
    let header = |response: &reqwest::Response, name: &str| {
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    let page = app.get("/").await.text().await.unwrap();
    let script = page.split('"').find(|part| part.starts_with("/assets/index-") && part.contains(".js")).unwrap();
    let url = format!("{}{script}", app.base);
    let plain = app.client.get(&url).header("accept-encoding", "gzip;q=0").send().await.unwrap();
    assert_eq!(
        (header(&plain, "content-encoding"), header(&plain, "vary").as_deref()),
        (None, Some("Accept-Encoding"))
    );
    let zipped = app.client.get(&url).header("accept-encoding", "br, gzip").send().await.unwrap();
    assert_eq!(header(&zipped, "content-encoding").as_deref(), Some("gzip"));
    assert_ne!(header(&zipped, "etag"), header(&plain, "etag"));
    let tag = header(&zipped, "etag").unwrap();
    let again =
        app.client.get(&url).header("accept-encoding", "gzip").header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    let (plain, zipped) = (plain.bytes().await.unwrap(), zipped.bytes().await.unwrap());
    assert!(zipped.len() * 2 < plain.len(), "{} of {}", zipped.len(), plain.len());
    let mut unzipped = Vec::new();
    flate2::read::GzDecoder::new(&zipped[..]).read_to_end(&mut unzipped).unwrap();
    assert_eq!(unzipped, plain);
}
