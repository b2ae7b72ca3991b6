//! Keeps every event it is handed, in batches, each id once. While the store is away it waits: a message is never
//! given back for that. Beside that it removes what is not to be kept any more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    Job, Verdict, Worker,
    event::Event,
    retention::{Keep, Retention},
    store::{Appended, Store},
};

/// The worker `persist`.
pub struct Persist {
    store: Arc<dyn Store>,
    /// Batches that the store did not take yet.
    waiting: AtomicUsize,
    retention: Retention,
}

/// Counts a batch as waiting as long as it is kept.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn one_more(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Persist {
    /// A worker that keeps events in `store`, and removes what `keep` does not keep.
    pub fn new(store: Arc<dyn Store>, keep: Keep) -> Self {
        Self { retention: Retention::new(store.clone(), keep), store, waiting: AtomicUsize::new(0) }
    }

    /// Appends until the store takes it, logging an outage once.
    async fn append(&self, events: &[Event]) -> Vec<Appended> {
        const FIRST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(2);
        let mut pause = FIRST;
        let mut waiting = None;
        loop {
            match self.store.append(events).await {
                Ok(appended) => {
                    if waiting.is_some() {
                        tracing::info!("the store takes events again");
                    }
                    return appended;
                }
                // Away, or refusing us: neither is a reason to give a message back.
                Err(error) => {
                    if waiting.is_none() {
                        tracing::error!(waiting = events.len(), %error, "the store takes nothing: waiting for it");
                        waiting = Some(Waiting::one_more(&self.waiting));
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
    }
}

#[async_trait]
impl Worker for Persist {
    fn most(&self) -> usize {
        usize::MAX
    }

    async fn is_able(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0 && self.store.check().await.is_ok()
    }

    async fn work(&self, jobs: &[Job]) -> Vec<Verdict> {
        let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(jobs.len());
        let mut events = Vec::with_capacity(jobs.len());
        for job in jobs {
            match Event::from_job(job) {
                Ok(event) => {
                    events.push(event);
                    verdicts.push(None);
                }
                Err(why) => verdicts.push(Some(Verdict::Reject { reason: "not-an-event".into(), detail: why.0 })),
            }
        }
        let appended = if events.is_empty() { Vec::new() } else { self.append(&events).await };
        let mut appended = appended.into_iter();
        let verdict = |appended| match appended {
            Some(Appended::Kept) => Verdict::Kept,
            Some(Appended::Duplicate) => Verdict::Duplicate,
            Some(Appended::Conflict) => Verdict::Reject {
                reason: "id-conflict".into(),
                detail: "another event with this id, of another type, subject or data, is in the store".into(),
            },
            Some(Appended::Refused(detail)) => Verdict::Reject { reason: "not-storable".into(), detail },
            None => Verdict::Retry("the store did not say what became of it".into()),
        };
        verdicts.into_iter().map(|given| given.unwrap_or_else(|| verdict(appended.next()))).collect()
    }

    async fn tend(&self) -> u64 {
        self.retention.removed().await
    }
}
