//! Pages of history have an end in bytes, and what a process holds for its clients has one too.

use std::time::Duration;

use fpesa_workers::event::Event;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    app::{App, Start},
    eventually,
    history::{embedded, event, fill, open},
};

const MESSAGES: &str = "/api/v1/messages";
const MAX: usize = 8 * 1024 * 1024;

/// A folder whose store has so many messages of 250 kB each.
async fn filled(count: u128) -> Start {
    let start = Start::up();
    let store = open(&embedded(&start.path().join("data"))).await;
    let data = format!("\"{}\"", "x".repeat(250_000));
    let events: Vec<Event> = (1..=count).map(|n| event(n, i64::try_from(n).unwrap(), "messages/a", &data)).collect();
    fill(&store, &events).await;
    start
}

async fn held(app: &App) -> usize {
    let metrics = app.get("/metrics").await.text().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("fpesa_memory_held_bytes ")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn a_full_page_ends_by_its_bytes_and_leads_on() {
    let app = filled(70).await.start().await;
    for (name, first) in [("before", ""), ("after", "after=00000000-0000-0000-0000-000000000001&")] {
        let (mut seen, mut pages) = (0, 0);
        let mut query = first.to_owned();
        loop {
            let response = app.get(&format!("{MESSAGES}?{query}limit=1000")).await;
            assert_eq!(response.status(), 200);
            let link = response.headers().contains_key("link");
            let bytes = response.bytes().await.unwrap();
            assert!(bytes.len() <= MAX, "{}", bytes.len());
            let page: Value = serde_json::from_slice(&bytes).unwrap();
            let items = page["items"].as_array().unwrap().len();
            assert!(items > 0);
            seen += items;
            pages += 1;
            assert_eq!(link, page["next"].is_string());
            let Some(next) = page["next"].as_str() else { break };
            // Not small either: one more would not have had room.
            assert!(bytes.len() > MAX - 300_000, "{}", bytes.len());
            query = format!("{name}={next}&");
        }
        assert_eq!((seen, pages), (if name == "before" { 70 } else { 69 }, 3), "{name}");
    }
}

#[tokio::test]
async fn a_page_has_one_message_at_least() {
    let app = filled(3).await.env("FPESA_HISTORY__MAX_PAGE_BYTES", "64KiB").start().await;
    let page = app.json(&format!("{MESSAGES}?limit=2&count=true")).await;
    assert_eq!(
        (page["items"].as_array().unwrap().len(), page["next"].is_string(), &page["total"]),
        (1, true, &json!(3))
    );
}

/// Asks for a full page and reads nothing of it.
async fn unread(app: &App) -> TcpStream {
    let mut stream = TcpStream::connect(&app.base["http://".len()..]).await.unwrap();
    let request = format!("GET {MESSAGES}?limit=1000 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn clients_that_never_read_stay_within_the_budget() {
    const BUDGET: usize = 40 * 1024 * 1024;
    let app = filled(40).await.env("FPESA_LIMITS__MEMORY", "40MiB").start().await;
    assert_eq!(held(&app).await, 0);
    let mut clients = Vec::new();
    for _ in 0..12 {
        let stream = unread(&app).await;
        // Its answer has begun: the page, or that there is no room for it.
        let mut first = [0; 12];
        let answered = tokio::time::timeout(Duration::from_secs(30), async {
            while stream.peek(&mut first).await.unwrap() < first.len() {}
        });
        answered.await.unwrap();
        clients.push((stream, String::from_utf8(first.to_vec()).unwrap()));
        let held = held(&app).await;
        assert!(held <= BUDGET, "{held}");
    }
    let with = |status: &str| clients.iter().filter(|(_, first)| first.ends_with(status)).count();
    assert_eq!((with("200"), with("503")), (5, 7), "five pages have room");
    assert!(held(&app).await > 30 * 1024 * 1024);
    // A body has no room either; what is small is not counted.
    let large = format!(r#"{{"text":"x"{}}}"#, " ".repeat(200_000));
    let refused = async || app.post(MESSAGES, large.clone()).await;
    let fits = (BUDGET - held(&app).await) / large.len();
    assert!(fits >= 1, "there is room for one body at a time");
    assert_eq!(refused().await.status(), 202);
    assert_eq!(app.post(MESSAGES, r#"{"text":"small"}"#).await.status(), 202);
    assert_eq!(app.get(&format!("{MESSAGES}?limit=1&topic=messages/b")).await.status(), 200);
    for (mut stream, first) in clients {
        let mut answer = Vec::new();
        if first.ends_with("503") {
            stream.read_to_end(&mut answer).await.unwrap();
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.contains("retry-after: 1\r\n") && answer.contains("problems/overloaded"), "{answer}");
        }
        // Others go away in the middle of theirs.
    }
    eventually("all of it to be given back", || async { (held(&app).await == 0).then_some(()) }).await;
}

#[tokio::test]
async fn bodies_that_come_slowly_count_as_they_come() {
    let start = Start::up().env("FPESA_LIMITS__MEMORY", "300KiB");
    let app = start.start().await;
    let begin = async |size: usize| {
        let mut stream = TcpStream::connect(&app.base["http://".len()..]).await.unwrap();
        let head = format!(
            "POST {MESSAGES} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 200000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b' '; size]).await.unwrap();
        stream
    };
    // What is only announced takes nothing.
    let first = begin(190_000).await;
    eventually("the first to be counted", || async { (held(&app).await >= 190_000).then_some(()) }).await;
    let second = begin(0).await;
    assert!(held(&app).await < 200_000);
    let mut third = begin(150_000).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), third.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("problems/overloaded"), "{answer}");
    assert!(answer.contains("\"outcome\":\"not-sent\"") && answer.contains("retry-after: 1"), "{answer}");
    drop((first, second));
    eventually("all of it to be given back", || async { (held(&app).await == 0).then_some(()) }).await;
    let whole = format!(r#"{{"text":"x"{}}}"#, " ".repeat(200_000));
    for _ in 0..3 {
        assert_eq!(app.post(MESSAGES, whole.clone()).await.status(), 202);
    }
    eventually("all of it to be given back", || async { (held(&app).await == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_share_of_memory_is_a_setting() {
    for (value, told) in [("0%", "out of range"), ("lots", "no size"), ("101%", "out of range")] {
        let (status, _, stderr) = Start::up().env("FPESA_LIMITS__MEMORY", value).run().await;
        assert_eq!(status, 2);
        assert!(stderr.contains("limits.memory") && stderr.contains(told), "{stderr}");
    }
    let app = App::up().await;
    let metrics = app.get("/metrics").await.text().await.unwrap();
    let limit = metrics.lines().find_map(|line| line.strip_prefix("fpesa_memory_limit_bytes ")).unwrap();
    assert!(limit.parse::<usize>().unwrap() > 1 << 20);
}
