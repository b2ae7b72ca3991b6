//! The file: its schema, and what is read from it when the bus is opened.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use fpesa_workers::private;
use rusqlite::{Connection, Row, TransactionBehavior, params, types::ValueRef};

use super::{
    broker::{Broker, undeclared},
    queue::{Kept, Queue},
};
use crate::{
    message::{Message, Properties, Unreadable},
    topology::QueueKind,
};

/// Version of the file's schema, in `PRAGMA user_version`.
const SCHEMA: i64 = 1;

/// Opens the file, or makes it; the error is a sentence.
pub(super) fn open(path: &Path) -> Result<Connection, String> {
    let unusable = |error: rusqlite::Error| format!("bus.db can't be used: {error}");
    private::file(path).map_err(|error| format!("bus.db can't be used: {error}"))?;
    let mut connection = Connection::open(path).map_err(unusable)?;
    let prepared = (|| {
        connection.busy_timeout(Duration::from_secs(2))?;
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))?;
        connection
            .execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -16000; PRAGMA temp_store = MEMORY;")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version == 0 {
            transaction.execute_batch(
                "CREATE TABLE queue (
                     id INTEGER PRIMARY KEY,
                     name TEXT NOT NULL UNIQUE,
                     kind TEXT NOT NULL,
                     delivered INTEGER NOT NULL DEFAULT 0  -- highest seq ever handed to a consumer
                 );
                 CREATE TABLE message (
                     seq INTEGER PRIMARY KEY AUTOINCREMENT,
                     queue INTEGER NOT NULL REFERENCES queue,
                     exchange TEXT NOT NULL,
                     key TEXT NOT NULL,
                     properties BLOB NOT NULL,             -- JSON
                     body BLOB NOT NULL,
                     returns INTEGER NOT NULL DEFAULT 0,   -- how often it was given back
                     expires INTEGER                       -- milliseconds since 1970
                 );
                 CREATE INDEX message_by_queue ON message (queue, seq);
                 CREATE TABLE life (clean INTEGER NOT NULL, probe INTEGER NOT NULL);
                 INSERT INTO life VALUES (1, 0);
                 PRAGMA user_version = 1;",
            )?;
        }
        transaction.commit()?;
        Ok(version)
    })();
    match prepared {
        Ok(version) if version > SCHEMA => Err(format!(
            "bus.db was written by a newer fpesa (schema {version}, this one knows {SCHEMA}): use that one, or another data folder"
        )),
        Ok(_) => Ok(connection),
        Err(error) => Err(unusable(error)),
    }
}

/// The queues that are there. After a crash, what had been handed out counts as given back once more.
pub(super) fn load(connection: &mut Connection) -> rusqlite::Result<Broker> {
    let mut broker = Broker::default();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let clean: bool = transaction.query_row("SELECT clean FROM life", [], |row| row.get(0))?;
    if !clean {
        broker.recovered = transaction.query_row("SELECT coalesce(max(seq), 0) FROM message", [], |row| row.get(0))?;
        transaction.execute(
            "UPDATE message SET returns = returns + 1
             WHERE seq <= (SELECT delivered FROM queue WHERE queue.id = message.queue)",
            [],
        )?;
    }
    transaction.execute_batch("UPDATE queue SET delivered = 0; UPDATE life SET clean = 0;")?;
    {
        let mut statement = transaction.prepare(
            "SELECT id, name, kind, (SELECT count(*) FROM message WHERE message.queue = queue.id) FROM queue",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(1)?;
            let kind = if row.get_ref(2)?.as_str()? == "classic" { QueueKind::Classic } else { QueueKind::Quorum };
            let mut queue = Queue::new(Some(row.get(0)?), undeclared(kind));
            queue.waiting = row.get::<_, i64>(3)?.unsigned_abs();
            queue.beyond = queue.waiting > 0;
            broker.kinds.insert(name.clone(), kind);
            broker.queues.insert(name, queue);
        }
    }
    transaction.commit()?;
    Ok(broker)
}

/// Rows of a queue after one, in order: at most `most`, and about as many bytes as a window holds.
pub(super) fn rows(
    connection: &Connection,
    queue: i64,
    after: i64,
    most: usize,
) -> rusqlite::Result<(Vec<Kept>, bool)> {
    const BYTES: usize = 8 * 1024 * 1024;
    let mut statement = connection.prepare_cached(
        "SELECT seq, exchange, key, properties, body, returns, expires FROM message
         WHERE queue = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
    )?;
    let mut rows = statement.query(params![queue, after, i64::try_from(most).unwrap_or(i64::MAX)])?;
    let (mut loaded, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let kept = kept(row)?;
        bytes += kept.message.body.len();
        loaded.push(kept);
        if bytes > BYTES {
            return Ok((loaded, false));
        }
    }
    let all = loaded.len() < most;
    Ok((loaded, all))
}

/// A row, whatever is in it: written by us, and should one be bent all the same, that message is set aside with what was
/// there, and the others of its queue are delivered.
fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let bytes = |column: usize| match row.get_ref(column) {
        Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => bytes,
        _ => &[],
    };
    let mut bent = None;
    let mut text = |column, what| {
        String::from_utf8(bytes(column).to_vec()).unwrap_or_else(|error| {
            bent = Some(format!("the message's {what} is not UTF-8"));
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        })
    };
    let (exchange, key) = (text(1, "exchange"), text(2, "routing key"));
    let raw = bytes(3);
    let unreadable = |why, raw| Some(Box::new(Unreadable { why, raw: Bytes::copy_from_slice(raw) }));
    let mut properties = serde_json::from_slice(raw).unwrap_or_else(|error| {
        let why = format!("the message's properties can't be read from the bus's disk: {error}");
        Properties { unreadable: unreadable(why, raw), ..Properties::default() }
    });
    if let (Some(why), None) = (bent, &properties.unreadable) {
        properties.unreadable = unreadable(why, &[]);
    }
    let body = Bytes::copy_from_slice(bytes(4));
    Ok(Kept {
        seq: row.get(0)?,
        message: Message { exchange, key, properties, body, mandatory: false }.into(),
        returns: row.get(5).unwrap_or_default(),
        redelivered: false,
        expires: row.get(6).unwrap_or_default(),
    })
}
