//! Bodies that are dear to check: refused in a bounded time, and nobody else waits for them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{app::Start, root};

const TABLE: &str = r#"
version: 1
routes:
  - { id: filter, method: POST, path: /filter, body: { schema: filter-tree.json }, publish: { exchange: amq.topic, key: a, unroutable: accept } }
  - { id: slow, method: POST, path: /slow, body: { max_size: 4MiB, schema: { items: { pattern: "^(a{1,100}){1,100}$" } } },
      publish: { exchange: amq.topic, key: a, unroutable: accept } }
  - { id: flat, method: POST, path: /flat, body: { max_depth: 2 }, publish: { exchange: amq.topic, key: a, unroutable: accept } }
"#;

fn nested(depth: usize) -> String {
    format!("{}{{\"nope\":1}}{}", r#"{"op":"all","of":["#.repeat(depth), "]}".repeat(depth))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dear_body_is_refused_and_harms_nobody() {
    let schema = std::fs::read_to_string(root().join("tests/it/schemas/filter-tree.json")).unwrap();
    let start = Start::up().table(TABLE);
    std::fs::create_dir_all(start.path().join("schemas")).unwrap();
    start.write("schemas/filter-tree.json", &schema);
    let app = start.start().await;
    // Twenty levels were 15 GiB once.
    for depth in [1, 20, 30] {
        let answer = app.post("/filter", nested(depth)).await;
        assert_eq!(answer.status(), 422);
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["errors"][0]["keyword"], "anyOf", "{problem}");
    }
    // Deeper than the route allows, which says so.
    assert_eq!(app.post("/flat", "[[1]]").await.status(), 202);
    let answer = app.post("/flat", "[[[1]]]").await;
    assert_eq!(answer.status(), 400);
    let problem: Value = answer.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("more than 2 levels of nesting"), "{problem}");

    // What can't be checked in time is told so, and was not sent.
    let dear = json!(vec!["a".repeat(9_000) + "!"; 100]).to_string();
    let answer = app.post("/slow", dear.clone()).await;
    assert_eq!(answer.status(), 503);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["type"], "https://fpesa.dev/problems/validation-budget");
    assert_eq!(problem["outcome"], "not-sent");

    // Probes wait for none of them: what they take is held against what a cheap request takes then, on the same machine.
    let busy: Vec<_> = (0..32)
        .map(|_| {
            let (client, url, dear) = (app.client.clone(), app.url("/slow"), dear.clone());
            tokio::spawn(async move {
                for _ in 0..2 {
                    let sent = client.post(&url).header("content-type", "application/json").body(dear.clone());
                    assert_eq!(sent.send().await.unwrap().status(), 503);
                }
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    let mut probes = 0;
    while busy.iter().any(|task| !task.is_finished()) {
        let start = Instant::now();
        assert_eq!(app.get("/healthz").await.status(), 200);
        slowest = slowest.max(start.elapsed());
        probes += 1;
    }
    for task in busy {
        task.await.unwrap();
    }
    // A probe that waited its turn behind the bodies would be the only one.
    assert!(probes > 32, "{probes} probes while 64 bodies were checked; the slowest took {slowest:?}");
}

/// Schemas within a schema, by their own `$id` (JSON Schema 2020-12, 9.3); what stands in an `enum` is data.
#[tokio::test]
async fn schemas_that_embed_others_pass() {
    let schema = std::fs::read_to_string(root().join("tests/it/schemas/bundled.json")).unwrap();
    let table = "version: 1\nroutes:\n  - { id: order, method: POST, path: /order, body: { schema: bundled.json }, publish: { exchange: amq.topic, key: a, unroutable: accept } }\n";
    let start = Start::up().table(table);
    std::fs::create_dir_all(start.path().join("schemas")).unwrap();
    start.write("schemas/bundled.json", &schema);
    let app = start.start().await;
    assert_eq!(app.post("/order", r#"{"line":{"sku":"abc"},"to":{"zip":"1"}}"#).await.status(), 202);
    for (body, pointer) in [(r#"{"line":{"sku":"ab"}}"#, "/line/sku"), (r#"{"to":{}}"#, "/to/zip")] {
        let answer = app.post("/order", body).await;
        assert_eq!(answer.status(), 422, "{body}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
}
