//! `fpesa test`: cases of a table pass or fail as they should, and a mistake in them is shown where it is.

use crate::support::{app::Start, root};

/// Runs `test` on the shipped table with these cases.
async fn run(cases: &str) -> (i32, String, String) {
    let start = Start::up().command(&["test"]);
    start.write("my.cases.yaml", cases);
    start.run().await
}

/// One POST of a message, with what is expected of it.
fn posting(body: &str, expect: &str) -> String {
    format!("cases:\n  - name: it\n    request: POST /api/v1/messages\n    body: {body}\n    expect: {expect}\n")
}

#[tokio::test]
async fn the_shipped_cases_pass() {
    let start = Start::up().command(&["test"]);
    start.write("routes.cases.yaml", &std::fs::read_to_string(root().join("routes.cases.yaml")).unwrap());
    let (status, stdout, stderr) = start.run().await;
    assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");
    let lines: Vec<&str> = stdout.lines().collect();
    let (last, cases) = lines.split_last().unwrap();
    assert!(cases.iter().all(|line| line.starts_with("ok    routes.cases.yaml:")), "{stdout}");
    assert_eq!(*last, format!("{0} cases: {0} passed, 0 failed", cases.len()));
}

#[tokio::test]
async fn what_is_named_is_compared_and_the_rest_is_not() {
    for (body, expect) in [
        ("{ text: a }", "{ key: messages.general }"),
        ("{ text: a }", "{ key: messages.<text> }"),
        ("{ text: a }", "{ status: 202, route: post-message, action: publish }"),
        ("{ text: a, list: [1, { b: 2, c: 3 }] }", "{ payload: { data: { list: [1, { b: 2 }] } } }"),
        ("{ text: a, n: 1.0 }", "{ payload: { data: { n: 1 } } }"),
        ("{ text: a, n: null }", "{ payload: { data: { n: null, other: <absent> } } }"),
        ("{ text: <b>c</b> }", "{ payload: { data: { text: <<b>c</b> } } }"),
        ("{ text: a }", "{ params: { path: {}, query: {}, header: {} }, exact: true }"),
        (
            "{ text: a }",
            "{ headers: { fpesa-route: post-message, fpesa-time: <any>, traceparent: <any> }, exact: true }",
        ),
        ("{}", "{ problem: validation-failed }"),
        ("{}", "{ problem: { type: https://fpesa.dev/problems/validation-failed, instance: <uuid> } }"),
    ] {
        let (status, stdout, stderr) = run(&posting(body, expect)).await;
        assert_eq!(status, 0, "{body} {expect}\n{stdout}{stderr}");
    }
}

#[tokio::test]
async fn a_difference_is_shown_and_only_that() {
    for (body, expect, place, expected, actual) in [
        ("{ text: a }", "{ key: messages.b, exchange: amq.topic }", "key", "\"messages.b\"", "\"messages.general\""),
        ("{ text: a }", "{ payload: { data: { text: b } } }", "payload.data.text", "\"b\"", "\"a\""),
        ("{ text: a }", "{ payload: { data: { x: 1 } } }", "payload.data.x", "1", "nothing"),
        ("{ text: a }", "{ payload: { id: <absent> } }", "payload.id", "\"<absent>\"", "\""),
        ("{ text: a, l: [1, 2] }", "{ payload: { data: { l: [1] } } }", "payload.data.l", "[1]", "[1,2]"),
        ("{ text: a, l: [1, 2] }", "{ payload: { data: { l: [1, 3] } } }", "payload.data.l[1]", "3", "2"),
        ("{ text: a }", "{ payload: { data: {} }, exact: true }", "payload.specversion", "nothing", "\"1.0\""),
        (
            "{ text: a }",
            "{ headers: { fpesa-route: <uuid> } }",
            "headers.fpesa-route",
            "\"<uuid>\"",
            "\"post-message\"",
        ),
        ("{ text: a }", "{ status: 201 }", "status", "201", "202"),
        ("{ text: a }", "{ route: null }", "route", "null", "\"post-message\""),
        ("{ text: a }", "{ problem: not-found }", "request", "a problem", "taken: publish amq.topic messages.general"),
        ("{}", "{ key: messages.a, status: 422 }", "request", "a request that is taken", "refused: {"),
        (
            "{}",
            "{ problem: not-found }",
            "problem.type",
            "\"https://fpesa.dev/problems/not-found\"",
            "validation-failed",
        ),
    ] {
        let (status, stdout, stderr) = run(&posting(body, expect)).await;
        assert_eq!((status, stderr.as_str()), (1, ""), "{body} {expect}\n{stdout}");
        let lines: Vec<&str> = stdout.lines().map(str::trim).collect();
        assert_eq!(lines[0], "FAIL  my.cases.yaml:2  it");
        assert_eq!(*lines.last().unwrap(), "1 case: 0 passed, 1 failed");
        let at = lines.iter().position(|line| *line == place).unwrap_or_else(|| panic!("{place}: {stdout}"));
        assert_eq!(lines[at + 1], format!("expected  {expected}"), "{stdout}");
        assert!(lines[at + 2].starts_with("actual    ") && lines[at + 2].contains(actual), "{actual}: {stdout}");
        let places = lines[1..lines.len() - 1].len() / 3;
        assert!(places == 1 || expect.contains("exact"), "{stdout}");
    }
}

#[tokio::test]
async fn a_mistake_in_a_cases_file_is_shown_where_it_is() {
    // `¶` marks the place that is told.
    for (text, code, hint) in [
        (
            "cases:\n  - ¶nam: a\n    request: GET /\n    expect: { status: 200 }\n",
            "unknown-key",
            "did you mean `name`?",
        ),
        ("cases:\n  - name: a\n    request: GET /\n    expect: { ¶kye: a }\n", "unknown-key", "did you mean `key`?"),
        (
            "cases:\n  - name: a\n    request: GET /\n    expect: { payload: { id: ¶<uiud> } }\n",
            "bad-value",
            "did you mean `uuid`?",
        ),
        (
            "cases:\n  - name: a\n    request: GET /\n    expect: { payload: { a: 1, ¶a: 2 } }\n",
            "duplicate-key",
            "keep one",
        ),
        ("cases:\n  - name: a\n    request: ¶GET\n    expect: { status: 200 }\n", "bad-value", "GET /api/v1/messages"),
        ("cases:\n  - name: a\n    request: ¶GET x\n    expect: { status: 200 }\n", "bad-value", ""),
        ("cases:\n  - ¶name: a\n    request: GET /\n", "missing-key", ""),
        ("cases:\n  - name: a\n    request: GET /\n    expect: ¶{}\n", "missing-key", "name a `key`"),
        ("cases:\n  - name: a\n    request: GET /\n    expect: { ¶key: a, problem: x }\n", "bad-value", "keep one"),
        (
            "cases:\n  - name: a\n    request: POST /\n    body: {}\n    ¶text: x\n    expect: { status: 2 }\n",
            "bad-value",
            "keep exactly one",
        ),
        (
            "cases:\n  - name: a\n    request: POST /\n    body: { a: 1, ¶a: 2 }\n    expect: { status: 200 }\n",
            "duplicate-key",
            "keep one",
        ),
        (
            "cases:\n  - name: a\n    request: POST /\n    base64: ¶nope!\n    expect: { status: 200 }\n",
            "bad-value",
            "",
        ),
        (
            "cases:\n  - name: a\n    request: POST /\n    file: ¶missing.bin\n    expect: { status: 200 }\n",
            "unreadable",
            "relative",
        ),
        (
            "cases:\n  - name: a\n    request: GET /\n    headers: { a: ¶1 }\n    expect: { status: 200 }\n",
            "wrong-type",
            "quotes",
        ),
        ("¶case: []\n", "unknown-key", "did you mean `cases`?"),
        ("cases: ¶{}\n", "wrong-type", ""),
        ("cases: ¶[\n", "syntax", ""),
    ] {
        let before = &text[..text.find('¶').unwrap()];
        let (line, column) =
            (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap().chars().count() + 1);
        let (status, stdout, stderr) = run(&text.replace('¶', "")).await;
        assert_eq!(status, 1, "{text}");
        let place = format!("my.cases.yaml:{line}:{column}: error[{code}]");
        assert!(stderr.contains(&place) || code == "syntax", "{place}\n{stderr}");
        assert!(stderr.contains(&format!("error[{code}]")) && stderr.contains(hint), "{hint}\n{stderr}");
        assert_eq!(stdout.trim(), "0 cases: 0 passed, 0 failed; 1 of 1 files not run");
    }
}

#[tokio::test]
async fn bodies_come_from_files_too_and_headers_may_be_left_out() {
    let start = Start::up().command(&["test", "sub/a.cases.yaml", "sub/b.cases.yaml"]);
    std::fs::create_dir(start.path().join("sub")).unwrap();
    start.write("sub/body.json", r#"{"text":"from a file"}"#);
    start.write(
        "sub/a.cases.yaml",
        "cases:\n  - name: a file\n    request: POST /api/v1/messages\n    file: body.json\n    expect: { payload: { data: { text: from a file } } }\n",
    );
    start.write(
        "sub/b.cases.yaml",
        "cases:\n  - name: no type\n    request: POST /api/v1/messages\n    headers: { Content-Type: '' }\n    text: x\n    expect: { problem: unsupported-media-type }\n",
    );
    let (status, stdout, stderr) = start.run().await;
    assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");
    assert!(stdout.ends_with("2 cases: 2 passed, 0 failed\n"), "{stdout}");
}

#[tokio::test]
async fn nothing_to_run_is_no_success() {
    let (status, stdout, stderr) = Start::up().command(&["test"]).run().await;
    assert_eq!((status, stdout.as_str()), (1, ""));
    assert!(stderr.contains("*.cases.yaml"), "{stderr}");
    let (status, _, stderr) = Start::up().command(&["test", "missing.cases.yaml"]).run().await;
    assert_eq!(status, 1);
    assert!(stderr.contains("missing.cases.yaml:1:1") && stderr.contains("no such file"), "{stderr}");
    let (status, _, stderr) = Start::up().table("version: 1\n").command(&["test"]).run().await;
    assert_eq!(status, 1);
    assert!(stderr.contains("routes.yaml:1:1"), "{stderr}");
}

#[tokio::test]
async fn the_documents_examples_do_what_they_say() {
    let document = std::fs::read_to_string(root().join("docs/cases.md")).unwrap();
    let blocks: Vec<&str> = document
        .split("```yaml,file=routes.cases.yaml\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap())
        .collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let (status, stdout, stderr) = run(block).await;
        assert_eq!(status, 0, "{block}\n{stdout}{stderr}");
    }
    let shown = document.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let start = Start::up().command(&["test"]);
    start.write(
        "routes.cases.yaml",
        &posting("{ text: Hello }", "{ key: messages.news }").replace("it\n", "a message goes to its topic\n"),
    );
    let (_, stdout, _) = start.run().await;
    assert_eq!(stdout.strip_suffix("1 case: 0 passed, 1 failed\n"), Some(shown));
}
