//! The control link: has what is in force declared at each connection, and looks whether what routes publish to is there.
//! What was published to since the last look is looked at each [`LOOK_EVERY`], the rest in turn, so that a thousand idle
//! queues cost next to nothing; a publish to what was not looked at lately waits for a look of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    Shared, declare, held,
    link::{Ended, supervise},
    rpc::{Failure, Rpc},
    watch::{FRESH, Watch, Watched},
};
use crate::{
    bus::{BusError, Fault, Subject},
    topology::{Declare, QueueKind},
};

/// How often what is watched is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(800);
/// How long one round of looks may take before the link counts as broken.
pub(super) const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// Queues and exchanges that nothing was published to, in each round. So many more make the round longer.
const IDLE_LOOKS: usize = 100;
/// Those that are not there, in each round: each costs the broker a channel.
const MISSING_LOOKS: usize = 50;
/// Pauses before what the broker refused is declared again.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

pub(super) fn start(shared: Arc<Shared>, stop: CancellationToken) {
    tokio::spawn(async move {
        let link = || async {
            tokio::select! {
                ended = run(&shared) => ended,
                () = stop.cancelled() => Ended::never_up("the bus is closed".into()),
            }
        };
        supervise("control", &stop, link).await;
        shared.control_is_up.store(false, Ordering::Release);
        shared.looked.notify_waiters();
    });
}

async fn run(shared: &Arc<Shared>) -> Ended {
    let rpc = match Rpc::connect(&shared.options, "control").await {
        Ok(rpc) => rpc,
        Err(why) => return Ended::never_up(why),
    };
    for watched in shared.watch.load().all() {
        watched.forget();
    }
    shared.control_is_up.store(true, Ordering::Release);
    let mut control = Control {
        shared,
        rpc,
        declaring: None,
        unfinished: None,
        retry: Retry::new(),
        looked: false,
        next_idle: 0,
        gone: BTreeMap::new(),
    };
    let why = control.serve().await;
    if let Some((declaring, _)) = control.declaring {
        declaring.abort();
    }
    shared.settled.send_replace(false);
    shared.control_is_up.store(false, Ordering::Release);
    shared.looked.notify_waiters();
    Ended::after_up(why)
}

/// When what was refused is declared again.
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Retry {
    fn new() -> Self {
        Self { at: Instant::now() + FIRST_RETRY, pause: FIRST_RETRY }
    }

    fn again(&mut self) {
        self.pause = (self.pause * 2).min(LONGEST_RETRY);
        self.at = Instant::now() + self.pause;
    }
}

type Declaring = JoinHandle<Result<Vec<Fault>, BusError>>;

/// What a declaration is of: all that is in force, or a part.
type Part = Option<BTreeSet<Subject>>;

struct Control<'s> {
    shared: &'s Arc<Shared>,
    rpc: Rpc,
    declaring: Option<(Declaring, Part)>,
    /// What could not be declared to its end.
    unfinished: Option<Part>,
    retry: Retry,
    /// Whether everything was looked at once.
    looked: bool,
    /// Where the next round of idle looks begins.
    next_idle: usize,
    /// What the last rounds found missing, and in how many of them.
    gone: BTreeMap<Subject, u32>,
}

impl Control<'_> {
    /// Serves until the link ends, and says why.
    async fn serve(&mut self) -> String {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.declare(None);
        loop {
            let all = tokio::select! {
                why = self.rpc.end() => return why,
                // Put in force by a reload: that one is declared already. The first is not.
                () = self.shared.changed.notified() => {
                    if !*self.shared.settled.borrow() {
                        self.declare(None);
                    }
                    continue;
                }
                declared = joined(self.declaring.as_mut().map(|(task, _)| task)) => {
                    self.declared(declared);
                    true
                }
                () = self.shared.wake.notified() => false,
                _ = tick.tick() => true,
            };
            if let Err(why) = self.rpc.keep_alive() {
                return why;
            }
            let looking = tokio::time::timeout(LOOK_WITHIN, self.look(all)).await;
            if let Err(why) = looking.unwrap_or_else(|_| Err("the broker does not answer".into())) {
                return why;
            }
            if all && self.declaring.is_none() {
                if self.unfinished.is_none() {
                    // Only now it is known that what routes publish to is there.
                    self.shared.settled.send_if_modified(|settled| !std::mem::replace(settled, true));
                }
                self.mend();
            }
        }
    }

    /// Has what is in force declared, or a part of it, while looks go on.
    fn declare(&mut self, part: Part) {
        if let Some((task, _)) = self.declaring.take() {
            task.abort();
        }
        let (shared, only) = (self.shared.clone(), part.clone());
        let task = tokio::spawn(async move {
            let _one_at_a_time = shared.declaring.lock().await;
            let watch = shared.watch.load_full();
            declare::in_force(&shared.options, &watch.topology, only.as_ref()).await
        });
        self.declaring = Some((task, part));
    }

    fn declared(&mut self, declared: Result<Vec<Fault>, BusError>) {
        let part = self.declaring.take().and_then(|(_, part)| part);
        match declared {
            Ok(faults) | Err(BusError::Topology(faults)) => {
                if part.is_some() && !faults.is_empty() {
                    self.retry.again();
                } else {
                    self.retry = Retry::new();
                }
                self.shared.note_faults(faults, part.as_ref());
            }
            Err(error) => {
                tracing::warn!(%error, "what the table needs could not be declared: trying again");
                self.retry.again();
                self.unfinished = Some(part);
            }
        }
    }

    /// Declares again what the broker refused, in time, and what is gone.
    fn mend(&mut self) {
        let watch = self.shared.watch.load();
        let before = std::mem::take(&mut self.gone);
        for watched in watch.all().filter(|watched| !watched.is_there()) {
            let rounds = before.get(&watched.subject).map_or(1, |rounds| rounds + 1);
            self.gone.insert(watched.subject.clone(), rounds);
        }
        let in_time = self.retry.at <= Instant::now();
        if in_time && let Some(part) = self.unfinished.take() {
            return self.declare(part);
        }
        let faults = held(&self.shared.faults);
        let mut part: BTreeSet<Subject> = BTreeSet::new();
        for subject in faults.keys() {
            // What others declare is there now; or it is time.
            if in_time || (before.contains_key(subject) && !self.gone.contains_key(subject)) {
                part.insert(subject.clone());
            }
        }
        let ours = |subject: &Subject| match subject {
            Subject::Queue(name) => watch
                .topology
                .queues
                .get(name)
                .is_some_and(|queue| queue.declare == Declare::Active && queue.kind != QueueKind::Rpc),
            Subject::Exchange(name) => {
                watch.topology.exchanges.get(name).is_some_and(|exchange| exchange.declare == Declare::Active)
            }
            Subject::Replies => false,
        };
        for (subject, rounds) in self.gone.iter().filter(|(subject, _)| ours(subject)) {
            // At the second look in a row: declared while the broker still deletes it, a quorum queue came back without
            // what belongs to it (seen with RabbitMQ 3.10.8). One that can't be declared is not tried at every look.
            if *rounds == 2 || (*rounds > 2 && !faults.contains_key(subject)) {
                part.insert(subject.clone());
            }
        }
        drop(faults);
        if !part.is_empty() {
            self.declare(Some(part));
        }
    }

    /// Looks at what was published to, and at some of the rest; or at what a publish waits for alone.
    async fn look(&mut self, all: bool) -> Result<(), String> {
        let watch = self.shared.watch.load_full();
        let began = self.shared.clock.now();
        let mut there: Vec<&Arc<Watched>> = Vec::new();
        let mut missing: Vec<&Arc<Watched>> = Vec::new();
        for watched in self.due(&watch, all, began) {
            if watched.is_there() { there.push(watched) } else { missing.push(watched) }
        }
        // Together: one that is gone is rare, and then it is found by halves. Those that are known to be, one by one.
        let mut rounds: Vec<&[&Arc<Watched>]> = vec![&there];
        rounds.extend(missing.chunks(1));
        for round in rounds.into_iter().filter(|round| !round.is_empty()) {
            let subjects: Vec<&Subject> = round.iter().map(|watched| &watched.subject).collect();
            let gone: BTreeSet<usize> = match self.rpc.missing(&subjects).await {
                Ok(gone) => gone.into_iter().collect(),
                Err(Failure::Refused(refusal)) => return Err(refusal.text),
                Err(Failure::Broken(why)) => return Err(why),
            };
            for (index, watched) in round.iter().enumerate() {
                let is_there = !gone.contains(&index);
                if watched.is_there() && !is_there {
                    tracing::warn!(subject = %super::watch::missing(&watched.subject), "what routes publish to is gone");
                }
                watched.seen(is_there, began);
            }
        }
        self.shared.note_trouble();
        self.shared.looked.notify_waiters();
        Ok(())
    }

    fn due<'w>(&mut self, watch: &'w Watch, all: bool, now: u64) -> Vec<&'w Arc<Watched>> {
        if !std::mem::replace(&mut self.looked, true) {
            return watch.all().collect();
        }
        if !all {
            return watch.all().filter(|watched| watched.is_wanted() && watched.is_stale(now, FRESH)).collect();
        }
        let (mut due, mut idle, mut gone) = (Vec::new(), Vec::new(), 0);
        for watched in watch.all() {
            if !watched.is_there() {
                gone += 1;
                if gone > MISSING_LOOKS && !watched.is_wanted() {
                    idle.push(watched);
                    continue;
                }
                due.push(watched);
            } else if watched.is_wanted() {
                due.push(watched);
            } else {
                idle.push(watched);
            }
        }
        if !idle.is_empty() {
            let from = self.next_idle % idle.len();
            due.extend(idle.iter().cycle().skip(from).take(IDLE_LOOKS.min(idle.len())));
            self.next_idle = from + IDLE_LOOKS;
        }
        due
    }
}

async fn joined(task: Option<&mut Declaring>) -> Result<Vec<Fault>, BusError> {
    match task {
        Some(task) => task.await.unwrap_or_else(|error| Err(BusError::Down(error.to_string()))),
        None => std::future::pending().await,
    }
}
