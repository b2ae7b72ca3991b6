//! `fpesa explain`: it says what a gateway does, and nothing else.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::app::{App, Start};

/// Runs `explain` on the shipped table.
async fn explain(args: &[&str]) -> (i32, String, String) {
    Start::up().command(&["explain"]).args(args).run().await
}

async fn explained(args: &[&str]) -> (i32, Value) {
    let (status, stdout, stderr) = explain(&[args, &["--format", "json"]].concat()).await;
    (status, serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{args:?}: {stdout}{stderr}")))
}

/// A table with a bit of everything that a request can be refused for.
const TABLE: &str = r#"
version: 1
base_path: /api
defaults: { max_size: 1KiB }
routes:
  - { id: post, method: POST, path: /things, body: { schema: message.json }, publish: { exchange: amq.topic, key: "messages.{body.topic:-general}" } }
  - { id: bare, method: POST, path: /bare, publish: { exchange: amq.topic, key: messages.bare } }
  - { id: raw, method: PUT, path: "/raw/{name}", params: { path: { name: { type: string, maxLength: 5 } } }, body: { content_type: text/csv, required: false }, publish: { exchange: amq.topic, key: "messages.{path.name}", payload: body } }
  - { id: page, method: GET, path: /things, params: { query: { limit: { type: integer, minimum: 1 }, tag: { type: array, items: { type: boolean } } }, header: { X-Tenant: { type: string, required: true } } }, call: { queue: messages.history, timeout: 100ms } }
  - { id: one, method: GET, path: "/things/{id}", params: { path: { id: { type: string, format: uuid } } }, call: { queue: messages.history } }
  - { id: rest, method: GET, path: "/things/{*rest}", params: { path: { rest: { type: string } } }, call: { queue: messages.history } }
queues:
  messages.persist: { bind: [{ exchange: amq.topic, key: "messages.#" }] }
  messages.history: { type: rpc }
workers:
  persist: { queue: messages.persist }
  history: { queue: messages.history }
"#;

/// Method, path, headers, body, and the status.
type Sent<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, &'a str, u16);

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a list of cases")]
async fn it_says_what_the_gateway_answers() {
    let app = Start::up().table(TABLE).start().await;
    let long = format!("/api/things?x={}", "y".repeat(9_000));
    let big = format!("{{\"text\":\"{}\"}}", "x".repeat(2_000));
    let header = "z".repeat(17_000);
    let json = ("content-type", "application/json");
    #[rustfmt::skip]
    let cases: Vec<Sent<'_>> = vec![
        ("POST", "/api/things", vec![json], r#"{"text":"a","topic":"x"}"#, 202),
        ("POST", "/api/things/", vec![json], r#"{"text":"a"}"#, 202),
        ("POST", "/api/things", vec![("content-type", "application/vnd.x+json; charset=utf-8")], r#"{"text":"a"}"#, 202),
        ("POST", "/api/things", vec![json], r#"{"topic":"a.b"}"#, 422),
        ("POST", "/api/things?x=1", vec![json, ("idempotency-key", "nope")], "[]", 422),
        ("POST", "/api/things", vec![json], r#"{"text":"a","text":"b"}"#, 400),
        ("POST", "/api/things", vec![json], "{\n  nope", 400),
        ("POST", "/api/things", vec![], "", 422),
        ("POST", "/api/things", vec![("content-type", "text/plain")], "hello", 415),
        ("POST", "/api/things", vec![("content-type", "application/json; charset=latin1")], "{}", 415),
        ("POST", "/api/things", vec![("content-type", "")], "{}", 415),
        ("POST", "/api/things", vec![("content-type", "text/plain")], &big, 415),
        ("POST", "/api/things", vec![json], &big, 413),
        ("POST", "/api/things", vec![json, ("accept", "text/html")], r#"{"text":"a"}"#, 202),
        ("POST", "/api/bare", vec![], "", 202),
        ("POST", "/api/bare", vec![json], "{}", 422),
        ("PUT", "/api/raw/a", vec![("content-type", "text/csv")], "a;b", 202),
        ("PUT", "/api/raw/a", vec![], "", 202),
        ("PUT", "/api/raw/a.b", vec![("content-type", "text/csv")], "a;b", 422),
        ("PUT", "/api/raw/toolong", vec![("content-type", "text/csv")], "a;b", 422),
        ("PUT", "/api/raw/%ff", vec![("content-type", "text/csv")], "a;b", 422),
        ("GET", "/api/things", vec![], "", 422),
        ("GET", "/api/things?limit=0&tag=yes&nope=1", vec![("x-tenant", "a")], "", 422),
        ("GET", "/api/things?limit=1&limit=2", vec![("x-tenant", "a")], "", 422),
        ("GET", "/api/things/nope", vec![], "", 422),
        ("GET", "/api/things", vec![("x-tenant", "a"), json], "{}", 422),
        ("DELETE", "/api/things", vec![], "", 405),
        ("DELETE", "/api/things/1", vec![], "", 405),
        ("BREW", "/api/things", vec![], "", 405),
        ("GET", "/things", vec![], "", 404),
        ("GET", "/api/thing", vec![], "", 404),
        ("GET", "/api/things//", vec![], "", 404),
        ("GET", &long, vec![], "", 414),
        ("GET", "/api/things", vec![("x-big", &header)], "", 431),
        ("POST", "/healthz", vec![], "", 405),
        ("POST", "/", vec![], "", 405),
        ("GET", "/healthz", vec![], "", 200),
        ("GET", "/", vec![], "", 200),
        ("OPTIONS", "/api/things", vec![], "", 200),
    ];
    for (method, path, headers, body, status) in cases {
        let mut args = vec!["explain".to_owned(), method.into(), path.into(), "--format".into(), "json".into()];
        let mut request = app.client.request(Method::from_bytes(method.as_bytes()).unwrap(), app.url(path));
        for (name, value) in &headers {
            args.extend(["--header".to_owned(), format!("{name}: {value}")]);
            if !value.is_empty() {
                request = request.header(*name, *value);
            }
        }
        if !body.is_empty() {
            args.extend(["--data".to_owned(), body.to_owned()]);
            request = request.body(body.to_owned());
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{method} {path:.60} {headers:.60?}");
        let refused = response.headers().get("content-type").is_some_and(|kind| kind == "application/problem+json");
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (exit, stdout, stderr) = Start::beside(&app).command(&args).run().await;
        let shown: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{args:.60?}: {stderr}"));
        assert_eq!(exit, i32::from(refused), "{method} {path:.60}: {shown}");
        if refused {
            let mut problem: Value = response.json().await.unwrap();
            let mut told = shown["problem"].clone();
            for document in [&mut problem, &mut told] {
                assert!(document.as_object_mut().unwrap().remove("instance").is_some_and(|id| id.is_string()));
            }
            assert_eq!(told, problem, "{method} {path:.60}");
        } else {
            assert!(shown.get("problem").is_none() && shown["action"].is_string(), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_publish_is_shown_whole() {
    let id = "0193f1c2-7d3a-7c3e-9d4e-0123456789ab";
    let body = r#"{"text":"Hello", "n": 12345678901234567890123, "topic":"news"}"#;
    let key = format!("Idempotency-Key: {id}");
    let args = ["POST", "/api/v1/messages", "--data", body, "--header", &key];
    let (status, stdout, stderr) = explain(&[&args[..], &["--format", "json"]].concat()).await;
    assert_eq!(status, 0, "{stderr}");
    assert!(stdout.contains(body), "the payload is what was sent, byte for byte: {stdout}");
    let shown: Value = serde_json::from_str(&stdout).unwrap();
    let keys: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["route", "action", "params", "exchange", "key", "queue", "headers", "properties", "payload", "others"]
    );
    assert_eq!(shown["route"], "post-message");
    assert_eq!(shown["action"], "publish");
    assert_eq!((&shown["exchange"], &shown["key"]), (&json!("amq.topic"), &json!("messages.news")));
    assert_eq!(shown["params"], json!({ "path": {}, "query": {}, "header": {} }));
    assert_eq!(shown["properties"]["message_id"], id);
    assert_eq!(shown["properties"]["delivery_mode"], 2);
    assert_eq!(shown["headers"]["fpesa-route"], "post-message");
    assert_eq!(shown["payload"]["id"], id);
    assert_eq!(shown["payload"]["data"]["text"], "Hello");
    assert_eq!(
        shown["others"],
        json!([
            { "route": "list-messages", "why": "its method is GET" },
            { "route": "get-message", "why": "its method is GET, and its path goes on with /{id}" },
        ])
    );
    let (status, stdout, _) = explain(&args).await;
    assert_eq!(status, 0);
    for told in ["post-message", "amq.topic", "messages.news", "messages.persist", "schemas/message.json", "202", id] {
        assert!(stdout.contains(told), "{told}: {stdout}");
    }
    assert!(
        stdout.contains("messages.{body.topic:-general}") && stdout.contains("Location: /api/v1/messages/"),
        "{stdout}"
    );
    assert!(stdout.contains("12345678901234567890123") && !stdout.contains('\x1b'), "{stdout}");
}

#[tokio::test]
async fn a_call_is_shown_as_its_worker_gets_it() {
    let (status, shown) =
        explained(&["get", "/api/v1/messages?topic=messages/%2B", "--header", "Prefer: wait=1"]).await;
    assert_eq!(status, 0);
    assert_eq!((&shown["action"], &shown["queue"]), (&json!("call"), &json!("messages.history")));
    assert_eq!(shown["params"]["query"], json!({ "limit": 50, "topic": "messages/+", "count": false }));
    assert_eq!(shown["params"], shown["payload"]["params"]);
    assert_eq!(shown["properties"]["expiration"], "1000");
    assert!(shown["properties"]["reply_to"].is_string() && shown["properties"]["correlation_id"].is_string());
    assert!(shown["headers"]["fpesa-deadline"].is_string(), "{shown}");
}

#[tokio::test]
async fn what_it_shows_is_what_is_kept() {
    let app = App::up().await;
    let body = r#"{ "text": "Hello", "big": 9007199254740993, "topic": "news" }"#;
    let id = app.keep(body).await;
    app.kept(1).await;
    let kept = app.json(&format!("/api/v1/messages/{id}")).await;
    let (_, shown) = explained(&["POST", "/api/v1/messages", "--data", body]).await;
    for (member, value) in kept.as_object().unwrap() {
        let same = member == "id" || member == "time" || member == "traceparent" || shown["payload"][member] == *value;
        assert!(same, "{member}: {value} and {}", shown["payload"][member]);
    }
    assert_eq!(kept.as_object().unwrap().len(), shown["payload"].as_object().unwrap().len());
}

#[tokio::test]
async fn why_not_the_others() {
    let start = || Start::up().table(TABLE);
    for (method, path, route, why) in [
        ("GET", "/api/things/0193f1c2-7d3a-7c3e-9d4e-0123456789ab", "rest", "`one` is closer: one segment, `{id}`"),
        ("GET", "/things", "page", "it answers /api/things: the table's base_path"),
        ("GET", "/nope", "page", "its path begins with /api"),
        ("GET", "/api/thing", "page", "its path has `things` where the request has `thing`"),
        ("POST", "/api/things/1/2", "post", "its path ends before `/1`"),
        ("POST", "/api", "post", "its path goes on with /things"),
        ("PUT", "/api/things", "post", "its method is POST"),
    ] {
        let (_, stdout, _) = start().command(&["explain", method, path, "--format", "json"]).run().await;
        let shown: Value = serde_json::from_str(&stdout).unwrap();
        let others = shown["others"].as_array().unwrap();
        let other = others.iter().find(|other| other["route"] == route).unwrap();
        assert!(other["why"].as_str().unwrap().contains(why), "{method} {path}: {other}");
    }
}

#[tokio::test]
async fn a_refusal_is_shown_to_people_too() {
    let (status, stdout, _) = explain(&["PUT", "/api/v1/messages"]).await;
    assert_eq!(status, 1);
    for told in ["refused: 405", "allow: GET, HEAD, POST", "method-not-allowed", "list-messages"] {
        assert!(stdout.contains(told), "{told}: {stdout}");
    }
}

#[tokio::test]
async fn data_from_files_and_wrong_usage() {
    let start = || Start::up().command(&["explain", "POST", "/api/v1/messages"]);
    let from_file = start().args(&["--data", "@body.json"]);
    from_file.write("body.json", r#"{"text":"from a file"}"#);
    let (status, stdout, _) = from_file.run().await;
    assert!(status == 0 && stdout.contains("from a file"), "{stdout}");
    for (args, told) in [
        (&["GET", "api/v1/messages"][..], "begins with `/`"),
        (&["GET", "http://127.0.0.1/x"], "begins with `/`"),
        (&["GET", "/a b"], "%20"),
        (&["G T", "/a"], "no HTTP method"),
        (&["GET", "/a", "--header", "nope"], "no header"),
        (&["GET", "/a", "--header", "a b: c"], "no header"),
        (&["POST", "/a", "--data", "@missing.json"], "missing.json"),
        (&["GET"], "required"),
        (&["GET", "/a", "--format", "xml"], "xml"),
    ] {
        let (status, stdout, stderr) = explain(args).await;
        assert_eq!((status, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(told), "{args:?}: {stderr}");
    }
    let (status, stdout, stderr) = start().table("version: 1\nroutes: nope\n").run().await;
    assert_eq!((status, stdout.as_str()), (1, ""));
    assert!(stderr.contains("routes.yaml:2:9"), "{stderr}");
}
