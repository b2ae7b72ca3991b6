//! Every mistake of the table's grammar: each told with its place, all in one run, and none hiding another.

use serde_json::Value;

use crate::support::app::Start;

/// Runs `check` on a table (with the schemas that are given) and gives its problems.
async fn check(table: &str, schemas: &[(&str, &str)]) -> Vec<Value> {
    let start = Start::up().table(table).command(&["check", "--format", "json"]);
    start.write("schemas/message.json", r#"{"type":"object"}"#);
    for (name, text) in schemas {
        start.write(&format!("schemas/{name}"), text);
    }
    let (status, stdout, stderr) = start.run().await;
    let problems: Vec<Value> = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    let failed = problems.iter().any(|problem| problem["severity"] == "error");
    assert_eq!(status, i32::from(failed), "{stderr}");
    for problem in &problems {
        assert!(problem["line"].as_u64() >= Some(1) && problem["column"].as_u64() >= Some(1), "{problem}");
        let message = problem["message"].as_str().unwrap();
        assert!(!message.is_empty() && !message.contains("Error("), "{problem}");
    }
    problems
}

/// A table whose routes and further parts are given.
fn table(routes: &str, rest: &str) -> String {
    format!(
        "version: 1\nbase_path: /api\nroutes:\n{routes}\nqueues:\n  q: {{ bind: [{{ exchange: amq.topic, key: \"#\" }}] }}\n  r: {{ type: rpc }}\n{rest}\n"
    )
}

const GOOD: &str = "  - { id: a, method: GET, path: /a, call: { queue: r } }";

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a list of cases")]
async fn each_mistake_is_told_at_its_place() {
    // `¶` marks the place that is told.
    let cases: &[(&str, &str, &str)] = &[
        ("  - { id: a, method: GET, path: /a, ¶cal: { queue: r } }", "", "unknown-key"),
        ("  - { id: a, ¶id: b, method: GET, path: /a, call: { queue: r } }", "", "duplicate-key"),
        ("  - { id: ¶7, method: GET, path: /a, call: { queue: r } }", "", "wrong-type"),
        ("  - ¶{ method: GET, path: /a, call: { queue: r } }", "", "missing-key"),
        ("  - ¶{ id: a, method: GET, path: /a }", "", "missing-key"),
        ("  - { id: a, method: ¶FETCH, path: /a, call: { queue: r } }", "", "bad-value"),
        (
            "  - { id: a, method: GET, path: /a, call: { queue: r } }\n  - { id: ¶a, method: GET, path: /b, call: { queue: r } }",
            "",
            "duplicate-id",
        ),
        (
            "  - { id: a, method: GET, path: '/a/{x}', params: { path: { x: { type: string } } }, call: { queue: r } }\n  - { id: b, method: GET, path: ¶'/a/{y}', params: { path: { y: { type: string } } }, call: { queue: r } }",
            "",
            "route-conflict",
        ),
        ("  - { id: a, method: GET, path: ¶a, call: { queue: r } }", "", "bad-path"),
        ("  - { id: a, method: GET, path: ¶'/a b', call: { queue: r } }", "", "bad-path"),
        ("  - { id: a, method: GET, path: ¶'/{*rest}/b', call: { queue: r } }", "", "bad-path"),
        ("  - { id: a, method: GET, path: ¶'/{x}', call: { queue: r } }", "", "path-parameter"),
        (
            "  - { id: a, method: GET, path: /a, params: { path: { ¶x: { type: string } } }, call: { queue: r } }",
            "",
            "path-parameter",
        ),
        (
            "  - { id: a, method: GET, path: /a, params: { query: { n: { type: integer, default: ¶x } } }, call: { queue: r } }",
            "",
            "bad-default",
        ),
        (
            "  - { id: a, method: GET, path: /a, params: { query: { n: { type: ¶nope } } }, call: { queue: r } }",
            "",
            "schema-invalid",
        ),
        (
            "  - { id: a, method: GET, path: /a, params: { query: { n: { pattern: ¶'(?=x)' } } }, call: { queue: r } }",
            "",
            "schema-pattern",
        ),
        (
            "  - { id: a, method: POST, path: /a, body: { schema: ¶mesage.json }, publish: { exchange: amq.topic, key: k } }",
            "",
            "schema-missing",
        ),
        (
            "  - { id: a, method: POST, path: /a, body: { schema: ¶'https://x/y.json' }, publish: { exchange: amq.topic, key: k } }",
            "",
            "schema-remote",
        ),
        (
            "  - { id: a, method: POST, path: /a, body: { schema: ¶../x.json }, publish: { exchange: amq.topic, key: k } }",
            "",
            "schema-outside",
        ),
        (
            "  - { id: a, method: POST, path: /a, body: { max_size: ¶1KB }, publish: { exchange: amq.topic, key: k } }",
            "",
            "bad-size",
        ),
        ("  - { id: a, method: POST, path: /a, publish: { exchange: ¶amq.topik, key: k } }", "", "unknown-exchange"),
        (
            "  - { id: a, method: POST, path: /a, publish: { exchange: amq.topic, key: ¶'{query.x}' } }",
            "",
            "template-unknown",
        ),
        (
            "  - { id: a, method: POST, path: /a, publish: { exchange: amq.topic, key: ¶'{body.x}' } }",
            "",
            "template-unknown",
        ),
        (
            "  - { id: a, method: POST, path: /a, publish: { exchange: amq.topic, key: ¶'{nope}' } }",
            "",
            "template-syntax",
        ),
        ("  - { id: a, method: POST, path: /a, publish: { exchange: amq.topic, key: ¶'a{' } }", "", "template-syntax"),
        (
            "  - { id: a, method: POST, path: /a, publish: { exchange: amq.topic, key: k, status: ¶404 } }",
            "",
            "bad-status",
        ),
        (
            "  - { id: a, method: POST, path: /a, publish: { exchange: amq.topic, key: k, confirm_timeout: ¶5 } }",
            "",
            "bad-duration",
        ),
        (
            "  - { id: a, method: POST, path: /a, publish: { exchange: amq.topic, key: k, priority: ¶10 } }",
            "",
            "bad-value",
        ),
        ("  - { id: a, method: GET, path: /a, call: { queue: ¶rr } }", "", "unknown-queue"),
        ("  - { id: a, method: GET, path: /a, call: ¶{ timeout: 1s } }", "", "missing-key"),
        (GOOD, "  x: { bind: [{ exchange: ¶nope, key: k }] }", "unknown-exchange"),
        (GOOD, "  x: { dead_letter: ¶nope }", "unknown-queue"),
        (GOOD, "  x: { dead_letter: ¶r }", "bad-argument"),
        (GOOD, "  x: { dead_letter: ¶y }\n  y: { dead_letter: x }", "dead-letter-cycle"),
        (GOOD, "  x: { dead_letter: ¶x }", "dead-letter-cycle"),
        (GOOD, "  x: { arguments: { ¶x-max-priority: 5 } }", "bad-argument"),
        (GOOD, "  x: { arguments: { ¶auto-delete: true } }", "bad-argument"),
        (GOOD, "  x: { delivery_limit: ¶5 }", "bad-argument"),
        (GOOD, "  x: { type: rpc, ¶max_length: 5 }", "bad-argument"),
        (GOOD, "  x: { type: ¶fast }", "bad-value"),
        (GOOD, "  x¶:", "wrong-type"),
        (GOOD, "workers: { persist: { queue: ¶nope } }", "unknown-queue"),
        (GOOD, "workers: { ¶keeper: { queue: q } }", "unknown-worker"),
        (GOOD, "workers: { keeper: { kind: ¶persits, queue: q } }", "unknown-worker"),
        (GOOD, "workers: { persist: { queue: q, batch: ¶0 } }", "bad-value"),
        (GOOD, "feed: { topics: [¶'a#'] }", "bad-filter"),
        (GOOD, "exchanges: { ¶x: {} }", "missing-key"),
        (GOOD, "include: ¶nope/*.yaml", "include-missing"),
        (GOOD, "¶nope: 1", "unknown-key"),
    ];
    for (routes, rest, code) in cases {
        let marked = table(routes, rest);
        let before = &marked[..marked.find('¶').unwrap()];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
        let text = marked.replace('¶', "");
        let problems = check(&text, &[]).await;
        let found = problems.iter().find(|problem| problem["code"] == *code);
        let found = found.unwrap_or_else(|| panic!("{code} for\n{text}\n{problems:#?}"));
        assert_eq!((&found["line"], &found["column"]), (&line.into(), &column.into()), "{found} for\n{text}");
        assert_eq!((&found["file"], &found["severity"]), (&"routes.yaml".into(), &"error".into()));
    }
}

#[tokio::test]
async fn reserved_paths_are_refused() {
    for path in [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/feed.json",
        "/table.json",
        "/pulse.json",
        "/mqtt",
        "/assets/x",
        "/{x}",
        "/{*x}",
    ] {
        let params = if path.contains('{') { "params: { path: { x: { type: string } } }, " } else { "" };
        let text = format!(
            "version: 1\nroutes:\n  - {{ id: a, method: GET, path: '{path}', {params}call: {{ queue: r }} }}\nqueues: {{ r: {{ type: rpc }} }}\n"
        );
        let problems = check(&text, &[]).await;
        assert!(problems.iter().any(|problem| problem["code"] == "reserved-path"), "{path}: {problems:#?}");
    }
}

#[tokio::test]
async fn mistakes_in_schemas_are_told_in_their_own_files() {
    let routes =
        "  - { id: a, method: POST, path: /a, body: { schema: s.json }, publish: { exchange: amq.topic, key: k } }";
    for (schema, code, line, column) in [
        ("{\n  \"type\": \"objet\"\n}", "schema-invalid", 2, 11),
        ("{\n  \"type\": ", "schema-invalid", 2, 10),
        ("{\n  \"properties\": { \"a\": { \"pattern\": \"(a)\\\\1\" } }\n}", "schema-pattern", 2, 37),
        ("{\n  \"properties\": { \"a\": { \"$ref\": \"https://x.example/s.json\" } }\n}", "schema-remote", 2, 34),
        ("{\n  \"properties\": { \"a\": { \"$ref\": \"../../etc/passwd\" } }\n}", "schema-outside", 2, 34),
        ("{\n  \"properties\": { \"a\": { \"$ref\": \"othr.json\" } }\n}", "schema-missing", 2, 34),
        ("{ \"type\": \"object\",\n  \"type\": \"string\" }", "duplicate-key", 2, 3),
    ] {
        let problems = check(&table(routes, ""), &[("s.json", schema), ("other.json", "{}")]).await;
        let found = problems
            .iter()
            .find(|problem| problem["code"] == code)
            .unwrap_or_else(|| panic!("{code}: {schema}\n{problems:#?}"));
        assert_eq!(
            (&found["file"], &found["line"], &found["column"]),
            (&"schemas/s.json".into(), &line.into(), &column.into()),
            "{found}\n{schema}"
        );
    }
}

#[tokio::test]
async fn one_mistake_hides_no_other() {
    let text = "version: 2\nbase_path: api\nroutes:\n  - { id: a b, method: GTE, path: a, call: { queue: nope, timeout: 5 } }\n  - { id: c, method: GET, path: /c, publish: { exchange: nope, key: '{' }, call: { queue: r } }\nqueues:\n  q: { dead_letter: nope, typ: quorum }\nworkers: { x: {} }\nfeed: {}\n";
    let problems = check(text, &[]).await;
    let codes: Vec<&str> = problems.iter().map(|problem| problem["code"].as_str().unwrap()).collect();
    for code in [
        "bad-value",
        "bad-path",
        "bad-duration",
        "unknown-queue",
        "unknown-exchange",
        "template-syntax",
        "unknown-key",
        "missing-key",
        "unknown-worker",
    ] {
        assert!(codes.contains(&code), "{code}: {codes:?}");
    }
    let places: Vec<(u64, u64)> = problems
        .iter()
        .filter(|p| p["file"] == "routes.yaml")
        .map(|p| (p["line"].as_u64().unwrap(), p["column"].as_u64().unwrap()))
        .collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[tokio::test]
async fn warnings_are_no_errors_unless_they_are_denied() {
    let routes = "  - { id: a, method: POST, path: /a, publish: { exchange: '', key: nobody } }";
    let text = table(routes, "");
    let problems = check(&text, &[("idle.json", "{}")]).await;
    let codes: Vec<&str> = problems.iter().map(|problem| problem["code"].as_str().unwrap()).collect();
    for code in ["unreceived-publish", "unconsumed-queue", "unused-schema"] {
        assert!(codes.contains(&code), "{codes:?}");
    }
    assert!(problems.iter().all(|problem| problem["severity"] == "warning"));
    let (status, _, _) = Start::up().table(&text).command(&["check", "--deny-warnings"]).run().await;
    assert_eq!(status, 1);
}

#[tokio::test]
async fn nothing_that_is_thrown_at_it_makes_it_panic_or_hang() {
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nroutes: *e\n";
    let large = format!("# {}\n", "x".repeat(1 << 20));
    for text in [
        "",
        "\0",
        "- a",
        "{",
        "routes: [",
        "version: 1\n---\nversion: 1",
        bomb,
        &large,
        &"[".repeat(100_000),
        "? {a: b}\n: c",
        "&a *a",
        "!!binary x",
        "\u{feff}version: 1",
    ] {
        let problems = check(text, &[]).await;
        assert!(!problems.is_empty(), "{text:.40}");
    }
}
