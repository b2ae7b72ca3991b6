//! The gateway from outside: every status, problem and member that a client can meet on the embedded bus, and every bad
//! input that we could think of.

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::app::{App, Start};

const MESSAGES: &str = "/api/v1/messages";

async fn problem(response: Response, status: u16, suffix: &str) -> Value {
    assert_eq!(response.status(), status, "{suffix}");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["type"], format!("https://fpesa.dev/problems/{suffix}"));
    assert_eq!(body["status"], status);
    assert_eq!(body["instance"], id);
    assert!(body["title"].is_string() && body["detail"].is_string());
    body
}

fn request(app: &App, method: &str, path: &str) -> reqwest::RequestBuilder {
    app.client.request(Method::from_bytes(method.as_bytes()).unwrap(), app.url(path))
}

fn post(app: &App, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
    request(app, "POST", MESSAGES).header("content-type", "application/json").body(body)
}

/// Writes bytes as they are and gives all that comes back.
async fn raw(app: &App, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&app.base["http://".len()..]).await.unwrap();
    // The server may answer and close before it read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_publish_is_kept_and_says_where() {
    let app = App::up().await;
    let response = post(&app, r#"{"text":"hi"}"#).header("x-request-id", "my-id.1").send().await.unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["x-request-id"], "my-id.1");
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let id = response.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(location, format!("{MESSAGES}/{id}"));
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
    app.kept(1).await;
    let event = app.json(&location).await;
    assert_eq!(event["id"], *id);
    assert_eq!(
        [&event["specversion"], &event["source"], &event["type"], &event["subject"], &event["data"]],
        [
            &json!("1.0"),
            &json!("/post-message"),
            &json!("post-message"),
            &json!("messages/general"),
            &json!({"text": "hi"})
        ]
    );
    let time = event["time"].as_str().unwrap();
    assert!(time.len() == 27 && time.ends_with('Z'), "{time}");
    let minimal = post(&app, r#"{"text":"hi"}"#).header("prefer", "foo, return=minimal").send().await.unwrap();
    assert_eq!(
        (minimal.status().as_u16(), &minimal.headers()["preference-applied"]),
        (202, &"return=minimal".parse().unwrap())
    );
    assert_eq!(minimal.text().await.unwrap(), "");
    // An id that is not sane is replaced.
    let odd = post(&app, r#"{"text":"hi"}"#).header("x-request-id", "a b").send().await.unwrap();
    assert_ne!(odd.headers()["x-request-id"], "a b");
}

#[tokio::test]
async fn data_comes_back_byte_for_byte() {
    let app = App::up().await;
    for text in [
        r#"{"text":"n","a":12345678901234567890123,"b":0.1234567890123456789012345678901,"c":1E5,"d":-0.0}"#,
        "{ \"text\" : \"white\",\n\t\"z\":1,\"a\":[ 1 ,2 ] }",
        r#"{"text":"\u00fc\ud83d\ude00\u0000","$oid":"x","a.b":1}"#,
    ] {
        let id = app.keep(text).await;
        let path = format!("{MESSAGES}/{id}");
        crate::support::eventually("it to be kept", || async { (app.get(&path).await.status() == 200).then_some(()) })
            .await;
        let document = app.get(&path).await.text().await.unwrap();
        assert!(document.contains(&format!(r#""data":{text}"#)), "{document}");
        let page = app.get(&format!("{MESSAGES}?limit=1")).await.text().await.unwrap();
        assert!(page.contains(&format!(r#""data":{text}"#)), "{page}");
    }
}

#[tokio::test]
async fn a_client_may_bring_its_own_id() {
    let app = App::up().await;
    let id = "0193F1C2-7D3A-7C3E-9D4E-0123456789AB";
    for key in [id.to_owned(), format!("\"{id}\"")] {
        let response = post(&app, r#"{"text":"once"}"#).header("idempotency-key", key).send().await.unwrap();
        assert_eq!(response.status(), 202);
        assert_eq!(response.json::<Value>().await.unwrap()["id"], id.to_lowercase());
    }
    app.kept(1).await;
    // The same id with other data is another message: it goes to the dead-letter queue, and the first one stays.
    post(&app, r#"{"text":"another"}"#).header("idempotency-key", id).send().await.unwrap();
    crate::support::eventually("the conflict to be told", || async {
        let metrics = app.get("/metrics").await.text().await.unwrap();
        metrics.contains(r#"fpesa_worker_events_total{worker="persist",verdict="rejected"} 1"#).then_some(())
    })
    .await;
    crate::support::eventually("the reason in the log", || async {
        app.stderr().contains("id-conflict").then_some(())
    })
    .await;
    assert_eq!(app.json(&format!("{MESSAGES}/{id}")).await["data"]["text"], "once");
    for bad in [
        b"".as_slice(),
        b"x",
        b"0193f1c27d3a7c3e9d4e0123456789ab",
        b"{0193f1c2-7d3a-7c3e-9d4e-0123456789ab}",
        "ü".as_bytes(),
        b"\xff",
    ] {
        let refused = problem(
            post(&app, r#"{"text":"x"}"#).header("idempotency-key", bad).send().await.unwrap(),
            422,
            "validation-failed",
        )
        .await;
        assert_eq!(refused["errors"][0]["in"], "header", "{bad:?}");
        assert_eq!(refused["errors"][0]["name"], "idempotency-key");
    }
}

#[tokio::test]
async fn bodies_that_are_no_json_are_told_by_line() {
    let app = App::up().await;
    let deep = format!(r#"{{"text":"x","d":{}1{}}}"#, "[".repeat(1_000), "]".repeat(1_000));
    for body in [
        "nope",
        "{\"text\":",
        r#"{"text":"a","text":"b"}"#,
        r#"{"text":"a","te\u0078t":"b"}"#,
        r#"{"text":"\ud800"}"#,
        r#"{"text":"a","n":1e400}"#,
        "{\"text\":\"a\"} x",
        "\u{feff}{\"text\":\"a\"}",
        &deep,
    ] {
        let body = problem(post(&app, body.to_owned()).send().await.unwrap(), 400, "malformed-body").await;
        assert!(body["line"].is_u64() && body["column"].is_u64(), "{body}");
    }
    let latin = post(&app, b"{\"text\":\"\xfc\"}".to_vec()).send().await.unwrap();
    problem(latin, 400, "malformed-body").await;
    let second_line = problem(post(&app, "{\n  \"text\": nope\n}").send().await.unwrap(), 400, "malformed-body").await;
    assert_eq!(second_line["line"], 2);
}

#[tokio::test]
async fn what_breaks_a_schema_is_told_field_by_field() {
    let app = App::up().await;
    for (body, pointer, keyword) in [
        (r#"{"text":1}"#, "/text", "type"),
        (r"{}", "/text", "required"),
        (r#"{"text":""}"#, "/text", "minLength"),
        (r#"{"text":"x","topic":"a/b"}"#, "/topic", "pattern"),
        (r##"{"text":"x","topic":"#"}"##, "/topic", "pattern"),
        (r"[]", "", "type"),
    ] {
        let refused = problem(post(&app, body).send().await.unwrap(), 422, "validation-failed").await;
        let error = &refused["errors"][0];
        assert_eq!(
            (&error["in"], &error["pointer"], &error["keyword"]),
            (&json!("body"), &json!(pointer), &json!(keyword)),
            "{body}"
        );
    }
    let secret =
        problem(post(&app, r#"{"text":{"password":"hunter2"}}"#).send().await.unwrap(), 422, "validation-failed").await;
    assert!(!secret.to_string().contains("hunter2"), "{secret}");
    let empty = problem(post(&app, "").send().await.unwrap(), 422, "validation-failed").await;
    assert_eq!((&empty["errors"][0]["in"], &empty["errors"][0]["keyword"]), (&json!("body"), &json!("required")));
    for (query, name, keyword) in [
        ("limit=0", "limit", "minimum"),
        ("limit=1001", "limit", "maximum"),
        ("limit=ten", "limit", "type"),
        ("limit=5&limit=6", "limit", "type"),
        ("nope=1", "nope", "unknown"),
        ("after=x", "after", "format"),
        ("since=yesterday", "since", "format"),
        ("count=1", "count", "type"),
        ("before=bent", "before", "cursor"),
        ("topic=a%23", "topic", "filter"),
        ("topic=%00", "topic", "filter"),
        ("after=0193f1c2-7d3a-7c3e-9d4e-0123456789ab", "after", "unknown-id"),
    ] {
        let refused = problem(app.get(&format!("{MESSAGES}?{query}")).await, 422, "validation-failed").await;
        let error = &refused["errors"][0];
        assert_eq!(
            (&error["in"], &error["name"], &error["keyword"]),
            (&json!("query"), &json!(name), &json!(keyword)),
            "{query}"
        );
    }
    let path = problem(app.get(&format!("{MESSAGES}/not-a-uuid")).await, 422, "validation-failed").await;
    assert_eq!((&path["errors"][0]["in"], &path["errors"][0]["name"]), (&json!("path"), &json!("id")));
    let many: String = (0..30).map(|n| format!("x{n}=1&")).collect();
    let refused = problem(app.get(&format!("{MESSAGES}?{many}")).await, 422, "validation-failed").await;
    assert_eq!(refused["errors"].as_array().unwrap().len(), 20);
    let body =
        request(&app, "GET", MESSAGES).header("content-type", "application/json").body("{}").send().await.unwrap();
    let body = problem(body, 422, "validation-failed").await;
    assert_eq!(body["errors"][0]["keyword"], "not-allowed");
}

#[tokio::test]
async fn paths_methods_and_types() {
    let app = App::up().await;
    problem(app.get("/nope").await, 404, "not-found").await;
    problem(app.get("/api/v1/messages/a/b").await, 404, "not-found").await;
    let missing = app.get(&format!("{MESSAGES}/0193f1c2-7d3a-7c3e-9d4e-0123456789ab")).await;
    problem(missing, 404, "message-not-found").await;
    let deleted = request(&app, "DELETE", MESSAGES).send().await.unwrap();
    assert_eq!(deleted.headers()["allow"], "GET, HEAD, POST");
    problem(deleted, 405, "method-not-allowed").await;
    problem(request(&app, "BREW", MESSAGES).send().await.unwrap(), 405, "method-not-allowed").await;
    problem(request(&app, "BREW", "/nope").send().await.unwrap(), 404, "not-found").await;
    problem(request(&app, "POST", "/readyz").send().await.unwrap(), 405, "method-not-allowed").await;
    problem(request(&app, "POST", "/").send().await.unwrap(), 405, "method-not-allowed").await;
    // A trailing slash is the same path, and HEAD works where GET does.
    assert_eq!(app.get(&format!("{MESSAGES}/")).await.status(), 200);
    let head = request(&app, "HEAD", MESSAGES).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.text().await.unwrap().as_str()), (200, ""));
    for content_type in ["text/plain", "application/xml", "application/json; charset=latin1"] {
        let response =
            request(&app, "POST", MESSAGES).header("content-type", content_type).body("{}").send().await.unwrap();
        assert_eq!(response.headers()["accept"], "application/json");
        problem(response, 415, "unsupported-media-type").await;
    }
    problem(request(&app, "POST", MESSAGES).body("{}").send().await.unwrap(), 415, "unsupported-media-type").await;
    for content_type in ["application/json; charset=utf-8", "application/vnd.chat+json", "Application/JSON"] {
        let response = request(&app, "POST", MESSAGES).header("content-type", content_type).body(r#"{"text":"x"}"#);
        assert_eq!(response.send().await.unwrap().status(), 202, "{content_type}");
    }
    // `Accept` is about answers with content to choose: a publish has none.
    assert_eq!(post(&app, r#"{"text":"x"}"#).header("accept", "text/html").send().await.unwrap().status(), 202);
    problem(request(&app, "GET", MESSAGES).header("accept", "image/*").send().await.unwrap(), 406, "not-acceptable")
        .await;
}

#[tokio::test]
async fn sizes_and_times_are_bounded() {
    let app = Start::up().env("FPESA_LIMITS__BODY_TIMEOUT", "300ms").start().await;
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(10_000_000));
    let refused = problem(post(&app, large).send().await.unwrap(), 413, "body-too-large").await;
    assert_eq!(refused["limit"], 256 * 1024);
    // Without a length it is known only while it comes.
    let chunks: Vec<Result<Vec<u8>, std::io::Error>> = (0..100).map(|_| Ok(vec![b' '; 10_000])).collect();
    let stream = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
    if let Ok(response) = post(&app, stream).send().await {
        problem(response, 413, "body-too-large").await;
    }
    let start = Instant::now();
    let slow = raw(
        &app,
        b"POST /api/v1/messages HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
    )
    .await;
    assert!(
        slow.starts_with("HTTP/1.1 408 ") && slow.contains("body-timeout") && slow.contains("\"limit_ms\":300"),
        "{slow}"
    );
    assert!(start.elapsed() < Duration::from_secs(5));
    let header = problem(
        request(&app, "GET", MESSAGES).header("x-large", "y".repeat(64 * 1024)).send().await.unwrap(),
        431,
        "headers-too-large",
    )
    .await;
    assert!(header["detail"].as_str().unwrap().contains("16 KiB"));
    problem(app.get(&format!("{MESSAGES}?x={}", "y".repeat(9_000))).await, 414, "uri-too-long").await;
    let garbage = raw(&app, b"\x16\x03\x01 garbage\r\n\r\n").await;
    assert!(garbage.starts_with("HTTP/1.1 400 "), "{garbage}");
    // Still there.
    app.keep(r#"{"text":"x"}"#).await;
}

const TABLE: &str = r#"
version: 1
defaults: { timeout: 1s }
routes:
  - { id: full, method: POST, path: /full, body: { schema: {} }, publish: { exchange: "", key: full } }
  - { id: lost, method: POST, path: /lost, body: {}, publish: { exchange: amq.topic, key: nowhere } }
  - { id: live, method: POST, path: /live, body: {}, publish: { exchange: amq.topic, key: nowhere, unroutable: accept, status: 204 } }
  - { id: ask, method: GET, path: /ask, call: { queue: nobody } }
  - { id: wait, method: GET, path: /wait, call: { queue: full2, timeout: 400ms } }
  - id: tenant
    method: POST
    path: /tenants/{tenant}/files/{*name}
    params:
      path: { tenant: { type: string }, name: { type: string } }
      query: { tag: { type: array, items: { type: integer } }, level: { type: number, default: 1.5 } }
      header: { X-Shard: { type: integer, required: true } }
    body: { content_type: text/csv }
    publish:
      exchange: amq.topic
      key: "files.{path.tenant}.{header.x-shard}"
      headers: { tenant: "{path.tenant}", name: "{path.name}", note: "{query.level} of {route}" }
queues:
  full: { max_length: 2 }
  full2: {}
  nobody: { type: rpc }
  kept: { bind: [{ exchange: amq.topic, key: "files.#" }] }
workers:
  persist: { queue: kept }
"#;

#[tokio::test]
async fn what_the_bus_says_becomes_a_status() {
    let app = Start::up().table(TABLE).start().await;
    for expected in [202, 202, 503] {
        let response = app.post("/full", "{}").await;
        assert_eq!(response.status(), expected);
        if expected == 503 {
            assert_eq!(response.headers()["retry-after"], "1");
            assert_eq!(problem(response, 503, "broker-rejected").await["outcome"], "rejected");
        }
    }
    assert_eq!(problem(app.post("/lost", "{}").await, 503, "unroutable").await["outcome"], "unroutable");
    let live = app.post("/live", "{}").await;
    assert_eq!((live.status().as_u16(), live.text().await.unwrap().as_str()), (204, ""));
    let start = Instant::now();
    problem(app.get("/ask").await, 503, "no-worker").await;
    assert!(start.elapsed() < Duration::from_secs(1));
    let timeout = problem(app.get("/wait").await, 504, "call-timeout").await;
    assert!(timeout["correlation_id"].is_string());
    // A client may shorten the deadline, and never lengthen it.
    let start = Instant::now();
    let waited = request(&app, "GET", "/wait").header("prefer", "wait=60").send().await.unwrap();
    problem(waited, 504, "call-timeout").await;
    assert!(start.elapsed() < Duration::from_secs(10));
    let metrics = app.get("/metrics").await.text().await.unwrap();
    for series in [
        r#"fpesa_publish_total{route="full",outcome="routed"} 2"#,
        r#"fpesa_publish_total{route="full",outcome="rejected"} 1"#,
        r#"fpesa_publish_total{route="full",outcome="unknown"} 0"#,
        r#"fpesa_publish_total{route="lost",outcome="unroutable"} 1"#,
        r#"fpesa_call_total{route="ask",outcome="no-worker"} 1"#,
        r#"fpesa_call_total{route="wait",outcome="timeout"} 2"#,
        r#"fpesa_http_requests_total{route="full",status="503"} 1"#,
    ] {
        assert!(metrics.contains(series), "{series}\n{metrics}");
    }
}

#[tokio::test]
async fn parameters_templates_and_bodies_that_are_no_json() {
    let app = Start::up().table(TABLE).start().await;
    let send = |path: &str, shard: Option<&str>, body: &'static str| {
        let mut request = request(&app, "POST", path).header("content-type", "text/csv").body(body);
        if let Some(shard) = shard {
            request = request.header("x-shard", shard);
        }
        request.send()
    };
    let response = send("/tenants/acme/files/a/b.csv?tag=1,2&tag=3", Some("7"), "a;b\n1;2\n").await.unwrap();
    assert_eq!(response.status(), 202);
    for (path, shard, part, name, keyword) in [
        ("/tenants/acme/files/x", None, "header", "x-shard", "required"),
        ("/tenants/acme/files/x", Some("seven"), "header", "x-shard", "type"),
        ("/tenants/acme/files/x?tag=1,b", Some("7"), "query", "tag", "type"),
        ("/tenants/acme/files/x?level=high", Some("7"), "query", "level", "type"),
        ("/tenants/a.b/files/x", Some("7"), "path", "tenant", "pattern"),
        ("/tenants/a%2Fb/files/x", Some("7"), "path", "tenant", "pattern"),
        ("/tenants/%ff/files/x", Some("7"), "path", "tenant", "format"),
        ("/tenants/acme/files/%0a", Some("7"), "path", "name", "pattern"),
    ] {
        let refused = problem(send(path, shard, "x").await.unwrap(), 422, "validation-failed").await;
        let error = &refused["errors"][0];
        assert_eq!(
            (&error["in"], &error["name"], &error["keyword"]),
            (&json!(part), &json!(name), &json!(keyword)),
            "{path}"
        );
    }
    let long = format!("/tenants/{}/files/x", "t".repeat(300));
    let refused = problem(send(&long, Some("7"), "x").await.unwrap(), 422, "validation-failed").await;
    assert_eq!(refused["errors"][0]["keyword"], "maxLength");
}

#[tokio::test]
async fn too_much_at_a_time_is_refused_at_once() {
    let app = Start::up()
        .table(&TABLE.replace("timeout: 400ms", "timeout: 5s"))
        .env("FPESA_LIMITS__MAX_IN_FLIGHT", "3")
        .env("FPESA_LIMITS__MAX_CALLS", "2")
        .start()
        .await;
    let calls: Vec<_> = (0..2).map(|_| tokio::spawn(request(&app, "GET", "/wait").send())).collect();
    crate::support::eventually("both calls to wait", || async {
        let metrics = app.get("/metrics").await.text().await.unwrap();
        metrics.contains("fpesa_in_flight 2").then_some(())
    })
    .await;
    let refused = app.get("/wait").await;
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(problem(refused, 503, "overloaded").await["outcome"], "not-sent");
    assert_eq!(app.post("/live", "{}").await.status(), 204);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 504);
    }
}

#[tokio::test]
async fn other_origins_are_let_in_by_name() {
    let app = Start::up().env("FPESA_CORS__ORIGINS", "https://app.example").start().await;
    let asked = |origin: &'static str| {
        request(&app, "OPTIONS", MESSAGES).header("origin", origin).header("access-control-request-method", "POST")
    };
    let allowed = asked("https://app.example").send().await.unwrap();
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://app.example");
    assert!(allowed.headers().contains_key("x-request-id"));
    let refused = asked("https://evil.example").send().await.unwrap();
    assert!(!refused.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn the_system_endpoints() {
    let app = App::up().await;
    assert_eq!(app.get("/healthz").await.status(), 200);
    let ready = app.json("/readyz").await;
    assert_eq!(
        (
            &ready["ready"],
            &ready["bus"],
            &ready["generation"],
            &ready["reload"]["ok"],
            &ready["reload"]["problems"],
            &ready["workers"]
        ),
        (&json!(true), &json!("up"), &json!(1), &json!(true), &json!([]), &json!(["history", "persist"]))
    );
    assert_eq!(app.json("/feed.json").await, json!({"url": "/mqtt", "protocol": "mqtt", "topics": ["messages/#"]}));
    let metrics = app.get("/metrics").await.text().await.unwrap();
    for series in [
        "fpesa_http_requests_total{",
        "fpesa_http_request_seconds_bucket{",
        "fpesa_publish_total{",
        "fpesa_call_total{",
        "fpesa_late_replies_total 0",
        "fpesa_in_flight 0",
        "fpesa_bus_up 1",
        "fpesa_reload_generation 1",
        "fpesa_reload_failures_total 0",
        "fpesa_feed_sessions 0",
        "fpesa_feed_dropped_total 0",
        r#"fpesa_worker_events_total{worker="persist",verdict="kept"} 0"#,
        r#"fpesa_worker_events_total{worker="history",verdict="expired"} 0"#,
    ] {
        assert!(metrics.contains(series), "{series}\n{metrics}");
    }
    let page = app.get("/").await;
    assert_eq!(page.status(), 200);
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
    let tag = page.headers()["etag"].clone();
    let again = request(&app, "GET", "/").header("if-none-match", tag).send().await.unwrap();
    assert_eq!(again.status(), 304);
}
