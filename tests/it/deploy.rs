//! What `deploy/` ships is what fpesa takes: units, image, manifests and nginx's configuration.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::Client;
use serde_json::Value;

use crate::support::{
    app::{App, Start},
    certificates::Certificates,
    eventually,
    nginx::{Nginx, Options},
    rabbit::Rabbit,
    release::Release,
    root, signal,
};

crate::on_each_rabbitmq!(no_request_fails_while_gateways_restart_behind_nginx);

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn documents(path: &str) -> Vec<Value> {
    read(path).split("\n---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

/// The units' executable lines by systemd's own judgement: 0 is safe, 10 is not.
#[test]
fn units_are_hardened() {
    for unit in ["fpesa.service", "fpesa-gateway@.service", "fpesa-work@.service"] {
        let path = root().join("deploy/systemd").join(unit);
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=25"])
            .arg(&path)
            .output()
            .expect("systemd-analyze is missing: run scripts/setup");
        let said = String::from_utf8_lossy(&output.stdout);
        // Its status is not 0 when the exposure is over the threshold, in tenths.
        assert!(output.status.success(), "{unit} is over 2.5: {}", said.lines().last().unwrap_or_default());
    }
}

/// The image's user, environment and default command, without an engine for containers: the executable runs as that user,
/// with a data folder made as the image makes it.
#[tokio::test]
async fn image_starts_by_its_default_command() {
    let text = read("deploy/Dockerfile");
    let line = |key: &str| {
        let found = text.lines().rev().find_map(|line| line.strip_prefix(key));
        found.unwrap_or_else(|| panic!("the Dockerfile has no {key}")).trim().to_owned()
    };
    let data = line("VOLUME ");
    let user = line("USER ");
    let owner = user.split(':').next().unwrap();
    assert!(text.contains(&format!("install -d -o {owner} -g {owner} -m 0700 {data}")), "the data folder is not owned");
    let env: Vec<(String, String)> = line("ENV ")
        .split(' ')
        .map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).unwrap())
        .collect();
    assert!(env.contains(&("FPESA_DATA_DIR".to_owned(), data)), "{env:?}");
    let command: Vec<String> = serde_json::from_str(&line("CMD ")).unwrap();
    let health: Vec<String> = serde_json::from_str(
        text.split("HEALTHCHECK").nth(1).unwrap().split("CMD").nth(1).unwrap().lines().next().unwrap().trim(),
    )
    .unwrap();
    assert_eq!(health, ["/usr/local/bin/fpesa", "health"]);

    // As the image's user where the test may become it, in a folder that belongs to it.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root_user = Command::new("id").arg("-u").output().unwrap().stdout.starts_with(b"0");
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let mut start = Start::up().command(&command.iter().map(String::as_str).collect::<Vec<_>>());
    start = start.env("FPESA_DATA_DIR", &data.display().to_string());
    fs::set_permissions(start.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if root_user {
        assert!(Command::new("chown").arg(owner).arg(&data).status().unwrap().success());
        start = start.run_as(owner);
    }
    let app = start.start().await;
    app.keep(r#"{"text":"from the image"}"#).await;
    app.kept(1).await;
    let (status, _, stderr) = Start::beside(&app).command(&["health", "--url", &app.base]).run().await;
    assert_eq!(status, 0, "{stderr}");
}

/// Settings, arguments and paths of the manifests and of the compose file are ones that fpesa takes.
#[tokio::test]
async fn manifests_say_what_fpesa_takes() {
    let manifests = documents("deploy/kubernetes/fpesa.yaml");
    let settings = manifests.iter().find(|one| one["kind"] == "ConfigMap").unwrap()["data"].as_object().unwrap();
    let compose = documents("deploy/compose.yaml").remove(0);
    let environments = [settings.clone(), compose["x-fpesa"]["environment"].as_object().unwrap().clone()];
    for environment in environments {
        let start = Start::up().command(&["config"]);
        for name in ["bus", "store", "feed"] {
            start.write(name, "secret\n");
        }
        let home = start.path();
        let start = environment.iter().fold(start, |start, (key, value)| {
            let value = value.as_str().unwrap();
            // The files of the secrets are in the test's folder.
            let file = value.rsplit('/').next().unwrap();
            let value = if key.ends_with("_FILE") { home.join(file).display().to_string() } else { value.to_owned() };
            start.env(key, &value)
        });
        let (status, _, stderr) = start.run().await;
        assert_eq!(status, 0, "{stderr}");
    }
    let mut containers = Vec::new();
    for deployment in manifests.iter().filter(|one| one["kind"] == "Deployment") {
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], deployment["spec"]["template"]["metadata"]["labels"]);
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let path = container[probe]["httpGet"]["path"].as_str().unwrap();
            assert!(["/healthz", "/readyz"].contains(&path), "{path}");
        }
        containers.push(container["args"].clone());
        // Each file of the shipped table is mounted.
        let items = pod["volumes"][0]["configMap"]["items"].as_array().unwrap();
        for item in items {
            let path: PathBuf = root().join(item["path"].as_str().unwrap());
            assert!(path.exists(), "{}", path.display());
        }
    }
    for service in compose["services"].as_object().unwrap().values() {
        if service["entrypoint"].is_null() && service["image"].is_null() {
            containers.push(service["command"].clone());
        }
    }
    assert!(containers.len() >= 7, "{containers:?}");
    for args in containers {
        let mut args: Vec<&str> = args.as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
        // An argument or command that fpesa does not know ends with status 2 and says so; this one is known.
        args.push("--help");
        let start = Start::up().command(&["help"]);
        let output = Command::new(env!("CARGO_BIN_EXE_fpesa")).args(&args).current_dir(start.path()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let x = &compose["x-fpesa"];
    assert_eq!((&x["read_only"], &x["cap_drop"][0]), (&Value::Bool(true), &Value::from("ALL")));
}

/// A table that needs no worker: what it publishes waits on its queue.
const TABLE: &str = "
version: 1
routes:
  - { id: post, method: POST, path: /posts, body: { schema: { type: object } }, publish: { exchange: amq.topic, key: posts } }
queues:
  posts: { bind: [{ exchange: amq.topic, key: posts }] }
";

async fn gateway(rabbit: &Rabbit) -> App {
    let start = Start::up().table(TABLE).env("FPESA_DRAIN_DELAY", "300ms");
    start.command(&["gateway", "--bus", &rabbit.url()]).start().await
}

async fn ready(app: &App) {
    eventually("readiness", || async { (app.get("/readyz").await.status() == 200).then_some(()) }).await;
}

/// Two gateways are restarted one after the other, again and again, behind the shipped configuration and under load.
async fn no_request_fails_while_gateways_restart_behind_nginx(on: Release) {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 4;
    let rabbit = Rabbit::without_feed(on).await;
    let mut gateways = [gateway(&rabbit).await, gateway(&rabbit).await];
    for app in &gateways {
        ready(app).await;
    }
    let nginx = Nginx::start([&gateways[0], &gateways[1]], Options::Plain, None).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (url, stop) = (format!("{}/posts", nginx.base), stop.clone());
            tokio::spawn(async move {
                let client = Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
                let (mut kept, mut failed) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let request =
                        client.post(&url).header("content-type", "application/json").body(format!("{{\"n\":{n}}}"));
                    match request.send().await {
                        Ok(response) if response.status() == 202 => kept += 1,
                        Ok(response) => {
                            failed.push(format!("{} {}", response.status(), response.text().await.unwrap()));
                        }
                        Err(error) => failed.push(error.to_string()),
                    }
                }
                (kept, failed)
            })
        })
        .collect();
    for round in 0..ROUNDS {
        let app = &mut gateways[round % 2];
        signal(app.pid(), "TERM");
        let status = app.wait(Duration::from_secs(60)).await;
        assert!(status.success(), "{status}");
        let again = app.again().table(TABLE).env("FPESA_DRAIN_DELAY", "300ms");
        *app = again.command(&["gateway", "--bus", &rabbit.url()]).start().await;
        ready(app).await;
        // What is between two restarts: as an operator does it, one after the other.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut kept, mut failed) = (0, Vec::new());
    for client in clients {
        let (more, lost) = client.await.unwrap();
        kept += more;
        failed.extend(lost);
    }
    if !failed.is_empty() {
        println!("{}", nginx.log());
    }
    assert!(
        failed.is_empty(),
        "{} of {} failed: {:?}",
        failed.len(),
        kept + failed.len(),
        &failed[..failed.len().min(5)]
    );
    assert!(kept > CLIENTS * ROUNDS, "{kept} requests are no load");
    println!("{kept} posts, {ROUNDS} restarts, none failed");
}

/// The lines for TLS and rates, which the shipped file has as comments, are right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_serves_tls_and_limits_rates() {
    let certificates = Certificates::make();
    let (one, two) = (App::up().await, App::up().await);
    let nginx = Nginx::start([&one, &two], Options::TlsAndRates, Some(&certificates)).await;
    let curl = |path: &str| {
        let output = Command::new("curl")
            .args(["-sS", "--cacert", &certificates.text("ca.pem"), "-w", "\n%{http_code} %{http_version}"])
            .arg(format!("{}{path}", nginx.tls_base))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(curl("/healthz").ends_with("200 2"), "{}", curl("/healthz"));
    // More than a burst at once, from one address.
    let client = Client::new();
    let asking: Vec<_> = (0..400).map(|_| tokio::spawn(client.get(format!("{}/healthz", nginx.base)).send())).collect();
    let (mut served, mut limited) = (0, None);
    for answer in asking {
        let response = answer.await.unwrap().unwrap();
        match response.status().as_u16() {
            200 => served += 1,
            429 => limited = Some(response),
            other => panic!("{other}"),
        }
    }
    let limited = limited.expect("a burst of 400 was served whole");
    assert!(served >= 200, "{served} were served");
    assert_eq!(limited.headers()["retry-after"], "1");
    let problem: Value = limited.json().await.unwrap();
    assert_eq!(problem["status"], 429);
}
