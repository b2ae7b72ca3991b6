//! Walking history oldest first, to where it ends now: what copying, exporting and replaying read by.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Cursor, From, PAGE_BYTES, PageQuery, Store, StoreError};
use crate::{event::Event, topic::Filter};

/// Most events of one page.
const PAGE: usize = 1_000;

/// Which part of history; everything by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Only events whose subject passes.
    pub topic: Option<Filter>,
    /// Only events of this time and later, in microseconds since 1970.
    pub since: Option<i64>,
    /// Only events before this time, in microseconds since 1970.
    pub until: Option<i64>,
}

impl Part {
    fn query(&self, from: From, limit: usize) -> PageQuery {
        PageQuery {
            limit,
            max_bytes: PAGE_BYTES,
            from,
            topic: self.topic.clone(),
            since: self.since,
            until: self.until,
            count: false,
        }
    }
}

/// A walk that is under way. It shows everything that was there when it was started exactly once, and ends at what was
/// the newest then, however much arrives meanwhile.
pub struct Walk {
    store: Arc<dyn Store>,
    part: Part,
    /// Where the next page begins; `None` when there is no more.
    at: Option<Cursor>,
    end: Cursor,
}

impl Walk {
    /// Starts one. A store that is away is told at once here, and waited for later.
    pub async fn start(store: Arc<dyn Store>, part: Part) -> Result<Self, StoreError> {
        let newest = store.place(0).await?;
        Ok(Self { store, part, at: newest.map(|_| Cursor::FIRST), end: newest.unwrap_or(Cursor::FIRST) })
    }

    /// How many events there are to walk, about: more may have arrived.
    pub async fn count(&self) -> Result<u64, StoreError> {
        let query = PageQuery { count: true, ..self.part.query(From::Newest, 1) };
        Ok(self.store.page(&query).await?.total.unwrap_or(0))
    }

    /// The following events, at least one; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<Event>>, StoreError> {
        while let Some(at) = self.at {
            let query = self.part.query(From::Following(at), PAGE);
            let page = patiently(|| self.store.page(&query)).await?;
            self.at = page.next.filter(|next| *next < self.end);
            let mut events = events(page.items)?;
            events.retain(|event| event.place() <= self.end);
            if !events.is_empty() {
                return Ok(Some(events));
            }
        }
        Ok(None)
    }
}

/// Documents of a store as events.
pub(crate) fn events(items: Vec<bytes::Bytes>) -> Result<Vec<Event>, StoreError> {
    let broken = |error| StoreError::Settings(format!("the store holds a document that is no event: {error}"));
    items.into_iter().map(Event::parse).collect::<Result<_, _>>().map_err(broken)
}

/// Tries what a store is asked until it answers, for half a minute at most.
pub async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(ask: impl Fn() -> F) -> Result<T, StoreError> {
    const PATIENCE: Duration = Duration::from_secs(30);
    const LONGEST: Duration = Duration::from_secs(2);
    let start = Instant::now();
    let mut pause = Duration::from_millis(50);
    loop {
        match ask().await {
            Err(error @ StoreError::Away(_)) if start.elapsed() < PATIENCE => {
                tracing::warn!(%error, "trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
            }
            result => return result,
        }
    }
}
