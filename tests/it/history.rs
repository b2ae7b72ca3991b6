//! History from outside: pages that stay true while messages keep arriving.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};

use crate::support::app::{App, Start};

const MESSAGES: &str = "/api/v1/messages";

async fn ids(app: &App, path: &str) -> (Vec<String>, Value) {
    let response = app.get(path).await;
    assert_eq!(response.status(), 200, "{path}");
    let link = response.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
    let page: Value = response.json().await.unwrap();
    // The header says the same as the body.
    match page["next"].as_str() {
        Some(next) => {
            let way = if path.contains("after=") { "after" } else { "before" };
            assert!(link.unwrap().contains(&format!("{way}={next}")), "{path}");
        }
        None => assert!(link.is_none(), "{path}"),
    }
    let ids = page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    (ids, page)
}

/// Sixteen messages within moments, whose ids stand in another order than their times.
#[tokio::test]
async fn messages_that_are_their_bodies_have_their_place() {
    let start = Start::up();
    let table = std::fs::read_to_string(start.path().join("routes.yaml")).unwrap();
    let file = "  - id: post-file
    method: POST
    path: /files
    body: {}
    publish: { exchange: amq.topic, key: messages.files, payload: body }

queues:
";
    let app = start.table(&table.replacen("queues:\n", file, 1)).start().await;
    let mut all = Vec::new();
    for n in 0..16 {
        let id = uuid::Uuid::new_v4().to_string();
        let post = app.client.post(app.url("/api/v1/files")).header("content-type", "application/json");
        let posted = post.header("idempotency-key", &id).body(n.to_string()).send().await.unwrap();
        assert_eq!(posted.status(), 202);
        all.push(id);
    }
    app.kept(16).await;
    in_order(&app, &all).await;
    let one = app.json(&format!("{MESSAGES}/{}", all[3])).await;
    let time = one["time"].as_str().unwrap();
    assert!(time.len() == "2026-11-23T18:27:58.123456Z".len() && time.ends_with('Z'), "{time}");
}

/// `all`, oldest first, are what history has, and after each of them come the rest.
pub async fn in_order(app: &App, all: &[String]) {
    let newest_first: Vec<String> = all.iter().rev().cloned().collect();
    assert_eq!(ids(app, MESSAGES).await.0, newest_first);
    for (at, id) in all.iter().enumerate() {
        assert_eq!(ids(app, &format!("{MESSAGES}?after={id}")).await.0, all[at + 1..], "after the one at {at}");
    }
}

#[tokio::test]
async fn filters_and_directions() {
    let app = App::up().await;
    let mut all = Vec::new();
    for n in 0..10 {
        let topic = if n % 2 == 0 { "even" } else { "odd" };
        all.push(app.keep(&format!(r#"{{"text":"{n}","topic":"{topic}"}}"#)).await);
    }
    app.kept(10).await;
    let newest_first: Vec<String> = all.iter().rev().cloned().collect();
    let (page, body) = ids(&app, MESSAGES).await;
    assert_eq!((&page, &body["next"], body.get("total")), (&newest_first, &json!(null), None));
    let even: Vec<String> =
        newest_first.iter().filter(|id| all.iter().position(|other| other == *id).unwrap() % 2 == 0).cloned().collect();
    assert_eq!(ids(&app, &format!("{MESSAGES}?topic=messages/even")).await.0, even);
    assert_eq!(ids(&app, &format!("{MESSAGES}?topic=messages/%2B")).await.0, newest_first);
    assert_eq!(ids(&app, &format!("{MESSAGES}?topic=messages/%23")).await.0, newest_first);
    assert!(ids(&app, &format!("{MESSAGES}?topic=orders/%23")).await.0.is_empty());
    let (page, body) = ids(&app, &format!("{MESSAGES}?topic=messages/odd&limit=2&count=true")).await;
    assert_eq!((page.len(), &body["total"]), (2, &json!(5)));
    // The link of a page leads on, its filter kept.
    let response = app.get(&format!("{MESSAGES}?topic=messages/odd&limit=2")).await;
    let link = response.headers()["link"].to_str().unwrap().to_owned();
    let target = link.strip_prefix('<').unwrap().split_once(">; rel=\"next\"").unwrap().0.to_owned();
    let (second, _) = ids(&app, &format!("{MESSAGES}{target}")).await;
    assert_eq!(second.len(), 2);
    assert!(second.iter().all(|id| !page.contains(id)));
    // Forward, oldest first.
    assert_eq!(ids(&app, &format!("{MESSAGES}?after={}", all[3])).await.0, all[4..]);
    // Such a page leads on by the id of its last message.
    let (page, forward) = ids(&app, &format!("{MESSAGES}?after={}&limit=2", all[3])).await;
    assert_eq!((&page[..], &forward["next"]), (&all[4..6], &json!(all[5])));
    let (page, forward) = ids(&app, &format!("{MESSAGES}?after={}&limit=4", all[5])).await;
    assert_eq!((&page[..], &forward["next"]), (&all[6..], &json!(null)));
    // By time: from a message's own time on, and before it.
    let time = app.json(&format!("{MESSAGES}/{}", all[4])).await["time"].as_str().unwrap().to_owned();
    assert_eq!(ids(&app, &format!("{MESSAGES}?since={time}")).await.0, newest_first[..6]);
    assert_eq!(ids(&app, &format!("{MESSAGES}?until={time}")).await.0, newest_first[6..]);
    let both = app.get(&format!("{MESSAGES}?after={}&before={}", all[3], body["next"].as_str().unwrap())).await;
    assert_eq!(both.status(), 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_shows_each_message_of_its_start_once_while_more_arrive() {
    let app = Arc::new(App::up().await);
    let mut there = HashSet::new();
    for n in 0..150 {
        there.insert(app.keep(&format!(r#"{{"text":"{n}"}}"#)).await);
    }
    app.kept(150).await;
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (app, done) = (app.clone(), done.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    app.keep(r#"{"text":"more"}"#).await;
                }
            })
        })
        .collect();
    let mut seen = Vec::new();
    let mut path = format!("{MESSAGES}?limit=7");
    loop {
        let (page, body) = ids(&app, &path).await;
        seen.extend(page);
        match body["next"].as_str() {
            Some(next) => path = format!("{MESSAGES}?limit=7&before={next}"),
            None => break,
        }
    }
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let unique: HashSet<String> = seen.iter().cloned().collect();
    assert_eq!(unique.len(), seen.len(), "none twice");
    assert!(there.is_subset(&unique), "none missing");
}
