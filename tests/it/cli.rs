//! The command line: what is printed, where, and with which exit status.

use std::time::Duration;

use serde_json::Value;

use crate::support::app::{App, Start};

async fn run(args: &[&str]) -> (i32, String, String) {
    Start::up().command(args).run().await
}

#[tokio::test]
async fn wrong_usage_and_settings_exit_2_and_teach() {
    for (args, told) in [
        (&["nope"][..], "unrecognized subcommand"),
        (&["up", "--nope"], "unexpected argument"),
        (&["gateway"], "use `fpesa up`"),
        (&["work"], "use `fpesa up`"),
        (&["work", "--bus", "amqp://localhost"], "store"),
        (&["up", "--bus", "kafka://u:s3cret@h"], "amqp://"),
        (&["up", "--bus", "amqp"], "amqp://"),
        (&["up", "--store", "redis://h"], "postgres://"),
        (&["config", "--listen", "nowhere"], "listen"),
        (&["config", "--config", "missing.yaml"], "missing.yaml"),
        (&["config", "--log", "nope=nope=nope"], ""),
    ] {
        let (status, stdout, stderr) = run(args).await;
        if told.is_empty() {
            continue;
        }
        assert_eq!(status, 2, "{args:?}: {stdout}{stderr}");
        assert!(stderr.contains(told), "{args:?}: {stderr}");
        assert!(!stderr.contains("s3cret"), "{stderr}");
        assert_eq!(stdout, "");
    }
    let (status, stdout, _) = run(&["--help"]).await;
    assert_eq!(status, 0);
    assert!(stdout.contains("Examples:") && stdout.contains("fpesa tail 'messages/#'"), "{stdout}");
    assert_eq!(run(&["-V"]).await.1.trim(), concat!("fpesa ", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn settings_have_layers_and_say_where_they_come_from() {
    let start = Start::up().command(&["config", "--data-dir", "elsewhere"]);
    let start = start
        .env("FPESA_LIMITS__MAX_CALLS", "7")
        .env("FPESA_BUS", "amqp://me:s3cret@broker:5672/v")
        .env("FPESA_LOG", "debug");
    start.write(
        "fpesa.yaml",
        "log: warn\nlimits:\n  max_calls: 5\n  connections: 99\nfeed: { password_file: feed.txt }\n",
    );
    start.write("feed.txt", "0123\n");
    let (status, stdout, stderr) = start.run().await;
    assert_eq!(status, 0, "{stderr}");
    for (line, from) in [
        ("data_dir: elsewhere", "--data-dir"),
        ("limits.max_calls: 7", "FPESA_LIMITS__MAX_CALLS"),
        ("limits.connections: 99", "fpesa.yaml"),
        ("log: debug", "FPESA_LOG"),
        ("bus: amqp://me:***@broker:5672/v", "FPESA_BUS"),
        ("feed.password: ***", "fpesa.yaml"),
        ("listen: 127.0.0.1:8080", "default"),
    ] {
        let found = stdout.lines().find(|shown| shown.starts_with(line)).unwrap_or_else(|| panic!("{line}\n{stdout}"));
        assert!(found.ends_with(from), "{found}");
    }
    assert!(!stdout.contains("s3cret") && !stdout.contains("0123"), "{stdout}");
}

#[tokio::test]
async fn unknown_settings_are_told() {
    let start = Start::up().command(&["config"]);
    start.write("fpesa.yaml", "log: info\nlimits:\n  max_cals: 5\n");
    let (status, _, stderr) = start.run().await;
    assert_eq!(status, 2);
    assert!(stderr.contains("fpesa.yaml:3:3") && stderr.contains("did you mean `limits.max_calls`"), "{stderr}");
    let (status, _, stderr) = Start::up().command(&["config"]).env("FPESA_LISTN", "x").run().await;
    assert_eq!(status, 2);
    assert!(stderr.contains("did you mean `listen`"), "{stderr}");
}

#[tokio::test]
async fn check_and_routes() {
    let (status, stdout, stderr) = run(&["check", "routes.yaml"]).await;
    assert_eq!((status, stdout.as_str()), (0, ""), "{stderr}");
    assert!(stderr.contains("0 errors, 0 warnings"), "{stderr}");
    let (status, stdout, _) = run(&["check", "--format", "json", "--deny-warnings"]).await;
    assert_eq!((status, stdout.trim()), (0, "[]"));
    let (status, stdout, _) = run(&["routes"]).await;
    assert_eq!(status, 0);
    assert!(
        stdout.lines().any(|line| line.starts_with("POST")
            && line.contains("/api/v1/messages")
            && line.ends_with("post-message"))
    );
    let broken = || {
        Start::up()
            .table("version: 1\nroutes:\n  - { id: a, methd: GET, path: /a, call: { queue: q } }\nqueues: { q: {} }\n")
    };
    let (status, stdout, _) = broken().command(&["check", "--format", "json"]).run().await;
    assert_eq!(status, 1);
    let problems: Value = serde_json::from_str(&stdout).unwrap();
    let problem = problems.as_array().unwrap().iter().find(|problem| problem["code"] == "unknown-key").unwrap();
    assert_eq!(
        (&problem["file"], &problem["line"], &problem["column"], &problem["severity"]),
        (&"routes.yaml".into(), &3.into(), &14.into(), &"error".into())
    );
    assert_eq!(problem["hint"], "did you mean `method`?");
    let (status, _, stderr) = broken().command(&["check"]).run().await;
    assert_eq!(status, 1);
    assert!(
        stderr.contains("routes.yaml:3:14: error[unknown-key]") && stderr.contains("^^^^^ did you mean `method`?"),
        "{stderr}"
    );
    let (status, _, stderr) = broken().run().await;
    assert_eq!(status, 1, "a broken table starts nothing: {stderr}");
    assert_eq!(run(&["check", "missing.yaml"]).await.0, 1);
}

#[tokio::test]
async fn stopping_drains_and_exits_0() {
    let mut app = App::up().await;
    let posts: Vec<_> = (0..50)
        .map(|n| {
            let post = app.client.post(app.url("/api/v1/messages")).header("content-type", "application/json");
            tokio::spawn(post.body(format!(r#"{{"text":"{n}"}}"#)).send())
        })
        .collect();
    app.keep(r#"{"text":"first"}"#).await;
    app.term();
    assert_eq!(app.wait(Duration::from_secs(10)).await.code(), Some(0));
    let mut kept = 1;
    for post in posts {
        if post.await.unwrap().is_ok_and(|response| response.status() == 202) {
            kept += 1;
        }
    }
    let app = app.again().start().await;
    app.kept(kept).await;
}

#[tokio::test]
async fn a_port_or_folder_that_is_taken_is_told() {
    let app = App::up().await;
    let listen = app.base["http://".len()..].to_owned();
    let (status, _, stderr) = Start::up().command(&["config"]).command(&["check"]).run().await;
    assert_eq!(status, 0, "{stderr}");
    let other = app.again().folder(std::sync::Arc::new(tempfile::tempdir().unwrap()));
    other.copy_table();
    let (status, stdout, stderr) = other.run().await;
    assert_eq!((status, stdout.as_str()), (1, ""));
    assert!(stderr.contains(&listen) && stderr.contains("--listen"), "{stderr}");
    let (status, _, stderr) = Start::up().folder(app.folder.clone()).run().await;
    assert_eq!(status, 1);
    assert!(stderr.contains("another fpesa") && stderr.contains("--data-dir"), "{stderr}");
    let (status, _, stderr) = Start::up().args(&["--data-dir", "/proc/nowhere"]).run().await;
    assert_eq!(status, 1);
    assert!(stderr.contains("data folder /proc/nowhere"), "{stderr}");
}
