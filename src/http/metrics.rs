//! Metrics in Prometheus text. Every series is there from the start, at 0; no label takes a client's value.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text::encode},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};

use crate::{
    message::{CallError, Outcome},
    reload::change::Counts,
    route::table::{Action, Table},
};

/// `fpesa_http_requests_total`
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteStatus {
    route: String,
    status: u16,
}

/// `fpesa_http_request_seconds`
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

/// `fpesa_publish_total`, `fpesa_call_total`
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteOutcome {
    route: String,
    outcome: &'static str,
}

/// `fpesa_worker_events_total`
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerVerdict {
    worker: String,
    verdict: &'static str,
}

/// `fpesa_reload_routes_total`
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteChange {
    change: &'static str,
}

/// Routes and workers that left the table and keep their series, so that their last values are still read.
const MOST_LEFT: usize = 100;

/// Who left the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Left {
    Route(String),
    Worker(String),
}

/// `fpesa_worker_removed_total`
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerLabel {
    worker: String,
}

/// Outcomes of a publish, each at the place that [`publish_outcome`] gives.
pub(super) const PUBLISH_OUTCOMES: [&str; 5] = ["routed", "rejected", "unroutable", "not-sent", "unknown"];
/// Outcomes of a call, each at [`CallOutcome::index`].
const CALL_OUTCOMES: [&str; 8] =
    ["answered", "problem", "invalid-reply", "no-worker", "timeout", "not-sent", "unknown", "rejected"];
const VERDICTS: [&str; 6] = ["kept", "duplicate", "answered", "retried", "rejected", "expired"];

/// How a call ended, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// A reply with a status below 400.
    Answered,
    /// A reply with a status from 400 on.
    Problem,
    /// A reply that is not what it must be.
    InvalidReply,
    /// No reply.
    Failed(CallError),
}

impl CallOutcome {
    fn index(self) -> usize {
        match self {
            Self::Answered => 0,
            Self::Problem => 1,
            Self::InvalidReply | Self::Failed(CallError::ReplyTooLarge) => 2,
            Self::Failed(CallError::NoWorker) => 3,
            Self::Failed(CallError::Timeout) => 4,
            Self::Failed(CallError::NotSent(_)) => 5,
            Self::Failed(CallError::Unknown | CallError::Overloaded) => 6,
            Self::Failed(CallError::Rejected | CallError::Refused(_)) => 7,
        }
    }
}

/// Where an outcome stands in [`PUBLISH_OUTCOMES`].
pub(super) fn publish_outcome(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Routed => 0,
        Outcome::Rejected | Outcome::Refused(_) => 1,
        Outcome::Unroutable => 2,
        Outcome::NotSent(_) => 3,
        Outcome::Unknown => 4,
    }
}

/// What is read from elsewhere when the metrics are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Readings {
    /// Replies that came after their deadline.
    pub late_replies: u64,
    /// Whether the bus takes messages.
    pub bus_up: bool,
    /// Whether the store answers and takes what workers hold; `None` without one.
    pub store_up: Option<bool>,
    /// The table's generation.
    pub generation: u64,
    /// Reloads that changed nothing because of a problem.
    pub reload_failures: u64,
    /// Whether the files as they were last looked at are in force.
    pub reload_ok: bool,
    /// Bytes of large bodies, replies and pages that are held now.
    pub memory_held: u64,
    /// How many of them may be.
    pub memory_limit: u64,
    /// Sessions of the embedded feed.
    pub feed_sessions: u64,
    /// Messages that slow sessions of the embedded feed missed.
    pub feed_dropped: u64,
}

/// All metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RouteStatus, Counter>,
    seconds: Family<RouteLabel, Histogram, fn() -> Histogram>,
    publishes: Family<RouteOutcome, Counter>,
    calls: Family<RouteOutcome, Counter>,
    verdicts: Family<WorkerVerdict, Counter>,
    removed: Family<WorkerLabel, Counter>,
    in_flight: Gauge,
    changes: Family<RouteChange, Counter>,
    /// By route.
    routes: ArcSwap<HashMap<String, Arc<RouteSeries>>>,
    /// Newest last.
    left: Mutex<VecDeque<Left>>,
}

/// The series of one route, looked up once: what a request counts is an increment then.
#[derive(Debug)]
struct RouteSeries {
    seconds: Histogram,
    /// By status, of which there are few; `None` once the route has lost its series.
    requests: Mutex<Option<Vec<(u16, Counter)>>>,
    publishes: OnceLock<[Counter; PUBLISH_OUTCOMES.len()]>,
    calls: OnceLock<[Counter; CALL_OUTCOMES.len()]>,
}

/// What is counted under where a request finds no route.
const NO_ROUTE: &str = "none";

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seconds() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            publishes: Family::default(),
            calls: Family::default(),
            verdicts: Family::default(),
            removed: Family::default(),
            in_flight: Gauge::default(),
            changes: Family::default(),
            routes: ArcSwap::default(),
            left: Mutex::default(),
            registry: Mutex::default(),
        };
        registry.register("fpesa_http_requests", "Answered requests", metrics.requests.clone());
        registry.register("fpesa_http_request_seconds", "Time to answer", metrics.seconds.clone());
        registry.register("fpesa_publish", "Publishes by outcome", metrics.publishes.clone());
        registry.register("fpesa_call", "Calls by outcome", metrics.calls.clone());
        registry.register("fpesa_worker_events", "What workers said of their jobs", metrics.verdicts.clone());
        registry.register(
            "fpesa_worker_removed",
            "Events that were not to be kept any longer",
            metrics.removed.clone(),
        );
        registry.register("fpesa_in_flight", "Requests that are worked on", metrics.in_flight.clone());
        registry.register("fpesa_reload_routes", "Routes that reloads changed", metrics.changes.clone());
        for change in ["added", "removed", "changed"] {
            drop(metrics.changes.get_or_create(&RouteChange { change }));
        }
        *held(&metrics.registry) = registry;
        metrics
    }
}

impl Metrics {
    /// Makes every series of a table, at 0 where it is new.
    pub fn expect(&self, table: &Table) {
        let mut routes = HashMap::clone(&self.routes.load());
        let mut series = |route: &str| {
            let new = || {
                let seconds = self.seconds.get_or_create_owned(&RouteLabel { route: route.to_owned() });
                Arc::new(RouteSeries {
                    seconds,
                    requests: Mutex::new(Some(Vec::new())),
                    publishes: OnceLock::new(),
                    calls: OnceLock::new(),
                })
            };
            routes.entry(route.to_owned()).or_insert_with(new).clone()
        };
        for route in &table.routes {
            let series = series(&route.id);
            let counters = |family: &Family<RouteOutcome, Counter>, outcome| {
                family.get_or_create_owned(&RouteOutcome { route: route.id.clone(), outcome })
            };
            match &route.action {
                Action::Publish(publish) => {
                    drop(self.requests(&series, &route.id, publish.status));
                    series.publishes.get_or_init(|| PUBLISH_OUTCOMES.map(|outcome| counters(&self.publishes, outcome)));
                }
                Action::Call(_) => {
                    drop(self.requests(&series, &route.id, 200));
                    series.calls.get_or_init(|| CALL_OUTCOMES.map(|outcome| counters(&self.calls, outcome)));
                }
            }
        }
        drop(self.requests(&series(NO_ROUTE), NO_ROUTE, 404));
        self.routes.store(Arc::new(routes));
        for (worker, _) in table.workers.iter().filter(|(_, spec)| spec.kind == "persist") {
            drop(self.removed.get_or_create(&WorkerLabel { worker: worker.clone() }));
        }
        for worker in table.workers.keys() {
            for verdict in VERDICTS {
                drop(self.verdicts.get_or_create(&WorkerVerdict { worker: worker.clone(), verdict }));
            }
        }
    }

    /// A table took the place of another. Who left keeps the series, until too many have left after them.
    pub fn reloaded(&self, before: &Table, after: &Table, counts: Counts) {
        for (change, count) in [("added", counts.added), ("removed", counts.removed), ("changed", counts.changed)] {
            self.changes.get_or_create(&RouteChange { change }).inc_by(count);
        }
        let all = |table: &Table| -> HashSet<Left> {
            let routes = table.routes.iter().map(|route| Left::Route(route.id.clone()));
            routes.chain(table.workers.keys().map(|name| Left::Worker(name.clone()))).collect()
        };
        let (before, after) = (all(before), all(after));
        let mut left = held(&self.left);
        left.retain(|who| !after.contains(who));
        left.extend(before.difference(&after).cloned());
        let too_many = left.len().saturating_sub(MOST_LEFT);
        if too_many > 0 {
            self.forget(left.drain(..too_many));
        }
    }

    fn forget(&self, gone: impl Iterator<Item = Left>) {
        let mut routes = HashMap::clone(&self.routes.load());
        for who in gone {
            match who {
                Left::Route(route) if route == NO_ROUTE => {}
                Left::Route(route) => self.forget_route(routes.remove(&route), route),
                Left::Worker(worker) => self.forget_worker(worker),
            }
        }
        self.routes.store(Arc::new(routes));
    }

    fn forget_route(&self, series: Option<Arc<RouteSeries>>, route: String) {
        for (status, _) in series.and_then(|series| held(&series.requests).take()).into_iter().flatten() {
            self.requests.remove(&RouteStatus { route: route.clone(), status });
        }
        for outcome in PUBLISH_OUTCOMES {
            self.publishes.remove(&RouteOutcome { route: route.clone(), outcome });
        }
        for outcome in CALL_OUTCOMES {
            self.calls.remove(&RouteOutcome { route: route.clone(), outcome });
        }
        self.seconds.remove(&RouteLabel { route });
    }

    fn forget_worker(&self, worker: String) {
        for verdict in VERDICTS {
            self.verdicts.remove(&WorkerVerdict { worker: worker.clone(), verdict });
        }
        self.removed.remove(&WorkerLabel { worker });
    }

    /// A request was answered; `route` is a route's id, if it found one. One whose route has lost its series meanwhile
    /// counts as `none`: what is gone does not come back for one request.
    pub fn answered(&self, route: Option<&str>, status: u16, took: Duration) {
        let routes = self.routes.load();
        let known = route.and_then(|route| routes.get_key_value(route)).or_else(|| routes.get_key_value(NO_ROUTE));
        if let Some((route, series)) = known {
            series.seconds.observe(took.as_secs_f64());
            self.requests(series, route, status).inc();
        }
    }

    /// Requests of a route that were answered with a status.
    fn requests(&self, series: &RouteSeries, route: &str, status: u16) -> Counter {
        let mut requests = held(&series.requests);
        let Some(requests) = &mut *requests else { return Counter::default() };
        if let Some((_, counter)) = requests.iter().find(|(known, _)| *known == status) {
            return counter.clone();
        }
        let counter = self.requests.get_or_create_owned(&RouteStatus { route: route.to_owned(), status });
        requests.push((status, counter.clone()));
        counter
    }

    /// A publish ended.
    pub fn published(&self, route: &str, outcome: Outcome) {
        if let Some(counters) = self.routes.load().get(route).and_then(|series| series.publishes.get()) {
            counters[publish_outcome(outcome)].inc();
        }
    }

    /// A call ended.
    pub fn called(&self, route: &str, outcome: CallOutcome) {
        if let Some(counters) = self.routes.load().get(route).and_then(|series| series.calls.get()) {
            counters[outcome.index()].inc();
        }
    }

    /// A worker said what became of a job.
    pub fn judged(&self, worker: &str, verdict: &'static str) {
        if let Some(count) = self.verdicts.get(&WorkerVerdict { worker: worker.to_owned(), verdict }) {
            count.inc();
        }
    }

    /// A worker removed events that were not to be kept any longer.
    pub fn removed(&self, worker: &str, events: u64) {
        if let Some(count) = self.removed.get(&WorkerLabel { worker: worker.to_owned() }) {
            count.inc_by(events);
        }
    }

    /// Counts a request as under way as long as what it gives is kept.
    pub fn under_way(&self) -> UnderWay {
        self.in_flight.inc();
        UnderWay(self.in_flight.clone())
    }

    /// Everything as text.
    pub fn render(&self, readings: Readings) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ReadingsCollector(readings)));
        let mut text = String::new();
        let own = held(&self.registry);
        // Writing into a string does not fail.
        let _ = encode(&mut text, &own);
        text.truncate(text.rfind("# EOF").unwrap_or(text.len()));
        let _ = encode(&mut text, &registry);
        text
    }
}

/// One request that is worked on.
#[derive(Debug)]
pub struct UnderWay(Gauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Debug)]
struct ReadingsCollector(Readings);

impl Collector for ReadingsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let readings = &self.0;
        for (name, help, value) in [
            ("fpesa_late_replies", "Replies that came after their deadline", readings.late_replies),
            ("fpesa_reload_failures", "Reloads that changed nothing because of a problem", readings.reload_failures),
            ("fpesa_feed_dropped", "Messages that slow sessions of the feed missed", readings.feed_dropped),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        for (name, help, value) in [
            ("fpesa_bus_up", "Whether the bus takes messages", u64::from(readings.bus_up)),
            ("fpesa_reload_generation", "Generation of the table in force", readings.generation),
            ("fpesa_reload_ok", "Whether the files as they are took effect", u64::from(readings.reload_ok)),
            ("fpesa_memory_held_bytes", "Bytes of large bodies, replies and pages held now", readings.memory_held),
            ("fpesa_memory_limit_bytes", "How many of those may be held", readings.memory_limit),
            ("fpesa_feed_sessions", "Sessions of the embedded feed", readings.feed_sessions),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        if let Some(up) = readings.store_up {
            let gauge = ConstGauge::new(i64::from(up));
            let help = "Whether the store of this process's workers answers, and takes what they hold";
            gauge.encode(encoder.encode_descriptor("fpesa_store_up", help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
