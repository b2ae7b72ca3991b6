//! The store port: what is kept of events and how it is read back. The URL's scheme picks the adapter; every adapter
//! passes one contract suite and has no method that it must refuse.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::{event::Event, topic::Filter};

mod cursor;
mod embedded;
mod mirror;
mod postgres;

pub use cursor::{BadCursor, Cursor};
pub use embedded::Embedded;
pub use postgres::Postgres;

/// Up to this many topics are walked side by side; a filter that matches more is applied to a walk of everything.
const MERGED_TOPICS: usize = 200;

/// Keeps events, each id once.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Keeps a batch and says of each event, in order, what became of it. `Ok` means that what was kept is durable.
    /// The same id twice, in one batch too, is kept once.
    async fn append(&self, batch: &[Event]) -> Result<Vec<Appended>, StoreError>;

    /// One page. Walking pages by their cursors shows every event that was there at the start exactly once, however
    /// many arrive meanwhile.
    async fn page(&self, query: &PageQuery) -> Result<Page, StoreError>;

    /// One event's document.
    async fn get(&self, id: &Uuid) -> Result<Option<Bytes>, StoreError>;
}

/// What became of one event of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is in the store now.
    Kept,
    /// It was there already.
    Duplicate,
    /// Its id is another event's: same id, but another type, subject or data.
    Conflict,
}

/// What a page is asked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    /// Most events.
    pub limit: usize,
    /// Which end of the order, and from where.
    pub from: From,
    /// Only events whose subject passes; events without one pass only without a filter.
    pub topic: Option<Filter>,
    /// Only events of this time and later, in microseconds since 1970.
    pub since: Option<i64>,
    /// Only events before this time, in microseconds since 1970.
    pub until: Option<i64>,
    /// Whether all that pass are counted, whatever the page.
    pub count: bool,
}

/// Where a page begins. The order is that of `(time, id)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// The newest, going back.
    Newest,
    /// What is older than a place, newest first.
    Before(Cursor),
    /// What is later than an event, oldest first.
    After(Uuid),
}

/// One page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The documents, byte for byte as they were kept.
    pub items: Vec<Bytes>,
    /// Where the following, older page begins; `None` at the end, and on pages that go forward.
    pub next: Option<Cursor>,
    /// How many events pass the filter, when it was asked.
    pub total: Option<u64>,
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It is away, full or slow: the same may work later.
    #[error("the store is away: {0}")]
    Away(String),
    /// The settings cannot work: unknown scheme, folder that can't be used, newer schema.
    #[error("{0}")]
    Settings(String),
    /// The `after` of a page names no event.
    #[error("there is no event with this id")]
    UnknownAfter,
}

/// Where a store is, and how it is opened.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// `embedded:` is `data_dir`, `embedded:/some/folder` another folder, `postgres://user@host/database` a database.
    pub url: &'a str,
    /// The password, when it does not stand in the URL.
    pub password: Option<&'a str>,
    /// Folder of the embedded store.
    pub data_dir: &'a Path,
}

/// Opens a store. One that is away is opened all the same: it is tried again at every use.
pub async fn open(access: Access<'_>) -> Result<Arc<dyn Store>, StoreError> {
    match access.url.split_once(':') {
        Some(("embedded", "")) => Ok(Arc::new(Embedded::open(access.data_dir)?)),
        Some(("embedded", folder)) => Ok(Arc::new(Embedded::open(Path::new(folder))?)),
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(Postgres::open(&access).await?)),
        Some((scheme, _)) => Err(StoreError::Settings(format!(
            "there is no store for `{scheme}:` (use embedded:, embedded:/some/folder or postgres://user@host/database)"
        ))),
        None => Err(StoreError::Settings("a store is named by a URL, such as embedded:".into())),
    }
}
