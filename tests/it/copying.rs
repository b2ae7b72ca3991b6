//! `fpesa copy`: everything arrives, once, whatever happens meanwhile.

use std::{
    collections::{BTreeMap, HashSet},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fpesa_workers::{
    copy::{self, Told},
    event::Event,
    store::Store,
};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::support::{
    app::{App, Start},
    eventually,
    history::{all, embedded, event, events, fill, open, texts},
    mongodb::Mongodb,
    poster::{Poster, counts},
    postgres::Postgres,
};

async fn run(args: &[&str]) -> (i32, String, String) {
    Start::up().command(args).run().await
}

/// What `copied N, present N, checked N` says.
fn told(stdout: &str) -> [u64; 3] {
    let line = stdout.lines().next().unwrap_or_default();
    let numbers: Vec<u64> = line.split(", ").filter_map(|part| part.split(' ').nth(1)?.parse().ok()).collect();
    assert!(line.starts_with("copied ") && line.contains(", present ") && line.contains(", checked "), "{stdout}");
    numbers.try_into().unwrap_or_else(|_| panic!("{stdout}"))
}

/// Data that parsing and printing would change.
fn awkward() -> Vec<Event> {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let big = format!("\"{}\"", "x".repeat(200_000));
    [
        r#"{"b": 12345678901234567890123.000,  "a":[ 1e400 ]}"#,
        "{\r\n \"a\":\t1,\n \"a\":2}\n",
        r#""\ud800\u0000""#,
        "\"😀\"",
        &deep,
        &big,
    ]
    .iter()
    .enumerate()
    .map(|(n, data)| event(n as u128 + 50_000, i64::try_from(n).unwrap() - 100, "m/awkward", data))
    .collect()
}

#[tokio::test]
async fn there_and_back_byte_for_byte() {
    let (server, mongodb) = (Postgres::start(), Mongodb::start());
    let (first, last) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b, m, c) = (embedded(first.path()), server.database(), mongodb.database(), embedded(last.path()));
    let store = open(&a).await;
    fill(&store, &awkward()).await;
    fill(&store, &events(2_500)).await;
    let total = 2_506;
    let (status, stdout, stderr) = run(&["copy", "--from", &a, "--to", &b]).await;
    assert_eq!((status, told(&stdout)), (0, [total, 0, total]), "{stderr}");
    assert!(!stderr.contains("ETA"), "a bar is for terminals: {stderr}");
    // Again: nothing is copied twice.
    let (status, again, stderr) = run(&["copy", "--from", &a, "--to", &b]).await;
    assert_eq!((status, told(&again)), (0, [0, total, total]), "{stderr}");
    // Some more: only those.
    store.append(&[event(9_999, 5_000, "m/a", "1"), event(9_998, -5_000, "m/a", "1")]).await.unwrap();
    let (status, stdout, stderr) = run(&["copy", "--from", &a, "--to", &b]).await;
    assert_eq!((status, told(&stdout)), (0, [2, total, total + 2]), "{stderr}");
    let mut stdout = String::new();
    for (from, to) in [(&b, &m), (&m, &c)] {
        let (status, told_now, stderr) = run(&["copy", "--from", from, "--to", to]).await;
        assert_eq!((status, told(&told_now)), (0, [total + 2, 0, total + 2]), "{stderr}");
        stdout = told_now;
    }
    assert_eq!(texts(&open(&c).await).await, texts(&store).await);
    // The digest is that of the export.
    let (status, lines, stderr) = run(&["export", "--store", &c]).await;
    assert_eq!(status, 0, "{stderr}");
    let digest: String = Sha256::digest(lines.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(stdout.contains(&format!("sha256 {digest}\n")), "{stdout}{digest}");
}

#[tokio::test]
async fn what_stands_in_the_way_is_told() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (embedded(first.path()), embedded(second.path()));
    let (from, to) = (open(&a).await, open(&b).await);
    fill(&from, &events(10)).await;
    // Another event's id; and the same event, sent again a minute later.
    to.append(&[event(3, 3, "m/3", "\"another\""), event(4, 64, "m/4", "4")]).await.unwrap();
    let (status, stdout, stderr) = run(&["copy", "--from", &a, "--to", &b]).await;
    assert_eq!((status, told(&stdout)), (1, [8, 1, 8]), "{stdout}{stderr}");
    let id = uuid::Uuid::from_u128(3).to_string();
    assert_eq!(stderr.matches(&id).count(), 1, "{stderr}");
    assert!(stderr.contains("another event's") && stderr.contains("1 of those present differ"), "{stderr}");
    assert_eq!(all(&to).await.len(), 10);

    let missing = embedded(&first.path().join("typo"));
    let file = first.path().join("password");
    std::fs::write(&file, "s3cret\n").unwrap();
    let file = file.display().to_string();
    for (args, why) in [
        (&["copy", "--from", &missing, "--to", &b][..], "no store in"),
        (&["copy", "--from", &a, "--to", &a], "the same store"),
        (&["copy", "--from", &a, "--to", "redis://u:s3cret@h"], "--to"),
        (&["copy", "--from", &a], "--to"),
        (&["copy", "--from", &a, "--to", "postgres://u:s3cret@h/d?nonsense=1"], "nonsense"),
        (&["copy", "--from", &a, "--to", &b, "--from-password-file", "/nowhere"], "/nowhere"),
    ] {
        let (status, stdout, stderr) = run(args).await;
        assert_eq!((status, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(why) && !stderr.contains("s3cret"), "{args:?}: {stderr}");
    }
    assert!(!first.path().join("typo").exists(), "reading makes no store");
    // A server that is away is told at once, and waited for.
    let away = ["copy", "--from", "postgres://u@127.0.0.1:1/d", "--to", &b, "--from-password-file", &file];
    let (status, _, stderr) = run(&away).await;
    assert_eq!(status, 1, "{stderr}");
    assert!(stderr.contains("waiting for the store postgres://u@127.0.0.1:1/d"), "{stderr}");
    assert!(stderr.contains("is away") && !stderr.contains("s3cret"), "{stderr}");
}

#[tokio::test]
async fn a_password_comes_from_a_file() {
    let server = Postgres::start();
    let url = server.database();
    Postgres::sql(&url, "CREATE ROLE locked LOGIN PASSWORD 's3cret'; GRANT ALL ON SCHEMA public TO locked");
    server.asks_for_passwords();
    let url = url.replace("fpesa@", "locked@");
    let folder = tempfile::tempdir().unwrap();
    let a = embedded(folder.path());
    fill(&open(&a).await, &events(10)).await;
    let file = folder.path().join("password");
    let file_text = file.display().to_string();
    let args = ["copy", "--from", &a, "--to", &url, "--to-password-file", &file_text];
    std::fs::write(&file, "wrong-s3cret\n").unwrap();
    let (status, _, stderr) = run(&args).await;
    assert!(status == 2 && stderr.contains("password") && !stderr.contains("s3cret"), "{status} {stderr}");
    std::fs::write(&file, "s3cret\n").unwrap();
    let (status, stdout, stderr) = run(&args).await;
    assert_eq!((status, told(&stdout)), (0, [10, 0, 10]), "{stderr}");
    let in_url = url.replace("locked@", "locked:s3cret@");
    let (status, stdout, stderr) = run(&["copy", "--from", &in_url, "--to", &a]).await;
    assert_eq!((status, told(&stdout)), (0, [0, 10, 10]), "{stderr}");
}

/// The process dies in the middle: the second run brings the rest.
#[tokio::test]
async fn kill_9_in_the_middle() {
    const TOTAL: u64 = 30_000;
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (embedded(first.path()), embedded(second.path()));
    let from = open(&a).await;
    fill(&from, &events(TOTAL.into())).await;
    let to = open(&b).await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_fpesa"))
        .args(["copy", "--from", &a, "--to", &b])
        .current_dir(first.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the first events", || async { to.place(0).await.unwrap() }).await;
    child.kill().unwrap();
    assert!(child.wait().unwrap().code().is_none(), "it was killed, and had not ended");
    let there = all(&to).await.len() as u64;
    assert!(there > 0 && there < TOTAL, "{there}");
    let (status, stdout, stderr) = run(&["copy", "--from", &a, "--to", &b]).await;
    assert_eq!((status, told(&stdout)), (0, [TOTAL - there, there, TOTAL]), "{stderr}");
    assert_eq!(texts(&to).await, texts(&from).await);
}

/// Both stores are those of running processes that keep messages: nobody's requests fail, and one more run, when nobody
/// writes any more, brings everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_the_stores_of_two_running_processes() {
    let (one, other) = (App::up().await, App::up().await);
    let (a, b) = (embedded(&one.folder.path().join("data")), embedded(&other.folder.path().join("data")));
    let posters = [Poster::start(&[&one], 4), Poster::start(&[&other], 4)];
    eventually("some messages", || async { (posters.iter().all(|poster| poster.kept() > 300)).then_some(()) }).await;
    for _ in 0..3 {
        let (status, stdout, stderr) = run(&["copy", "--from", &a, "--to", &b]).await;
        assert_eq!(status, 0, "{stdout}{stderr}");
    }
    let mut kept = Vec::new();
    for poster in posters {
        let answers = poster.end().await;
        assert_eq!(counts(&answers).keys().map(|(status, _)| *status).collect::<Vec<_>>(), [202]);
        kept.push(answers.len() as u64);
    }
    one.kept(kept[0]).await;
    let (status, stdout, stderr) = run(&["copy", "--from", &a, "--to", &b]).await;
    let [_, _, checked] = told(&stdout);
    assert_eq!((status, checked), (0, kept[0]), "{stdout}{stderr}");
    other.kept(kept[0] + kept[1]).await;
}

/// What arrives during the first walk, at places that it has passed, is there at the end of the same run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_events_with_earlier_times_are_not_missed() {
    let server = Postgres::start();
    for target in [None, Some(server.database())] {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let from = open(&embedded(first.path())).await;
        let to = open(&target.unwrap_or_else(|| embedded(second.path()))).await;
        fill(&from, &events(6_000)).await;
        let checking = Arc::new(AtomicBool::new(false));
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let writer = tokio::spawn({
            let (from, checking) = (from.clone(), checking.clone());
            async move {
                gone.await.unwrap();
                let mut promised = HashSet::new();
                for n in 0_u128.. {
                    // Before everything, in the middle, and at the end.
                    let seconds = [-1_000, 5, 3_999, 30_000][usize::try_from(n % 4).unwrap()];
                    let late = event(1_000_000 + n, seconds, "m/late", "0");
                    from.append(std::slice::from_ref(&late)).await.unwrap();
                    if checking.load(Ordering::SeqCst) {
                        break;
                    }
                    promised.insert(late.id);
                }
                promised
            }
        });
        let mut go = Some(go);
        let copied = copy::copy(&from, &to, &mut |told| match told {
            Told::Did(_) => drop(go.take().map(|go| go.send(()))),
            Told::Checking => checking.store(true, Ordering::SeqCst),
            _ => {}
        })
        .await
        .unwrap();
        let promised = writer.await.unwrap();
        assert!(copied.is_complete() && promised.len() > 10, "{copied:?} {}", promised.len());
        assert!(copied.checked >= 6_000 + promised.len() as u64, "{copied:?}");
        let there: HashSet<_> = all(&to).await.into_iter().map(|event| event.id).collect();
        assert!(promised.is_subset(&there));
    }
}

/// Whatever is in both stores: at the end the second one has everything of both, and the numbers say what happened.
#[test]
fn any_two_stores() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let some = || prop::collection::btree_map(1_u128..40, (0_i64..6, 0_u8..2), 0..25);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(48));
    let made = |of: &BTreeMap<u128, (i64, u8)>| -> Vec<Event> {
        of.iter().map(|(n, (seconds, data))| event(*n, *seconds, "m/a", &data.to_string())).collect()
    };
    runner
        .run(&(some(), some()), |(source, target)| {
            runtime.block_on(async {
                let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
                let from: Arc<dyn Store> = open(&embedded(first.path())).await;
                let to = open(&embedded(second.path())).await;
                fill(&from, &made(&source)).await;
                fill(&to, &made(&target)).await;
                let copied = copy::copy(&from, &to, &mut |_| {}).await.unwrap();
                let new = source.keys().filter(|n| !target.contains_key(n)).count() as u64;
                let same = source.iter().filter(|(n, event)| target.get(n) == Some(event)).count() as u64;
                let alike = source
                    .iter()
                    .filter(|(n, (at, data))| target.get(n).is_some_and(|(other, d)| d == data && other != at))
                    .count() as u64;
                let conflicts = source.len() as u64 - new - same - alike;
                prop_assert_eq!(
                    (copied.copied, copied.checked, copied.alike, copied.conflicts.count, copied.lost.count),
                    (new, new + same, alike, conflicts, 0)
                );
                prop_assert_eq!(copied.present, same + alike);
                let mut expected = source.clone();
                expected.extend(target.clone());
                let mut expected = made(&expected);
                expected.sort_by_key(Event::place);
                prop_assert_eq!(all(&to).await, expected);
                prop_assert_eq!(all(&from).await.len(), source.len());
                Ok(())
            })
        })
        .unwrap();
}

#[tokio::test]
async fn a_store_that_stops_for_a_moment_is_waited_for() {
    let mut server = Postgres::start();
    let url = server.database();
    let folder = tempfile::tempdir().unwrap();
    let from = open(&embedded(folder.path())).await;
    fill(&from, &events(10_000)).await;
    let to = open(&url).await;
    let copying = tokio::spawn({
        let (from, to) = (from.clone(), to.clone());
        async move { copy::copy(&from, &to, &mut |_| {}).await }
    });
    eventually("the first events", || async { to.place(0).await.unwrap() }).await;
    server.kill9();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.restart();
    let copied = copying.await.unwrap().unwrap();
    assert!(copied.is_complete(), "{copied:?}");
    assert_eq!(copied.checked, 10_000);
}

/// On a terminal, which `script` is, there is a bar; what is printed is printed all the same.
#[tokio::test]
async fn a_terminal_shows_how_far_it_is() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (embedded(first.path()), embedded(second.path()));
    fill(&open(&a).await, &events(3_000)).await;
    let line = format!("{} copy --from {a} --to {b}", env!("CARGO_BIN_EXE_fpesa"));
    let output = Command::new("script").args(["-qec", &line, "/dev/null"]).current_dir(first.path()).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("copying") && shown.contains("/3,000") && shown.contains("ETA"), "{shown}");
    assert!(shown.contains("copied 3000, present 0, checked 3000"), "{shown}");
}
