//! A Python program of the project, in the environment that `scripts/setup` makes.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{root, signal};

pub struct Script(Child);

impl Script {
    /// Starts it and waits for a line on its stdout.
    pub fn start(path: &str, args: &[&str], line: &str) -> Self {
        let python = root().join(".tools/venv/bin/python");
        assert!(python.exists(), "the Python clients are missing: run scripts/setup");
        let mut child = Command::new(python)
            .arg(root().join(path))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = lines.by_ref().map_while(Result::ok).find(|said| said == line);
        assert!(said.is_some(), "{path} ended without saying {line:?}");
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn term(&self) {
        signal(self.0.id(), "TERM");
    }

    /// Whether it ended by itself, and well.
    pub async fn wait(&mut self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < deadline, "it did not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
