//! What a gateway is made of: the parts that requests are answered with.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::{bus::Bus, feed::Feed, live::Live, settings::Settings};

/// Everything that a request needs.
pub struct Gateway {
    /// The table.
    pub live: Arc<Live>,
    /// Where messages go.
    pub bus: Arc<dyn Bus>,
    /// The embedded feed; `None` with a networked bus.
    pub feed: Option<Arc<Feed>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Settings.
    pub settings: Settings,
    /// Names of this process's own workers that consume now, sorted.
    pub workers: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Ends everything.
    pub shutdown: CancellationToken,
    /// Requests that may be worked on at the same time.
    pub(super) places: Semaphore,
    /// Calls that may wait at the same time.
    pub(super) calls: Semaphore,
}

impl Gateway {
    /// A gateway on these parts.
    pub fn new(
        live: Arc<Live>,
        bus: Arc<dyn Bus>,
        feed: Option<Arc<Feed>>,
        metrics: Arc<Metrics>,
        settings: Settings,
        workers: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
        shutdown: CancellationToken,
    ) -> Self {
        let places = Semaphore::new(settings.limits.max_in_flight);
        let calls = Semaphore::new(settings.limits.max_calls);
        Self { live, bus, feed, metrics, settings, workers, shutdown, places, calls }
    }
}
