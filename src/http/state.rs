//! What a gateway is made of: the parts that requests are answered with.

use tokio::sync::Semaphore;

use super::{documents::Documents, pulse::Pulse, validation::Validation, vitals::Vitals};
use crate::settings::Settings;

/// Everything that a request needs.
pub struct Gateway {
    /// Table, bus, feed and metrics.
    pub vitals: Vitals,
    /// Settings.
    pub settings: Settings,
    /// Documents of the table in force.
    pub(super) documents: Documents,
    /// The last quarter of an hour.
    pub pulse: Pulse,
    /// Requests that may be worked on at the same time.
    pub(super) places: Semaphore,
    /// Calls that may wait at the same time.
    pub(super) calls: Semaphore,
    /// Checks bodies and replies.
    pub(super) validation: Validation,
}

impl Gateway {
    /// A gateway on these parts.
    pub fn new(vitals: Vitals, settings: Settings) -> Self {
        let places = Semaphore::new(settings.limits.max_in_flight);
        let calls = Semaphore::new(settings.limits.max_calls);
        let validation = Validation::new(settings.limits.validation);
        Self { vitals, settings, documents: Documents::default(), pulse: Pulse::default(), places, calls, validation }
    }
}
