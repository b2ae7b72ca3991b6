//! The real executable as a process: on a free port, with a table and a data folder of its own.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use reqwest::{Client, Response};
use serde_json::Value;

use super::{copy_table, eventually, signal};

/// One running `fpesa`.
pub struct App {
    child: Child,
    /// Where it listens: `http://127.0.0.1:PORT`.
    pub base: String,
    /// Holds `routes.yaml`, `schemas/` and `data/`.
    pub folder: Arc<tempfile::TempDir>,
    pub client: Client,
    stderr: Arc<Mutex<Vec<String>>>,
}

/// How to start one.
pub struct Start {
    command: Vec<String>,
    folder: Arc<tempfile::TempDir>,
    env: Vec<(String, String)>,
    listen: String,
    /// A shell line that runs before the executable, such as `ulimit -f 100`.
    shell: Option<String>,
    /// The user that it runs as, where the test may become it.
    user: Option<String>,
}

impl Start {
    pub fn up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_table(folder.path());
        Self {
            command: vec!["up".into()],
            folder: Arc::new(folder),
            env: Vec::new(),
            listen: "127.0.0.1:0".into(),
            shell: None,
            user: None,
        }
    }

    pub fn command(mut self, args: &[&str]) -> Self {
        self.command = args.iter().map(ToString::to_string).collect();
        self
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.extend(args.iter().map(ToString::to_string));
        self
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    pub fn shell(mut self, line: &str) -> Self {
        self.shell = Some(line.into());
        self
    }

    /// Runs as another user, by its number.
    pub fn run_as(mut self, user: &str) -> Self {
        self.user = Some(user.into());
        self
    }

    pub fn folder(mut self, folder: Arc<tempfile::TempDir>) -> Self {
        self.folder = folder;
        self
    }

    pub fn table(self, text: &str) -> Self {
        std::fs::write(self.folder.path().join("routes.yaml"), text).unwrap();
        self
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// The folder that it runs in.
    pub fn path(&self) -> std::path::PathBuf {
        self.folder.path().to_owned()
    }

    pub fn copy_table(&self) {
        copy_table(self.folder.path());
    }

    /// Its folder, to be used on when it has ended.
    pub fn shared(&self) -> Arc<tempfile::TempDir> {
        self.folder.clone()
    }

    fn spawn(&self) -> Child {
        let executable = env!("CARGO_BIN_EXE_fpesa");
        let mut command = match (&self.shell, &self.user) {
            (Some(line), _) => {
                let mut shell = Command::new("bash");
                shell.arg("-c").arg(format!("{line}; exec \"$0\" \"$@\"")).arg(executable);
                shell
            }
            (None, Some(user)) => {
                // The project's own folder may be closed to it.
                let copied = self.folder.path().join("fpesa");
                std::fs::copy(executable, &copied).unwrap();
                let mut other = Command::new("setpriv");
                other.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]).arg(copied);
                other
            }
            (None, None) => Command::new(executable),
        };
        command.args(&self.command).current_dir(self.folder.path());
        if self.command.first().is_some_and(|first| ["up", "gateway", "work"].contains(&first.as_str())) {
            command.args(["--listen", &self.listen]);
        }
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts it and waits until it serves.
    pub async fn start(self) -> App {
        let mut child = self.spawn();
        let (lines, found) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(lines.send(line))));
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let kept = stderr.clone();
        let reader = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            reader.lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line));
        });
        let works = self.command.first().is_some_and(|first| first == "work");
        let started = tokio::task::spawn_blocking(move || {
            let mut base = String::new();
            loop {
                let line = found.recv_timeout(Duration::from_secs(60)).ok()?;
                if let Some(listening) = line.strip_prefix("listening on ") {
                    listening.clone_into(&mut base);
                }
                // Workers say both: where they listen, and then that they consume.
                if line.starts_with(if works { "working: " } else { "listening on " }) {
                    return Some(base);
                }
            }
        });
        let base = started.await.unwrap();
        let base = base.unwrap_or_else(|| panic!("it did not start: {}", stderr.lock().unwrap().join("\n")));
        // No answer is worth a longer wait: what hangs fails.
        let client = Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        App { child, base, folder: self.folder, client, stderr }
    }

    /// The same table and data, another process.
    pub fn beside(app: &App) -> Self {
        Self::up().folder(app.folder.clone())
    }

    /// Runs it to its end and gives status, stdout and stderr.
    pub async fn run(self) -> (i32, String, String) {
        let child = self.spawn();
        let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }
}

impl App {
    pub async fn up() -> Self {
        Start::up().start().await
    }

    /// The same again: same folder, same port.
    pub fn again(&self) -> Start {
        let listen = self.base.strip_prefix("http://").unwrap().to_owned();
        Start { listen, ..Start::up().folder(self.folder.clone()) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    /// Asks at once and gives status and body later.
    pub fn get_later(&self, path: &str) -> tokio::task::JoinHandle<(u16, String)> {
        let get = self.client.get(self.url(path));
        tokio::spawn(async move {
            let answer = get.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        })
    }

    pub async fn json(&self, path: &str) -> Value {
        self.get(path).await.json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        self.client.post(self.url(path)).header("content-type", "application/json").body(body).send().await.unwrap()
    }

    /// Posts to `/api/v1/messages` and gives the id of the 202.
    pub async fn keep(&self, body: &str) -> String {
        let response = self.post("/api/v1/messages", body.to_owned()).await;
        assert_eq!(response.status(), 202, "{body}");
        response.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Waits until history holds as many messages.
    pub async fn kept(&self, count: u64) {
        eventually(&format!("{count} messages in history"), || async {
            let total = self.json("/api/v1/messages?limit=1&count=true").await["total"].as_u64()?;
            assert!(total <= count, "{total} messages, and {count} were kept");
            (total == count).then_some(())
        })
        .await;
    }

    pub fn edit(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().join("\n")
    }

    pub fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn term(&self) {
        signal(self.child.id(), "TERM");
    }

    pub async fn wait(&mut self, at_most: Duration) -> ExitStatus {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it did not end: {}", self.stderr());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- its log\n{}", self.stderr());
        }
    }
}
