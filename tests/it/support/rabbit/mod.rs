//! A private RabbitMQ node: Debian's server, with its own home, name, data, ports and epmd, so that nothing of the
//! machine's own is touched. One start takes some seconds: a test runs many cases on one node.

mod cluster;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

pub use cluster::Cluster;

use crate::support::{free_port, release::Release, root};

/// A program of the broker that a release has, which finds the Erlang that came with it.
fn program(on: Release, name: &str) -> Command {
    let usr = on.usr("rabbitmq", ["3.10", "4.0"]);
    let (erlang, programs) = (usr.join("lib/erlang/bin"), usr.join("lib/rabbitmq/bin"));
    assert!(programs.exists(), "RabbitMQ of {on:?} is missing: run scripts/setup");
    let mut path = erlang.clone().into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let mut command = Command::new(if name == "epmd" { &erlang } else { &programs }.join(name));
    command.env("PATH", path);
    command
}

pub struct Rabbit {
    on: Release,
    folder: tempfile::TempDir,
    child: Child,
    env: Vec<(String, String)>,
    pub port: u16,
    pub web_mqtt: u16,
    _epmd: Arc<Epmd>,
}

/// The port mapper of one test's nodes.
struct Epmd {
    child: Child,
    port: u16,
}

impl Epmd {
    /// In the foreground, so that we can end it; a node would leave one behind.
    fn start(on: Release) -> Arc<Self> {
        let port = free_port();
        let mut command = program(on, "epmd");
        command.env("ERL_EPMD_PORT", port.to_string()).env("ERL_EPMD_ADDRESS", "127.0.0.1");
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Arc::new(Self { child, port })
    }
}

impl Drop for Epmd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Rabbit {
    /// Starts a node as `fpesa broker` says: its `browser` (password `look`) may read `messages/#` over web-MQTT.
    pub async fn on(release: Release) -> Self {
        Self::on_with(release, "").await
    }

    /// The same, with more lines in its rabbitmq.conf.
    pub async fn on_with(release: Release, more: &str) -> Self {
        Self::launch(release, Epmd::start(release), more, true).started().await
    }

    /// Without what browsers need, for which RabbitMQ 3.10 waits for 5 s at its first start.
    pub async fn without_feed(release: Release) -> Self {
        Self::launch(release, Epmd::start(release), "", false).started().await
    }

    async fn started(mut self) -> Self {
        self.ready().await;
        self.import();
        self
    }

    /// Starts a node, with the feed's plugins or without, and does not wait.
    fn launch(on: Release, epmd: Arc<Epmd>, more: &str, feed: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_owned();
        let (port, web_mqtt, dist) = (free_port(), free_port(), free_port());
        let path = |name: &str| home.join(name).display().to_string();
        let mut conf = format!("listeners.tcp.default = 127.0.0.1:{port}\nloopback_users = none\n{more}\n");
        if feed {
            conf += "web_mqtt.tcp.ip = 127.0.0.1\n";
            conf += &fpesa(port, web_mqtt, "conf");
        }
        fs::write(home.join("rabbitmq.conf"), conf).unwrap();
        fs::write(home.join("definitions.json"), fpesa(port, web_mqtt, "definitions")).unwrap();
        // The nodes of a cluster know each other by it.
        let cookie = home.join(".erlang.cookie");
        fs::write(&cookie, "fpesa-tests").unwrap();
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400)).unwrap();
        let plugins = if feed {
            "[rabbitmq_mqtt,rabbitmq_web_mqtt,rabbitmq_consistent_hash_exchange].\n"
        } else {
            "[rabbitmq_consistent_hash_exchange].\n"
        };
        fs::write(home.join("enabled_plugins"), plugins).unwrap();
        let env: Vec<(String, String)> = [
            ("HOME", path("")),
            ("RABBITMQ_NODENAME", format!("fpesa{port}@localhost")),
            ("RABBITMQ_MNESIA_BASE", path("mnesia")),
            ("RABBITMQ_LOG_BASE", path("log")),
            ("RABBITMQ_SCHEMA_DIR", path("schema")),
            ("RABBITMQ_GENERATED_CONFIG_DIR", path("generated")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
            ("RABBITMQ_CONF_ENV_FILE", path("none.conf")),
            ("RABBITMQ_PID_FILE", path("pid")),
            ("RABBITMQ_DIST_PORT", dist.to_string()),
            ("ERL_EPMD_PORT", epmd.port.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1 +sbwt none".to_owned()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
        let child = Self::spawn(on, &env);
        Self { on, folder, child, env, port, web_mqtt, _epmd: epmd }
    }

    /// A node takes connections a moment before it is started as a whole, which the import needs.
    fn import(&self) {
        self.ctl(&["await_startup", "--timeout", "60"]);
        let file = self.folder.path().join("definitions.json");
        self.ctl(&["import_definitions", &file.display().to_string()]);
    }

    fn spawn(on: Release, env: &[(String, String)]) -> Child {
        let mut command = program(on, "rabbitmq-server");
        command.envs(env.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    async fn ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        let options = fpesa::bus::amqp::Options::at(&self.url()).unwrap();
        loop {
            if options.answers().await {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the node ended: {status}\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "the node did not start\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn log(&self) -> String {
        let Ok(entries) = fs::read_dir(self.folder.path().join("log")) else { return String::new() };
        entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect()
    }

    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// `rabbitmqctl`, which must succeed.
    pub fn ctl(&self, args: &[&str]) -> String {
        let output = program(self.on, "rabbitmqctl").args(args).envs(self.env.iter().cloned()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "rabbitmqctl {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// `kill -9` of the node itself.
    pub fn kill9(&mut self) {
        // The start script's child is the node: its process id stands in its pid file.
        if let Ok(pid) = fs::read_to_string(self.folder.path().join("pid")) {
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// An orderly stop, as an operator restarts a node.
    pub fn stop(&mut self) {
        self.ctl(&["stop"]);
        let _ = self.child.wait();
    }

    /// The same node again, with what it kept.
    pub async fn restart(&mut self) {
        self.child = Self::spawn(self.on, &self.env);
        self.ready().await;
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// What `fpesa broker` prints for the shipped table.
fn fpesa(port: u16, web_mqtt: u16, part: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_fpesa"))
        .args(["broker", part, "--bus", &format!("amqp://guest:guest@127.0.0.1:{port}/%2f")])
        .env("FPESA_FEED__PASSWORD", "look")
        .env("FPESA_FEED__URL", format!("ws://127.0.0.1:{web_mqtt}/mqtt"))
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
