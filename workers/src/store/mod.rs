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
mod mongodb;
mod postgres;
mod walk;

pub use cursor::{BadCursor, Cursor};
pub use embedded::Embedded;
pub use mongodb::Mongodb;
pub use postgres::Postgres;
pub(crate) use walk::events;
pub use walk::{Part, Walk, patiently};

/// Up to this many topics are walked side by side; a filter that matches more is applied to a walk of everything.
const MERGED_TOPICS: usize = 200;

/// Most bytes of a page of whoever walks everything.
pub const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Keeps events, each id once.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Keeps a batch and says of each event, in order, what became of it. `Ok` means that what was kept is durable.
    /// The same id twice, in one batch too, is kept once. What can never be kept does not keep the others out.
    async fn append(&self, batch: &[Event]) -> Result<Vec<Appended>, StoreError>;

    /// One page. Walking pages by their cursors shows every event that was there at the start exactly once, however
    /// many arrive meanwhile.
    async fn page(&self, query: &PageQuery) -> Result<Page, StoreError>;

    /// One event's document.
    async fn get(&self, id: &Uuid) -> Result<Option<Bytes>, StoreError>;

    /// Whether it would keep events now, as far as that can be known without keeping one.
    async fn check(&self) -> Result<(), StoreError> {
        self.get(&Uuid::nil()).await.map(drop)
    }

    /// The place of the event that exactly `newer` others follow in the order of `(time, id)`: 0 is the newest. `None`
    /// where the store has no more than `newer`. May walk along an index as far as that.
    async fn place(&self, newer: u64) -> Result<Option<Cursor>, StoreError>;

    /// Removes the oldest of the events before a place, at most `most` and what comes among them meanwhile, and says how
    /// many: none when there are no more.
    /// Several may remove at the same time, and none of them removes what is at the place or after it. Whoever writes or
    /// reads waits no longer than for one such batch.
    async fn remove_before(&self, place: &Cursor, most: usize) -> Result<u64, StoreError>;
}

/// What became of one event of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is in the store now.
    Kept,
    /// It was there already.
    Duplicate,
    /// Its id is another event's: same id, but another type, subject or data.
    Conflict,
    /// The store can never keep it, whatever is done: too large, or refused for its content. The sentence says why.
    Refused(String),
}

/// What a page is asked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    /// Most events.
    pub limit: usize,
    /// Most bytes of their documents together; the first one is shown whatever its size. A store does not read much more
    /// than that.
    pub max_bytes: usize,
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
    /// What is later than a place, oldest first; [`Cursor::FIRST`] is before everything.
    Following(Cursor),
}

/// One page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The documents, byte for byte as they were kept.
    pub items: Vec<Bytes>,
    /// The place of the last item while there is more: the older page begins before it, or the later one after it. `None` at
    /// the end.
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
    /// `embedded:` is `data_dir`, `embedded:/some/folder` another folder, `postgres://user@host/database` and
    /// `mongodb://user@host/database` a database.
    pub url: &'a str,
    /// The password, when it does not stand in the URL.
    pub password: Option<&'a str>,
    /// Folder of the embedded store.
    pub data_dir: &'a Path,
}

impl<'a> Access<'a> {
    /// The folder of an embedded store; `None` for one on a server.
    pub fn folder(&self) -> Option<&'a Path> {
        match self.url.split_once(':') {
            Some(("embedded", "")) => Some(self.data_dir),
            Some(("embedded", folder)) => Some(Path::new(folder)),
            _ => None,
        }
    }

    /// Whether there is a store to read from: opening an embedded one makes it.
    pub fn exists(&self) -> bool {
        self.folder().is_none_or(|folder| folder.join(embedded::FILE).exists())
    }
}

/// Opens a store. One that is away is opened all the same: it is tried again at every use.
pub async fn open(access: Access<'_>) -> Result<Arc<dyn Store>, StoreError> {
    match access.url.split_once(':') {
        Some(("embedded", "")) => Ok(Arc::new(Embedded::open(access.data_dir)?)),
        Some(("embedded", folder)) => Ok(Arc::new(Embedded::open(Path::new(folder))?)),
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(Postgres::open(&access).await?)),
        Some(("mongodb" | "mongodb+srv", _)) => Ok(Arc::new(Mongodb::open(&access).await?)),
        Some((scheme, _)) => Err(StoreError::Settings(format!(
            "there is no store for `{scheme}:` (use embedded:, embedded:/some/folder, mongodb://user@host/database or \
             postgres://user@host/database)"
        ))),
        None => Err(StoreError::Settings("a store is named by a URL, such as embedded:".into())),
    }
}
