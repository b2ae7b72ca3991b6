//! Hot reload: an edit takes effect within a second, a broken one changes nothing and says why.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    app::{App, Start},
    eventually,
    rabbit::Rabbit,
    root, signal,
};

async fn generation(app: &App, wanted: u64) -> Value {
    eventually(&format!("generation {wanted}"), || async {
        let ready = app.json("/readyz").await;
        (ready["generation"] == wanted).then_some(ready)
    })
    .await
}

async fn refused(app: &App) -> Value {
    eventually("the edit to be refused", || async {
        let ready = app.json("/readyz").await;
        (ready["reload"]["ok"] == false).then_some(ready)
    })
    .await
}

#[tokio::test]
async fn an_edit_takes_effect_within_a_second() {
    let app = App::up().await;
    assert_eq!(app.get("/api/v1/notes").await.status(), 404);
    let table = app.read("routes.yaml").replace("path: /messages\n", "path: /notes\n");
    let start = Instant::now();
    app.edit("routes.yaml", &table);
    generation(&app, 2).await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(app.get("/api/v1/notes").await.status(), 200);
    assert_eq!(app.get("/api/v1/messages").await.status(), 404);
    assert!(app.stderr().contains("the table is reloaded"));
}

#[tokio::test]
async fn a_schema_and_what_may_be_read_are_reloaded_too() {
    let app = App::up().await;
    app.keep(r#"{"text":"a rather long one"}"#).await;
    // An editor that puts a new file in the place of the old one.
    let schema = app.read("schemas/message.json").replace("65536", "5");
    app.edit("schemas/message.json.new", &schema);
    let folder = app.folder.path().join("schemas");
    std::fs::rename(folder.join("message.json.new"), folder.join("message.json")).unwrap();
    generation(&app, 2).await;
    assert_eq!(app.post("/api/v1/messages", r#"{"text":"a rather long one"}"#).await.status(), 422);
    let table = app.read("routes.yaml").replace(r#"["messages/#"]"#, r#"["messages/+"]"#);
    app.edit("routes.yaml", &table);
    generation(&app, 3).await;
    assert_eq!(app.json("/feed.json").await["topics"][0], "messages/+");
}

#[tokio::test]
async fn a_broken_edit_changes_nothing_and_is_told_with_its_line() {
    let app = App::up().await;
    let good = app.read("routes.yaml");
    app.edit("routes.yaml", &good.replace("exchange: amq.topic\n", "exchnage: amq.topic\n"));
    let ready = refused(&app).await;
    assert_eq!((&ready["ready"], &ready["generation"]), (&true.into(), &1.into()));
    let problems = ready["reload"]["problems"].as_array().unwrap();
    let problem = problems.iter().find(|problem| problem["code"] == "unknown-key").unwrap();
    assert_eq!(problem["hint"], "did you mean `exchange`?");
    let (line, column) = (problem["line"].as_u64().unwrap(), problem["column"].as_u64().unwrap());
    assert!(app.stderr().contains(&format!("routes.yaml:{line}:{column}: error[unknown-key]")), "{}", app.stderr());
    assert!(app.stderr().contains("exchnage: amq.topic"), "the line itself is logged");
    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("fpesa_reload_failures_total 1") && metrics.contains("fpesa_reload_generation 1"));
    app.keep(r#"{"text":"still here"}"#).await;
    // No YAML at all, and no file at all.
    app.edit("routes.yaml", "routes: [");
    eventually("the second failure", || async {
        app.get("/metrics").await.text().await.unwrap().contains("fpesa_reload_failures_total 2").then_some(())
    })
    .await;
    std::fs::remove_file(app.folder.path().join("routes.yaml")).unwrap();
    eventually("the third failure", || async {
        app.get("/metrics").await.text().await.unwrap().contains("fpesa_reload_failures_total 3").then_some(())
    })
    .await;
    app.edit("routes.yaml", &good);
    eventually("it to be good again", || async { (app.json("/readyz").await["reload"]["ok"] == true).then_some(()) })
        .await;
    app.keep(r#"{"text":"and here"}"#).await;
}

#[tokio::test]
async fn a_topology_that_differs_is_refused_at_its_line() {
    let app = App::up().await;
    let good = app.read("routes.yaml");
    let table = good.replace("dead_letter: messages.dead\n", "dead_letter: messages.dead\n    type: classic\n");
    app.edit("routes.yaml", &table);
    let ready = refused(&app).await;
    let problem = &ready["reload"]["problems"][0];
    let message = problem["message"].as_str().unwrap();
    assert!(
        message.contains("messages.persist") && message.contains("quorum") && message.contains("classic"),
        "{message}"
    );
    let line = table.lines().position(|line| line == "    type: classic").unwrap() + 1;
    assert_eq!(
        (&problem["code"], &problem["line"], &problem["column"]),
        (&"topology".into(), &line.into(), &11.into())
    );
    assert!(app.stderr().contains(&format!("routes.yaml:{line}:11: error[topology]")), "{}", app.stderr());
    // Taken back: what is in force is what the files say, and nothing was reloaded.
    app.edit("routes.yaml", &good);
    let (status, answer) = ask(&app).await;
    assert_eq!((status, &answer["generation"]), (200, &1.into()), "{answer}");
    assert_eq!(app.json("/readyz").await["reload"]["ok"], true);
}

#[tokio::test]
async fn new_queues_and_workers_begin_to_work() {
    let app = Start::up().start().await;
    let table = app.read("routes.yaml")
        .replace("workers:\n", "workers:\n  notes: { kind: persist, queue: notes.persist }\n")
        .replace("queues:\n", "queues:\n  notes.persist: { bind: [{ exchange: amq.topic, key: \"notes.#\" }] }\n")
        .replace("routes:\n", "routes:\n  - { id: post-note, method: POST, path: /notes, body: {}, publish: { exchange: amq.topic, key: notes } }\n");
    app.edit("routes.yaml", &table);
    generation(&app, 2).await;
    eventually("the new worker", || async {
        (app.json("/readyz").await["workers"] == serde_json::json!(["history", "notes", "persist"])).then_some(())
    })
    .await;
    assert_eq!(app.post("/api/v1/notes", "{}").await.status(), 202);
    app.kept(1).await;
}

/// `POST /reload`.
async fn ask(app: &App) -> (u16, Value) {
    let response = app.client.post(app.url("/reload")).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

const MORE: &str = "routes:\n  - { id: more, method: POST, path: /more, body: { schema: more.json }, publish: { exchange: amq.topic, key: messages.more } }\n";

#[tokio::test]
async fn includes_and_schemas_come_and_go() {
    let start = Start::up();
    let table = fs::read_to_string(root().join("routes.yaml")).unwrap();
    start.write("routes.yaml", &table.replace("routes:\n", "include: [\"more/*.yaml\"]\nroutes:\n"));
    let folder = start.command(&["check"]).run().await;
    assert_eq!(folder.0, 1, "a glob that names no file is an error");
    let app = Start::up().start().await;
    let home = app.folder.path();
    app.edit("routes.yaml", &table.replace("routes:\n", "include: [\"more/*.yaml\"]\nroutes:\n"));
    assert_eq!(refused(&app).await["reload"]["problems"][0]["code"], "include-missing");
    // A folder that was not there, a file in it, and the schema that it names.
    fs::create_dir(home.join("more")).unwrap();
    app.edit("more/one.yaml", MORE);
    eventually("the schema to be missed", || async {
        (app.json("/readyz").await["reload"]["problems"][0]["code"] == "schema-missing").then_some(())
    })
    .await;
    app.edit("schemas/more.json", r#"{ "type": "object", "required": ["a"] }"#);
    let ready = generation(&app, 2).await;
    assert_eq!(ready["reload"]["change"]["added"], json!(["more"]));
    assert_eq!(app.post("/api/v1/more", r#"{"a":1}"#).await.status(), 202);
    assert_eq!(app.post("/api/v1/more", "{}").await.status(), 422);
    // Renamed into place, a schema in a folder of its own, and what another one refers to.
    fs::create_dir(home.join("schemas/common")).unwrap();
    app.edit("schemas/common/a.json", r#"{ "type": "integer" }"#);
    app.edit("schemas/new", r#"{ "type": "object", "properties": { "a": { "$ref": "common/a.json" } } }"#);
    fs::rename(home.join("schemas/new"), home.join("schemas/more.json")).unwrap();
    generation(&app, 3).await;
    assert_eq!(app.post("/api/v1/more", "{}").await.status(), 202);
    app.edit("schemas/common/a.json", r#"{ "type": "string" }"#);
    let ready = generation(&app, 4).await;
    assert_eq!(ready["reload"]["change"]["other"], json!(["schemas"]));
    assert_eq!(app.post("/api/v1/more", r#"{"a":1}"#).await.status(), 422);
    // A second include, and then none of them.
    app.edit("more/two.yaml", &MORE.replace("more", "two").replace("two.json", "more.json"));
    generation(&app, 5).await;
    fs::remove_file(home.join("more/one.yaml")).unwrap();
    let ready = generation(&app, 6).await;
    assert_eq!(ready["reload"]["change"]["removed"], json!(["more"]));
    assert_eq!(app.post("/api/v1/more", "{}").await.status(), 404);
    fs::remove_file(home.join("schemas/more.json")).unwrap();
    assert_eq!(refused(&app).await["reload"]["problems"][0]["code"], "schema-missing");
    assert_eq!(app.post("/api/v1/two", r#"{"a":"x"}"#).await.status(), 202);
}

/// A release of the shipped table, its messages under `path`.
fn release(folder: &Path, path: &str) {
    fs::create_dir_all(folder).unwrap();
    crate::support::copy_table(folder);
    let table = fs::read_to_string(folder.join("routes.yaml")).unwrap();
    fs::write(folder.join("routes.yaml"), table.replace("path: /messages\n", &format!("path: /{path}\n"))).unwrap();
}

#[tokio::test]
async fn links_are_followed_when_they_are_swapped() {
    // As Kubernetes mounts a ConfigMap: files are links through `..data`, and that one is renamed into place.
    let start = Start::up();
    let home = Arc::new(tempfile::tempdir().unwrap());
    let mounted = home.path().join("etc");
    release(&mounted.join("..1"), "one");
    symlink("..1", mounted.join("..data")).unwrap();
    symlink("..data/routes.yaml", mounted.join("routes.yaml")).unwrap();
    symlink("..data/schemas", mounted.join("schemas")).unwrap();
    // And as a release is put in place: a folder on the way is the link.
    release(&home.path().join("releases/1"), "one");
    symlink("releases/1", home.path().join("current")).unwrap();
    let config_map = start.folder(home.clone()).args(&["--routes", "etc/routes.yaml", "--data-dir", "a"]).start().await;
    let current =
        Start::up().folder(home.clone()).args(&["--routes", "current/routes.yaml", "--data-dir", "b"]).start().await;
    for (n, path) in [(2, "two"), (3, "three"), (4, "four")] {
        release(&mounted.join(format!("..{n}")), path);
        symlink(format!("..{n}"), mounted.join("..data_tmp")).unwrap();
        release(&home.path().join(format!("releases/{n}")), path);
        symlink(format!("releases/{n}"), home.path().join("next")).unwrap();
        let swapped = Instant::now();
        fs::rename(mounted.join("..data_tmp"), mounted.join("..data")).unwrap();
        fs::rename(home.path().join("next"), home.path().join("current")).unwrap();
        fs::remove_dir_all(mounted.join(format!("..{}", n - 1))).unwrap();
        for app in [&config_map, &current] {
            generation(app, n).await;
            assert_eq!(app.get(&format!("/api/v1/{path}")).await.status(), 200);
            assert!(swapped.elapsed() < Duration::from_secs(4), "told by the watch, not found by chance");
        }
    }
    // The whole folder by another one.
    release(&home.path().join("etc.new"), "five");
    fs::rename(&mounted, home.path().join("etc.old")).unwrap();
    fs::rename(home.path().join("etc.new"), &mounted).unwrap();
    eventually("the new folder", || async { (config_map.get("/api/v1/five").await.status() == 200).then_some(()) })
        .await;
    release(&mounted, "six");
    eventually("an edit in the new folder", || async {
        (config_map.get("/api/v1/six").await.status() == 200).then_some(())
    })
    .await;
}

/// An app whose table has a second name elsewhere: what is written there is told by no watch.
async fn unwatched() -> (App, tempfile::TempDir) {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    crate::support::copy_table(folder.path());
    let elsewhere = tempfile::tempdir().unwrap();
    fs::hard_link(folder.path().join("routes.yaml"), elsewhere.path().join("routes.yaml")).unwrap();
    let app = Start::up().folder(folder).start().await;
    // After its first look nothing wakes it.
    assert_eq!(ask(&app).await.0, 200);
    (app, elsewhere)
}

fn rename_route(elsewhere: &tempfile::TempDir, path: &str) {
    let name = elsewhere.path().join("routes.yaml");
    let table = fs::read_to_string(&name).unwrap();
    fs::write(&name, table.replace("id: get-message\n", &format!("id: get-{path}\n"))).unwrap();
}

#[tokio::test]
async fn what_no_watch_tells_is_found_all_the_same() {
    let (app, elsewhere) = unwatched().await;
    let start = Instant::now();
    rename_route(&elsewhere, "found");
    let ready = generation(&app, 2).await;
    assert!(start.elapsed() > Duration::from_secs(3), "a watch told it: this test says nothing");
    assert_eq!(ready["reload"]["change"]["added"], json!(["get-found"]));
}

#[tokio::test]
async fn a_hangup_is_a_look_at_once() {
    let (app, elsewhere) = unwatched().await;
    let start = Instant::now();
    rename_route(&elsewhere, "hangup");
    signal(app.pid(), "HUP");
    generation(&app, 2).await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(app.stderr().contains("SIGHUP"), "{}", app.stderr());
}

/// Closing its terminal sends a hangup too: that one is no wish for a reload.
#[tokio::test]
async fn a_terminal_that_closes_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    crate::support::copy_table(folder.path());
    let up = format!("exec {} up --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_fpesa"));
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &up, "/dev/null"]).current_dir(folder.path()).stdin(Stdio::piped());
    let mut terminal = terminal.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(terminal.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("listening on ")));
    let pid = fs::read_to_string(folder.path().join("data/fpesa.lock")).unwrap();
    let process = Path::new("/proc").join(pid.trim());
    assert!(process.exists());
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    eventually("the process to end", || async { (!process.exists()).then_some(()) }).await;
}

#[tokio::test]
async fn reload_waits_for_what_is_on_disk_and_tells_it() {
    let (app, elsewhere) = unwatched().await;
    let reload = |args: &[&str]| {
        let all: Vec<&str> = ["reload"].iter().chain(args).copied().collect();
        Start::beside(&app).command(&all)
    };
    let shown = app.base.clone();
    let (status, stdout, stderr) = reload(&["--wait", "--url", &shown]).run().await;
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert_eq!(stdout, format!("{shown}: generation 1 is in force: as it was started\n"));
    rename_route(&elsewhere, "reloaded");
    let start = Instant::now();
    let (status, stdout, stderr) = reload(&["--wait", "--url", &shown]).run().await;
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert_eq!(stdout, format!("{shown}: generation 2 is in force: added get-reloaded; removed get-message\n"));
    assert!(start.elapsed() < Duration::from_secs(4));
    // Again: the same, and nothing happens.
    let (_, again, _) = reload(&["--wait", "--url", &shown]).run().await;
    assert_eq!(again, stdout);
    // A mistake, shown as `check` shows it.
    let good = app.read("routes.yaml");
    app.edit("routes.yaml", &good.replace("exchange: amq.topic\n", "exchnage: amq.topic\n"));
    let checked = reload(&[]).command(&["check"]).run().await.2;
    let (status, stdout, stderr) = reload(&["--wait", "--url", &shown]).run().await;
    assert_eq!((status, stdout.as_str()), (1, ""));
    let problems = checked.lines().filter(|line| !line.starts_with("routes.yaml: "));
    let expected: Vec<&str> = problems.collect();
    assert!(stderr.starts_with(&expected.join("\n")), "{stderr}\n---\n{checked}");
    assert!(stderr.ends_with("did not reload: generation 2 stays in force\n"), "{stderr}");
    app.edit("routes.yaml", &good);
    // Two gateways of the same files agree; one of others is told.
    let other = Start::up().start().await;
    let beside = Start::beside(&app).args(&["--data-dir", "beside"]).start().await;
    let (status, stdout, _) = reload(&["--wait", "--url", &shown, "--url", &beside.base]).run().await;
    assert_eq!((status, stdout.lines().count()), (0, 2), "{stdout}");
    let (status, _, stderr) = reload(&["--wait", "--url", &shown, "--url", &other.base]).run().await;
    assert_eq!(status, 1);
    assert!(
        stderr.contains("have different files") && stderr.contains("reads other files than routes.yaml"),
        "{stderr}"
    );
    // Not waited for.
    let (status, stdout, _) = reload(&["--url", &shown]).run().await;
    assert_eq!(status, 0);
    assert!(stdout.contains("looking at its files (generation 2 is in force"), "{stdout}");
    // The address of the settings; nobody there; not one.
    let listen = shown.strip_prefix("http://").unwrap();
    assert_eq!(reload(&["--wait", "--listen", listen]).run().await.0, 0);
    drop(other);
    let (status, _, stderr) = reload(&["--wait", "--listen", "127.0.0.1:1"]).run().await;
    assert_eq!(status, 1);
    assert!(stderr.contains("the gateway at http://127.0.0.1:1 is away"), "{stderr}");
    for (url, told) in [("nowhere", "is not an address"), ("https://127.0.0.1:1", "inner address")] {
        let (status, _, stderr) = reload(&["--wait", "--url", url]).run().await;
        assert_eq!(status, 2);
        assert!(stderr.contains(told), "{stderr}");
    }
}

#[tokio::test]
async fn who_may_ask_and_how() {
    let app = App::up().await;
    let post = |headers: &[(&str, &str)]| {
        let mut request = app.client.post(app.url("/reload"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send()
    };
    assert_eq!(app.get("/reload").await.status(), 405);
    assert_eq!(app.get("/reload").await.headers()["allow"], "POST");
    let response = post(&[("origin", "https://elsewhere.example")]).await.unwrap();
    assert_eq!(response.status(), 403);
    assert!(response.json::<Value>().await.unwrap()["type"].as_str().unwrap().ends_with("/origin-refused"));
    assert_eq!(post(&[("origin", &app.base)]).await.unwrap().status(), 200);
    let response = post(&[("prefer", "respond-async")]).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["preference-applied"]),
        (202, &"respond-async".parse().unwrap())
    );
    app.edit("routes.yaml", "version: 2\n");
    let (status, problem) = ask(&app).await;
    assert_eq!(status, 409);
    assert!(problem["type"].as_str().unwrap().ends_with("/reload-refused"), "{problem}");
    assert_eq!(problem["generation"], 1);
    assert_eq!(problem["problems"], app.json("/readyz").await["reload"]["problems"]);
    // Asked by many, and often: all are answered, and one look serves many.
    let failures =
        || async { app.get("/metrics").await.text().await.unwrap().contains("fpesa_reload_failures_total 1\n") };
    assert!(failures().await);
    let asked = futures::future::join_all((0..40).map(|_| post(&[]))).await;
    assert!(asked.into_iter().all(|answer| answer.unwrap().status() == 409));
    assert!(failures().await, "the same mistake is counted once");
    let table = "version: 1\nroutes:\n  - { id: a, method: POST, path: /reload, body: {}, publish: { exchange: amq.topic, key: a } }\n";
    let (status, _, stderr) = Start::up().table(table).command(&["check"]).run().await;
    assert_eq!(status, 1);
    assert!(stderr.contains("this path takes `/reload`"), "{stderr}");
}

#[tokio::test]
async fn workers_change_without_a_gap() {
    let app = Arc::new(App::up().await);
    let good = app.read("routes.yaml");
    let done = Arc::new(AtomicBool::new(false));
    let (client, stop) = (app.clone(), done.clone());
    let calls = tokio::spawn(async move {
        let mut statuses = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            statuses.push(client.get("/api/v1/messages?limit=1").await.status().as_u16());
        }
        statuses
    });
    let history = "history: { queue: messages.history }";
    for (n, changed) in [
        (2, "history: { queue: messages.history, prefetch: 7 }"),
        // By another name, and of both names one.
        (3, "answers: { kind: history, queue: messages.history }"),
        (
            4,
            "answers: { kind: history, queue: messages.history, concurrency: 2 }\n  history: { queue: messages.history }",
        ),
        (5, history),
    ] {
        app.edit("routes.yaml", &good.replace(history, changed).replace("batch: 500", &format!("batch: {n}")));
        let (status, answer) = ask(&app).await;
        assert_eq!((status, &answer["generation"], &answer["change"]["other"]), (200, &n.into(), &json!(["workers"])));
        let expected: Vec<&str> =
            ["answers", "history"].into_iter().filter(|name| changed.contains(&format!("{name}: {{"))).collect();
        eventually(&format!("workers {expected:?}"), || async {
            let ready = app.json("/readyz").await;
            let names: Vec<&str> =
                ready["workers"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            (names.iter().filter(|name| **name != "persist").eq(&expected)).then_some(())
        })
        .await;
        app.keep(r#"{"text":"x"}"#).await;
    }
    app.kept(4).await;
    done.store(true, Ordering::Relaxed);
    let statuses = calls.await.unwrap();
    assert!(statuses.len() > 10 && statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

#[tokio::test]
async fn what_is_under_way_finishes_on_its_table() {
    let app = Arc::new(App::up().await);
    let good = app.read("routes.yaml");
    // Nobody consumes it: a call to it waits for its deadline.
    let slow = good
        .replace("routes:\n", "routes:\n  - { id: slow, method: GET, path: /slow, call: { queue: slow, timeout: 4s } }\n  - { id: old, method: POST, path: /old, body: {}, publish: { exchange: amq.topic, key: old.x } }\n")
        .replace("queues:\n", "queues:\n  slow: {}\n")
        .replace("key: \"messages.#\" }]", "key: \"messages.#\" }, { exchange: amq.topic, key: \"old.#\" }]");
    app.edit("routes.yaml", &slow);
    assert_eq!(ask(&app).await.0, 200);
    let caller = app.clone();
    let call = tokio::spawn(async move { caller.get("/api/v1/slow").await });
    let mut posting = TcpStream::connect(app.base.strip_prefix("http://").unwrap()).unwrap();
    write!(posting, "POST /api/v1/old HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 14\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n").unwrap();
    // Its body is asked for: its route is known.
    let mut asked_for = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    posting.read_exact(&mut asked_for).unwrap();
    assert_eq!(&asked_for, b"HTTP/1.1 100 Continue\r\n\r\n");
    write!(posting, "{{\"text\":").unwrap();
    eventually("the call to be under way", || async {
        app.get("/metrics").await.text().await.unwrap().contains("fpesa_in_flight 1\n").then_some(())
    })
    .await;
    // Routes, binding and queue go.
    app.edit("routes.yaml", &good);
    assert_eq!(ask(&app).await.1["change"]["removed"], json!(["old", "slow"]));
    assert_eq!(app.get("/api/v1/slow").await.status(), 404);
    write!(posting, "\"old\"}}").unwrap();
    let mut answer = String::new();
    posting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    app.kept(1).await;
    let call = call.await.unwrap();
    assert_eq!(call.status(), 504, "its deadline is that of its own table");
    let counted = app.get("/metrics").await.text().await.unwrap();
    assert!(counted.contains(r#"fpesa_http_requests_total{route="slow",status="504"} 1"#), "{counted}");
    // With the last request of that table its binding is gone.
    let bound = r"routes:
  - { id: old, method: POST, path: /old, body: {}, publish: { exchange: amq.topic, key: old.x } }
";
    app.edit("routes.yaml", &good.replace("routes:\n", bound));
    assert_eq!(ask(&app).await.0, 200);
    eventually("nothing to be bound to it", || async {
        (app.post("/api/v1/old", r#"{"text":"x"}"#).await.status() == 503).then_some(())
    })
    .await;
}

#[tokio::test]
async fn series_of_routes_that_left_are_bounded() {
    let app = App::up().await;
    let good = app.read("routes.yaml");
    let route = |n: u32| {
        format!(
            "  - {{ id: r{n}, method: POST, path: /r{n}, body: {{}}, publish: {{ exchange: amq.topic, key: messages.x }} }}\n"
        )
    };
    let many = |from: u32| {
        good.replace("routes:\n", &format!("routes:\n{}", (from..from + 150).map(route).collect::<String>()))
    };
    let series = || async {
        let text = app.get("/metrics").await.text().await.unwrap();
        (text.lines().filter(|line| line.contains("route=\"r")).count(), text)
    };
    app.edit("routes.yaml", &many(0));
    assert_eq!(ask(&app).await.0, 200);
    assert_eq!(app.post("/api/v1/r149", "{}").await.status(), 202);
    let (one, _) = series().await;
    for n in 1..6 {
        app.edit("routes.yaml", &many(n * 1_000));
        let (status, answer) = ask(&app).await;
        assert_eq!((status, &answer["change"]["more"]), (200, &100.into()), "{}", answer["change"]);
    }
    let (all, text) = series().await;
    assert!(all <= one / 150 * 250 + 1, "{all} series, and {one} with 150 routes");
    assert!(!text.contains(r#"route="r149""#) && text.contains(r#"route="r5149""#));
    assert!(text.contains("fpesa_reload_routes_total{change=\"removed\"} 750\n"), "{text}");
    assert!(text.contains("fpesa_reload_ok 1\n"));
    // Who left a moment ago still has them, and whoever comes back goes on with them.
    assert_eq!(app.post("/api/v1/r5001", "{}").await.status(), 202);
    app.edit(
        "routes.yaml",
        &good.replace("routes:\n", &format!("routes:\n{}", (5_060..5_150).map(route).collect::<String>())),
    );
    assert_eq!(ask(&app).await.0, 200);
    let kept = r#"fpesa_publish_total{route="r5001",outcome="routed"} 1"#;
    assert!(series().await.1.contains(kept));
    app.edit("routes.yaml", &many(5_000));
    assert_eq!(ask(&app).await.0, 200);
    assert!(series().await.1.contains(kept));
}

/// A hundred tables, each with a route, a binding and sometimes workers that the one before had not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_dropped_while_a_hundred_tables_come_and_go() {
    let app = Arc::new(App::up().await);
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (app, done) = (app.clone(), done.clone());
            tokio::spawn(async move {
                let mut served = 0;
                while !done.load(Ordering::Relaxed) {
                    app.keep(r#"{"text":"x"}"#).await;
                    assert_eq!(app.get("/api/v1/messages?limit=1").await.status(), 200);
                    served += 1;
                }
                served
            })
        })
        .collect();
    let good = app.read("routes.yaml");
    let mut probes = 0;
    for n in 2..=101 {
        let table = good
            .replace("routes:\n", &format!("routes:\n  - {{ id: t{n}, method: POST, path: /t{n}, body: {{}}, publish: {{ exchange: amq.topic, key: t{n} }} }}\n"))
            .replace("key: \"messages.#\" }]", &format!("key: \"messages.#\" }}, {{ exchange: amq.topic, key: t{n} }}]"))
            .replace("batch: 500", &format!("batch: {}", 500 + n / 10));
        app.edit("routes.yaml", &table);
        let (status, answer) = ask(&app).await;
        assert_eq!(
            (status, &answer["generation"], &answer["change"]["added"]),
            (200, &n.into(), &json!([format!("t{n}")]))
        );
        assert_eq!(app.post(&format!("/api/v1/t{n}"), "{}").await.status(), 202);
        probes += 1;
    }
    done.store(true, Ordering::Relaxed);
    let mut served = probes;
    for client in clients {
        served += client.await.unwrap();
    }
    assert!(served > probes);
    app.kept(served).await;
}

/// The same on RabbitMQ, where a queue is what it was first declared as, and where the broker may be away.
pub async fn on_rabbitmq(rabbit: &mut Rabbit) {
    let app = Start::up().args(&["--bus", &rabbit.url()]).start().await;
    eventually("readiness", || async { (app.get("/readyz").await.status() == 200).then_some(()) }).await;
    let good = app.read("routes.yaml");
    let with = |name: &str| {
        good.replace("workers:\n", &format!("workers:\n  {name}: {{ kind: persist, queue: {name}.persist }}\n"))
            .replace("queues:\n", &format!("queues:\n  {name}.persist: {{ bind: [{{ exchange: amq.topic, key: \"{name}.#\" }}] }}\n"))
            .replace("routes:\n", &format!("routes:\n  - {{ id: {name}, method: POST, path: /{name}, body: {{}}, publish: {{ exchange: amq.topic, key: {name} }} }}\n"))
    };
    // A new queue is there before its route is.
    app.edit("routes.yaml", &with("notes"));
    let (status, answer) = ask(&app).await;
    assert_eq!((status, &answer["change"]["added"]), (200, &json!(["notes"])), "{answer}");
    assert_eq!(app.post("/api/v1/notes", "{}").await.status(), 202);
    // A queue that is there with other arguments, at the key that differs.
    let differs =
        with("notes").replace("dead_letter: messages.dead\n", "dead_letter: messages.dead\n    max_length: 10\n");
    app.edit("routes.yaml", &differs);
    let (status, problem) = ask(&app).await;
    assert_eq!((status, &problem["generation"]), (409, &2.into()), "{problem}");
    let told = &problem["problems"][0];
    let line = differs.lines().position(|line| line.contains("max_length: 10")).unwrap() + 1;
    assert_eq!((&told["code"], &told["line"]), (&"topology".into(), &line.into()), "{told}");
    assert!(told["message"].as_str().unwrap().contains("x-max-length"), "{told}");
    assert_eq!(app.get("/readyz").await.status(), 200, "what is in force is not touched by it");
    app.keep(r#"{"text":"x"}"#).await;
    // An edit while the broker is away takes effect when it is back.
    rabbit.kill9();
    eventually("the link to be down", || async { (app.json("/readyz").await["bus"] == "down").then_some(()) }).await;
    app.edit("routes.yaml", &with("later"));
    let (status, problem) = ask(&app).await;
    assert_eq!((status, &problem["problems"][0]["code"]), (409, &"broker-away".into()), "{problem}");
    assert_eq!(app.post("/api/v1/later", "{}").await.status(), 404);
    rabbit.restart().await;
    generation(&app, 3).await;
    eventually("the new route to work", || async {
        (app.post("/api/v1/later", "{}").await.status() == 202).then_some(())
    })
    .await;
    eventually("the workers to be back", || async {
        let history = app.get("/api/v1/messages?limit=1").await.status();
        (history == 200 && app.get("/readyz").await.status() == 200).then_some(())
    })
    .await;
    // A worker that changes is replaced without a gap: its queue goes with its last consumer.
    for prefetch in 1..4 {
        let history = "history: { queue: messages.history";
        app.edit("routes.yaml", &with("later").replace(history, &format!("{history}, prefetch: {prefetch}")));
        let change = tokio::join!(ask(&app), async {
            for _ in 0..50 {
                assert_eq!(app.get("/api/v1/messages?limit=1").await.status(), 200);
            }
        });
        assert_eq!(change.0.0, 200, "{}", change.0.1);
    }
}

/// What earlier tables needed goes, though reloads follow each other without a pause.
#[tokio::test]
async fn memory_does_not_grow_with_reloads() {
    let app = App::up().await;
    let good = app.read("routes.yaml");
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", app.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().to_owned();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let mut settled = 0;
    for n in 1..=120 {
        let workers: String =
            (0..8).map(|w| format!("  w{w}: {{ kind: persist, queue: messages.persist, batch: {n} }}\n")).collect();
        let route = format!(
            "routes:\n  - {{ id: t{n}, method: POST, path: /t{n}, body: {{}}, publish: {{ exchange: amq.topic, key: messages.t }} }}\n"
        );
        app.edit(
            "routes.yaml",
            &good.replace("routes:\n", &route).replace("workers:\n", &format!("workers:\n{workers}")),
        );
        assert_eq!(ask(&app).await.0, 200);
        if n == 20 {
            settled = resident();
        }
    }
    let grown = resident().saturating_sub(settled);
    assert!(grown < 3 * 1024, "{grown} KiB in a hundred reloads: a worker that is never stopped takes 10 KiB");
}
