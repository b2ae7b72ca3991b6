//! The table in force and how its last reload went. Readers hold the table they started with; a reload swaps it whole.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    reload::change::Change,
    route::{problem::Problem, table::Table},
};

/// A table and its number.
#[derive(Debug)]
pub struct InForce {
    /// The table.
    pub table: Table,
    /// 1 for the first, one more with each that took effect.
    pub generation: u64,
}

/// How the last reload went, as `/readyz` tells it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Reloaded {
    /// Whether the files as they are took effect.
    pub ok: bool,
    /// When, RFC 3339.
    pub time: String,
    /// What the table in force changed when it took effect.
    pub change: Change,
    /// SHA-256 of the files as they were looked at: the same files have the same, on every machine.
    pub digest: String,
    /// Why not; warnings too.
    pub problems: Vec<Problem>,
}

/// What all rooms share of the table.
#[derive(Debug)]
pub struct Live {
    table: ArcSwap<InForce>,
    reloaded: ArcSwap<Reloaded>,
    failures: AtomicU64,
}

impl Live {
    /// The first table.
    pub fn new(table: Table, warnings: Vec<Problem>, digest: &str) -> Arc<Self> {
        let change = Change::default();
        let digest = digest.to_owned();
        Arc::new(Self {
            table: ArcSwap::from_pointee(InForce { table, generation: 1 }),
            reloaded: ArcSwap::from_pointee(Reloaded { ok: true, time: now(), change, digest, problems: warnings }),
            failures: AtomicU64::new(0),
        })
    }

    /// The table in force now.
    pub fn get(&self) -> Arc<InForce> {
        self.table.load_full()
    }

    /// How the last reload went.
    pub fn reloaded(&self) -> Arc<Reloaded> {
        self.reloaded.load_full()
    }

    /// Reloads that changed nothing, since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Puts a new table in force and gives its number.
    pub fn swap(&self, table: Table, warnings: Vec<Problem>, change: Change, digest: &str) -> u64 {
        let generation = self.table.load().generation + 1;
        self.table.store(Arc::new(InForce { table, generation }));
        self.tell(true, warnings, change, digest);
        generation
    }

    /// The files say again what is in force.
    pub fn agrees(&self, warnings: Vec<Problem>, digest: &str) {
        self.tell(true, warnings, self.reloaded().change.clone(), digest);
    }

    /// Keeps the table, and remembers why.
    pub fn refuse(&self, problems: Vec<Problem>, digest: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.tell(false, problems, self.reloaded().change.clone(), digest);
    }

    fn tell(&self, ok: bool, problems: Vec<Problem>, change: Change, digest: &str) {
        self.reloaded.store(Arc::new(Reloaded { ok, time: now(), change, digest: digest.to_owned(), problems }));
    }
}

fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}
