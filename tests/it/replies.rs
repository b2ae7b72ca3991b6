//! What a worker's reply becomes: on RabbitMQ, with a worker that answers whatever a case asks for.

use std::time::{Duration, Instant};

use fpesa::{
    bus::{
        Link,
        amqp::{Amqp, Options},
    },
    message::{HeaderValue, Message, Properties},
    topology::QueueKind,
};
use serde_json::{Value, json};

use crate::{
    bus_contract as contract,
    support::{
        app::{App, Start},
        eventually,
        rabbit::Rabbit,
        release::Release,
    },
};

const TABLE: &str = r"
version: 1
routes:
  - { id: ask, method: GET, path: /ask, params: { query: { case: { type: string } } }, call: { queue: answers, timeout: 20s } }
  - { id: act, method: POST, path: /ask, params: { query: { case: { type: string } } }, call: { queue: answers, timeout: 20s } }
  - id: strict
    method: GET
    path: /strict
    params: { query: { case: { type: string } } }
    call: { queue: answers, timeout: 20s, reply: { schema: { type: object, required: [a] } } }
queues:
  answers: { type: rpc }
";

/// Name and value.
type Header = (&'static str, &'static str);

/// A case's name, what the worker replies with (status, content type, content encoding, headers, body), and the answer (status,
/// headers that it has or, after `!`, has not, body; `None` for a 502 whose reason in the log has the text).
struct Case {
    name: &'static str,
    status: Option<HeaderValue>,
    content_type: Option<&'static str>,
    coding: Option<&'static str>,
    headers: &'static [Header],
    body: &'static [u8],
    expected: Result<(u16, &'static [Header], &'static [u8]), &'static str>,
}

const PLAIN: Case = Case {
    name: "",
    status: None,
    content_type: None,
    coding: None,
    headers: &[],
    body: b"",
    expected: Ok((200, &[], b"")),
};

#[allow(clippy::unnecessary_wraps, reason = "the shape that a case has")]
fn int(status: i64) -> Option<HeaderValue> {
    Some(HeaderValue::Int(status))
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    const JSON: &str = "application/json";
    const PROBLEM: &str = "application/problem+json";
    vec![
        Case { name: "json", body: b"[1]", expected: Ok((200, &[("content-type", JSON)], b"[1]")), ..PLAIN },
        Case {
            name: "bytes",
            body: b"\xff\x00",
            expected: Ok((200, &[("content-type", "application/octet-stream")], b"\xff\x00")),
            ..PLAIN
        },
        Case { name: "nothing", expected: Ok((200, &[("!content-type", "")], b"")), ..PLAIN },
        Case {
            name: "nothing as json",
            content_type: Some(JSON),
            expected: Ok((200, &[("!content-type", "")], b"")),
            ..PLAIN
        },
        Case {
            name: "created",
            status: int(201),
            headers: &[("http.location", "/things/7")],
            expected: Ok((201, &[("location", "/things/7"), ("!content-type", "")], b"")),
            ..PLAIN
        },
        Case { name: "no content", status: int(204), expected: Ok((204, &[("!content-type", "")], b"")), ..PLAIN },
        Case {
            name: "no content but a body",
            status: int(204),
            body: b"null",
            expected: Ok((204, &[("!content-type", "")], b"")),
            ..PLAIN
        },
        Case {
            name: "not modified",
            status: int(304),
            headers: &[("http.etag", "\"1\"")],
            expected: Ok((304, &[("etag", "\"1\"")], b"")),
            ..PLAIN
        },
        Case { name: "least", status: int(200), expected: Ok((200, &[], b"")), ..PLAIN },
        Case {
            name: "most",
            status: int(599),
            body: b"{}",
            expected: Ok((599, &[("content-type", JSON)], b"{}")),
            ..PLAIN
        },
        Case {
            name: "accepted",
            status: Some(HeaderValue::Text("202".into())),
            expected: Ok((202, &[], b"")),
            ..PLAIN
        },
        Case { name: "as text", status: Some(HeaderValue::Text(String::new())), expected: Err("`status`"), ..PLAIN },
        Case {
            name: "headers",
            headers: &[
                ("http.link", "<?a>; rel=\"next\""),
                ("http.etag", "\"x\""),
                ("http.cache-control", "max-age=5"),
                ("http.location", "/x"),
                ("http.retry-after", "7"),
                ("http.content-disposition", "attachment; filename=\"a.csv\""),
                ("http.content-language", "de"),
                ("http.x-total-count", "12"),
                ("http.set-cookie", "a=b"),
                ("http.server", "mine"),
                ("http.access-control-allow-origin", "*"),
                ("x-other", "1"),
                ("etag2", "1"),
            ],
            content_type: Some("text/csv; charset=utf-8"),
            body: b"a;b",
            expected: Ok((
                200,
                &[
                    ("link", "<?a>; rel=\"next\""),
                    ("etag", "\"x\""),
                    ("cache-control", "max-age=5"),
                    ("location", "/x"),
                    ("retry-after", "7"),
                    ("content-disposition", "attachment; filename=\"a.csv\""),
                    ("content-language", "de"),
                    ("x-total-count", "12"),
                    ("content-type", "text/csv; charset=utf-8"),
                    ("!set-cookie", ""),
                    ("!server", ""),
                    ("!access-control-allow-origin", ""),
                    ("!x-other", ""),
                    ("!http.etag", ""),
                    ("!fpesa-worker", ""),
                ],
                b"a;b",
            )),
            ..PLAIN
        },
        Case { name: "busy", status: int(503), expected: Ok((503, &[("retry-after", "1")], b"")), ..PLAIN },
        Case {
            name: "busier",
            status: int(503),
            headers: &[("http.retry-after", "9")],
            expected: Ok((503, &[("retry-after", "9")], b"")),
            ..PLAIN
        },
        Case {
            name: "compressed",
            content_type: Some(JSON),
            coding: Some("gzip"),
            body: b"\x1f\x8b not json",
            expected: Ok((200, &[("content-encoding", "gzip"), ("content-type", JSON)], b"\x1f\x8b not json")),
            ..PLAIN
        },
        Case {
            name: "problem",
            status: int(409),
            content_type: Some(PROBLEM),
            body: b"{\"title\":\"x\",\"instance\":\"i\"}",
            expected: Ok((409, &[("content-type", PROBLEM)], b"{\"title\":\"x\",\"instance\":\"i\"}")),
            ..PLAIN
        },
        Case { name: "too low", status: int(199), expected: Err("`status`"), ..PLAIN },
        Case { name: "informational", status: int(100), expected: Err("`status`"), ..PLAIN },
        Case { name: "too high", status: int(600), expected: Err("`status`"), ..PLAIN },
        Case { name: "negative", status: int(-200), expected: Err("`status`"), ..PLAIN },
        Case { name: "a flag", status: Some(HeaderValue::Bool(true)), expected: Err("`status`"), ..PLAIN },
        Case { name: "bad json", content_type: Some(JSON), body: b"{", expected: Err("not JSON"), ..PLAIN },
        Case {
            name: "bad problem",
            status: int(400),
            content_type: Some(PROBLEM),
            body: b"[]",
            expected: Err("problem"),
            ..PLAIN
        },
        Case {
            name: "a line break",
            headers: &[("http.link", "a\r\nset-cookie: b")],
            expected: Err("forbids"),
            ..PLAIN
        },
    ]
}

fn reply(call: &Message, case: &Case) -> Message {
    let mut headers: std::collections::BTreeMap<String, HeaderValue> =
        case.headers.iter().map(|(name, value)| ((*name).to_owned(), HeaderValue::from(*value))).collect();
    headers.extend(case.status.clone().map(|status| ("status".to_owned(), status)));
    Message {
        key: call.properties.reply_to.clone().unwrap(),
        properties: Properties {
            correlation_id: call.properties.correlation_id.clone(),
            content_type: case.content_type.map(str::to_owned),
            content_encoding: case.coding.map(str::to_owned),
            headers,
            ..Properties::default()
        },
        body: case.body.into(),
        ..Message::default()
    }
}

/// Answers calls by the case that they name; `large:N` with N bytes.
async fn work(bus: contract::Shared) {
    let cases = cases();
    let mut deliveries = bus.consume("answers", 100).await.unwrap();
    while let Some(delivery) = deliveries.next().await {
        let call: Value = serde_json::from_slice(&delivery.message.body).unwrap();
        let name = call["params"]["query"]["case"].as_str().unwrap();
        let large = name.strip_prefix("large:").map(|size| vec![b'x'; size.parse().unwrap()]);
        let case = cases.iter().find(|case| case.name == name).unwrap_or(&PLAIN);
        let mut reply = reply(&delivery.message, case);
        if let Some(body) = large {
            reply.body = body.into();
        }
        delivery.ticket.ack();
        let bus = bus.clone();
        tokio::spawn(async move { bus.publish(reply, Instant::now() + Duration::from_secs(30)).await });
    }
}

async fn ask(app: &App, path: &str, case: &str) -> reqwest::Response {
    app.client.get(app.url(path)).query(&[("case", case)]).send().await.unwrap()
}

async fn metric(app: &App, name: &str) -> u64 {
    let metrics = app.get("/metrics").await.text().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}\n{metrics}"));
    line.trim().parse().unwrap()
}

crate::on_each_rabbitmq!(what_a_reply_becomes);

async fn what_a_reply_becomes(on: Release) {
    let rabbit = Rabbit::on(on).await;
    let bus: contract::Shared = Amqp::connect(Options::at(&rabbit.url()).unwrap());
    eventually("the link to be up", || async { (bus.state().link == Link::Up).then_some(()) }).await;
    bus.declare(&contract::topology([("answers".to_owned(), contract::queue(QueueKind::Rpc))])).await.unwrap();
    let worker = tokio::spawn(work(bus.clone()));
    let url = rabbit.url();
    let app = Start::up()
        .table(TABLE)
        .command(&["gateway", "--bus", &url])
        .env("FPESA_LIMITS__MEMORY", "12MiB")
        .start()
        .await;
    eventually("the worker to answer", || async { (ask(&app, "/ask", "json").await.status() == 200).then_some(()) })
        .await;
    for case in cases() {
        let response = ask(&app, "/ask", case.name).await;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap();
        match case.expected {
            Ok((expected, with, text)) => {
                assert_eq!((status, &body[..]), (expected, text), "{}", case.name);
                for (name, value) in with {
                    match name.strip_prefix('!') {
                        Some(name) => assert!(!headers.contains_key(name), "{}: {name}", case.name),
                        None => assert_eq!(
                            headers.get(*name).map(reqwest::header::HeaderValue::as_bytes),
                            Some(value.as_bytes()),
                            "{}: {name}",
                            case.name
                        ),
                    }
                }
            }
            Err(reason) => {
                let problem: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(
                    (status, &problem["type"]),
                    (502, &json!("https://fpesa.dev/problems/invalid-reply")),
                    "{}",
                    case.name
                );
                let request = headers["x-request-id"].to_str().unwrap().to_owned();
                let told = eventually("the reason in the log", || async {
                    app.stderr().lines().find(|line| line.contains(&request)).map(str::to_owned)
                })
                .await;
                assert!(told.contains(reason) && told.contains("correlation_id"), "{}: {told}", case.name);
            }
        }
    }
    // Checked as the schema asks, whatever the worker says of it.
    for (case, status) in [("json", 502), ("nothing", 502), ("compressed", 502), ("no content", 204), ("problem", 409)]
    {
        assert_eq!(ask(&app, "/strict", case).await.status(), status, "{case}");
    }
    // `Accept` chooses among answers with content, of what has changed nothing.
    let accepting = |method: reqwest::Method, case: &str| {
        app.client.request(method, app.url("/ask")).query(&[("case", case)]).header("accept", "text/html").send()
    };
    assert_eq!(accepting(reqwest::Method::GET, "json").await.unwrap().status(), 406);
    assert_eq!(accepting(reqwest::Method::GET, "no content").await.unwrap().status(), 204);
    assert_eq!(accepting(reqwest::Method::GET, "nothing").await.unwrap().status(), 200);
    assert_eq!(accepting(reqwest::Method::POST, "json").await.unwrap().status(), 200);

    // Replies have a size, and those that are held at a time a sum.
    assert_eq!(ask(&app, "/ask", "large:8388608").await.bytes().await.unwrap().len(), 8 << 20);
    assert_eq!(ask(&app, "/ask", "large:8388609").await.status(), 502);
    eventually("why in the log", || async { app.stderr().contains("`reply.max_size`").then_some(()) }).await;
    // As large as RabbitMQ 4 lets any message be, by default 16 MiB.
    let before = memory(&app);
    assert_eq!(ask(&app, "/ask", "large:16000000").await.status(), 502);
    assert!(memory(&app) < before + 12_000, "a reply of 16 MB is not collected: {} kB from {before}", memory(&app));
    let both = tokio::join!(unread(&app, "large:8000000"), unread(&app, "large:8000000"));
    let mut statuses = [both.0.status().as_u16(), both.1.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    assert!(metric(&app, "fpesa_memory_held_bytes ").await >= 8_000_000);
    for response in [both.0, both.1] {
        if response.status() == 503 {
            assert_eq!(response.headers()["retry-after"], "1");
            let problem: Value = response.json().await.unwrap();
            assert_eq!(
                (&problem["type"], &problem["outcome"]),
                (&json!("https://fpesa.dev/problems/overloaded"), &json!("unknown"))
            );
        } else {
            assert_eq!(response.bytes().await.unwrap().len(), 8_000_000);
        }
    }
    eventually("all of it to be given back", || async {
        (metric(&app, "fpesa_memory_held_bytes ").await == 0).then_some(())
    })
    .await;
    assert_eq!(metric(&app, "fpesa_memory_limit_bytes ").await, 12 << 20);
    worker.abort();
}

/// An answer whose body is not read yet, on a connection of its own.
async fn unread(app: &App, case: &str) -> reqwest::Response {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
    client.get(app.url("/ask")).query(&[("case", case)]).send().await.unwrap()
}

/// Resident memory in kB.
fn memory(app: &App) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", app.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
