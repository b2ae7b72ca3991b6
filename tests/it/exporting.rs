//! `fpesa export` and `fpesa import-events`: lines that are the events, byte for byte, there and back.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use fpesa_workers::event::Event;
use serde_json::Value;

use crate::support::{
    app::{App, Start},
    history::{all, embedded, event, events, fill, open, texts},
    postgres::Postgres,
};

async fn run(args: &[&str]) -> (i32, String, String) {
    Start::up().command(args).run().await
}

/// Runs it with a standard input.
fn fed(args: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fpesa"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output: Output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn ids(lines: &str) -> Vec<String> {
    let id = |line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    lines.lines().map(id).collect()
}

#[tokio::test]
async fn there_and_back() {
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (embedded(folder.path()), server.database());
    let store = open(&a).await;
    let mut kept = events(2_100);
    // Line breaks between tokens, and what parsing and printing would change.
    for (n, data) in [
        "{\n  \"a\": 12345678901234567890.10,\r\n\t\"b\": [\r 1e400 ]\n}\n",
        r#"{ "z":1, "a":"😀\u0000\ud800", "z":2 }"#,
        "\"\u{2028}\"",
    ]
    .iter()
    .enumerate()
    {
        kept.push(event(5_000 + n as u128, -10 + i64::try_from(n).unwrap(), "m/awkward", data));
    }
    fill(&store, &kept).await;
    let (status, lines, stderr) = run(&["export", "--store", &a]).await;
    assert_eq!(status, 0, "{stderr}");
    kept.sort_by_key(Event::place);
    assert_eq!(lines.matches('\n').count(), kept.len(), "one line each, however they are written inside");
    // (A reader that knows no 1e400 or lone surrogate would stumble: they are not ours to change.)
    let plain: Vec<&str> = lines.lines().skip(3).collect();
    assert_eq!(plain, kept[3..].iter().map(|event| std::str::from_utf8(&event.text).unwrap()).collect::<Vec<_>>());
    let (status, stdout, stderr) = fed(&["import-events", "--store", &b], lines.as_bytes());
    assert_eq!((status, stdout.as_str()), (0, "imported 2103, present 0, refused 0\n"), "{stderr}");
    assert_eq!(texts(&open(&b).await).await, texts(&store).await);
    // From a file, and once more: what is there is skipped.
    let file = folder.path().join("history.ndjson");
    std::fs::write(&file, &lines).unwrap();
    let (status, stdout, stderr) = run(&["import-events", &file.display().to_string(), "--store", &b]).await;
    assert_eq!((status, stdout.as_str()), (0, "imported 0, present 2103, refused 0\n"), "{stderr}");
    let (_, again, _) = run(&["export", "--store", &b]).await;
    assert_eq!(again, lines);
}

#[tokio::test]
async fn parts() {
    let folder = tempfile::tempdir().unwrap();
    let a = embedded(folder.path());
    fill(&open(&a).await, &events(50)).await;
    let time = |n: usize| {
        let event = events(50).swap_remove(n - 1);
        serde_json::from_slice::<Value>(&event.text).unwrap()["time"].as_str().unwrap().to_owned()
    };
    let (since, until) = (time(10), time(30));
    let (status, lines, stderr) =
        run(&["export", "--store", &a, "--since", &since, "--until", &until, "--topic", "m/3"]).await;
    assert_eq!(status, 0, "{stderr}");
    let expected: Vec<String> = [13_u128, 18, 23, 28].map(|n| uuid::Uuid::from_u128(n).to_string()).to_vec();
    assert_eq!(ids(&lines), expected);
    // A time may be told by how long ago it is.
    assert_eq!(run(&["export", "--store", &a, "--since", "36500d"]).await.1.lines().count(), 50);
    assert_eq!(run(&["export", "--store", &a, "--topic", "nothing/#"]).await, (0, String::new(), String::new()));
    let nowhere = embedded(&folder.path().join("nowhere"));
    for (args, why) in [
        (&["export", "--store", &a, "--since", "yesterday"][..], "2026-11-23T18:27:58Z"),
        (&["export", "--store", &a, "--topic", "a#"], "--topic"),
        (&["export", "--store", &nowhere], "no store in"),
        (&["import-events", "missing.ndjson", "--store", &a], "missing.ndjson"),
    ] {
        let (status, stdout, stderr) = run(args).await;
        assert_eq!((status, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(why), "{args:?}: {stderr}");
    }
}

/// `fpesa export | head` ends quietly, and soon.
#[tokio::test]
async fn a_closed_pipe_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let a = embedded(folder.path());
    fill(&open(&a).await, &events(20_000)).await;
    let line = r#""$0" export --store "$1" | head -n 2; echo "${PIPESTATUS[0]}""#;
    let output = Command::new("bash").args(["-c", line, env!("CARGO_BIN_EXE_fpesa"), &a]).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!((lines.len(), lines[2]), (3, "0"), "{stdout}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[tokio::test]
async fn a_bad_line_is_named_and_nothing_after_it_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let a = embedded(folder.path());
    let store = open(&a).await;
    store.append(&[event(4, 4, "m/a", "\"mine\""), event(5, 5, "m/0", "5")]).await.unwrap();
    let line = |event: &Event| String::from_utf8(event.text.to_vec()).unwrap();
    let good = events(6);
    let mut input: Vec<u8> = Vec::new();
    for text in [
        line(&good[0]),
        "{\"specversion\":".into(),
        line(&good[1]).replace("1.0", "0.3"),
        String::new(),
        // As other systems end their lines.
        line(&good[2]) + "\r",
        line(&good[3]),
        line(&good[4]),
        line(&good[0]),
        "[1, 2]".into(),
    ] {
        input.extend_from_slice(text.as_bytes());
        input.push(b'\n');
    }
    input.extend_from_slice(b"\xff\xfe\n");
    // The last line has no end.
    input.extend_from_slice(line(&good[5]).as_bytes());
    let (status, stdout, stderr) = fed(&["import-events", "-", "--store", &a], &input);
    // Line 5 is one of the store's, line 8 one of the file's own.
    assert_eq!((status, stdout.as_str()), (1, "imported 3, present 2, refused 5\n"), "{stderr}");
    let named: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("fpesa: line ")).collect();
    for (number, why) in
        [(2, "no CloudEvent"), (3, "specversion"), (6, "another event's"), (9, "no CloudEvent"), (10, "no CloudEvent")]
    {
        let found = named.iter().find(|line| line.starts_with(&format!("{number}: ")));
        assert!(found.is_some_and(|line| line.contains(why)), "line {number}: {stderr}");
    }
    assert_eq!(named.len(), 5, "{stderr}");
    let there = all(&store).await;
    assert_eq!(there.iter().map(|event| event.id.as_u128()).collect::<Vec<_>>(), [1, 3, 4, 5, 6]);
    assert_eq!(there[1].text, good[2].text, "the carriage return is the line's, not the event's");
}

/// What was sent through the gateway is exported as it was sent, while everything runs.
#[tokio::test]
async fn from_a_running_process() {
    let app = App::up().await;
    let body = "{\"text\": \"Hello\",\n \"topic\":\"news\", \"n\": 12345678901234567890}";
    let id = app.keep(body).await;
    app.kept(1).await;
    let data = app.folder.path().join("data").display().to_string();
    let (status, lines, stderr) = run(&["export", "--data-dir", &data, "--topic", "messages/news"]).await;
    assert_eq!(status, 0, "{stderr}");
    assert_eq!(ids(&lines), [id]);
    assert!(lines.ends_with(&format!("\"data\":{}}}\n", body.replace('\n', "\r "))), "{lines}");
    // Into the store of a running process, which shows it at once.
    let other = App::up().await;
    let data = other.folder.path().join("data").display().to_string();
    let (status, stdout, stderr) = fed(&["import-events", "--data-dir", &data], lines.as_bytes());
    assert_eq!((status, stdout.as_str()), (0, "imported 1, present 0, refused 0\n"), "{stderr}");
    other.kept(1).await;
    let kept = other.get("/api/v1/messages?limit=1").await.text().await.unwrap();
    assert!(kept.contains(body), "{kept}");
}
