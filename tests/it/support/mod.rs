//! What the tests start and stop: the executable, and servers of their own.

pub mod app;
pub mod certificates;
pub mod history;
pub mod mongodb;
pub mod nginx;
pub mod poster;
pub mod postgres;
pub mod proxy;
pub mod python;
pub mod rabbit;
pub mod raw_amqp;
pub mod release;
pub mod tap;
pub mod template;

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// The project's folder.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Waits until `look` gives something, looking often; the test fails when it takes too long.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "it never came to be: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Sends a signal by its name (`TERM`, `KILL`, …) to a process that the test started.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap();
    assert!(sent.success(), "kill -{name} {pid}");
}

/// Copies the shipped table and its schemas, so that a test may edit them.
pub fn copy_table(to: &Path) {
    std::fs::copy(root().join("routes.yaml"), to.join("routes.yaml")).unwrap();
    std::fs::create_dir_all(to.join("schemas")).unwrap();
    for entry in std::fs::read_dir(root().join("schemas")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join("schemas").join(entry.file_name())).unwrap();
    }
}
