//! The workers of one process: which run, and how a table's take the place of another's without a gap.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fpesa_workers::{Options, Worker, store::Store};
use futures::future::join_all;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Arrivals, Consuming, DeadLetters, Runner, SAID_EVERY};
use crate::{
    bus::Bus,
    damper::Damper,
    http::metrics::Metrics,
    route::table::{Table, WorkerSpec},
};

/// The workers of one process.
pub struct Workers {
    bus: Arc<dyn Bus>,
    store: Arc<dyn Store>,
    options: Options,
    metrics: Arc<Metrics>,
    /// Only these, by name; empty for all of the table's.
    only: Vec<String>,
    running: Mutex<BTreeMap<String, Running>>,
    /// Those of earlier tables, until they have finished what they hold.
    retired: Mutex<Vec<JoinHandle<()>>>,
    consuming: watch::Sender<Consuming>,
    /// Stops all, whatever table they are of.
    stop: CancellationToken,
}

struct Running {
    worker: Arc<dyn Worker>,
    spec: WorkerSpec,
    dead_letters: Option<DeadLetters>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Workers that a new table has no use for. They go on until they are told to stop: requests on the table before may
/// need them still.
#[must_use]
pub struct Retiring {
    gone: Vec<(CancellationToken, Option<Successor>)>,
    new: Vec<CancellationToken>,
}

/// Who takes the place of one that goes.
struct Successor {
    at_work: CancellationToken,
    stop: CancellationToken,
}

impl Workers {
    /// Workers on a bus and a store; none runs yet.
    pub fn new(
        bus: Arc<dyn Bus>,
        store: Arc<dyn Store>,
        options: Options,
        metrics: Arc<Metrics>,
        only: Vec<String>,
    ) -> Arc<Self> {
        let consuming = watch::Sender::new(Consuming::new());
        let (running, retired) = (Mutex::default(), Mutex::default());
        Arc::new(Self {
            bus,
            store,
            options,
            metrics,
            only,
            running,
            retired,
            consuming,
            stop: CancellationToken::new(),
        })
    }

    /// The workers that consume now, as they change.
    pub fn consuming(&self) -> watch::Receiver<Consuming> {
        self.consuming.subscribe()
    }

    /// Whether each of them could do its work now.
    pub async fn are_able(&self) -> bool {
        let workers: Vec<Arc<dyn Worker>> = self.running().values().map(|running| running.worker.clone()).collect();
        join_all(workers.iter().map(|worker| worker.is_able())).await.into_iter().all(|able| able)
    }

    /// How many should consume.
    pub fn wanted(&self) -> usize {
        self.running().len()
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with the workers of a table: those that are new, and those that changed beside the ones that they replace.
    /// What the table has no use for runs until the answer is told to stop it.
    pub fn begin(&self, table: &Table) -> Retiring {
        let mut running = self.running();
        let dead_letters = |spec: &WorkerSpec| table.topology.queues.get(&spec.queue).and_then(DeadLetters::of);
        let same = |name: &String, worker: &Running| {
            table
                .workers
                .get(name)
                .is_some_and(|spec| *spec == worker.spec && dead_letters(spec) == worker.dead_letters)
        };
        let mut old: BTreeMap<String, Running> = running.extract_if(.., |name, worker| !same(name, worker)).collect();
        let mut retiring = Retiring { gone: Vec::new(), new: Vec::new() };
        for (name, spec) in &table.workers {
            if running.contains_key(name) || !(self.only.is_empty() || self.only.contains(name)) {
                continue;
            }
            let Some(worker) = fpesa_workers::find(&spec.kind, self.store.clone(), &self.options) else { continue };
            let (stop, at_work) = (self.stop.child_token(), CancellationToken::new());
            let runner = Runner {
                name: name.clone(),
                spec: spec.clone(),
                dead_letters: dead_letters(spec),
                worker: worker.clone(),
                bus: self.bus.clone(),
                metrics: self.metrics.clone(),
                consuming: self.consuming.clone(),
                at_work: at_work.clone(),
                stop: stop.clone(),
                arrivals: Arrivals::default(),
                said: Damper::new(SAID_EVERY),
            };
            let task = tokio::spawn(runner.run());
            if let Some(old) = old.remove(name) {
                let successor = Successor { at_work: at_work.clone(), stop: stop.clone() };
                retiring.gone.push((old.stop.clone(), Some(successor)));
                self.retire(old);
            }
            retiring.new.push(at_work);
            running.insert(
                name.clone(),
                Running { worker, spec: spec.clone(), dead_letters: dead_letters(spec), stop, task },
            );
        }
        for (_, old) in old {
            retiring.gone.push((old.stop.clone(), None));
            self.retire(old);
        }
        retiring
    }

    fn retire(&self, worker: Running) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|task| !task.is_finished());
        retired.push(worker.task);
    }

    /// Stops all: nothing new is taken, what is held is finished and settled. At most for `within`.
    pub async fn stop(&self, within: Duration) {
        self.stop.cancel();
        let running = std::mem::take(&mut *self.running());
        let retired = std::mem::take(&mut *self.retired.lock().unwrap_or_else(PoisonError::into_inner));
        let tasks = running.into_values().map(|worker| worker.task).chain(retired);
        if tokio::time::timeout(within, join_all(tasks)).await.is_err() {
            tracing::warn!("the time to finish is over: what workers still hold is given back");
        }
    }
}

impl Retiring {
    /// Whether there is nobody to stop.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty()
    }

    /// Until each of the new workers consumes.
    pub async fn at_work(&self) {
        for new in &self.new {
            new.cancelled().await;
        }
    }

    /// Stops them; one that has a successor, as soon as that one consumes.
    pub fn stop(self) {
        for (stop, successor) in self.gone {
            match successor {
                None => stop.cancel(),
                Some(successor) if successor.at_work.is_cancelled() => stop.cancel(),
                Some(successor) => drop(tokio::spawn(async move {
                    tokio::select! {
                        () = successor.at_work.cancelled() => {}
                        // It never consumed, and somebody else has taken its place.
                        () = successor.stop.cancelled() => {}
                        () = stop.cancelled() => {}
                    }
                    stop.cancel();
                })),
            }
        }
    }
}
