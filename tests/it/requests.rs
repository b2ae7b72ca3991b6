//! Requests as bytes, and the answers that RFC 9110 and RFC 9112 ask for, on the wire.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::app::{App, Start};

/// Writes bytes as they are and gives all that comes back until the server closes. `{PORT}` is the server's.
async fn raw(app: &App, bytes: &[u8]) -> String {
    let address = &app.base["http://".len()..];
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request, its status, and what the rest of the answer has (or has not, after `!`).
type Case = (&'static str, u16, &'static [&'static str]);

/// Lines end in `\n` here and in CRLF on the wire. Each has `Connection: close` appended to its head.
const SHIPPED: &[Case] = &[
    // Host: RFC 9112 section 3.2.
    ("GET /healthz HTTP/1.1\n\n", 400, &["problems/invalid-host", "one Host header"]),
    ("GET /healthz HTTP/1.1\nHost: a\nHost: a\n\n", 400, &["problems/invalid-host"]),
    ("GET /api/v1/messages HTTP/1.1\n\n", 400, &["problems/invalid-host"]),
    ("GET /nope HTTP/1.1\nHost: a\nHost: b\n\n", 400, &["problems/invalid-host"]),
    ("GET /api/v1/messages HTTP/1.1\nHost: a b\n\n", 400, &["problems/invalid-host"]),
    ("GET /api/v1/messages HTTP/1.1\nHost: user@a\n\n", 400, &["problems/invalid-host"]),
    ("GET /api/v1/messages HTTP/1.1\nHost: a/b\n\n", 400, &["problems/invalid-host"]),
    ("GET /api/v1/messages HTTP/1.1\nHost: any.example:1\n\n", 200, &["\"items\":"]),
    ("GET /api/v1/messages HTTP/1.1\nHost: [::1]:1\n\n", 200, &[]),
    ("GET http://any.example/api/v1/messages HTTP/1.1\nHost: other\n\n", 200, &[]),
    ("GET /healthz HTTP/1.0\n\n", 200, &[]),
    ("POST /reload HTTP/1.1\nHost: evil.example\n\n", 421, &["problems/misdirected-request", "`hosts`"]),
    ("POST /reload HTTP/1.1\nHost: 127.0.0.1.evil.example\n\n", 421, &["problems/misdirected-request"]),
    ("POST http://evil.example/reload HTTP/1.1\nHost: localhost\n\n", 421, &["problems/misdirected-request"]),
    ("POST /reload HTTP/1.1\nHost: localhost:1\n\n", 200, &[]),
    ("POST /reload HTTP/1.1\nHost: [::1]:1\n\n", 200, &[]),
    ("POST /reload HTTP/1.1\nHost: localhost\nOrigin: http://evil.example\n\n", 403, &["problems/origin-refused"]),
    ("POST /reload HTTP/1.1\nHost: localhost\nSec-Fetch-Site: cross-site\n\n", 403, &["problems/origin-refused"]),
    ("POST /reload HTTP/1.1\nHost: localhost\nOrigin: http://localhost\n\n", 200, &[]),
    // Escapes are other spellings of what they stand for.
    ("GET /api/v1/%6dessages HTTP/1.1\nHost: a\n\n", 200, &["\"items\":"]),
    ("GET /%61pi/v%31/messages/ HTTP/1.1\nHost: a\n\n", 200, &["\"items\":"]),
    ("GET /%68ealthz HTTP/1.1\nHost: a\n\n", 200, &["ok"]),
    ("GET /api%2fv1/messages HTTP/1.1\nHost: a\n\n", 404, &["problems/not-found"]),
    ("GET /api/v1/%6dessages%zz HTTP/1.1\nHost: a\n\n", 404, &["problems/not-found"]),
    ("DELETE /api/v1/%6dessages HTTP/1.1\nHost: a\n\n", 405, &["allow: GET, HEAD, POST\r\n"]),
    // Queries.
    (
        "GET /api/v1/messages?topic=%zz HTTP/1.1\nHost: a\n\n",
        422,
        &["problems/validation-failed", "\"name\":\"topic\"", "`%zz` is not a percent-escape", "%25", "!required"],
    ),
    ("GET /api/v1/messages?topic=100% HTTP/1.1\nHost: a\n\n", 422, &["`%` is not a percent-escape"]),
    ("GET /api/v1/messages?limit=%3 HTTP/1.1\nHost: a\n\n", 422, &["`%3` is not a percent-escape", "!integer"]),
    (
        "GET /api/v1/messages?topic=%ff HTTP/1.1\nHost: a\n\n",
        422,
        &["\"name\":\"topic\"", "not UTF-8", "\"in\":\"query\""],
    ),
    ("GET /api/v1/messages?nope=%ff HTTP/1.1\nHost: a\n\n", 422, &["\"keyword\":\"unknown\"", "!UTF-8"]),
    ("GET /api/v1/messages?%74opic=a%2fb HTTP/1.1\nHost: a\n\n", 200, &[]),
    ("GET /api/v1/messages/%zz HTTP/1.1\nHost: a\n\n", 422, &["\"in\":\"path\"", "`%zz` is not a percent-escape"]),
    ("GET /api/v1/messages/%ff HTTP/1.1\nHost: a\n\n", 422, &["\"in\":\"path\"", "not UTF-8"]),
    ("GET /api/v1/messages?since=2026-01-01T00:00:00+02:00 HTTP/1.1\nHost: a\n\n", 422, &["\"name\":\"since\"", "%2B"]),
    ("GET /api/v1/messages?until=2026-01-01T00:00:00+02:00&since=x HTTP/1.1\nHost: a\n\n", 422, &["%2B"]),
    ("GET /api/v1/messages?since=2026-01-01T00:00:00%2B02:00 HTTP/1.1\nHost: a\n\n", 200, &[]),
    ("GET /api/v1/messages?since=yesterday HTTP/1.1\nHost: a\n\n", 422, &["!%2B"]),
    // Framing and expectations.
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nContent-Type: application/json\nTransfer-Encoding: gzip, chunked\n\n0\n\n",
        501,
        &["problems/unsupported-transfer-coding", "chunked"],
    ),
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nTransfer-Encoding: gzip\nTransfer-Encoding: chunked\n\n0\n\n",
        501,
        &["problems/unsupported-transfer-coding"],
    ),
    ("GET /healthz HTTP/1.1\nHost: a\nTransfer-Encoding: deflate, chunked\n\n0\n\n", 501, &[]),
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nContent-Type: application/json\nTransfer-Encoding: Chunked\n\nc\n{\"text\":\"x\"}\n0\n\n",
        202,
        &[],
    ),
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nContent-Type: application/json\nContent-Length: 300000\nExpect: 100-continue\n\n",
        413,
        &["problems/body-too-large", "\"limit\":262144", "!100 Continue"],
    ),
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nContent-Type: text/xml\nContent-Length: 10\nExpect: 100-continue\n\n",
        415,
        &["accept: application/json\r\n", "!100 Continue"],
    ),
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nContent-Type: text/xml\nTransfer-Encoding: chunked\nExpect: 100-continue\n\n",
        415,
        &["!100 Continue"],
    ),
    ("POST /api/v1/messages HTTP/1.1\nHost: a\nContent-Length: 10\nExpect: 100-Continue\n\n", 415, &["!100 Continue"]),
    (
        "GET /api/v1/messages HTTP/1.1\nHost: a\nContent-Length: 10\nExpect: 100-continue\n\n",
        422,
        &["\"keyword\":\"not-allowed\"", "!100 Continue"],
    ),
    ("POST /nope HTTP/1.1\nHost: a\nContent-Length: 10\nExpect: 100-continue\n\n", 404, &["!100 Continue"]),
    ("PUT /api/v1/messages HTTP/1.1\nHost: a\nContent-Length: 10\nExpect: 100-continue\n\n", 405, &["!100 Continue"]),
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nContent-Type: application/json\nContent-Length: 12\nExpect: 100-continue\n\n{\"text\":\"x\"}",
        202,
        &["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 "],
    ),
    ("GET /api/v1/messages HTTP/1.1\nHost: a\nExpect: a-miracle\n\n", 417, &["problems/expectation-failed"]),
    // Content.
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nContent-Type: application/json\nContent-Encoding: gzip\nContent-Length: 4\n\nabcd",
        415,
        &["accept-encoding: identity\r\n", "problems/unsupported-media-type", "!accept: "],
    ),
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nContent-Type: application/json\nContent-Encoding: br\nContent-Length: 4\nExpect: 100-continue\n\n",
        415,
        &["accept-encoding: identity\r\n", "!100 Continue"],
    ),
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nContent-Type: application/json\nContent-Encoding: identity\nContent-Length: 12\n\n{\"text\":\"x\"}",
        202,
        &[],
    ),
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nContent-Type: application/json\nAccept: text/xml\nContent-Length: 12\n\n{\"text\":\"x\"}",
        202,
        &["{\"id\":"],
    ),
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nContent-Type: application/json\nAccept: */*;q=0\nContent-Length: 12\n\n{\"text\":\"x\"}",
        202,
        &[],
    ),
    ("GET /api/v1/messages HTTP/1.1\nHost: a\nAccept: text/xml\n\n", 406, &["problems/not-acceptable"]),
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nContent-Type: application/json\nContent-Length: 15\n\n\u{feff}{\"text\":\"x\"}",
        400,
        &["problems/malformed-body", "byte order mark"],
    ),
    // Methods.
    (
        "BREW /api/v1/messages HTTP/1.1\nHost: a\n\n",
        405,
        &["allow: GET, HEAD, POST\r\n", "problems/method-not-allowed"],
    ),
    ("BREW /api/v1/messages/x HTTP/1.1\nHost: a\n\n", 405, &["allow: GET, HEAD\r\n"]),
    ("PUT /api/v1/messages HTTP/1.1\nHost: a\n\n", 405, &["allow: GET, HEAD, POST\r\n"]),
    ("POST /api/v1/messages/x HTTP/1.1\nHost: a\n\n", 405, &["allow: GET, HEAD\r\n"]),
    ("BREW /readyz HTTP/1.1\nHost: a\n\n", 405, &["allow: GET, HEAD\r\n"]),
    ("GET /reload HTTP/1.1\nHost: localhost\n\n", 405, &["allow: POST\r\n"]),
    ("BREW / HTTP/1.1\nHost: a\n\n", 405, &["allow: GET, HEAD\r\n"]),
    ("BREW /nope HTTP/1.1\nHost: a\n\n", 404, &[]),
    // Pages of another origin may not change anything; clients that are no browsers say nothing of origins.
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nOrigin: http://evil.example\nContent-Type: application/json\nContent-Length: 12\n\n{\"text\":\"x\"}",
        403,
        &["problems/origin-refused", "`cors.origins`"],
    ),
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nSec-Fetch-Site: cross-site\nContent-Type: application/json\nContent-Length: 12\n\n{\"text\":\"x\"}",
        403,
        &["problems/origin-refused"],
    ),
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a\nOrigin: null\nContent-Type: application/json\nContent-Length: 12\n\n{\"text\":\"x\"}",
        403,
        &["problems/origin-refused"],
    ),
    (
        "POST /api/v1/messages HTTP/1.1\nHost: a:80\nOrigin: http://A\nContent-Type: application/json\nContent-Length: 12\n\n{\"text\":\"x\"}",
        202,
        &[],
    ),
    // A proxy gave the request another host; the browser knows better.
    (
        "POST /api/v1/messages HTTP/1.1\nHost: upstream:1\nOrigin: https://app.example\nSec-Fetch-Site: same-origin\nContent-Type: application/json\nContent-Length: 12\n\n{\"text\":\"x\"}",
        202,
        &[],
    ),
    (
        "GET /api/v1/messages HTTP/1.1\nHost: a\nOrigin: http://evil.example\nSec-Fetch-Site: cross-site\n\n",
        200,
        &["!access-control"],
    ),
];

async fn check(app: &App, cases: &[Case]) {
    for (request, status, expected) in cases {
        let (head, body) = request.split_once("\n\n").unwrap();
        // In a chunked body lines end so too.
        let chunked = head.to_lowercase().contains("chunked");
        let body = if chunked { body.replace('\n', "\r\n") } else { body.to_owned() };
        let bytes = format!("{}\r\nConnection: close\r\n\r\n{body}", head.replace('\n', "\r\n"));
        let answer = raw(app, bytes.as_bytes()).await;
        let last = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&answer);
        let version = if head.contains("HTTP/1.0") { "HTTP/1.0" } else { "HTTP/1.1" };
        assert!(last.starts_with(&format!("{version} {status} ")), "{request}\n{answer}");
        if *status >= 400 {
            assert!(answer.contains("content-type: application/problem+json\r\n"), "{request}\n{answer}");
            assert!(answer.contains(&format!("\"status\":{status}")), "{request}\n{answer}");
        }
        for text in *expected {
            match text.strip_prefix('!') {
                Some(text) => assert!(!answer.contains(text), "{text}\n{request}\n{answer}"),
                None => assert!(answer.contains(text), "{text}\n{request}\n{answer}"),
            }
        }
    }
}

#[tokio::test]
async fn what_standards_ask_for_is_what_is_on_the_wire() {
    let app = App::up().await;
    check(&app, SHIPPED).await;
}

const TEXT: &str = r"
version: 1
routes:
  - { id: note, method: POST, path: /note, body: { content_type: text/plain }, publish: { exchange: amq.topic, key: notes, payload: body } }
  - { id: ping, method: POST, path: /ping, publish: { exchange: amq.topic, key: notes } }
  - { id: gone, method: DELETE, path: /note, publish: { exchange: amq.topic, key: notes } }
  - { id: search, method: GET, path: /note, params: { query: { s: { type: string } } }, call: { queue: nobody } }
queues:
  notes: { bind: [{ exchange: amq.topic, key: notes }] }
  nobody: { type: rpc }
";

/// What a form of another site can send without asking first.
#[tokio::test]
async fn simple_requests_of_other_sites_do_nothing() {
    let start = Start::up().table(TEXT).env("FPESA_CORS__ORIGINS", "https://app.example");
    let app = start.start().await;
    check(
        &app,
        &[
            ("POST /note HTTP/1.1\nHost: a\nOrigin: http://evil.example\nContent-Type: text/plain\nContent-Length: 1\n\nx", 403, &["problems/origin-refused"]),
            ("POST /ping HTTP/1.1\nHost: a\nOrigin: http://evil.example\n\n", 403, &["problems/origin-refused"]),
            ("DELETE /note HTTP/1.1\nHost: a\nSec-Fetch-Site: same-site\n\n", 403, &["problems/origin-refused"]),
            ("POST /ping HTTP/1.1\nHost: a\nOrigin: https://app.example\nSec-Fetch-Site: cross-site\n\n", 202, &["access-control-allow-origin: https://app.example"]),
            ("POST /ping HTTP/1.1\nHost: a\n\n", 202, &[]),
            ("DELETE /note HTTP/1.1\nHost: a\n\n", 202, &[]),
            ("POST /note HTTP/1.1\nHost: a\nContent-Type: text/plain\nContent-Length: 1\n\nx", 202, &[]),
            // Bytes that go on as they came may be in any coding, which is told with them.
            ("POST /note HTTP/1.1\nHost: a\nContent-Type: text/plain; charset=x\nContent-Encoding: gzip\nContent-Length: 1\n\nx", 202, &[]),
            ("GET /note?s=%ff HTTP/1.1\nHost: a\n\n", 422, &["\"in\":\"query\"", "\"name\":\"s\"", "not UTF-8"]),
            ("BREW /note HTTP/1.1\nHost: a\n\n", 405, &["allow: GET, HEAD, POST, DELETE\r\n"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn other_hosts_are_misdirected_where_hosts_are_named() {
    let start = Start::up().env("FPESA_HOSTS", "api.example.com, other.example:8443");
    let app = start.start().await;
    check(
        &app,
        &[
            ("GET /api/v1/messages HTTP/1.1\nHost: evil.example\n\n", 421, &["problems/misdirected-request"]),
            ("GET /nope HTTP/1.1\nHost: evil.example\n\n", 421, &["problems/misdirected-request"]),
            ("GET / HTTP/1.1\nHost: evil.example\n\n", 421, &["problems/misdirected-request"]),
            ("GET /feed.json HTTP/1.1\nHost: 127.0.0.1\n\n", 421, &["problems/misdirected-request"]),
            ("GET /metrics HTTP/1.1\nHost: evil.example\n\n", 421, &["problems/misdirected-request"]),
            ("GET http://evil.example/api/v1/messages HTTP/1.1\nHost: api.example.com\n\n", 421, &[]),
            ("GET /api/v1/messages HTTP/1.1\nHost: other.example\n\n", 421, &[]),
            ("GET /api/v1/messages HTTP/1.1\nHost: other.example:8443\n\n", 200, &[]),
            ("GET /api/v1/messages HTTP/1.1\nHost: API.Example.com:81\n\n", 200, &[]),
            // Probes have an address, and an operator on this machine its own names.
            ("GET /healthz HTTP/1.1\nHost: 10.1.2.3:8080\n\n", 200, &[]),
            ("GET /readyz HTTP/1.1\nHost: localhost\n\n", 200, &[]),
            ("POST /reload HTTP/1.1\nHost: 10.1.2.3\n\n", 421, &[]),
            ("POST /reload HTTP/1.1\nHost: 127.0.0.1:1\n\n", 200, &[]),
            ("POST /reload HTTP/1.1\nHost: api.example.com\n\n", 200, &[]),
        ],
    )
    .await;
    let (status, _, stderr) = Start::up().env("FPESA_HOSTS", "https://x/").run().await;
    assert_eq!(status, 2);
    assert!(stderr.contains("hosts: `https://x/` is not a host"), "{stderr}");
}
