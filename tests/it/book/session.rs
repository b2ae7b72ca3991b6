//! One chapter's session.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use super::source::{Block, blocks, docs, includes};
use crate::support::{
    app::{App, Start},
    copy_table, eventually,
};

/// The address that the book writes.
const WRITTEN: &str = "127.0.0.1:8080";

pub struct Session {
    folder: Arc<tempfile::TempDir>,
    /// Holds `fpesa`, and what keeps curl from drawing.
    tools: tempfile::TempDir,
    app: Option<App>,
    /// What the last commands printed.
    printed: String,
    /// The last commands, when they are run until they print what is expected.
    until: Option<String>,
    beside: Vec<Child>,
}

impl Session {
    /// Runs a chapter's blocks, in order.
    pub async fn run(chapter: &str) {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        copy_table(folder.path());
        let tools = tempfile::tempdir().unwrap();
        symlink(env!("CARGO_BIN_EXE_fpesa"), tools.path().join("fpesa")).unwrap();
        fs::write(tools.path().join(".curlrc"), "silent\nshow-error\n").unwrap();
        let mut session = Self { folder, tools, app: None, printed: String::new(), until: None, beside: Vec::new() };
        for block in blocks(chapter) {
            if block.is_run() {
                println!("{}", block.place());
                session.block(&block).await;
            }
        }
    }

    async fn block(&mut self, block: &Block) {
        let text = self.text(block);
        match block.info[0].as_str() {
            "json" | "yaml" if block.file().is_some() => self.write(block.file().unwrap_or_default(), &text),
            "json" => drop(
                serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{}: {e}", block.place())),
            ),
            "yaml" if block.has("settings") => self.settings(block, &text).await,
            "yaml" if block.has("part") => {
                let whole = tempfile::tempdir().unwrap();
                copy_table(whole.path());
                self.check(block, insert(&fs::read_to_string(whole.path().join("routes.yaml")).unwrap(), &text)).await;
            }
            "yaml" if block.has("insert") => self.insert(block, &text).await,
            "yaml" => self.check(block, text).await,
            "sh" if block.has("server") => self.server(&text).await,
            "sh" => self.commands(block, &text).await,
            _ if block.has("beside") => self.printed_beside(block, &text).await,
            _ if self.until.is_some() => {
                let commands = self.until.take().unwrap();
                eventually(&format!("{} to print {}", block.place(), text.trim()), || async {
                    let output = self.shell(&commands).output().unwrap();
                    matches(text.trim(), String::from_utf8_lossy(&output.stdout).replace('\r', "").trim()).then_some(())
                })
                .await;
            }
            _ => {
                let printed = self.printed.trim();
                assert!(
                    matches(text.trim(), printed),
                    "{}: it prints\n{printed}\nand not\n{}",
                    block.place(),
                    text.trim()
                );
            }
        }
    }

    /// A block's text with its includes, and with the address of now.
    fn text(&self, block: &Block) -> String {
        let chapter = docs().join(&block.chapter);
        let text = match includes(&block.text).as_slice() {
            [] => block.text.clone(),
            all => all.iter().map(|include| include.text(&chapter)).collect(),
        };
        match &self.app {
            Some(app) => text.replace(WRITTEN, address(app)),
            None => text,
        }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A table must compile; the schemas that it names are the session's.
    async fn check(&self, block: &Block, table: String) {
        self.write("checked.yaml", &table);
        let check = Start::up().folder(self.folder.clone()).command(&["check", "checked.yaml"]);
        let (status, _, stderr) = check.run().await;
        fs::remove_file(self.folder.path().join("checked.yaml")).unwrap();
        assert_eq!(status, 0, "{}\n{stderr}", block.place());
    }

    async fn settings(&self, block: &Block, text: &str) {
        self.write("checked.yaml", text);
        let config = Start::up().folder(self.folder.clone()).command(&["config", "--config", "checked.yaml"]);
        let (status, _, stderr) = config.run().await;
        assert_eq!(status, 0, "{}\n{stderr}", block.place());
    }

    async fn insert(&mut self, block: &Block, text: &str) {
        let path = self.folder.path().join("routes.yaml");
        let app = self.app().await;
        fs::write(&path, insert(&fs::read_to_string(&path).unwrap(), text)).unwrap();
        let response = app.client.post(app.url("/reload")).send().await.unwrap();
        assert_eq!(response.status(), 200, "{}\n{}", block.place(), response.text().await.unwrap());
    }

    async fn app(&mut self) -> &App {
        if self.app.is_none() {
            self.server("fpesa up").await;
        }
        self.app.as_ref().unwrap()
    }

    /// Starts the session's gateway, in place of the one before and on the same port.
    async fn server(&mut self, text: &str) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let Some(("fpesa", args)) = words.split_first().map(|(first, args)| (*first, args)) else {
            panic!("`{text}` is no `fpesa up`");
        };
        let start = match self.app.take() {
            Some(mut before) => {
                before.term();
                before.wait(Duration::from_secs(10)).await;
                before.again()
            }
            None => Start::up().folder(self.folder.clone()),
        };
        self.app = Some(start.command(args).start().await);
    }

    fn shell(&self, text: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{text}")]).current_dir(self.folder.path());
        let path = format!("{}:{}", self.tools.path().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("CURL_HOME", self.tools.path()).stdin(Stdio::null());
        if let Some(app) = &self.app {
            command.env("FPESA_LISTEN", address(app));
        }
        command
    }

    async fn commands(&mut self, block: &Block, text: &str) {
        let text = if self.app.is_none() {
            let app = self.app().await;
            text.replace(WRITTEN, address(app))
        } else {
            text.to_owned()
        };
        if block.has("beside") {
            let file = fs::File::create(self.folder.path().join("beside.txt")).unwrap();
            self.beside.push(self.shell(&format!("exec {text}")).stdout(file).spawn().unwrap());
            return;
        }
        self.until = block.has("until").then(|| text.clone());
        if self.until.is_some() {
            return;
        }
        let mut command = self.shell(&text);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        self.printed = String::from_utf8(output.stdout).unwrap().replace('\r', "");
        let good = output.status.success() != block.has("fails");
        assert!(good, "{}: {}\n{}", block.place(), output.status, self.printed);
    }

    async fn printed_beside(&self, block: &Block, text: &str) {
        let path = self.folder.path().join("beside.txt");
        eventually(&format!("{}: {text}", block.place()), || async {
            let printed = fs::read_to_string(&path).unwrap();
            matches(text.trim(), printed.trim()).then_some(())
        })
        .await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for child in &mut self.beside {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn address(app: &App) -> &str {
    app.base.strip_prefix("http://").unwrap()
}

/// A table with more keys: what stands under a key goes under the same one, and a key that it has not comes to its end.
fn insert(table: &str, more: &str) -> String {
    let mut parts: Vec<(String, String)> = Vec::new();
    for line in more.lines() {
        match parts.last_mut() {
            Some((_, text)) if line.starts_with([' ', '#']) || line.is_empty() => {
                text.push_str(line);
                text.push('\n');
            }
            _ => parts.push((line.to_owned(), String::new())),
        }
    }
    let mut table = table.to_owned();
    for (key, text) in parts {
        let plain = format!("\n{key}\n");
        if text.is_empty() || !table.contains(&plain) {
            let name = format!("\n{}:", key.split(':').next().unwrap());
            // What stands in one line takes the place of the one before.
            if let Some(at) = table.find(&name) {
                let end = table[at + 1..].find('\n').map_or(table.len(), |end| at + 1 + end);
                table.replace_range(at + 1..end, &key);
            } else {
                table.push_str(&key);
                table.push('\n');
                table.push_str(&text);
            }
        } else {
            table = table.replacen(&plain, &format!("{plain}{text}"), 1);
        }
    }
    table
}

/// Whether a text is what is expected, where `…` stands for anything.
fn matches(expected: &str, text: &str) -> bool {
    let mut pieces = expected.split('…');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for piece in pieces {
        last = Some(piece);
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    match last {
        None => rest.is_empty(),
        Some(last) => rest.is_empty() || text.ends_with(last),
    }
}

#[test]
fn what_is_expected() {
    assert!(matches("a…c", "abc") && matches("a…", "abc") && matches("…", "") && matches("a…b", "abab"));
    assert!(!matches("a…c", "abd") && !matches("a", "ab") && !matches("b…", "ab"));
}
