//! Hot reload: the table's files are watched; once they are quiet, or somebody asks, everything is compiled anew. Any error
//! keeps the table in force; else the topology is declared, new workers begin, and the table is swapped whole. Requests
//! under way keep the one they started with, and what only it needs goes when they are done.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{Bus, BusError, Fault, Link, Subject},
    feed::Feed,
    files::Disk,
    http::metrics::Metrics,
    live::{InForce, Live, Reloaded},
    route::{
        compile::Compiled,
        problem::{Place, Problem, Severity, Source},
        table::{Action, Table},
        yaml,
    },
    runner::{Retiring, Workers},
};

pub mod change;
mod texts;
mod watch;

pub use texts::{Texts, compile_noting};

use watch::Watch;

/// Files are compiled once nothing has changed for this long,
const QUIET: Duration = Duration::from_millis(300);
/// or after this long, should the folder never be quiet.
const NEVER_QUIET: Duration = Duration::from_secs(2);
/// Not every change is told by every file system: without any word the files are read again after this long, or after
/// [`RARELY`] times what that takes.
const UNTOLD: Duration = Duration::from_secs(5);
const RARELY: u32 = 50;
/// Pauses between tries of a table that only the bus keeps from taking effect.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long new workers may take to consume before requests come to them.
const AT_WORK_WITHIN: Duration = Duration::from_secs(2);
/// How often it is looked whether the last request on an earlier table is done, and how long that is waited for.
const LET_GO: Duration = Duration::from_millis(50);
const LET_GO_WITHIN: Duration = Duration::from_secs(60);
/// Askers that may wait for one look.
const MOST_ASKERS: usize = 64;

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

/// Asks for a look at the files.
#[derive(Debug, Clone)]
pub struct Ask(mpsc::Sender<oneshot::Sender<Answer>>);

/// Those who ask.
pub struct Askers(mpsc::Receiver<oneshot::Sender<Answer>>);

/// How the files as they were after one asked took effect.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The generation in force.
    pub generation: u64,
    /// How the look went.
    pub reloaded: Arc<Reloaded>,
}

/// A way to ask, and its other end.
pub fn asking() -> (Ask, Askers) {
    let (sender, received) = mpsc::channel(MOST_ASKERS);
    (Ask(sender), Askers(received))
}

impl Ask {
    /// Asks, and waits until the files as they are now took effect or were refused. `None` when too many ask already.
    pub async fn wait(&self) -> Option<Answer> {
        self.begin()?.await.ok()
    }

    /// Asks; the answer comes when it comes.
    pub fn begin(&self) -> Option<oneshot::Receiver<Answer>> {
        let (sender, answer) = oneshot::channel();
        self.0.try_send(sender).ok()?;
        Some(answer)
    }
}

/// A table that compiled, and that the bus keeps from taking effect.
struct Waiting {
    table: Table,
    warnings: Vec<Problem>,
    again: Instant,
    pause: Duration,
}

/// An earlier table, with what only its requests need.
struct Leaving {
    table: Weak<InForce>,
    since: Instant,
    workers: Option<Retiring>,
    /// Whether the bus keeps bindings that only it needs.
    bindings: bool,
}

/// A look at the files: those of now, with what came of them; `None` when they say the same as before.
type Seen = Option<(Compiled, Texts)>;

struct Reloading {
    parts: Reloader,
    watch: Option<Arc<Mutex<Watch>>>,
    /// Of the table in force.
    digest: String,
    schemas: String,
    /// What the files said at the last look.
    texts: Texts,
    waiting: Option<Waiting>,
    leaving: Vec<Leaving>,
}

impl Reloader {
    /// Watches until `shutdown`; `texts` are those of the table in force.
    pub async fn run(self, texts: Texts, askers: Askers, shutdown: CancellationToken) {
        let Askers(mut askers) = askers;
        let (sender, mut changed) = mpsc::channel::<()>(1);
        // What was edited before the watch began would be missed: the first look needs no event.
        let _ = sender.try_send(());
        let watch = Watch::start(sender).map_err(|error| {
            tracing::warn!(%error, "files can't be watched: edits are noticed within some seconds");
        });
        let mut reloading = Reloading {
            parts: self,
            watch: watch.ok().map(|watch| Arc::new(Mutex::new(watch))),
            digest: texts.digest.clone(),
            schemas: texts.schemas.clone(),
            texts,
            waiting: None,
            leaving: Vec::new(),
        };
        let mut untold = UNTOLD;
        loop {
            let mut asking = Vec::new();
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(asker) = askers.recv() => asking.push(asker),
                Some(()) = changed.recv() => {
                    let quiet = async { while tokio::time::timeout(QUIET, changed.recv()).await.is_ok() {} };
                    tokio::select! {
                        _ = tokio::time::timeout(NEVER_QUIET, quiet) => {}
                        Some(asker) = askers.recv() => asking.push(asker),
                    }
                }
                () = tokio::time::sleep(untold) => {}
                () = reloading.again() => {}
                () = reloading.leaving() => {
                    reloading.let_go().await;
                    continue;
                }
            }
            // Here too: who is asked all the time never comes to wait.
            reloading.let_go().await;
            // Whoever asked until now is answered by one look.
            while let Ok(asker) = askers.try_recv() {
                asking.push(asker);
            }
            let start = Instant::now();
            let refused = reloading.look(!asking.is_empty()).await;
            let took = start.elapsed();
            untold = UNTOLD.max(took * RARELY);
            let rest = if refused { FIRST_PAUSE } else { took.min(FIRST_PAUSE) };
            let asked = !asking.is_empty();
            for asker in asking {
                let _ = asker.send(reloading.answer());
            }
            // However often it is asked, looking takes half of the time at most.
            if asked {
                tokio::select! {
                    () = tokio::time::sleep(rest) => {}
                    () = shutdown.cancelled() => return,
                }
            }
        }
    }
}

impl Reloading {
    fn answer(&self) -> Answer {
        Answer { generation: self.parts.live.get().generation, reloaded: self.parts.live.reloaded() }
    }

    /// Until it is time to try again what waits for the bus.
    async fn again(&self) {
        match &self.waiting {
            Some(waiting) => tokio::time::sleep_until(waiting.again).await,
            None => std::future::pending().await,
        }
    }

    /// Looks at the files, and acts on what they say. Says whether the bus refused it.
    async fn look(&mut self, asked: bool) -> bool {
        let (files, watch, texts) = (self.parts.files.clone(), self.watch.clone(), self.texts.clone());
        let Ok(seen) = tokio::task::spawn_blocking(move || seen(&files, watch.as_deref(), &texts)).await else {
            tracing::error!("the compiler failed on these files: the table from before stays in force");
            return false;
        };
        if let Some((compiled, texts)) = seen {
            self.waiting = None;
            self.texts = texts;
            if self.texts.digest == self.digest && compiled.table.is_some() {
                // The table in force, after an edit that was taken back.
                self.parts.live.agrees(compiled.problems, &self.digest);
                return false;
            }
            return self.take(compiled).await;
        }
        match self.waiting.take() {
            Some(waiting) if asked || waiting.again <= Instant::now() => self.try_again(waiting).await,
            waiting => {
                self.waiting = waiting;
                false
            }
        }
    }

    /// Puts what was compiled in force, or keeps what is there and says why.
    async fn take(&mut self, compiled: Compiled) -> bool {
        let Compiled { table, problems } = compiled;
        let Some(table) = table else {
            self.refuse(problems);
            return false;
        };
        for problem in &problems {
            tracing::warn!("{}", problem.render(false));
        }
        let again = Instant::now();
        self.try_again(Waiting { table, warnings: problems, again, pause: FIRST_PAUSE }).await
    }

    async fn try_again(&mut self, mut waiting: Waiting) -> bool {
        let Err(error) = self.declare(&waiting.table).await else {
            self.swap(waiting.table, waiting.warnings).await;
            return false;
        };
        let problems = self.problems(&waiting.table, &error);
        let told = self.parts.live.reloaded();
        if told.digest != self.texts.digest
            || told.ok
            || !problems.iter().all(|problem| told.problems.contains(problem))
        {
            self.refuse(waiting.warnings.iter().cloned().chain(problems).collect());
        }
        waiting.again = Instant::now() + waiting.pause;
        waiting.pause = (waiting.pause * 2).min(LONGEST_PAUSE);
        self.waiting = Some(waiting);
        true
    }

    async fn declare(&self, table: &Table) -> Result<(), BusError> {
        if self.parts.bus.retries() && self.parts.bus.state().link == Link::Down {
            return Err(BusError::Down("no connection".into()));
        }
        self.parts.bus.declare(&table.topology).await
    }

    /// What the bus says, each fault at the line that it is about.
    fn problems(&self, table: &Table, error: &BusError) -> Vec<Problem> {
        let none = Source { name: self.parts.files.path().display().to_string().into(), text: "".into() };
        let source = self.texts.table.as_ref().unwrap_or(&none);
        match error {
            BusError::Topology(faults) => {
                let problem =
                    |fault: &Fault| Problem::at(source, place(source, table, fault), "topology", fault.why.clone());
                let mut problems: Vec<Problem> = faults.iter().map(problem).collect();
                problems.sort_by_key(|problem| (problem.line, problem.column));
                problems
            }
            BusError::Down(_) => {
                let message = "the broker is away, and what the table needs can't be declared";
                let problem = Problem::at(source, Place::default(), "broker-away", message);
                vec![problem.hint("it is tried again until it works")]
            }
            error => vec![Problem::at(source, Place::default(), "topology", error.to_string())],
        }
    }

    async fn swap(&mut self, table: Table, warnings: Vec<Problem>) {
        let parts = &self.parts;
        let before = parts.live.get();
        let (mut change, counts) = change::between(&before.table, &table);
        if self.schemas != self.texts.schemas {
            change.other.push("schemas".into());
        }
        parts.metrics.expect(&table);
        let workers = parts.workers.as_ref().map(|workers| workers.begin(&table));
        if let Some(workers) = &workers
            && tokio::time::timeout(AT_WORK_WITHIN, workers.at_work()).await.is_err()
        {
            tracing::warn!("not every new worker consumes yet: the table takes effect all the same");
        }
        if let Some(feed) = &parts.feed {
            feed.set_topics(table.feed.clone());
        }
        let bindings = before.table.topology != table.topology;
        let told = change.to_string();
        parts.metrics.reloaded(&before.table, &table, counts);
        let generation = parts.live.swap(table, warnings, change, &self.texts.digest);
        tracing::info!(generation, "the table is reloaded: {told}");
        self.digest.clone_from(&self.texts.digest);
        self.schemas.clone_from(&self.texts.schemas);
        let workers = workers.filter(|workers| !workers.is_empty());
        if bindings || workers.is_some() {
            let table = Arc::downgrade(&before);
            self.leaving.push(Leaving { table, since: Instant::now(), workers, bindings });
        }
    }

    /// Until it is time to see whether earlier tables are let go of.
    async fn leaving(&self) {
        if self.leaving.is_empty() {
            return std::future::pending().await;
        }
        tokio::time::sleep(LET_GO).await;
    }

    /// What only an earlier table needed goes with the last request on it.
    async fn let_go(&mut self) {
        let done = |leaving: &Leaving| leaving.table.strong_count() == 0 || leaving.since.elapsed() > LET_GO_WITHIN;
        let (gone, stays): (Vec<_>, Vec<_>) = std::mem::take(&mut self.leaving).into_iter().partition(done);
        self.leaving = stays;
        let bindings = gone.iter().any(|leaving| leaving.bindings);
        for workers in gone.into_iter().filter_map(|leaving| leaving.workers) {
            workers.stop();
        }
        if bindings
            && self.leaving.iter().all(|leaving| !leaving.bindings)
            && let Err(error) = self.declare(&self.parts.live.get().table).await
        {
            tracing::debug!(%error, "what only an earlier table needed is still bound");
        }
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
        self.parts.live.refuse(problems, &self.texts.digest);
    }
}

/// Reads the files, and compiles them when they say something else than `texts`.
fn seen(files: &Disk, watch: Option<&Mutex<Watch>>, texts: &Texts) -> Seen {
    /// Folders that appear while we look are looked into again, but not for ever.
    const LOOKS: usize = 3;
    let follow = |texts: &Texts| {
        watch.is_some_and(|watch| watch.lock().unwrap_or_else(PoisonError::into_inner).follow(files, texts))
    };
    // Watched first and read then: what changes meanwhile is told.
    follow(texts);
    if texts.still(files) {
        return None;
    }
    let mut seen = compile_noting(files);
    for _ in 0..LOOKS {
        if !follow(&seen.1) || seen.1.still(files) {
            break;
        }
        seen = compile_noting(files);
    }
    (seen.1.digest != texts.digest).then_some(seen)
}

/// Where the table has what the bus refuses: the very key, where the bus says which. Of what has no entry of its own (the
/// broker's own exchanges, the address of replies), the first route that needs it.
fn place(source: &Source, table: &Table, fault: &Fault) -> Place {
    const KEYS: [(&str, &str); 6] = [
        ("x-queue-type", "type"),
        ("type `", "type"),
        ("'type'", "type"),
        ("x-dead-letter", "dead_letter"),
        ("x-delivery-limit", "delivery_limit"),
        ("x-max-length", "max_length"),
    ];
    let Ok(root) = yaml::parse(source) else { return Place::default() };
    let key = KEYS.iter().find(|(said, _)| fault.why.contains(said)).map_or("", |(_, key)| key);
    let entry = |section: &str, name: &str| {
        let name = name.replace('~', "~0").replace('/', "~1");
        root.place_of(&format!("/{section}/{name}/{key}"))
    };
    let route = |needs: &dyn Fn(&Action) -> bool, pointer: &str| {
        let index = table.routes.iter().position(|route| needs(&route.action)).unwrap_or_default();
        root.place_of(&format!("/routes/{index}/{pointer}"))
    };
    match &fault.subject {
        Subject::Queue(name) => entry("queues", name),
        Subject::Exchange(name) if table.topology.exchanges.contains_key(name) => entry("exchanges", name),
        Subject::Exchange(name) => {
            let publishes = |action: &Action| matches!(action, Action::Publish(publish) if publish.exchange == *name);
            route(&publishes, "publish/exchange")
        }
        Subject::Replies => route(&|action| matches!(action, Action::Call(_)), "call"),
    }
}
