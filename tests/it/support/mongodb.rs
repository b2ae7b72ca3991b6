//! A private server that speaks MongoDB's protocol: `SecantusDB`, as scripts/setup installs it, with data and port of its
//! own. `FPESA_TEST_MONGODB_URL` names a real server instead, whose databases of the tests are dropped afterwards.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use mongodb::{Client, Database};

use super::{free_port, root};

pub struct Mongodb {
    own: Option<Own>,
    url: String,
    databases: AtomicU32,
    made: Mutex<Vec<String>>,
}

struct Own {
    folder: tempfile::TempDir,
    child: Child,
    port: u16,
    args: Vec<String>,
}

impl Mongodb {
    /// The server that the environment names, or one of our own.
    pub fn start() -> Self {
        match std::env::var("FPESA_TEST_MONGODB_URL") {
            Ok(url) => Self { own: None, url, databases: AtomicU32::new(0), made: Mutex::default() },
            Err(_) => Self::own(&[]),
        }
    }

    /// One of our own in any case: what is killed, or needs its flags, such as `--sync-on-commit`.
    pub fn own(args: &[&str]) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let child = spawn(&folder, port, &args);
        let url = format!("mongodb://127.0.0.1:{port}/");
        let own = Some(Own { folder, child, port, args });
        let mut server = Self { own, url, databases: AtomicU32::new(0), made: Mutex::default() };
        server.ready();
        server
    }

    fn ready(&mut self) {
        let own = self.own.as_mut().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(("127.0.0.1", own.port)).is_err() {
            if let Some(status) = own.child.try_wait().unwrap() {
                panic!("SecantusDB ended: {status}");
            }
            assert!(Instant::now() < deadline, "SecantusDB did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The URL of a new database.
    pub fn database(&self) -> String {
        let name = format!("fpesa_test_{}_{}", std::process::id(), self.databases.fetch_add(1, Ordering::Relaxed));
        let (hosts, options) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let (scheme, hosts) = hosts.split_once("://").unwrap();
        let hosts = hosts.split('/').next().unwrap();
        let url = format!("{scheme}://{hosts}/{name}?{options}");
        self.made.lock().unwrap().push(url.clone());
        url
    }

    /// The port of our own server, for a proxy before it.
    pub fn port(&self) -> u16 {
        self.own.as_ref().unwrap().port
    }

    /// The database of a URL, to look into it.
    pub async fn open(url: &str) -> Database {
        Client::with_uri_str(url).await.unwrap().default_database().unwrap()
    }

    pub fn kill9(&mut self) {
        let own = self.own.as_mut().unwrap();
        let _ = own.child.kill();
        let _ = own.child.wait();
    }

    /// The same server again, with what it kept.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// The same with further flags.
    pub fn restart_with(&mut self, args: &[&str]) {
        let own = self.own.as_mut().unwrap();
        own.args.extend(args.iter().map(ToString::to_string));
        own.child = spawn(&own.folder, own.port, &own.args);
        self.ready();
    }
}

impl Drop for Mongodb {
    fn drop(&mut self) {
        if self.own.is_some() {
            self.kill9();
            return;
        }
        // Others' server is left as it was.
        let made = std::mem::take(&mut *self.made.lock().unwrap());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for url in made {
                    let _ = Self::open(&url).await.drop().await;
                }
            });
        });
        let _ = dropping.join();
    }
}

fn spawn(folder: &tempfile::TempDir, port: u16, args: &[String]) -> Child {
    let server = root().join(".tools/venv/bin/secantusd-py");
    assert!(server.exists(), "SecantusDB is missing: run scripts/setup");
    Command::new(server)
        .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--cache-size", "64M"])
        .args(["--log-level", "ERROR", "--storage-path"])
        .arg(folder.path().join("data"))
        .args(args)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
