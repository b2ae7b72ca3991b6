//! Retention: what is not to be kept goes, in the background, and history stays right at the cut.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fpesa_workers::{
    Worker as _,
    persist::Persist,
    retention::Keep,
    store::{Appended, Store},
};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{
    app::{App, Start},
    eventually,
    history::{all, embedded, event, events, fill, open},
    mongodb::Mongodb,
    postgres::Postgres,
    release::Release,
};

const MESSAGES: &str = "/api/v1/messages";

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

async fn removed(app: &App) -> u64 {
    let text = app.get("/metrics").await.text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with("fpesa_worker_removed_total{worker=\"persist\"}"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

async fn left(app: &App, count: u64) {
    eventually(&format!("{count} messages to be left"), || async {
        let total = app.json(&format!("{MESSAGES}?limit=1&count=true")).await["total"].as_u64()?;
        assert!(total >= count, "{total} are left, and {count} are to be kept");
        (total == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn by_count() {
    let app = Start::up().env("FPESA_KEEP__COUNT", "20").start().await;
    assert_eq!(removed(&app).await, 0, "the series is there from the start");
    let mut all = Vec::new();
    let mut cursor = Value::Null;
    for n in 0..60 {
        all.push(app.keep(&format!(r#"{{"text":"{n}"}}"#)).await);
        if n == 9 {
            app.kept(10).await;
            cursor = app.json(&format!("{MESSAGES}?limit=4")).await["next"].clone();
        }
    }
    eventually("the last one", || async {
        (app.get(&format!("{MESSAGES}/{}", all[59])).await.status() == 200).then_some(())
    })
    .await;
    // Everything that is removed is counted, once.
    eventually("40 removed in the metrics", || async { (removed(&app).await == 40).then_some(()) }).await;
    left(&app, 20).await;
    // The newest are there, whole and in order, and the walk ends at the cut.
    let newest_first: Vec<&str> = all[40..].iter().rev().map(String::as_str).collect();
    let page = app.json(&format!("{MESSAGES}?limit=15")).await;
    assert_eq!(ids(&page), newest_first[..15]);
    let next = page["next"].as_str().unwrap();
    let page = app.json(&format!("{MESSAGES}?limit=15&before={next}")).await;
    assert_eq!((ids(&page), &page["next"]), (newest_first[15..].to_vec(), &Value::Null));
    // A cursor past the cut simply ends; an id that is gone is none.
    let response = app.get(&format!("{MESSAGES}?before={}", cursor.as_str().unwrap())).await;
    assert_eq!(response.status(), 200);
    let page: Value = response.json().await.unwrap();
    assert_eq!((ids(&page).len(), &page["next"]), (0, &Value::Null));
    assert_eq!(app.get(&format!("{MESSAGES}/{}", all[5])).await.status(), 404);
    let response = app.get(&format!("{MESSAGES}?after={}", all[5])).await;
    assert_eq!(response.status(), 422);
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["errors"][0]["keyword"], "unknown-id");
    assert_eq!(ids(&app.json(&format!("{MESSAGES}?after={}", all[40])).await).len(), 19);
}

#[tokio::test]
async fn by_age() {
    let start = Start::up();
    start.write("fpesa.yaml", "keep: { age: 3s }\n");
    let app = start.start().await;
    let first = app.keep(r#"{"text":"first"}"#).await;
    app.kept(1).await;
    let began = Instant::now();
    left(&app, 0).await;
    assert!(began.elapsed() > Duration::from_secs(1), "not before its time");
    // The same id once more is a new message: what is not kept is not known.
    let url = app.url(MESSAGES);
    let again = app.client.post(&url).header("content-type", "application/json").header("idempotency-key", &first);
    assert_eq!(again.body(r#"{"text":"again"}"#).send().await.unwrap().status(), 202);
    app.kept(1).await;
    assert_eq!(app.json(&format!("{MESSAGES}/{first}")).await["data"]["text"], "again");
    left(&app, 0).await;
}

#[tokio::test]
async fn settings() {
    for (key, value, why) in [
        ("FPESA_KEEP__AGE", "2w", "30d"),
        ("FPESA_KEEP__AGE", "0d", "out of range"),
        ("FPESA_KEEP__COUNT", "0", "at least 1"),
        ("FPESA_KEEP__COUNT", "many", "keep.count"),
        ("FPESA_KEEP__AGES", "1d", "did you mean `keep.age`"),
    ] {
        let (status, _, stderr) = Start::up().command(&["config"]).env(key, value).run().await;
        assert_eq!(status, 2, "{key}={value}: {stderr}");
        assert!(stderr.contains(why), "{key}={value}: {stderr}");
    }
    let start = Start::up().command(&["config"]).env("FPESA_KEEP__COUNT", "1000000");
    start.write("fpesa.yaml", "keep:\n  age: 30d\n  count: 5\n");
    let (status, stdout, stderr) = start.run().await;
    assert_eq!(status, 0, "{stderr}");
    let shown: Vec<Vec<&str>> =
        stdout.lines().filter(|line| line.starts_with("keep.")).map(|line| line.split("# ").collect()).collect();
    assert_eq!(shown[0][0].trim(), "keep.age: 30d");
    assert_eq!((shown[1][0].trim(), shown[1][1]), ("keep.count: 1000000", "FPESA_KEEP__COUNT"));
}

/// Lets a worker tend a store until it is told to stop, and gives how many events it removed.
fn tending(worker: Arc<Persist>, stop: tokio_util::sync::CancellationToken) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        let mut removed = 0;
        loop {
            tokio::select! {
                batch = worker.tend() => removed += batch,
                () = stop.cancelled() => return removed,
            }
        }
    })
}

/// Several workers remove by count while others write: never one too many.
async fn several_workers(store: Arc<dyn Store>) {
    const KEPT: u64 = 500;
    fill(&store, &events(4_000)).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let keep = Keep { age: None, count: Some(KEPT) };
    let workers: Vec<_> = (0..4).map(|_| tending(Arc::new(Persist::new(store.clone(), keep)), stop.clone())).collect();
    for n in 0..100_u128 {
        // New ones, and one that is older than what is kept: it comes and goes.
        let batch =
            [event(10_000 + n, 5_000 + i64::try_from(n).unwrap(), "m/a", "0"), event(20_000 + n, -5, "m/a", "0")];
        assert_eq!(store.append(&batch).await.unwrap(), vec![Appended::Kept; 2]);
        assert!(store.place(KEPT - 1).await.unwrap().is_some(), "one too many was removed");
    }
    eventually("nothing to be left to remove", || async { store.place(KEPT).await.unwrap().is_none().then_some(()) })
        .await;
    stop.cancel();
    let mut removed = 0;
    for worker in workers {
        removed += worker.await.unwrap();
    }
    let left = all(&store).await;
    let expected: Vec<Uuid> = (3_601..=4_000).chain(10_000..10_100).map(Uuid::from_u128).collect();
    assert_eq!(left.iter().map(|event| event.id).collect::<Vec<_>>(), expected);
    // A batch that was stopped before it was told may be missing in the count.
    assert!(removed <= 3_700, "{removed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_workers_on_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    several_workers(open(&embedded(folder.path())).await).await;
}

crate::on_each_postgres!(several_workers_on_postgres);

async fn several_workers_on_postgres(on: Release) {
    let server = Postgres::on(on);
    several_workers(open(&server.database()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_workers_on_mongodb() {
    let server = Mongodb::start();
    several_workers(open(&server.database()).await).await;
}

/// Whoever writes is served between batches, while a long history is removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_are_served_while_much_is_removed() {
    const OLD: u128 = 30_000;
    let folder = tempfile::tempdir().unwrap();
    let store = open(&embedded(folder.path())).await;
    fill(&store, &events(OLD)).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let keep = Keep { age: None, count: Some(1) };
    let worker = tending(Arc::new(Persist::new(store.clone(), keep)), stop.clone());
    let oldest = Uuid::from_u128(1);
    eventually("the first batch to be gone", || async { store.get(&oldest).await.unwrap().is_none().then_some(()) })
        .await;
    let mut appended = 0_u128;
    let last_old = Uuid::from_u128(OLD - 1);
    while store.get(&last_old).await.unwrap().is_some() {
        appended += 1;
        let new = event(1_000_000 + appended, 1_000_000, "m/a", "0");
        assert_eq!(store.append(&[new]).await.unwrap(), [Appended::Kept]);
    }
    stop.cancel();
    worker.await.unwrap();
    // One append for each batch of removals at the least.
    assert!(appended >= 15, "{appended}");
}
