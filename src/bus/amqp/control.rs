//! The control link: declares the topology, and looks every second whether what publish routes reach is still there.
//! (A browser's queue satisfies `mandatory`: only looking tells that the queue that keeps messages is gone.)

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use lapin::{
    Connection, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    census::Census,
    convert::short,
    declare::{declare, is_not_found},
    held,
    link::{ANSWER_WITHIN, Ended, silence, supervise},
};
use crate::{
    bus::{BusError, QueueNow},
    topology::{Declare as Who, Topology, Version},
};

/// How often what is watched is looked for.
const LOOK: Duration = Duration::from_millis(800);
/// How long one look may take before the link counts as broken.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// A topology to declare, and whom to tell.
pub(super) struct Declare {
    pub topology: Topology,
    pub done: oneshot::Sender<Result<(), BusError>>,
}

pub(super) fn start(shared: Arc<Shared>, stop: CancellationToken) -> mpsc::Sender<Declare> {
    let (sender, received) = mpsc::channel(8);
    tokio::spawn(async move {
        let received = tokio::sync::Mutex::new(received);
        let link = || async {
            tokio::select! {
                ended = async { run(&shared, &mut *received.lock().await).await } => ended,
                () = stop.cancelled() => Ended::never_up("the bus is closed".into()),
            }
        };
        supervise("control", &stop, link).await;
    });
    sender
}

async fn run(shared: &Shared, received: &mut mpsc::Receiver<Declare>) -> Ended {
    let connection = match shared.options.connect("control").await {
        Ok(connection) => connection,
        Err(why) => return Ended::never_up(why),
    };
    let version = Version { major: shared.options.broker_major().await.unwrap_or_default() };
    let ended = tokio::select! {
        ended = watch(shared, &connection, version, received) => ended,
        why = silence(&connection) => Ended::after_up(why),
    };
    shared.watched.store(false, Ordering::Release);
    held(&shared.queues).clear();
    ended
}

async fn watch(
    shared: &Shared,
    connection: &Connection,
    version: Version,
    received: &mut mpsc::Receiver<Declare>,
) -> Ended {
    let topology = held(&shared.topology).clone();
    settle(shared, declare_in_time(connection, &topology, version).await);
    let mut look = tokio::time::interval(LOOK);
    let mut census = Census::default();
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = received.recv() => {
                let Some(Declare { topology, done }) = command else { return Ended::after_up("the bus is closed") };
                // Nobody waits for it any more: that table did not take effect. The first one is declared all the same.
                if done.is_closed() && !held(&shared.topology).queues.is_empty() {
                    continue;
                }
                let result = declare_in_time(connection, &topology, version).await;
                let refused = match &result {
                    Err(BusError::Topology(faults)) => faults.clone(),
                    _ => Vec::new(),
                };
                // A reload that is refused leaves the table in force; at the start there is none yet.
                if refused.is_empty() || held(&shared.topology).queues.is_empty() {
                    *held(&shared.topology) = topology;
                    *held(&shared.faults) = refused;
                }
                let down = matches!(result, Err(BusError::Down(_)));
                let _ = done.send(result);
                if down {
                    return Ended::after_up("the declaration broke off");
                }
            }
            _ = look.tick() => {
                let topology = held(&shared.topology).clone();
                if !held(&shared.faults).is_empty() {
                    settle(shared, declare_in_time(connection, &topology, version).await);
                }
                match tokio::time::timeout(LOOK_WITHIN, missing(connection, &topology, &mut census)).await {
                    Ok(Ok(missing)) => {
                        census.tell(&topology, &mut held(&shared.queues));
                        // At the second look in a row: declared while the broker still deletes it, a quorum queue came
                        // back without what belongs to it (seen with RabbitMQ 3.10.8).
                        let declares_again = !missing.is_empty() && missing == *held(&shared.missing);
                        *held(&shared.missing) = missing;
                        shared.watched.store(true, Ordering::Release);
                        if declares_again {
                            settle(shared, declare_in_time(connection, &topology, version).await);
                        }
                    }
                    Ok(Err(error)) => return Ended::after_up(error),
                    Err(_) => return Ended::after_up("the broker does not answer"),
                }
            }
        }
    }
}

/// Declares; a broker that does not answer is away.
async fn declare_in_time(connection: &Connection, topology: &Topology, version: Version) -> Result<(), BusError> {
    let late = |_| Err(BusError::Down("the broker does not answer".into()));
    tokio::time::timeout(ANSWER_WITHIN, declare(connection, topology, version)).await.unwrap_or_else(late)
}

/// Remembers what keeps the topology from being declared, and tells it once.
fn settle(shared: &Shared, result: Result<(), BusError>) {
    let faults = match result {
        Err(BusError::Topology(faults)) => faults,
        _ => Vec::new(),
    };
    let mut known = held(&shared.faults);
    if *known != faults {
        for fault in &faults {
            tracing::error!("{}", fault.why);
        }
    }
    *known = faults;
}

/// Looks at the queues and exchanges that publish routes reach, and tells which are not there; at other queues when it
/// is their turn.
async fn missing(connection: &Connection, topology: &Topology, census: &mut Census) -> lapin::Result<BTreeSet<String>> {
    let mut missing = BTreeSet::new();
    let mut channel = connection.create_channel().await?;
    for name in topology.watched_queues.iter().cloned().chain(census.due(topology)) {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match channel.queue_declare(short(&name), options, FieldTable::default()).await {
            Ok(queue) => {
                let now = QueueNow { consumers: queue.consumer_count(), messages: queue.message_count().into() };
                census.seen(topology, name, Some(now));
            }
            Err(error) if !is_not_found(&error) => return Err(error),
            Err(_) => {
                if topology.watched_queues.contains(&name) {
                    missing.insert(name.clone());
                }
                census.seen(topology, name, None);
                channel = connection.create_channel().await?;
            }
        }
    }
    for name in &topology.watched_exchanges {
        let passive = topology.exchanges.get(name).is_none_or(|exchange| exchange.declare == Who::Passive);
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let declared = channel.exchange_declare(short(name), ExchangeKind::Topic, options, FieldTable::default()).await;
        if let Err(error) = declared {
            if !is_not_found(&error) {
                return Err(error);
            }
            tracing::warn!(exchange = name, passive, "an exchange that routes publish to is gone");
            missing.insert(name.clone());
            channel = connection.create_channel().await?;
        }
    }
    let _ = channel.close(200, "looked".into()).await;
    Ok(missing)
}
