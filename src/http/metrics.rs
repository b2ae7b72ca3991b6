//! Metrics in Prometheus text. Every series is there from the start, at 0; no label takes a client's value.

use std::{
    collections::{HashSet, VecDeque},
    ops::Deref,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

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

const PUBLISH_OUTCOMES: [&str; 5] = ["routed", "rejected", "unroutable", "not-sent", "unknown"];
const CALL_OUTCOMES: [&str; 7] =
    ["answered", "problem", "invalid-reply", "no-worker", "timeout", "not-sent", "unknown"];
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
    fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Problem => "problem",
            Self::InvalidReply => "invalid-reply",
            Self::Failed(CallError::NoWorker) => "no-worker",
            Self::Failed(CallError::Timeout) => "timeout",
            Self::Failed(CallError::NotSent(_) | CallError::Rejected) => "not-sent",
            Self::Failed(CallError::Unknown) => "unknown",
        }
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
    /// Which statuses were ever counted.
    statuses: Box<[AtomicBool]>,
    /// Newest last.
    left: Mutex<VecDeque<Left>>,
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
            statuses: (0..600).map(|_| AtomicBool::default()).collect(),
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
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        metrics
    }
}

impl Metrics {
    /// Makes every series of a table, at 0 where it is new.
    pub fn expect(&self, table: &Table) {
        for route in &table.routes {
            let label = || route.id.clone();
            drop(self.seconds.get_or_create(&RouteLabel { route: label() }));
            match &route.action {
                Action::Publish(publish) => {
                    drop(self.count(&RouteStatus { route: label(), status: publish.status }));
                    for outcome in PUBLISH_OUTCOMES {
                        drop(self.publishes.get_or_create(&RouteOutcome { route: label(), outcome }));
                    }
                }
                Action::Call(_) => {
                    drop(self.count(&RouteStatus { route: label(), status: 200 }));
                    for outcome in CALL_OUTCOMES {
                        drop(self.calls.get_or_create(&RouteOutcome { route: label(), outcome }));
                    }
                }
            }
        }
        drop(self.count(&RouteStatus { route: "none".into(), status: 404 }));
        drop(self.seconds.get_or_create(&RouteLabel { route: "none".into() }));
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
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|who| !after.contains(who));
        left.extend(before.difference(&after).cloned());
        while left.len() > MOST_LEFT {
            if let Some(who) = left.pop_front() {
                self.forget(who);
            }
        }
    }

    fn forget(&self, who: Left) {
        match who {
            Left::Route(route) => {
                for (status, seen) in (0..).zip(&self.statuses) {
                    if seen.load(Ordering::Relaxed) {
                        self.requests.remove(&RouteStatus { route: route.clone(), status });
                    }
                }
                for outcome in PUBLISH_OUTCOMES {
                    self.publishes.remove(&RouteOutcome { route: route.clone(), outcome });
                }
                for outcome in CALL_OUTCOMES {
                    self.calls.remove(&RouteOutcome { route: route.clone(), outcome });
                }
                self.seconds.remove(&RouteLabel { route });
            }
            Left::Worker(worker) => {
                for verdict in VERDICTS {
                    self.verdicts.remove(&WorkerVerdict { worker: worker.clone(), verdict });
                }
                self.removed.remove(&WorkerLabel { worker });
            }
        }
    }

    /// A request was answered; `route` is a route's id, or `none`. One whose route has lost its series meanwhile counts
    /// as `none`: what is gone does not come back for one request.
    pub fn answered(&self, route: &str, status: u16, took: Duration) {
        let mut route = route.to_owned();
        if let Some(seconds) = self.seconds.get(&RouteLabel { route: route.clone() }) {
            seconds.observe(took.as_secs_f64());
        } else {
            "none".clone_into(&mut route);
            self.seconds.get_or_create(&RouteLabel { route: route.clone() }).observe(took.as_secs_f64());
        }
        self.count(&RouteStatus { route, status }).inc();
    }

    fn count(&self, label: &RouteStatus) -> impl Deref<Target = Counter> {
        if let Some(seen) = self.statuses.get(usize::from(label.status)) {
            seen.store(true, Ordering::Relaxed);
        }
        self.requests.get_or_create(label)
    }

    /// A publish ended.
    pub fn published(&self, route: &str, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Routed => "routed",
            Outcome::Rejected => "rejected",
            Outcome::Unroutable => "unroutable",
            Outcome::NotSent(_) => "not-sent",
            Outcome::Unknown => "unknown",
        };
        if let Some(count) = self.publishes.get(&RouteOutcome { route: route.to_owned(), outcome }) {
            count.inc();
        }
    }

    /// A call ended.
    pub fn called(&self, route: &str, outcome: CallOutcome) {
        if let Some(count) = self.calls.get(&RouteOutcome { route: route.to_owned(), outcome: outcome.word() }) {
            count.inc();
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
        let own = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
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
