//! The one thread that writes: what waits is written together and answered after the commit.

use std::{collections::HashMap, sync::mpsc, thread};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::away;
use crate::{
    event::Event,
    store::{Appended, Cursor, StoreError},
};

/// Most events in one transaction.
const MOST: usize = 5_000;

enum Command {
    Append(Append),
    Remove(Remove),
}

struct Remove {
    before: Cursor,
    most: usize,
    done: oneshot::Sender<Result<u64, StoreError>>,
}

struct Append {
    events: Vec<Event>,
    done: oneshot::Sender<Result<Vec<Appended>, StoreError>>,
}

/// Hands batches to the writing thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    commands: mpsc::Sender<Command>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Self {
        let (commands, received) = mpsc::channel();
        thread::spawn(move || run(connection, &received));
        Self { commands }
    }

    pub(super) async fn append(&self, events: Vec<Event>) -> Result<Vec<Appended>, StoreError> {
        self.ask(|done| Command::Append(Append { events, done })).await
    }

    pub(super) async fn remove_before(&self, before: Cursor, most: usize) -> Result<u64, StoreError> {
        self.ask(|done| Command::Remove(Remove { before, most, done })).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (done, result) = oneshot::channel();
        let gone = || StoreError::Away("the writer has ended".into());
        self.commands.send(command(done)).map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

fn run(mut connection: Connection, received: &mpsc::Receiver<Command>) {
    let mut topics = HashMap::new();
    let mut following = None;
    while let Some(command) = following.take().or_else(|| received.recv().ok()) {
        let first = match command {
            Command::Append(append) => append,
            Command::Remove(Remove { before, most, done }) => {
                let _ = done.send(remove(&connection, &before, most).map_err(away));
                continue;
            }
        };
        let mut size = first.events.len();
        let mut group = vec![first];
        while size < MOST {
            match received.try_recv() {
                Ok(Command::Append(next)) => {
                    size += next.events.len();
                    group.push(next);
                }
                Ok(command) => {
                    following = Some(command);
                    break;
                }
                Err(_) => break,
            }
        }
        match write(&mut connection, &group, &mut topics) {
            Ok(results) => {
                for (append, result) in group.into_iter().zip(results) {
                    let _ = append.done.send(Ok(result));
                }
            }
            Err(error) => {
                // Topics that were made in the transaction are gone with it.
                topics.clear();
                let error = away(error);
                for append in group {
                    let _ = append.done.send(Err(error.clone()));
                }
            }
        }
    }
}

fn write(
    connection: &mut Connection,
    group: &[Append],
    topics: &mut HashMap<String, i64>,
) -> rusqlite::Result<Vec<Vec<Appended>>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut results = Vec::with_capacity(group.len());
    {
        let mut insert = transaction.prepare_cached(
            "INSERT INTO event (time, id, topic, text) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO NOTHING",
        )?;
        let mut known = transaction.prepare_cached("SELECT text FROM event WHERE id = ?1")?;
        for append in group {
            let mut result = Vec::with_capacity(append.events.len());
            for event in &append.events {
                let topic = match &event.subject {
                    Some(name) => Some(topic(&transaction, topics, name)?),
                    None => None,
                };
                let id = event.id.as_bytes().as_slice();
                let inserted = match insert.execute(params![event.time, id, topic, event.text.as_ref()]) {
                    Err(error) if is_refusal(&error) => {
                        result.push(Appended::Refused(format!("SQLite refuses it: {error}")));
                        continue;
                    }
                    inserted => inserted?,
                };
                result.push(if inserted == 1 {
                    Appended::Kept
                } else {
                    let there: Vec<u8> = known.query_row([id], |row| row.get(0))?;
                    if event.is_same_as(&there) { Appended::Duplicate } else { Appended::Conflict }
                });
            }
            results.push(result);
        }
    }
    transaction.commit()?;
    Ok(results)
}

/// Whether the file will say so of the same event again: it is too large, or a constraint or trigger that others made
/// refuses it. Only the statement is undone by it, not the transaction.
fn is_refusal(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::TooBig | ErrorCode::ConstraintViolation))
}

/// Removes the oldest events before a place; topics stay, since other processes may know them by number.
fn remove(connection: &Connection, before: &Cursor, most: usize) -> rusqlite::Result<u64> {
    let mut delete = connection.prepare_cached(
        "DELETE FROM event WHERE seq IN (SELECT seq FROM event WHERE (time, id) < (?1, ?2) ORDER BY time, id LIMIT ?3)",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    Ok(delete.execute(params![before.time, before.id.as_bytes().as_slice(), most])? as u64)
}

fn topic(connection: &Connection, topics: &mut HashMap<String, i64>, name: &str) -> rusqlite::Result<i64> {
    /// Names kept in memory; beyond it the file is asked.
    const MOST_CACHED: usize = 10_000;
    if let Some(id) = topics.get(name) {
        return Ok(*id);
    }
    let mut find = connection.prepare_cached("SELECT id FROM topic WHERE name = ?1")?;
    let id = match find.query_row([name], |row| row.get(0)).optional()? {
        Some(id) => id,
        None => {
            connection.prepare_cached("INSERT INTO topic (name) VALUES (?1)")?.execute([name])?;
            connection.last_insert_rowid()
        }
    };
    if topics.len() >= MOST_CACHED {
        topics.clear();
    }
    topics.insert(name.to_owned(), id);
    Ok(id)
}
