//! The embedded store: one SQLite file, one thread that writes, a few connections that read.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use uuid::Uuid;

use super::{Appended, Cursor, Page, PageQuery, Store, StoreError};
use crate::{event::Event, private};

mod read;
mod write;

use read::Readers;
use write::Writer;

/// The file's name.
pub(super) const FILE: &str = "store.db";
/// Version of the file's schema, in `PRAGMA user_version`.
const SCHEMA: i64 = 1;

/// A store in a file of its own, `store.db`.
#[derive(Debug)]
pub struct Embedded {
    writer: Writer,
    readers: Readers,
}

impl Embedded {
    /// Opens `store.db` in `folder`, or makes both.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let settings = |why: String| StoreError::Settings(format!("data folder {}: {why}", folder.display()));
        private::folder(folder).map_err(|error| settings(format!("it can't be made: {error}")))?;
        let path = folder.join(FILE);
        private::file(&path).map_err(|error| settings(format!("store.db can't be opened: {error}")))?;
        let mut connection =
            Connection::open(&path).map_err(|error| settings(format!("store.db can't be opened: {error}")))?;
        prepare(&mut connection).map_err(|error| match error {
            Unusable::Newer(found) => settings(format!(
                "store.db was written by a newer fpesa (schema {found}, this one knows {SCHEMA}): use that one, or another data folder"
            )),
            Unusable::Failed(error) => settings(format!("store.db can't be used: {error}")),
        })?;
        let readers = Readers::open(&path).map_err(|error| settings(format!("store.db can't be read: {error}")))?;
        Ok(Self { writer: Writer::start(connection), readers })
    }
}

enum Unusable {
    Newer(i64),
    Failed(rusqlite::Error),
}

impl std::convert::From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

fn prepare(connection: &mut Connection) -> Result<(), Unusable> {
    connection.busy_timeout(Duration::from_secs(5))?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Unusable::Failed(rusqlite::Error::InvalidQuery));
    }
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -16000; PRAGMA temp_store = MEMORY;")?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > SCHEMA {
        return Err(Unusable::Newer(version));
    }
    if version == 0 {
        transaction.execute_batch(
            "CREATE TABLE topic (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
             CREATE TABLE event (
                 seq INTEGER PRIMARY KEY,
                 time INTEGER NOT NULL,          -- microseconds since 1970
                 id BLOB NOT NULL,               -- 16 bytes
                 topic INTEGER REFERENCES topic, -- NULL: no subject
                 text BLOB NOT NULL              -- the CloudEvent, byte for byte
             );
             CREATE UNIQUE INDEX event_by_id ON event (id);
             CREATE INDEX event_by_time ON event (time, id);
             CREATE INDEX event_by_topic ON event (topic, time, id);
             PRAGMA user_version = 1;",
        )?;
    }
    transaction.commit()?;
    Ok(())
}

#[async_trait]
impl Store for Embedded {
    async fn append(&self, batch: &[Event]) -> Result<Vec<Appended>, StoreError> {
        self.writer.append(batch.to_vec()).await
    }

    async fn page(&self, query: &PageQuery) -> Result<Page, StoreError> {
        let query = query.clone();
        self.readers.with(move |connection| read::page(connection, &query)).await
    }

    async fn get(&self, id: &Uuid) -> Result<Option<Bytes>, StoreError> {
        let id = *id;
        self.readers
            .with(move |connection| {
                let mut statement = connection.prepare_cached("SELECT text FROM event WHERE id = ?1").map_err(away)?;
                let text = statement.query_row([id.as_bytes()], |row| row.get::<_, Vec<u8>>(0)).optional();
                Ok(text.map_err(away)?.map(Bytes::from))
            })
            .await
    }

    async fn place(&self, newer: u64) -> Result<Option<Cursor>, StoreError> {
        self.readers.with(move |connection| read::nth_newest(connection, newer)).await
    }

    async fn remove_before(&self, place: &Cursor, most: usize) -> Result<u64, StoreError> {
        self.writer.remove_before(*place, most).await
    }
}

fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -8000;")?;
    Ok(connection)
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn away(error: rusqlite::Error) -> StoreError {
    StoreError::Away(error.to_string())
}
