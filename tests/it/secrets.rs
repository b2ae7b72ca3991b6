//! What is never shown in clear: passwords, wherever a URL can appear, right or wrong; and data that other users could read.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use crate::support::{
    app::{App, Start},
    eventually,
};

/// Addresses, what of them is never shown, and what is said where one is wrong.
const ADDRESSES: [(&str, &[&str], Option<&str>); 13] = [
    ("amqp://u:Zk3/9+pa@host:5672/", &["Zk3", "9+pa"], Some("`/` as `%2F`")),
    ("amqp://u:pa/ss@h/", &[":pa", "pa/ss", "ss@"], Some("`/` as `%2F`")),
    ("amqp://u:12/34@host", &[":12", "34@"], Some("`/` as `%2F`")),
    ("amqp://u:p@s:s/w@host/", &["p@s", "s/w", "w@"], Some("`/` as `%2F` and `@` as `%40`")),
    ("amqp://u:se,cret@h1,h2", &["u:se", "cret"], None),
    ("amqp://u:p%40ss@h/?password=other", &["p%40ss", "p@ss", "other"], Some("`password` is not a parameter")),
    ("amqp://u:p@ssw0rd@h", &["ssw0rd"], None),
    ("amqp://u:pwpw@host/?heartbeat=30", &["pwpw"], None),
    ("amqp://u:pwpw@h1,h2/?heartbeat=20", &["pwpw"], None),
    ("amqp://u:100%sure@h", &["100", "sure"], Some("`%` as `%25`")),
    ("postgres://u:pa ss@db/x", &[":pa", "ss@"], Some("a space as `%20`")),
    ("postgres://u@db/x?password=s3cret", &["s3cret"], None),
    ("mongodb://u:p%2Fss@db/x?tlsCAFile=/a", &["p%2Fss", "p/ss"], None),
];

fn assert_hidden(secrets: &[&str], where_: &str, text: &str) {
    for secret in secrets {
        assert!(!text.contains(secret), "{where_} shows {secret:?}: {text}");
    }
}

fn key_of(url: &str) -> &'static str {
    if url.starts_with("amqp") { "bus" } else { "store" }
}

#[tokio::test]
async fn no_setting_shows_a_password() {
    for (url, secrets, told) in ADDRESSES {
        let key = key_of(url);
        let flag = format!("--{key}");
        let file = Start::up().command(&["config", "--config", "settings.yaml"]);
        file.write("settings.yaml", &format!("{key}: '{url}'\n"));
        let from_file = Start::up().command(&["config"]).env(&format!("FPESA_{}_FILE", key.to_uppercase()), "url.txt");
        from_file.write("url.txt", &format!("{url}\n"));
        for (place, start) in [
            ("a flag", Start::up().command(&["config", &flag, url])),
            ("the environment", Start::up().command(&["config"]).env(&format!("FPESA_{}", key.to_uppercase()), url)),
            ("a file", file),
            ("a secret's file", from_file),
            ("a command", Start::up().command(&["asyncapi", &flag, url])),
        ] {
            let (status, stdout, stderr) = start.run().await;
            assert_eq!(status, if told.is_some() { 2 } else { 0 }, "{url} in {place}: {stderr}");
            assert_hidden(secrets, place, &stdout);
            assert_hidden(secrets, place, &stderr);
            assert!(stderr.contains(told.unwrap_or("")), "{url} in {place}: {stderr}");
        }
    }
}

/// What is wrong with the arguments or the file is told without what stands there.
#[tokio::test]
async fn no_mistake_shows_a_password() {
    for (url, secrets, _) in ADDRESSES {
        let key = key_of(url);
        let with = |text: &str| {
            let start = Start::up().command(&["config", "--config", "settings.yaml"]);
            start.write("settings.yaml", text);
            start
        };
        for (place, start) in [
            ("an argument too many", Start::up().command(&["config", url])),
            ("a wrong flag", Start::up().command(&["config", &format!("--nope={url}")])),
            ("a wrong key", with(&format!("{key}s: '{url}'\n"))),
            ("a wrong key below", with(&format!("feed: {{ pasword: '{url}' }}\n"))),
            ("broken YAML", with(&format!("{key}: '{url}\nlog: info\n"))),
            ("more broken YAML", with(&format!("{key}: {{ '{url}'\n"))),
            ("a list", with(&format!("{key}: ['{url}']\n"))),
            ("text for a group", with(&format!("feed: '{url}'\n"))),
            ("an alias", with(&format!("{key}: *{url}\n"))),
            ("a wrong variable", Start::up().command(&["config"]).env(&format!("FPESA_{}S", key.to_uppercase()), url)),
            ("a gateway's address", Start::up().command(&["reload", "--url", url])),
            ("a feed's address", Start::up().command(&["tail", "messages/#", "--url", url])),
            ("a store of another scheme", Start::up().command(&["config", "--store", &format!("redis{url}")])),
        ] {
            let (status, stdout, stderr) = start.run().await;
            assert_eq!(status, 2, "{url} as {place}: {stdout}{stderr}");
            assert_hidden(secrets, place, &stdout);
            assert_hidden(secrets, place, &stderr);
        }
    }
    let number = Start::up().command(&["config"]);
    number.write("fpesa.yaml", "bus_password: 90210\n");
    let (status, _, stderr) = number.run().await;
    assert_eq!(status, 2);
    assert!(stderr.contains("put it in quotes") && !stderr.contains("90210"), "{stderr}");
}

/// A gateway whose broker is not there: its log and what it answers.
#[tokio::test]
async fn a_gateway_shows_no_password() {
    for (url, secrets, _) in ADDRESSES.into_iter().filter(|(url, _, told)| told.is_none() && url.starts_with("amqp")) {
        // A port that nobody listens on: the link fails at once.
        let url = url.replace("@host/", "@127.0.0.1:1/").replace("@h1,h2", "@127.0.0.1:1,127.0.0.1:2");
        let url = if url.ends_with("@h") { url.replace("@h", "@127.0.0.1:1") } else { url };
        let app = Start::up().command(&["gateway", "--bus", &url, "--log", "debug"]).start().await;
        eventually("the broken link in the log", || async { app.stderr().contains("127.0.0.1").then_some(()) }).await;
        for path in
            ["/readyz", "/metrics", "/table.json", "/openapi.json", "/asyncapi.json", "/feed.json", "/pulse.json"]
        {
            assert_hidden(secrets, path, &app.get(path).await.text().await.unwrap());
        }
        assert_hidden(secrets, "the log", &app.stderr());
    }
}

/// A store that is not there: the command gives up after having said what it waits for.
#[tokio::test]
async fn a_command_shows_no_password() {
    for (url, secret) in
        [("postgres://u:pwpw@127.0.0.1:1/x", "pwpw"), ("mongodb://u:pwpw@127.0.0.1:1/x?directConnection=true", "pwpw")]
    {
        let start = Start::up().command(&["export", "--store", url]);
        let (status, stdout, stderr) = start.run().await;
        assert_eq!((status, stdout.as_str()), (1, ""), "{stderr}");
        assert_hidden(&[secret], "export", &stderr);
        assert!(stderr.contains("waiting for the store") && stderr.contains("u:***@127.0.0.1:1"), "{stderr}");
    }
}

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Everything below a data folder, with its mode.
fn modes(folder: &std::path::Path) -> Vec<(String, u32)> {
    let mut found = vec![(".".to_owned(), mode(folder))];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found.push((path.file_name().unwrap().to_string_lossy().into_owned(), mode(&path)));
    }
    found.sort();
    found
}

fn assert_private(folder: &std::path::Path) {
    let modes = modes(folder);
    assert!(modes.len() >= 4, "{modes:?}");
    for (name, mode) in modes {
        let expected = if name == "." { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{name} is {mode:04o}");
    }
}

#[tokio::test]
async fn data_is_its_owners_alone_whatever_the_umask() {
    let mut app = Start::up().shell("umask 000").start().await;
    app.keep(r#"{"text":"private"}"#).await;
    app.kept(1).await;
    let data = app.folder.path().join("data");
    assert_private(&data);
    app.kill9();
    // A crash leaves the companions behind; somebody opened everything.
    for (name, _) in modes(&data) {
        let path = data.join(&name);
        fs::set_permissions(&path, fs::Permissions::from_mode(if name == "." { 0o755 } else { 0o644 })).unwrap();
    }
    let app: App = app.again().shell("umask 000").start().await;
    app.kept(1).await;
    assert_private(&data);
    assert!(app.stderr().contains("permissions are tightened"), "{}", app.stderr());
}

/// A folder that others use too is not taken from them; what is ours in it is closed all the same.
#[tokio::test]
async fn a_shared_folder_stays_open_and_the_files_do_not() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let start = Start::up().folder(folder.clone()).args(&["--data-dir", "shared"]).shell("umask 000");
    start.copy_table();
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(shared.join("somebody.txt"), "else's").unwrap();
    let mut app = start.start().await;
    app.keep(r#"{"text":"private"}"#).await;
    assert_eq!(mode(&shared), 0o755);
    assert_eq!(mode(&shared.join("bus.db")), 0o600);
    assert_eq!(mode(&shared.join("bus.db-wal")), 0o600);
    assert!(app.stderr().contains("a folder of its own"), "{}", app.stderr());
    app.term();
    assert!(app.wait(Duration::from_secs(10)).await.success());
}
