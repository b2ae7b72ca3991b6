//! Whether a store is away, known without asking it: whoever calls meanwhile is told at once instead of waiting too.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use uuid::Uuid;

use crate::store::{Store, StoreError};

/// How long a store may take for the simplest question before it counts as away.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Pause between questions while it is away.
const PAUSE: Duration = Duration::from_millis(200);

/// Closed while a store is away: then it is asked in the background until it answers.
pub(crate) struct Gate {
    store: Arc<dyn Store>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    closed: bool,
    asking: bool,
}

impl Gate {
    /// An open gate before a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, state: Arc::default() }
    }

    /// Whether the store is asked.
    pub fn is_open(&self) -> bool {
        !lock(&self.state).closed
    }

    /// Something failed that says nothing about the question: closed until the store answers.
    pub fn failed(&self, error: &StoreError) {
        self.ask(true, error);
    }

    /// An answer took too long: closed if the simplest one does so too.
    pub fn was_slow(&self, error: &StoreError) {
        self.ask(false, error);
    }

    fn ask(&self, close: bool, error: &StoreError) {
        let mut state = lock(&self.state);
        if close && !state.closed {
            tracing::error!(%error, "the store does not answer: calls are told so at once until it does");
            state.closed = true;
        }
        if std::mem::replace(&mut state.asking, true) {
            return;
        }
        // Neither holds the other: a store that nobody needs any more is not asked.
        let (store, state) = (Arc::downgrade(&self.store), self.state.clone());
        tokio::spawn(async move {
            loop {
                let Some(store) = store.upgrade() else { return };
                let answer = tokio::time::timeout(ANSWER_WITHIN, store.get(&Uuid::nil())).await;
                drop(store);
                {
                    let mut state = lock(&state);
                    if matches!(answer, Ok(Ok(_))) {
                        if state.closed {
                            tracing::info!("the store answers again");
                        }
                        *state = State::default();
                        return;
                    }
                    if !state.closed {
                        tracing::error!("the store does not answer in time: calls are told so at once until it does");
                        state.closed = true;
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::{
        event::Event,
        store::{Appended, Cursor, Page, PageQuery},
    };

    const FINE: u8 = 0;
    const AWAY: u8 = 1;
    const SILENT: u8 = 2;

    struct Moody(AtomicU8);

    #[async_trait]
    impl Store for Moody {
        async fn append(&self, _: &[Event]) -> Result<Vec<Appended>, StoreError> {
            Ok(Vec::new())
        }

        async fn page(&self, _: &PageQuery) -> Result<Page, StoreError> {
            Ok(Page::default())
        }

        async fn get(&self, _: &Uuid) -> Result<Option<Bytes>, StoreError> {
            match self.0.load(Ordering::SeqCst) {
                AWAY => Err(StoreError::Away("away".into())),
                SILENT => std::future::pending().await,
                _ => Ok(None),
            }
        }

        async fn place(&self, _: u64) -> Result<Option<Cursor>, StoreError> {
            Ok(None)
        }

        async fn remove_before(&self, _: &Cursor, _: usize) -> Result<u64, StoreError> {
            Ok(0)
        }
    }

    async fn until(gate: &Gate, open: bool) {
        while gate.is_open() != open {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn closed_while_it_is_away_and_open_again_by_itself() {
        let store = Arc::new(Moody(AtomicU8::new(AWAY)));
        let gate = Gate::new(store.clone());
        let error = StoreError::Away("x".into());
        assert!(gate.is_open());
        gate.failed(&error);
        assert!(!gate.is_open());
        tokio::time::sleep(PAUSE * 3).await;
        assert!(!gate.is_open());
        store.0.store(FINE, Ordering::SeqCst);
        until(&gate, true).await;
        // A slow answer alone closes nothing; a store that is silent altogether does.
        gate.was_slow(&error);
        while lock(&gate.state).asking {
            assert!(gate.is_open());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(gate.is_open());
        store.0.store(SILENT, Ordering::SeqCst);
        gate.was_slow(&error);
        assert!(gate.is_open());
        until(&gate, false).await;
        store.0.store(FINE, Ordering::SeqCst);
        until(&gate, true).await;
    }
}
