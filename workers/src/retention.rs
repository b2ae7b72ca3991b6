//! How long events are kept: by age, by count, or for ever. What goes is always the oldest end of history, so that what
//! stays has no gaps: one place in the order is the cut, and everything before it is removed in small batches.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Mutex;
use uuid::Uuid;

use crate::store::{Cursor, Store, StoreError};

/// Events that are removed at a time: writers wait no longer than for one such batch.
const BATCH: usize = 1_000;
/// Pause between looks when there was nothing to remove.
const REST: Duration = Duration::from_secs(1);
/// Finding the place of the count walks along an index: it may take this part of the time.
const REST_PER_LOOK: u32 = 50;
/// Pause after a look that did not work.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// What is kept; without either everything is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Events whose time is not longer ago.
    pub age: Option<Duration>,
    /// So many of the newest events.
    pub count: Option<u64>,
}

/// Removes what is not kept. Any number of processes may do so on the same store.
pub struct Retention {
    store: Arc<dyn Store>,
    keep: Keep,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What is before it is being removed.
    cut: Option<Cursor>,
    /// Whether the last look failed: told once.
    failing: bool,
    rest_until: Option<Instant>,
}

impl Retention {
    /// The retention of a store.
    pub fn new(store: Arc<dyn Store>, keep: Keep) -> Self {
        Self { store, keep, state: Mutex::default() }
    }

    /// Waits until events were removed, and says how many. Never returns where everything is kept.
    pub async fn removed(&self) -> u64 {
        if self.keep == Keep::default() {
            return std::future::pending().await;
        }
        let mut state = self.state.lock().await;
        loop {
            if let Some(until) = state.rest_until {
                tokio::time::sleep_until(until.into()).await;
            }
            let start = Instant::now();
            match self.step(&mut state).await {
                Ok(0) => {}
                Ok(removed) => {
                    if state.cut.is_some() {
                        // There is more: the store is left to others as long as it was taken from them.
                        state.rest_until = Some(Instant::now() + start.elapsed());
                    }
                    return removed;
                }
                Err(error) => {
                    if !std::mem::replace(&mut state.failing, true) {
                        tracing::warn!(%error, "events that need not be kept can't be removed: trying until it works");
                    }
                    state.rest_until = Some(Instant::now() + REST_AFTER_FAILURE);
                }
            }
        }
    }

    /// Removes one batch, or finds that there is none.
    async fn step(&self, state: &mut State) -> Result<u64, StoreError> {
        let cut = match state.cut {
            Some(cut) => cut,
            None => {
                let start = Instant::now();
                let cut = self.cut().await?;
                state.rest_until = Some(Instant::now() + REST.max(start.elapsed() * REST_PER_LOOK));
                let Some(cut) = cut else { return Ok(0) };
                cut
            }
        };
        // Forgotten should this fail: then it is looked for again.
        state.cut = None;
        let removed = self.store.remove_before(&cut, BATCH).await?;
        state.failing = false;
        if removed >= BATCH as u64 {
            state.cut = Some(cut);
        }
        Ok(removed)
    }

    /// The place that everything before it goes; `None` where there is nothing to cut.
    async fn cut(&self) -> Result<Option<Cursor>, StoreError> {
        let by_age = self.keep.age.map(|age| Cursor { time: micros_before_now(age), id: Uuid::nil() });
        // A place, not a number: two that find the same excess at the same time would remove it twice.
        let by_count = match self.keep.count {
            Some(count) => self.store.place(count.saturating_sub(1)).await?,
            None => None,
        };
        Ok(by_age.max(by_count))
    }
}

/// The time that is so long ago, in microseconds since 1970.
fn micros_before_now(age: Duration) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    micros(now).saturating_sub(micros(age))
}
