//! Hot reload: an edit takes effect within a second, a broken one changes nothing and says why.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    app::{App, Start},
    eventually,
};

async fn generation(app: &App, wanted: u64) -> Value {
    eventually(&format!("generation {wanted}"), || async {
        let ready = app.json("/readyz").await;
        (ready["generation"] == wanted).then_some(ready)
    })
    .await
}

async fn refused(app: &App) -> Value {
    eventually("the edit to be refused", || async {
        let ready = app.json("/readyz").await;
        (ready["reload"]["ok"] == false).then_some(ready)
    })
    .await
}

#[tokio::test]
async fn an_edit_takes_effect_within_a_second() {
    let app = App::up().await;
    assert_eq!(app.get("/api/v1/notes").await.status(), 404);
    let table = app.read("routes.yaml").replace("path: /messages\n", "path: /notes\n");
    let start = Instant::now();
    app.edit("routes.yaml", &table);
    generation(&app, 2).await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(app.get("/api/v1/notes").await.status(), 200);
    assert_eq!(app.get("/api/v1/messages").await.status(), 404);
    assert!(app.stderr().contains("the table is reloaded"));
}

#[tokio::test]
async fn a_schema_and_what_may_be_read_are_reloaded_too() {
    let app = App::up().await;
    app.keep(r#"{"text":"a rather long one"}"#).await;
    // An editor that puts a new file in the place of the old one.
    let schema = app.read("schemas/message.json").replace("65536", "5");
    app.edit("schemas/message.json.new", &schema);
    let folder = app.folder.path().join("schemas");
    std::fs::rename(folder.join("message.json.new"), folder.join("message.json")).unwrap();
    generation(&app, 2).await;
    assert_eq!(app.post("/api/v1/messages", r#"{"text":"a rather long one"}"#).await.status(), 422);
    let table = app.read("routes.yaml").replace(r#"["messages/#"]"#, r#"["messages/+"]"#);
    app.edit("routes.yaml", &table);
    generation(&app, 3).await;
    assert_eq!(app.json("/feed.json").await["topics"][0], "messages/+");
}

#[tokio::test]
async fn a_broken_edit_changes_nothing_and_is_told_with_its_line() {
    let app = App::up().await;
    let good = app.read("routes.yaml");
    app.edit("routes.yaml", &good.replace("exchange: amq.topic\n", "exchnage: amq.topic\n"));
    let ready = refused(&app).await;
    assert_eq!((&ready["ready"], &ready["generation"]), (&true.into(), &1.into()));
    let problems = ready["reload"]["problems"].as_array().unwrap();
    let problem = problems.iter().find(|problem| problem["code"] == "unknown-key").unwrap();
    assert_eq!(problem["hint"], "did you mean `exchange`?");
    let (line, column) = (problem["line"].as_u64().unwrap(), problem["column"].as_u64().unwrap());
    assert!(app.stderr().contains(&format!("routes.yaml:{line}:{column}: error[unknown-key]")), "{}", app.stderr());
    assert!(app.stderr().contains("exchnage: amq.topic"), "the line itself is logged");
    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("fpesa_reload_failures_total 1") && metrics.contains("fpesa_reload_generation 1"));
    app.keep(r#"{"text":"still here"}"#).await;
    // No YAML at all, and no file at all.
    app.edit("routes.yaml", "routes: [");
    eventually("the second failure", || async {
        app.get("/metrics").await.text().await.unwrap().contains("fpesa_reload_failures_total 2").then_some(())
    })
    .await;
    std::fs::remove_file(app.folder.path().join("routes.yaml")).unwrap();
    eventually("the third failure", || async {
        app.get("/metrics").await.text().await.unwrap().contains("fpesa_reload_failures_total 3").then_some(())
    })
    .await;
    app.edit("routes.yaml", &good);
    eventually("it to be good again", || async { (app.json("/readyz").await["reload"]["ok"] == true).then_some(()) })
        .await;
    app.keep(r#"{"text":"and here"}"#).await;
}

#[tokio::test]
async fn a_topology_that_differs_is_refused() {
    let app = App::up().await;
    let table = app
        .read("routes.yaml")
        .replace("dead_letter: messages.dead\n", "dead_letter: messages.dead\n    type: classic\n");
    app.edit("routes.yaml", &table);
    let ready = refused(&app).await;
    let message = ready["reload"]["problems"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("messages.persist") && message.contains("quorum") && message.contains("classic"),
        "{message}"
    );
}

#[tokio::test]
async fn new_queues_and_workers_begin_to_work() {
    let app = Start::up().start().await;
    let table = app.read("routes.yaml")
        .replace("workers:\n", "workers:\n  notes: { kind: persist, queue: notes.persist }\n")
        .replace("queues:\n", "queues:\n  notes.persist: { bind: [{ exchange: amq.topic, key: \"notes.#\" }] }\n")
        .replace("routes:\n", "routes:\n  - { id: post-note, method: POST, path: /notes, body: {}, publish: { exchange: amq.topic, key: notes } }\n");
    app.edit("routes.yaml", &table);
    generation(&app, 2).await;
    eventually("the new worker", || async {
        (app.json("/readyz").await["workers"] == serde_json::json!(["history", "notes", "persist"])).then_some(())
    })
    .await;
    assert_eq!(app.post("/api/v1/notes", "{}").await.status(), 202);
    app.kept(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_dropped_while_tables_come_and_go() {
    let app = Arc::new(App::up().await);
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (app, done) = (app.clone(), done.clone());
            tokio::spawn(async move {
                let mut served = 0;
                while !done.load(Ordering::Relaxed) {
                    app.keep(r#"{"text":"x"}"#).await;
                    assert_eq!(app.get("/api/v1/messages?limit=1").await.status(), 200);
                    served += 1;
                }
                served
            })
        })
        .collect();
    let good = app.read("routes.yaml");
    for n in 2..7 {
        app.edit("routes.yaml", &format!("{good}\n# edit {n}\n"));
        generation(&app, n).await;
    }
    done.store(true, Ordering::Relaxed);
    let mut served = 0;
    for client in clients {
        served += client.await.unwrap();
    }
    assert!(served > 0);
    app.kept(served).await;
}
