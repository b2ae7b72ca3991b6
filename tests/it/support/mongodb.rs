//! A private MongoDB, alone or as a replica set, with data and ports of its own. `FPESA_TEST_MONGODB_URL` names another
//! server instead for what does not kill it; the databases of the tests are dropped there afterwards.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use mongodb::{Client, Database, bson::doc, options::ClientOptions};

use super::{eventually, free_port, release::unpacked};

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

    /// One of our own in any case: what is killed, or needs its flags, such as `--auth`.
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
                panic!("MongoDB ended: {status}");
            }
            assert!(Instant::now() < deadline, "MongoDB did not start");
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

    /// The admin database of this server alone, whatever it is a member of.
    async fn direct(&self) -> Database {
        let url = format!("mongodb://127.0.0.1:{}/admin?directConnection=true", self.port());
        let mut options = ClientOptions::parse(url).await.unwrap();
        options.server_selection_timeout = Some(Duration::from_millis(500));
        Client::with_options(options).unwrap().database("admin")
    }

    /// Whether the server is there, and says so of itself.
    async fn is(&self, what: &str) -> bool {
        let hello = self.direct().await.run_command(doc! { "hello": 1 }).await;
        hello.is_ok_and(|hello| hello.get_bool(what).unwrap_or(false))
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
    let server = unpacked("mongodb-6.0").join("bin/mongod");
    assert!(server.exists(), "mongod is missing: run scripts/setup");
    let data = folder.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    Command::new(server)
        .args(["--bind_ip", "127.0.0.1", "--port", &port.to_string(), "--nounixsocket", "--quiet"])
        .args([
            "--wiredTigerCacheSizeGB",
            "0.25",
            "--setParameter",
            "diagnosticDataCollectionEnabled=false",
            "--dbpath",
        ])
        .arg(data)
        .args(args)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Three servers that are one database: one takes the writes, and when it dies another one does.
pub struct ReplicaSet {
    members: Vec<Mongodb>,
}

impl ReplicaSet {
    pub async fn start() -> Self {
        let members: Vec<Mongodb> = (0..3).map(|_| Mongodb::own(&["--replSet", "fpesa"])).collect();
        let listed: Vec<_> = (0..)
            .zip(&members)
            .map(|(id, member)| doc! { "_id": id, "host": format!("127.0.0.1:{}", member.port()) })
            .collect();
        // An election takes as long as a dead primary is believed in: 10 s unless told otherwise.
        let settings = doc! { "electionTimeoutMillis": 2_000, "heartbeatIntervalMillis": 500 };
        let config = doc! { "_id": "fpesa", "members": listed, "settings": settings };
        members[0].direct().await.run_command(doc! { "replSetInitiate": config }).await.unwrap();
        let set = Self { members };
        set.primary().await;
        set
    }

    /// The URL of a database, with every member.
    pub fn database(&self) -> String {
        let hosts: Vec<String> = self.members.iter().map(|member| format!("127.0.0.1:{}", member.port())).collect();
        format!("mongodb://{}/fpesa_test?replicaSet=fpesa", hosts.join(","))
    }

    /// The member that takes writes, as soon as there is one.
    pub async fn primary(&self) -> usize {
        eventually("a primary", || async {
            for (index, member) in self.members.iter().enumerate() {
                if member.is("isWritablePrimary").await {
                    return Some(index);
                }
            }
            None
        })
        .await
    }

    pub fn kill9(&mut self, member: usize) {
        self.members[member].kill9();
    }

    /// Starts a member again, and waits until the others have it back.
    pub async fn restart(&mut self, member: usize) {
        let member = &mut self.members[member];
        member.restart();
        eventually("the member to follow", || async { member.is("secondary").await.then_some(()) }).await;
    }
}
