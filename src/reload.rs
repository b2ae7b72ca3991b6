//! Hot reload: the table's folder is watched; once it is quiet everything is compiled anew. Any error keeps the table in
//! force; else the topology is declared and the table swapped whole. Requests under way keep the one they started with.

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    bus::Bus,
    feed::Feed,
    files::Disk,
    http::metrics::Metrics,
    live::Live,
    route::{
        compile::{Compiled, compile},
        problem::{Place, Problem, Severity, Source},
        source::{Files, Refused},
        table::Table,
    },
    runner::Workers,
};

/// Files are compiled once nothing has changed for this long.
const QUIET: Duration = Duration::from_millis(300);

/// Whom a new table concerns.
pub struct Reloader {
    /// Where the table is.
    pub files: Disk,
    /// The table in force.
    pub live: Arc<Live>,
    /// Declares the topology.
    pub bus: Arc<dyn Bus>,
    /// Limits subscriptions.
    pub feed: Option<Arc<Feed>>,
    /// Runs the workers.
    pub workers: Option<Arc<Workers>>,
    /// Has every series.
    pub metrics: Arc<Metrics>,
}

/// What a table was compiled from: the same texts are not compiled into a new generation.
type Texts = Vec<Source>;

/// Compiles, and tells what was read.
pub fn compile_noting(files: &Disk) -> (Compiled, Texts) {
    let noting = Noting { files, read: RefCell::default() };
    let compiled = compile(&noting);
    (compiled, noting.read.into_inner())
}

impl Reloader {
    /// Watches until `shutdown`; `texts` are those of the table in force.
    pub async fn run(self, mut texts: Texts, shutdown: CancellationToken) {
        let (sender, mut changed) = mpsc::channel::<()>(1);
        let notified = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is no change; a full channel already says that something changed.
            if !matches!(event.as_ref().map(|event| event.kind), Ok(notify::EventKind::Access(_))) {
                let _ = notified.try_send(());
            }
        });
        let mut watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::error!(%error, "files can't be watched: edits take effect at the next start");
                return;
            }
        };
        let mut watched: BTreeMap<PathBuf, bool> = BTreeMap::new();
        // What was edited before the watch began would be missed: the first look needs no event.
        let _ = sender.try_send(());
        loop {
            self.watch(&mut watcher, &mut watched, &texts);
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = changed.recv() => {}
            }
            while tokio::time::timeout(QUIET, changed.recv()).await.is_ok() {}
            let files = self.files.clone();
            let Ok((compiled, read)) = tokio::task::spawn_blocking(move || compile_noting(&files)).await else {
                continue;
            };
            if read != texts {
                texts = read;
                self.take(compiled).await;
            }
        }
    }

    /// Watches folders, not files: editors put new files in the place of old ones, and links are swapped.
    fn watch(&self, watcher: &mut notify::RecommendedWatcher, watched: &mut BTreeMap<PathBuf, bool>, texts: &Texts) {
        let folder = self.files.folder().to_owned();
        let mut wanted =
            vec![(folder.clone(), RecursiveMode::NonRecursive), (folder.join("schemas"), RecursiveMode::Recursive)];
        let parents = texts.iter().filter_map(|text| folder.join(&*text.name).parent().map(ToOwned::to_owned));
        wanted.extend(parents.map(|parent| (parent, RecursiveMode::NonRecursive)));
        for (path, mode) in wanted {
            if !path.is_dir() {
                watched.remove(&path);
            } else if !watched.contains_key(&path) {
                match watcher.watch(&path, mode) {
                    Ok(()) => drop(watched.insert(path, true)),
                    Err(error) => tracing::error!(folder = %path.display(), %error, "a folder can't be watched"),
                }
            }
        }
    }

    /// Puts what was compiled in force, or keeps what is there and says why.
    async fn take(&self, compiled: Compiled) {
        let Compiled { table, problems } = compiled;
        let Some(table) = table else { return self.refuse(problems) };
        for problem in &problems {
            tracing::warn!("{}", problem.render(false));
        }
        if let Err(error) = self.bus.declare(&table.topology).await {
            let source = self.files.table().unwrap_or(Source { name: "routes.yaml".into(), text: "".into() });
            let problem = Problem::at(&source, Place::default(), "topology", error.to_string());
            return self.refuse(vec![problem]);
        }
        let before = self.live.get();
        let change = change(&before.table, &table);
        self.metrics.expect(&table);
        if let Some(feed) = &self.feed {
            feed.set_topics(table.feed.clone());
        }
        let generation = self.live.swap(table, problems);
        if let Some(workers) = &self.workers {
            workers.apply(&self.live.get().table);
        }
        tracing::info!(generation, "the table is reloaded: {change}");
    }

    fn refuse(&self, problems: Vec<Problem>) {
        for problem in &problems {
            if problem.severity == Severity::Error {
                tracing::error!("{}", problem.render(false));
            } else {
                tracing::warn!("{}", problem.render(false));
            }
        }
        tracing::error!("the edit changes nothing: the table from before stays in force");
        self.live.refuse(problems);
    }
}

/// What differs between two tables, in a few words.
fn change(before: &Table, after: &Table) -> String {
    let shown = |table: &Table| -> BTreeMap<String, String> {
        table.routes.iter().map(|route| (route.id.clone(), format!("{route:?}"))).collect()
    };
    let (before, after) = (shown(before), shown(after));
    let list = |what: &str, ids: Vec<&String>| {
        let ids: Vec<&str> = ids.into_iter().map(String::as_str).collect();
        if ids.is_empty() { None } else { Some(format!("{what} {}", ids.join(", "))) }
    };
    let parts: Vec<String> = [
        list("added", after.keys().filter(|id| !before.contains_key(*id)).collect()),
        list("removed", before.keys().filter(|id| !after.contains_key(*id)).collect()),
        list(
            "changed",
            after.iter().filter(|(id, text)| before.get(*id).is_some_and(|b| b != *text)).map(|(id, _)| id).collect(),
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() { "no route differs".into() } else { parts.join("; ") }
}

/// Notes every text that is read.
struct Noting<'a> {
    files: &'a Disk,
    read: RefCell<Texts>,
}

impl Noting<'_> {
    fn note(&self, name: &str, source: Result<Source, Refused>) -> Result<Source, Refused> {
        // What can't be read is noted too: that it can be, later, is a change.
        let text = match &source {
            Ok(source) => source.clone(),
            Err(refused) => Source { name: name.into(), text: refused.why.to_string().into() },
        };
        self.read.borrow_mut().push(text);
        source
    }
}

impl Files for Noting<'_> {
    fn table(&self) -> Result<Source, Refused> {
        self.note("", self.files.table())
    }

    fn include(&self, glob: &str) -> Result<Vec<Source>, Refused> {
        let included = self.files.include(glob);
        if let Ok(sources) = &included {
            self.read.borrow_mut().extend(sources.iter().cloned());
        }
        included
    }

    fn schema(&self, name: &str) -> Result<Source, Refused> {
        self.note(name, self.files.schema(name))
    }

    fn schemas(&self) -> Vec<String> {
        self.files.schemas()
    }
}
