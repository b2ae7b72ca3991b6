//! Reading pages: keyset walks along the index of `(time, id)`, or along those of a few topics at once.

use std::{
    collections::HashSet,
    fmt::Write as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params_from_iter, types::Value};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{away, read_only};
use crate::{
    store::{Cursor, From, MERGED_TOPICS, Page, PageQuery, StoreError},
    topic::Filter,
};

/// Connections that read at the same time.
const READERS: usize = 4;

/// Connections that only read, lent out one by one.
#[derive(Debug)]
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        let idle = (0..READERS).map(|_| read_only(path)).collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(Self { idle: Arc::new(Mutex::new(idle)), permits: Arc::new(Semaphore::new(READERS)) })
    }

    pub(super) async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let gone = || StoreError::Away("the store is closed".into());
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| gone())?;
        let idle = self.idle.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let connection = idle.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or_else(gone)?;
            let result = work(&connection);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            result
        });
        done.await.map_err(|error| StoreError::Away(error.to_string()))?
    }
}

/// Which part of the order a page reads, and which way.
struct Range {
    forward: bool,
    after: Option<Cursor>,
    before: Option<Cursor>,
    since: Option<i64>,
    until: Option<i64>,
}

impl Range {
    /// Conditions beside others, with their values.
    fn conditions(&self) -> (String, Vec<Value>) {
        let mut sql = String::new();
        let mut values = Vec::new();
        for (operator, cursor) in [(">", &self.after), ("<", &self.before)] {
            if let Some(cursor) = cursor {
                let _ = write!(sql, " AND (time, id) {operator} (?, ?)");
                values.extend([Value::Integer(cursor.time), Value::Blob(cursor.id.as_bytes().to_vec())]);
            }
        }
        for (operator, time) in [(">=", self.since), ("<", self.until)] {
            if let Some(time) = time {
                let _ = write!(sql, " AND time {operator} ?");
                values.push(Value::Integer(time));
            }
        }
        (sql, values)
    }

    fn order(&self) -> &'static str {
        if self.forward { " ORDER BY time, id" } else { " ORDER BY time DESC, id DESC" }
    }
}

/// Whose events are read.
enum Topics {
    All,
    These(Vec<i64>),
    Filtered(HashSet<i64>),
}

pub(super) fn page(connection: &Connection, query: &PageQuery) -> Result<Page, StoreError> {
    // One read transaction, so that the page and its count are of the same moment.
    let transaction = connection.unchecked_transaction().map_err(away)?;
    let mut range = Range { forward: false, after: None, before: None, since: query.since, until: query.until };
    match &query.from {
        From::Newest => {}
        From::Before(cursor) => range.before = Some(*cursor),
        From::After(id) => {
            range.forward = true;
            range.after = Some(place_of(&transaction, id)?.ok_or(StoreError::UnknownAfter)?);
        }
        From::Following(place) => {
            range.forward = true;
            range.after = Some(*place);
        }
    }
    let topics = topics(&transaction, query.topic.as_ref()).map_err(away)?;
    let found = walk(&transaction, &topics, &range, query.limit + 1).map_err(away)?;
    // Its length is known without reading the text.
    let mut text =
        transaction.prepare_cached("SELECT text FROM event WHERE seq = ?1 AND length(text) <= ?2").map_err(away)?;
    let (mut items, mut left) = (Vec::with_capacity(found.len().min(query.limit)), query.max_bytes);
    for found in found.iter().take(query.limit) {
        let most = if items.is_empty() { i64::MAX } else { i64::try_from(left).unwrap_or(i64::MAX) };
        let item = text.query_row([found.seq, most], |row| row.get::<_, Vec<u8>>(0)).optional().map_err(away)?;
        let Some(item) = item else { break };
        left = left.saturating_sub(item.len());
        items.push(Bytes::from(item));
    }
    let last = items.len().checked_sub(1).and_then(|last| found.get(last));
    let next = last.map(|last| last.place).filter(|_| items.len() < found.len());
    let total =
        if query.count { Some(count(&transaction, &topics, query).map_err(away)?.unsigned_abs()) } else { None };
    Ok(Page { items, next, total })
}

fn place_of(connection: &Connection, id: &Uuid) -> Result<Option<Cursor>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT time FROM event WHERE id = ?1").map_err(away)?;
    let time = statement.query_row([id.as_bytes()], |row| row.get(0)).optional().map_err(away)?;
    Ok(time.map(|time| Cursor { time, id: *id }))
}

/// The place of the event that so many newer ones follow.
pub(super) fn nth_newest(connection: &Connection, newer: u64) -> Result<Option<Cursor>, StoreError> {
    let sql = "SELECT time, id FROM event ORDER BY time DESC, id DESC LIMIT 1 OFFSET ?1";
    let mut statement = connection.prepare_cached(sql).map_err(away)?;
    let newer = i64::try_from(newer).unwrap_or(i64::MAX);
    let place = |row: &Row<'_>| Ok(Cursor { time: row.get(0)?, id: Uuid::from_bytes(row.get(1)?) });
    statement.query_row([newer], place).optional().map_err(away)
}

fn topics(connection: &Connection, filter: Option<&Filter>) -> rusqlite::Result<Topics> {
    let Some(filter) = filter else { return Ok(Topics::All) };
    if !filter.as_str().contains(['+', '#']) {
        let mut statement = connection.prepare_cached("SELECT id FROM topic WHERE name = ?1")?;
        return Ok(Topics::These(
            statement.query_row([filter.as_str()], |row| row.get(0)).optional()?.into_iter().collect(),
        ));
    }
    let mut statement = connection.prepare_cached("SELECT id, name FROM topic")?;
    let mut matching = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if row.get_ref(1)?.as_str().is_ok_and(|name| filter.matches(name)) {
            matching.push(row.get(0)?);
        }
    }
    Ok(if matching.len() <= MERGED_TOPICS {
        Topics::These(matching)
    } else {
        Topics::Filtered(matching.into_iter().collect())
    })
}

struct Found {
    place: Cursor,
    seq: i64,
}

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    let id: [u8; 16] = row.get(1)?;
    Ok(Found { place: Cursor { time: row.get(0)?, id: Uuid::from_bytes(id) }, seq: row.get(2)? })
}

fn walk(connection: &Connection, topics: &Topics, range: &Range, most: usize) -> rusqlite::Result<Vec<Found>> {
    let (conditions, values) = range.conditions();
    let order = range.order();
    match topics {
        Topics::All => {
            let sql = format!("SELECT time, id, seq FROM event WHERE 1{conditions}{order} LIMIT {most}");
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_map(params_from_iter(values), found)?.collect()
        }
        Topics::These(ids) => {
            let sql = format!("SELECT time, id, seq FROM event WHERE topic = ?{conditions}{order} LIMIT {most}");
            let mut statement = connection.prepare_cached(&sql)?;
            let mut all: Vec<Found> = Vec::new();
            for id in ids {
                let values = std::iter::once(Value::Integer(*id)).chain(values.iter().cloned());
                for found in statement.query_map(params_from_iter(values), found)? {
                    all.push(found?);
                }
            }
            all.sort_by(|a, b| if range.forward { a.place.cmp(&b.place) } else { b.place.cmp(&a.place) });
            all.truncate(most);
            Ok(all)
        }
        Topics::Filtered(ids) => {
            let sql = format!("SELECT time, id, seq, topic FROM event WHERE topic IS NOT NULL{conditions}{order}");
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(params_from_iter(values))?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                if ids.contains(&row.get(3)?) {
                    all.push(found(row)?);
                    if all.len() == most {
                        break;
                    }
                }
            }
            Ok(all)
        }
    }
}

/// Counts what passes topic and times; `before` and `after` say where a page begins, not what there is.
fn count(connection: &Connection, topics: &Topics, query: &PageQuery) -> rusqlite::Result<i64> {
    let range = Range { forward: false, after: None, before: None, since: query.since, until: query.until };
    let (conditions, values) = range.conditions();
    let ids: Vec<i64> = match topics {
        Topics::All => {
            let sql = format!("SELECT count(*) FROM event WHERE 1{conditions}");
            return connection.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| row.get(0));
        }
        Topics::These(ids) => ids.clone(),
        Topics::Filtered(ids) => ids.iter().copied().collect(),
    };
    let mut statement =
        connection.prepare_cached(&format!("SELECT count(*) FROM event WHERE topic = ?{conditions}"))?;
    ids.iter().try_fold(0, |total, id| {
        let values = std::iter::once(Value::Integer(*id)).chain(values.iter().cloned());
        Ok(total + statement.query_row(params_from_iter(values), |row| row.get::<_, i64>(0))?)
    })
}
