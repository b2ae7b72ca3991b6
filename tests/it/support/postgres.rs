//! A private PostgreSQL: Debian's server of a release, with data, port and socket of its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::{free_port, release::Release, signal, template};

pub struct Postgres {
    programs: PathBuf,
    folder: tempfile::TempDir,
    child: Child,
    port: u16,
    databases: AtomicU32,
}

impl Postgres {
    pub fn start() -> Self {
        Self::on(Release::asked_for())
    }

    /// Starts a server with a superuser `fpesa`, who needs no password.
    pub fn on(release: Release) -> Self {
        let programs = programs(release);
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = folder.path().join("home");
        fs::create_dir(&home).unwrap();
        if is_root() {
            let given = Command::new("chown").arg("postgres").arg(&home).status().unwrap();
            assert!(given.success(), "chown");
        }
        let version = programs.parent().unwrap().file_name().unwrap().display();
        template::copy(&format!("postgresql-{version}"), &home.join("data"), |data| {
            let made = as_server(&programs, "initdb")
                .args(["--auth=trust", "--username=fpesa", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
                .arg(data)
                .current_dir("/")
                .output()
                .unwrap();
            assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        });
        let port = free_port();
        let child = spawn(&programs, &home, port);
        let mut server = Self { programs, folder, child, port, databases: AtomicU32::new(0) };
        server.ready();
        server
    }

    fn ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let port = self.port.to_string();
        loop {
            let args = ["-q", "-h", "127.0.0.1", "-p", &port];
            if Command::new(self.programs.join("pg_isready")).args(args).status().unwrap().success() {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("PostgreSQL ended: {status}");
            }
            assert!(Instant::now() < deadline, "PostgreSQL did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A new database: its URL.
    pub fn database(&self) -> String {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed));
        Self::sql(&self.at("postgres"), &format!("CREATE DATABASE {name}"));
        self.at(&name)
    }

    fn at(&self, database: &str) -> String {
        format!("postgres://fpesa@127.0.0.1:{}/{database}", self.port)
    }

    /// Its port, for a proxy before it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs a statement with `psql`, and gives its rows.
    pub fn sql(url: &str, sql: &str) -> String {
        let output = psql().args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, url]).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// From now on everybody but `fpesa` gives a password. (Who has a connection keeps it.)
    pub fn asks_for_passwords(&self) {
        let rules = "host all fpesa 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(self.folder.path().join("home/data/pg_hba.conf"), rules).unwrap();
        signal(self.child.id(), "HUP");
        let deadline = Instant::now() + Duration::from_secs(30);
        let nobody = self.at("postgres").replace("fpesa@", "nobody@");
        loop {
            let output = psql().args(["-Xwq", "-c", "SELECT 1", &nobody]).output().unwrap();
            if String::from_utf8_lossy(&output.stderr).contains("password") {
                return;
            }
            assert!(Instant::now() < deadline, "PostgreSQL did not read its rules again");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `kill -9` of the server and of the processes that serve its connections, which would see the end of it a moment later.
    pub fn kill9(&mut self) {
        let pid = self.child.id();
        // Stopped, it starts no further ones.
        signal(pid, "STOP");
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        for child in children.split_whitespace() {
            let _ = Command::new("kill").args(["-KILL", child]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The same server again, with what it kept.
    pub fn restart(&mut self) {
        let home = self.folder.path().join("home");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            // What a killed server leaves behind (its children, its lock) goes away within moments.
            self.child = spawn(&self.programs, &home, self.port);
            std::thread::sleep(Duration::from_millis(300));
            if self.child.try_wait().unwrap().is_none() {
                break;
            }
            assert!(Instant::now() < deadline, "PostgreSQL did not start again");
        }
        self.ready();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // At once, with its children: its data is not needed any more.
            signal(self.child.id(), "QUIT");
        }
        let _ = self.child.wait();
    }
}

fn spawn(programs: &Path, home: &Path, port: u16) -> Child {
    as_server(programs, "postgres")
        .arg("-D")
        .arg(home.join("data"))
        .args(["-c", "listen_addresses=127.0.0.1", "-c", "log_min_messages=fatal", "-c", "max_connections=200"])
        // What is killed are processes: what they gave to the system stays.
        .args(["-c", "fsync=off"])
        .args(["-p", &port.to_string(), "-k"])
        .arg(home)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The server refuses to run as root: then it runs as the package's own user, who may look into root's folders all the
/// same, for there the checkout may be.
fn as_server(programs: &Path, name: &str) -> Command {
    let program = programs.join(name);
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command.args(["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]).arg(program);
    command
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout.starts_with(b"0")
}

/// The folder of the programs that a release has.
fn programs(release: Release) -> PathBuf {
    let versions = release.usr("postgresql", ["15", "17"]).join("lib/postgresql");
    let wanted = match release {
        Release::Debian12 => "15",
        Release::Debian13 => "17",
        Release::Newest => "",
    };
    let mut found: Vec<PathBuf> =
        fs::read_dir(versions).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default();
    found.retain(|path| path.ends_with(wanted) || wanted.is_empty());
    let version = found.pop().unwrap_or_else(|| panic!("PostgreSQL of {release:?} is missing: run scripts/setup"));
    version.join("bin")
}

/// `psql` is the same for every server.
fn psql() -> Command {
    Command::new(programs(Release::Debian12).join("psql"))
}
