//! The one thread that writes. What waits is committed together, and only after the commit is anyone told: publishers,
//! consumers and the live feed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::{
    Shared,
    command::{Command, Op, Sender},
    disk, now_ms, routing,
};
use crate::{
    bus::Settlement,
    message::{Away, Message, Outcome},
    topology::QueueKind,
};

/// Most commands, and about the most bytes, of one transaction.
const MOST: usize = 512;
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Rows that are loaded at a time.
const LOAD: usize = 2_048;
/// How often what has expired is looked for.
const EXPIRE_EVERY: Duration = Duration::from_millis(500);
/// How often a disk that failed is tried.
const PROBE: Duration = Duration::from_millis(200);

/// The writer's thread.
pub(super) struct Writer {
    commands: mpsc::Sender<Command>,
}

impl Writer {
    pub fn start(connection: Connection, shared: Arc<Shared>) -> std::io::Result<Self> {
        let (commands, received) = mpsc::channel();
        let state = State { connection, shared, carried: Vec::new() };
        thread::Builder::new().name("bus-writer".into()).spawn(move || state.run(&received))?;
        Ok(Self { commands })
    }

    pub fn sender(&self) -> Sender {
        Sender(self.commands.clone())
    }

    /// Gives the command back when the writer has ended.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        self.commands.send(command).map_err(|error| error.0)
    }
}

/// Whether the disk takes what is written.
#[derive(Debug, Default)]
pub(super) struct Health(AtomicU8);

impl Health {
    /// Why nothing can be kept now.
    pub fn away(&self) -> Option<Away> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Away::StorageFull),
            _ => Some(Away::StorageFailed),
        }
    }

    fn set(&self, away: Option<Away>) {
        let code = match away {
            None => 0,
            Some(Away::StorageFull) => 1,
            Some(_) => 2,
        };
        let before = self.0.swap(code, Ordering::Relaxed);
        if before != code {
            match away {
                None => tracing::info!("the bus's disk takes messages again"),
                Some(Away::StorageFull) => {
                    tracing::error!("the bus's disk is full: nothing is taken until there is room");
                }
                Some(_) => tracing::error!("the bus's disk fails: nothing is taken until it works again"),
            }
        }
    }
}

struct Insert {
    queues: Vec<String>,
    message: Arc<Message>,
    done: oneshot::Sender<Outcome>,
}

/// What one round works on.
#[derive(Default)]
struct Round {
    inserts: Vec<Insert>,
    settled: Vec<(Arc<str>, i64, Settlement)>,
    ops: Vec<Op>,
    loads: Vec<String>,
    close: Option<oneshot::Sender<()>>,
}

/// A row that a transaction made.
struct Made {
    queue: String,
    seq: i64,
    message: Arc<Message>,
}

struct State {
    connection: Connection,
    shared: Arc<Shared>,
    /// Changes that could not be written yet: they are tried again, and never forgotten.
    carried: Vec<Op>,
}

impl State {
    fn run(mut self, received: &mpsc::Receiver<Command>) {
        let mut ask: Vec<String> = self.shared.broker().queues.keys().cloned().collect();
        self.load(&mut ask);
        let mut looked = Instant::now();
        loop {
            if looked.elapsed() >= EXPIRE_EVERY {
                self.shared.broker().expire(&self.shared);
                looked = Instant::now();
            }
            let waits = self.carried.is_empty() && self.shared.health.away().is_none();
            let first = match received.recv_timeout(if waits { EXPIRE_EVERY } else { PROBE }) {
                Ok(command) => Some(command),
                Err(mpsc::RecvTimeoutError::Timeout) if waits => continue,
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            let mut round = Round::default();
            let mut bytes = 0;
            let mut next = first;
            for _ in 0..MOST {
                let Some(command) = next else { break };
                if let Command::Insert { message, .. } = &command {
                    bytes += message.body.len();
                }
                self.take(command, &mut round);
                next = if bytes < MOST_BYTES { received.try_recv().ok() } else { None };
            }
            if let Some(command) = next {
                self.take(command, &mut round);
            }
            if self.work(round) {
                return;
            }
        }
    }

    fn take(&mut self, command: Command, round: &mut Round) {
        match command {
            Command::Insert { queues, message, done } => round.inserts.push(Insert { queues, message, done }),
            Command::Settle { queue, seq, how } => round.settled.push((queue, seq, how)),
            Command::Op(op) => round.ops.push(op),
            Command::Load(queue) => round.loads.push(queue),
            Command::Declare { queues, done } => {
                let _ = done.send(declare(&mut self.connection, &queues).map_err(|error| error.to_string()));
            }
            Command::Close { done } => round.close = Some(done),
        }
    }

    /// One round; `true` when it was the last.
    fn work(&mut self, mut round: Round) -> bool {
        let mut ops = std::mem::take(&mut self.carried);
        ops.append(&mut round.ops);
        if !round.settled.is_empty() {
            let mut broker = self.shared.broker();
            for (queue, seq, how) in round.settled {
                ops.extend(broker.settle(&queue, seq, how, &self.shared));
            }
        }
        match self.commit(&round.inserts, &ops) {
            Ok(made) => {
                self.shared.health.set(None);
                self.tell(round.inserts, &made, &ops);
            }
            Err(error) => {
                let away = match error.sqlite_error_code() {
                    Some(ErrorCode::DiskFull) => Away::StorageFull,
                    _ => Away::StorageFailed,
                };
                tracing::debug!(%error, "a transaction of the bus failed");
                self.shared.health.set(Some(away));
                self.carried = ops;
                let mut broker = self.shared.broker();
                for insert in round.inserts {
                    broker.give_back(&insert.queues);
                    let _ = insert.done.send(Outcome::NotSent(away));
                }
            }
        }
        self.load(&mut round.loads);
        let Some(done) = round.close else { return false };
        self.close();
        let _ = done.send(());
        true
    }

    /// Everything in one transaction, or nothing of it.
    fn commit(&mut self, inserts: &[Insert], ops: &[Op]) -> rusqlite::Result<Vec<Made>> {
        if self.shared.health.away().is_some() {
            // After a failure a small commit comes first. It overwrites whatever the failed transaction left in the
            // write-ahead log, so that nothing of that can come back to life, and it shows whether the disk works.
            self.connection.execute("UPDATE life SET probe = probe + 1", [])?;
        }
        let delivered: Vec<(i64, i64)> = {
            let broker = self.shared.broker();
            let dirty = broker.queues.values().filter(|queue| queue.delivered_dirty);
            dirty.filter_map(|queue| Some((queue.id?, queue.delivered))).collect()
        };
        if inserts.is_empty() && ops.is_empty() {
            return Ok(Vec::new());
        }
        let ids: BTreeMap<String, i64> = {
            let broker = self.shared.broker();
            let inserted = inserts.iter().flat_map(|insert| &insert.queues);
            let moved = ops.iter().filter_map(|op| if let Op::Move { to, .. } = op { Some(to) } else { None });
            inserted.chain(moved).filter_map(|name| Some((name.clone(), broker.queues.get(name)?.id?))).collect()
        };
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut made = Vec::with_capacity(inserts.len());
        for insert in inserts {
            for queue in &insert.queues {
                made.push(add(&transaction, &ids, queue, &insert.message)?);
            }
        }
        for op in ops {
            match op {
                Op::Delete(seq) => delete(&transaction, *seq)?,
                Op::Returned(seq, returns) => {
                    let mut update = transaction.prepare_cached("UPDATE message SET returns = ?2 WHERE seq = ?1")?;
                    update.execute(params![seq, returns])?;
                }
                Op::Move { seq, to, message } => {
                    made.push(add(&transaction, &ids, to, message)?);
                    delete(&transaction, *seq)?;
                }
            }
        }
        for (queue, seq) in &delivered {
            let mut update = transaction.prepare_cached("UPDATE queue SET delivered = ?2 WHERE id = ?1")?;
            update.execute([queue, seq])?;
        }
        transaction.commit()?;
        let mut broker = self.shared.broker();
        for queue in broker.queues.values_mut() {
            if delivered.iter().any(|(id, seq)| queue.id == Some(*id) && queue.delivered == *seq) {
                queue.delivered_dirty = false;
            }
        }
        Ok(made)
    }

    /// After the commit: consumers, the feed, and who waits.
    fn tell(&self, inserts: Vec<Insert>, made: &[Made], ops: &[Op]) {
        if inserts.is_empty() && made.is_empty() {
            return;
        }
        {
            let mut broker = self.shared.broker();
            for op in ops {
                if let Op::Move { to, .. } = op
                    && let Some(queue) = broker.queues.get_mut(to)
                {
                    queue.waiting += 1;
                }
            }
            for row in made {
                broker.arrived(&row.queue, row.seq, &row.message, &self.shared);
            }
        }
        for insert in inserts {
            if insert.message.exchange == routing::TOPIC {
                (self.shared.on_topic)(&insert.message);
            }
            let _ = insert.done.send(Outcome::Routed);
        }
    }

    fn load(&self, queues: &mut Vec<String>) {
        for name in queues.drain(..) {
            let place = {
                let mut broker = self.shared.broker();
                let Some(queue) = broker.queues.get_mut(&name) else { continue };
                queue.loading = true;
                queue.id.filter(|_| queue.beyond).map(|id| (id, queue.loaded))
            };
            let rows = place.map(|(id, after)| disk::rows(&self.connection, id, after, LOAD));
            let mut broker = self.shared.broker();
            match rows {
                Some(Ok((rows, all))) => broker.loaded(&name, rows, all, &self.shared),
                Some(Err(error)) => {
                    tracing::error!(queue = name, %error, "messages can't be read from the bus's disk");
                    if let Some(queue) = broker.queues.get_mut(&name) {
                        queue.loading = false;
                    }
                }
                None => {
                    if let Some(queue) = broker.queues.get_mut(&name) {
                        queue.loading = false;
                    }
                }
            }
        }
    }

    /// Ends cleanly: what is still out counts as handed out, what is not was never delivered.
    fn close(&mut self) {
        let out: Vec<(i64, i64)> = {
            let broker = self.shared.broker();
            let queues = broker.queues.values();
            queues.filter_map(|queue| Some((queue.id?, queue.unsettled.keys().copied().max()?))).collect()
        };
        let clean = out.is_empty() && self.carried.is_empty();
        let ended = (|| -> rusqlite::Result<()> {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (queue, seq) in &out {
                transaction.execute("UPDATE queue SET delivered = ?2 WHERE id = ?1", [queue, seq])?;
            }
            transaction.execute("UPDATE life SET clean = ?1", [clean])?;
            transaction.commit()?;
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })();
        if let Err(error) = ended {
            tracing::warn!(%error, "the bus's file was not closed cleanly: nothing is lost, it is recovered at the next start");
        }
    }
}

fn declare(connection: &mut Connection, queues: &[(String, QueueKind)]) -> rusqlite::Result<BTreeMap<String, i64>> {
    let mut ids = BTreeMap::new();
    if queues.is_empty() {
        return Ok(ids);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (name, kind) in queues {
        let kind = if *kind == QueueKind::Classic { "classic" } else { "quorum" };
        transaction.execute("INSERT OR IGNORE INTO queue (name, kind) VALUES (?1, ?2)", [name.as_str(), kind])?;
        let id = transaction.query_row("SELECT id FROM queue WHERE name = ?1", [name], |row| row.get(0))?;
        ids.insert(name.clone(), id);
    }
    transaction.commit()?;
    Ok(ids)
}

fn add(
    transaction: &Transaction<'_>,
    ids: &BTreeMap<String, i64>,
    queue: &str,
    message: &Arc<Message>,
) -> rusqlite::Result<Made> {
    let expires = message.properties.expiration.and_then(|left| i64::try_from(left.as_millis()).ok());
    let expires = expires.map(|left| now_ms().saturating_add(left));
    let properties = serde_json::to_vec(&message.properties)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let mut insert = transaction.prepare_cached(
        "INSERT INTO message (queue, exchange, key, properties, body, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    insert.execute(params![
        ids.get(queue),
        message.exchange,
        message.key,
        properties,
        message.body.as_ref(),
        expires
    ])?;
    Ok(Made { queue: queue.to_owned(), seq: transaction.last_insert_rowid(), message: message.clone() })
}

fn delete(transaction: &Transaction<'_>, seq: i64) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM message WHERE seq = ?1")?.execute([seq]).map(drop)
}
