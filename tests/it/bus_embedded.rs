//! The embedded bus: its contract, and what only it promises (its files).

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fpesa::{
    bus::{Bus, BusError, embedded::Embedded},
    message::Outcome,
    topology::{Queue, QueueKind},
};

use crate::bus_contract::{self as contract, published, queue, soon, to, topology};

fn open(folder: &Path) -> Arc<Embedded> {
    Embedded::open(folder, |_| {}).unwrap()
}

macro_rules! on_embedded {
    ($($case:ident),*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let folder = tempfile::tempdir().unwrap();
                contract::$case(open(folder.path()), stringify!($case).into()).await;
            }
        )*
    };
}
crate::bus_cases!(on_embedded);

#[tokio::test]
async fn what_was_kept_is_there_after_a_restart_in_order_and_beyond_the_window() {
    // More than the window of a queue holds in memory.
    const COUNT: usize = 6_000;
    let folder = tempfile::tempdir().unwrap();
    let bus = open(folder.path());
    let table = topology([("q".to_owned(), queue(QueueKind::Quorum))]);
    bus.declare(&table).await.unwrap();
    let publishes: Vec<_> = (0..COUNT).map(|n| bus.publish(to("q", n.to_string()), soon())).collect();
    for outcome in futures::future::join_all(publishes).await {
        assert_eq!(outcome, Outcome::Routed);
    }
    bus.close().await;
    drop(bus);
    let bus = open(folder.path());
    bus.declare(&table).await.unwrap();
    let mut deliveries = bus.consume("q", 100).await.unwrap();
    let mut seen = BTreeSet::new();
    for n in 0..COUNT {
        let delivery = deliveries.next().await.unwrap();
        assert!(!delivery.redelivered, "after a clean end nothing was delivered before");
        assert!(seen.insert(delivery.message.body.clone()), "{n} twice");
        delivery.ticket.ack();
    }
    assert!(tokio::time::timeout(Duration::from_millis(200), deliveries.next()).await.is_err());
}

#[tokio::test]
async fn what_was_handed_out_before_a_crash_counts_as_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let dead = Queue { dead_letter: Some("dead".into()), delivery_limit: Some(1), ..queue(QueueKind::Quorum) };
    let table = topology([("q".to_owned(), dead), ("dead".to_owned(), queue(QueueKind::Quorum))]);
    let bus = open(folder.path());
    bus.declare(&table).await.unwrap();
    assert_eq!(bus.publish(to("q", "x"), soon()).await, Outcome::Routed);
    // The copy of the folder is what a crash would leave: nothing of it is closed.
    let copy = tempfile::tempdir().unwrap();
    let mut deliveries = bus.consume("q", 1).await.unwrap();
    let delivery = deliveries.next().await.unwrap();
    assert!(!delivery.redelivered);
    // A further commit carries what is known of deliveries.
    assert_eq!(bus.publish(to("dead", "y"), soon()).await, Outcome::Routed);
    for file in ["bus.db", "bus.db-wal"] {
        std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
    }
    let crashed = open(copy.path());
    crashed.declare(&table).await.unwrap();
    let mut after = crashed.consume("q", 1).await.unwrap();
    let again = after.next().await.unwrap();
    assert!(again.redelivered);
    again.ticket.retry();
    let mut buried = crashed.consume("dead", 10).await.unwrap();
    // With one delivery counted for the crash, this retry was one too many.
    crate::support::eventually("dead-lettered", || {
        let found = buried.next_now().is_some_and(|delivery| delivery.message.body == "x");
        async move { found.then_some(()) }
    })
    .await;
    drop(delivery);
}

#[tokio::test]
async fn a_second_process_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(folder.path());
    let error = Embedded::open(folder.path(), |_| {}).unwrap_err();
    assert!(
        matches!(&error, BusError::Settings(why) if why.contains("another fpesa") && why.contains("--data-dir")),
        "{error}"
    );
}

#[tokio::test]
async fn a_newer_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    // The writer lets go of the file a moment after the bus is dropped.
    let path = folder.path().join("bus.db");
    crate::support::eventually("the file to be let go", || async {
        let connection = rusqlite::Connection::open(&path).ok()?;
        connection.execute_batch("PRAGMA user_version = 99").ok()
    })
    .await;
    let error = Embedded::open(folder.path(), |_| {}).unwrap_err();
    assert!(error.to_string().contains("newer fpesa"), "{error}");
}

#[tokio::test]
async fn the_feed_hears_of_what_was_committed_through_amq_topic() {
    let folder = tempfile::tempdir().unwrap();
    let heard = Arc::new(AtomicUsize::new(0));
    let count = heard.clone();
    let bus = Embedded::open(folder.path(), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    })
    .unwrap();
    bus.declare(&topology([("q".to_owned(), queue(QueueKind::Quorum))])).await.unwrap();
    assert_eq!(bus.publish(to("q", "not for the feed"), soon()).await, Outcome::Routed);
    assert_eq!(bus.publish(published("amq.topic", "nowhere", "refused"), soon()).await, Outcome::Unroutable);
    assert_eq!(heard.load(Ordering::SeqCst), 0);
    let live = fpesa::message::Message { mandatory: false, ..published("amq.topic", "nowhere", "live") };
    assert_eq!(bus.publish(live, soon()).await, Outcome::Routed);
    assert_eq!(heard.load(Ordering::SeqCst), 1);
}
