//! Faults, judged by a ledger: every id that got a 202 is in history exactly once.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::sync::Mutex;

use crate::support::{
    app::{App, Start},
    eventually,
    poster::history,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_in_the_middle_of_5000_posts_loses_nothing_and_doubles_nothing() {
    const POSTS: usize = 5_000;
    let mut app = App::up().await;
    let promised = Arc::new(Mutex::new(Vec::new()));
    let mut killed = 0;
    let mut sent = 0;
    // Three lives; the last one finishes.
    for until in [1_200, 2_900, POSTS] {
        let (url, client) = (app.url("/api/v1/messages"), app.client.clone());
        let next = Arc::new(std::sync::atomic::AtomicUsize::new(sent));
        let clients: Vec<_> = (0..16)
            .map(|_| {
                let (url, client, next, promised) = (url.clone(), client.clone(), next.clone(), promised.clone());
                tokio::spawn(async move {
                    loop {
                        let n = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        if n >= POSTS {
                            return;
                        }
                        let post = client
                            .post(&url)
                            .header("content-type", "application/json")
                            .body(format!(r#"{{"text":"{n}"}}"#));
                        // Whatever is no 202 is no promise.
                        let Ok(response) = post.send().await else { return };
                        if response.status() != 202 {
                            continue;
                        }
                        if let Ok(answer) = response.json::<Value>().await {
                            promised.lock().await.push(answer["id"].as_str().unwrap().to_owned());
                        }
                    }
                })
            })
            .collect();
        if until < POSTS {
            eventually("enough promises", || async { (promised.lock().await.len() >= until * 9 / 10).then_some(()) })
                .await;
            app.kill9();
            killed += 1;
        }
        for client in clients {
            client.await.unwrap();
        }
        sent = next.load(std::sync::atomic::Ordering::SeqCst);
        if until < POSTS {
            app = app.again().start().await;
        }
    }
    let promised = promised.lock().await.clone();
    assert!(killed == 2 && promised.len() > 3_000, "{killed} {}", promised.len());
    // The queue is empty once all that it holds is kept: what was committed and not answered too.
    let mut before = 0;
    eventually("history to be complete", || {
        let found = before;
        let (app, promised) = (&app, &promised);
        async move {
            let now = history(app).await;
            let complete = promised.iter().all(|id| now.contains_key(id));
            (complete && now.len() >= found).then_some(())
        }
    })
    .await;
    before = history(&app).await.len();
    assert!(before >= promised.len());
    let found = history(&app).await;
    for id in &promised {
        assert_eq!(found.get(id), Some(&1), "{id}");
    }
    assert!(found.values().all(|count| *count == 1), "none twice");
}

#[tokio::test]
async fn a_full_disk_is_told_and_healed_from() {
    // A file-size limit stands for the disk: it needs no rights, and can be lifted by a restart.
    let mut app = Start::up().shell("ulimit -f 3000").start().await;
    let text = "x".repeat(50_000);
    let body = format!(r#"{{"text":"{text}"}}"#);
    let mut promised = Vec::new();
    let refused = loop {
        let response = app.post("/api/v1/messages", body.clone()).await;
        if response.status() != 202 {
            break response;
        }
        promised.push(response.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned());
        assert!(promised.len() < 1_000, "the limit was never met");
    };
    assert!(!promised.is_empty());
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    let problem: Value = refused.json().await.unwrap();
    let kind = problem["type"].as_str().unwrap();
    assert!(kind.ends_with("/storage-full") || kind.ends_with("/storage-failed"), "{problem}");
    assert_eq!(problem["outcome"], "not-sent");
    // What workers settle meanwhile may make room for a moment: so it is filled again until readiness says so. It lives,
    // and answers fast.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let ready = app.get("/readyz").await;
        if ready.status() == 503 {
            assert_eq!(ready.json::<Value>().await.unwrap()["bus"], "blocked");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "readiness never said that the disk is full");
        let start = std::time::Instant::now();
        let response = app.post("/api/v1/messages", body.clone()).await;
        assert!(start.elapsed() < Duration::from_secs(1));
        match response.status().as_u16() {
            202 => promised.push(response.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()),
            status => assert_eq!(status, 503),
        }
    }
    assert_eq!(app.get("/healthz").await.status(), 200);
    app.kill9();
    let app = app.again().start().await;
    app.kept(promised.len() as u64).await;
    let found = history(&app).await;
    assert!(promised.iter().all(|id| found.get(id) == Some(&1)));
    app.keep(r#"{"text":"there is room again"}"#).await;
}

/// Needs the right to mount; where that is missing the file-size limit above is what there is.
#[tokio::test]
async fn a_full_tmpfs_is_healed_from_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| {
        std::process::Command::new("mount").args(args).output().is_ok_and(|output| output.status.success())
    };
    let path = folder.path().display().to_string();
    if !mount(&["-t", "tmpfs", "-o", "size=3m", "tmpfs", &path]) {
        println!("no right to mount a tmpfs here: the full disk is tested by a file-size limit alone");
        return;
    }
    let unmount = Unmount(path.clone());
    let app = Start::up().args(&["--data-dir", &format!("{path}/data")]).start().await;
    // Something else takes the room.
    let filler = folder.path().join("filler");
    let used: u64 = walk(&folder.path().join("data"));
    std::fs::write(&filler, vec![0_u8; usize::try_from((3 << 20) - used - 400_000).unwrap()]).unwrap();
    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(50_000));
    let mut promised = 0;
    let problem: Value = loop {
        let response = app.post("/api/v1/messages", body.clone()).await;
        if response.status() != 202 {
            break response.json().await.unwrap();
        }
        promised += 1;
        assert!(promised < 100, "the disk was never full");
    };
    assert_eq!(problem["type"], "https://fpesa.dev/problems/storage-full", "{problem}");
    std::fs::remove_file(&filler).unwrap();
    eventually("it to take messages again", || async {
        (app.post("/api/v1/messages", r#"{"text":"room"}"#).await.status() == 202).then_some(())
    })
    .await;
    app.kept(promised + 1).await;
    assert_eq!(app.get("/readyz").await.status(), 200);
    drop(app);
    drop(unmount);
}

fn walk(folder: &std::path::Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l", &self.0]).status();
    }
}
