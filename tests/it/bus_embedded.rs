//! The embedded bus: its contract, and what only it promises (its files).

use std::{
    collections::{BTreeSet, VecDeque},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fpesa::{
    bus::{Bus, BusError, Delivery, embedded::Embedded},
    message::Outcome,
    topology::{Queue, QueueKind},
};

use proptest::prelude::*;

use crate::{
    bus_contract::{self as contract, published, queue, soon, to, topology},
    support::app::Start,
};

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
    let dead = Queue {
        dead_letter: Some("dead".into()),
        delivery_limit: Some(fpesa::topology::DeliveryLimit::Count(1)),
        ..queue(QueueKind::Quorum)
    };
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

/// A row that cannot be read is set aside with what was there, and the others of its queue are kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bent_row_stands_alone() {
    const COUNT: u64 = 60;
    let start = Start::up();
    let table = std::fs::read_to_string(start.path().join("routes.yaml")).unwrap();
    let mut app = start.table(&table[..table.find("workers:").unwrap()]).start().await;
    for n in 0..COUNT {
        app.keep(&format!(r#"{{"text":"{n}"}}"#)).await;
    }
    app.term();
    assert!(app.wait(Duration::from_secs(20)).await.success());
    let bent = [
        ("properties = x'7B22FF'", "the message's properties can't be read"),
        ("properties = NULL", "the message's properties can't be read"),
        ("exchange = CAST(x'61FF' AS TEXT)", "the message's exchange is not UTF-8"),
        ("key = x'61FF'", "the message's routing key is not UTF-8"),
        ("expires = 'never', returns = 'often', properties = x''", "the message's properties can't be read"),
    ];
    let file = app.folder.path().join("data/bus.db");
    {
        let connection = rusqlite::Connection::open(&file).unwrap();
        for (at, (change, _)) in bent.iter().enumerate() {
            let changed = format!(
                "UPDATE message SET {change} WHERE seq = (SELECT seq FROM message ORDER BY seq LIMIT 1 OFFSET {})",
                at * 10 + 5
            );
            // A column that takes no such value can't be bent so.
            println!("{change}: {:?}", connection.execute(&changed, []));
        }
    }
    let app = Start::up().folder(app.folder.clone()).table(&table).start().await;
    let mut aside: Vec<String> = Vec::new();
    let mut dead = Vec::new();
    crate::support::eventually("all to be kept or set aside", || {
        aside.clear();
        let connection = rusqlite::Connection::open(&file).unwrap();
        let sql = "SELECT properties FROM message JOIN queue ON queue.id = message.queue WHERE name = 'messages.dead'";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        aside.extend(rows.map(|row| String::from_utf8(row.unwrap()).unwrap()));
        let (all, app) = (aside.len() as u64, &app);
        async move {
            let total = app.json("/api/v1/messages?limit=1&count=true").await["total"].as_u64()?;
            (total + all == COUNT).then_some(())
        }
    })
    .await;
    dead.append(&mut aside);
    assert!(dead.len() >= 3, "{dead:?}");
    for (_, why) in bent {
        println!("{why}: {}", dead.iter().filter(|dead| dead.contains(why)).count());
    }
    for properties in &dead {
        assert!(properties.contains("unreadable"), "{properties}");
        assert!(bent.iter().any(|(_, why)| properties.contains(why)), "{properties}");
    }
}

/// What may happen to a queue.
#[derive(Debug, Clone)]
enum Step {
    Publish(u8),
    Take(u8),
    Ack,
    Retry,
    Reject,
    Close,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_u8..5).prop_map(Step::Publish),
        4 => (1_u8..5).prop_map(Step::Take),
        4 => Just(Step::Ack),
        2 => Just(Step::Retry),
        1 => Just(Step::Reject),
        1 => Just(Step::Close),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

/// The folder as a crash would leave it, in a new place.
fn crashed(folder: &tempfile::TempDir) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["bus.db", "bus.db-wal"] {
        if folder.path().join(file).exists() {
            std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
        }
    }
    copy
}

/// Whatever happens: what was kept and not settled is there, once, and what was settled does not come back. (After a
/// crash it may: an ack is no promise before its commit.)
async fn live(steps: Vec<Step>) {
    const SOON: Duration = Duration::from_millis(5);
    let table = topology([("q".to_owned(), queue(QueueKind::Quorum))]);
    let mut folder = tempfile::tempdir().unwrap();
    let mut bus = open(folder.path());
    bus.declare(&table).await.unwrap();
    let mut deliveries = bus.consume("q", 8).await.unwrap();
    let mut held: VecDeque<Delivery> = VecDeque::new();
    // What must be there, what may be, and what was settled since the last start.
    let (mut must, mut may, mut settled, mut next) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), 0_u32);
    for step in steps {
        match step {
            Step::Publish(count) => {
                for _ in 0..count {
                    next += 1;
                    assert_eq!(bus.publish(to("q", next.to_string()), soon()).await, Outcome::Routed);
                    must.insert(next.to_string());
                }
            }
            Step::Take(count) => {
                for _ in 0..count {
                    if let Ok(Some(delivery)) = tokio::time::timeout(SOON, deliveries.next()).await {
                        held.push_back(delivery);
                    }
                }
            }
            Step::Ack | Step::Reject => {
                let Some(delivery) = held.pop_front() else { continue };
                let body = text(&delivery);
                assert!(must.remove(&body) | may.remove(&body), "{body} came back after it was settled");
                settled.insert(body);
                if matches!(step, Step::Ack) { delivery.ticket.ack() } else { delivery.ticket.reject() }
            }
            Step::Retry => {
                if let Some(delivery) = held.pop_front() {
                    delivery.ticket.retry();
                }
            }
            Step::Close | Step::Crash => {
                if matches!(step, Step::Crash) {
                    folder = crashed(&folder);
                    may.append(&mut settled);
                } else {
                    // Given back before the end, as a runner does.
                    held.clear();
                    drop(deliveries);
                    bus.close().await;
                    drop(bus);
                }
                held.clear();
                bus = open(folder.path());
                bus.declare(&table).await.unwrap();
                deliveries = bus.consume("q", 8).await.unwrap();
            }
        }
    }
    held.clear();
    let mut seen = BTreeSet::new();
    while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_millis(150), deliveries.next()).await {
        let body = text(&delivery);
        assert!(must.contains(&body) || may.contains(&body), "{body} came back after it was settled");
        assert!(seen.insert(body), "twice");
        delivery.ticket.ack();
    }
    assert!(must.is_subset(&seen), "lost: {:?}", must.difference(&seen));
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.body.to_vec()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn nothing_is_lost_and_nothing_settled_comes_back(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(live(steps));
    }
}
