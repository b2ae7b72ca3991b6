//! The contract of the store port: every adapter passes every case. A further adapter is one more line at the end.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use fpesa_workers::{
    event::Event,
    store::{self, Access, Appended, From, PageQuery, Store, StoreError},
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::support::{mongodb::Mongodb, postgres::Postgres, release::Release};

pub const START: i64 = 1_800_000_000_000_000;

pub fn event(n: u128, seconds: i64, topic: &str, data: &str) -> Event {
    let id = Uuid::from_u128(n);
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(START + seconds * 1_000_000) * 1000).unwrap();
    let time = time.format(&time::format_description::well_known::Rfc3339).unwrap();
    let text = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/t","type":"t","subject":"{topic}","time":"{time}","data":{data}}}"#
    );
    Event::parse(text.into()).unwrap()
}

pub fn newest(limit: usize) -> PageQuery {
    PageQuery { limit, max_bytes: usize::MAX, from: From::Newest, topic: None, since: None, until: None, count: false }
}

pub fn ids(items: &[Bytes]) -> Vec<Uuid> {
    items.iter().map(|text| Event::parse(text.clone()).unwrap().id).collect()
}

/// The same store, opened several times where more than one process may use it.
type Stores = Vec<Arc<dyn Store>>;

async fn each_id_once(stores: Stores) {
    let store = &stores[0];
    let (a, b) = (event(1, 0, "m/a", "1"), event(2, 1, "m/a", "2"));
    // Twice in one batch, then across batches; an id with other data, type or subject is another event's.
    assert_eq!(
        store.append(&[a.clone(), b.clone(), a.clone()]).await.unwrap(),
        [Appended::Kept, Appended::Kept, Appended::Duplicate]
    );
    assert_eq!(store.append(&[b, a]).await.unwrap(), [Appended::Duplicate, Appended::Duplicate]);
    for other in [event(1, 0, "m/a", "3"), event(1, 0, "m/b", "1")] {
        assert_eq!(store.append(&[other]).await.unwrap(), [Appended::Conflict]);
    }
    // The first one's time counts: a retry is made later.
    assert_eq!(store.append(&[event(1, 60, "m/a", "1")]).await.unwrap(), [Appended::Duplicate]);
    let page = store.page(&PageQuery { count: true, ..newest(10) }).await.unwrap();
    assert_eq!(
        (ids(&page.items), page.total, page.next),
        (vec![Uuid::from_u128(2), Uuid::from_u128(1)], Some(2), None)
    );
    assert!(store.get(&Uuid::from_u128(3)).await.unwrap().is_none());
}

async fn order_is_time_then_id(stores: Stores) {
    let store = &stores[0];
    // Kept in another order than theirs; three share a time.
    for (n, seconds) in [(9, 5), (3, 1), (7, 1), (1, 9), (5, 1)] {
        store.append(&[event(n, seconds, "m/a", "0")]).await.unwrap();
    }
    let all: Vec<Uuid> = [1, 9, 7, 5, 3].map(Uuid::from_u128).to_vec();
    assert_eq!(ids(&store.page(&newest(10)).await.unwrap().items), all);
    let mut walked = Vec::new();
    let mut query = newest(1);
    loop {
        let page = store.page(&query).await.unwrap();
        walked.extend(ids(&page.items));
        match page.next {
            Some(next) => query.from = From::Before(next),
            None => break,
        }
    }
    assert_eq!(walked, all);
    let after = PageQuery { from: From::After(Uuid::from_u128(5)), ..newest(10) };
    let page = store.page(&after).await.unwrap();
    assert_eq!((ids(&page.items), page.next), ([7, 9, 1].map(Uuid::from_u128).to_vec(), None));
    let unknown = PageQuery { from: From::After(Uuid::from_u128(99)), ..newest(10) };
    assert_eq!(store.page(&unknown).await, Err(StoreError::UnknownAfter));
}

async fn filters(stores: Stores) {
    let store = &stores[0];
    let topics = ["m/a", "m/b", "m/a/x", "n", "$sys/a"];
    let mut batch: Vec<Event> = topics
        .iter()
        .enumerate()
        .map(|(n, topic)| event(n as u128 + 1, i64::try_from(n).unwrap(), topic, "0"))
        .collect();
    // More topics than are walked side by side, and one event without any.
    batch.extend((100..400).map(|n| event(n, -1000, &format!("many/{n}"), "0")));
    let text = String::from_utf8(event(50, -2000, "x", "0").text.to_vec()).unwrap().replace(r#""subject":"x","#, "");
    batch.push(Event::parse(text.into()).unwrap());
    store.append(&batch).await.unwrap();
    for (filter, expected) in [
        ("m/a", vec![1]),
        ("m/+", vec![2, 1]),
        ("m/#", vec![3, 2, 1]),
        ("+", vec![4]),
        ("+/a/#", vec![3, 1]),
        ("$sys/#", vec![5]),
        ("nothing", vec![]),
        ("nothing/#", vec![]),
    ] {
        let query = PageQuery { topic: Some(filter.parse().unwrap()), count: true, ..newest(10) };
        let page = store.page(&query).await.unwrap();
        let expected: Vec<Uuid> = expected.into_iter().map(Uuid::from_u128).collect();
        assert_eq!((ids(&page.items), page.total), (expected.clone(), Some(expected.len() as u64)), "{filter}");
    }
    for (filter, count) in [("many/#", 300), ("#", 304)] {
        let mut seen = HashSet::new();
        let mut query = PageQuery { topic: Some(filter.parse().unwrap()), count: true, ..newest(70) };
        loop {
            let page = store.page(&query).await.unwrap();
            assert_eq!(page.total, Some(count), "{filter}");
            assert!(ids(&page.items).into_iter().all(|id| seen.insert(id)), "{filter}");
            match page.next {
                Some(next) => query.from = From::Before(next),
                None => break,
            }
        }
        assert_eq!(seen.len() as u64, count, "{filter}");
    }
    let second = |n: i64| Some(START + n * 1_000_000);
    let between = PageQuery { since: second(1), until: second(3), count: true, ..newest(10) };
    let page = store.page(&between).await.unwrap();
    assert_eq!((ids(&page.items), page.total), ([3, 2].map(Uuid::from_u128).to_vec(), Some(2)));
}

async fn a_walk_is_stable_while_four_write(stores: Stores) {
    let store = &stores[0];
    let there: Vec<Event> = (0..500).map(|n| event(n * 2, i64::try_from(n).unwrap() / 7, "m/a", "0")).collect();
    store.append(&there).await.unwrap();
    let writers: Vec<_> = (0..4_u128)
        .map(|writer| {
            let store = stores[usize::try_from(writer).unwrap()].clone();
            tokio::spawn(async move {
                for n in 0..60 {
                    // Among the old ones and behind them, with ids in between.
                    let n = writer * 1_000 + n;
                    let seconds = i64::try_from(n % 90).unwrap();
                    store.append(&[event(n * 2 + 1, seconds, "m/b", "0")]).await.unwrap();
                }
            })
        })
        .collect();
    // Everything; what one topic has, which nobody writes to; and a part of the time, which all write to.
    let (since, until) = (START + 10_000_000, START + 60_000_000);
    let queries = [
        newest(11),
        PageQuery { topic: Some("m/a".parse().unwrap()), count: true, ..newest(13) },
        PageQuery { topic: Some("+/#".parse().unwrap()), since: Some(since), until: Some(until), ..newest(17) },
    ];
    for mut query in queries {
        let passes = |event: &&Event| {
            query.since.is_none_or(|since| event.time >= since) && query.until.is_none_or(|until| event.time < until)
        };
        let expected: HashSet<Uuid> = there.iter().filter(passes).map(|event| event.id).collect();
        let mut seen = Vec::new();
        loop {
            let page = store.page(&query).await.unwrap();
            assert_eq!(page.total, query.count.then_some(500));
            seen.extend(ids(&page.items));
            match page.next {
                Some(next) => query.from = From::Before(next),
                None => break,
            }
        }
        let unique: HashSet<Uuid> = seen.iter().copied().collect();
        assert_eq!(unique.len(), seen.len(), "none twice");
        assert!(unique.is_superset(&expected), "none missing");
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let all = PageQuery { count: true, ..newest(1) };
    assert_eq!(store.page(&all).await.unwrap().total, Some(500 + 4 * 60));
}

/// How `after` is used so that nothing is missed that is committed late: it goes on from an event that is older than the
/// newest one by as much as a commit may be late, and what comes is merged by id. Four write, some of them late.
async fn after_with_an_overlap_misses_no_late_commit(stores: Stores) {
    const OVERLAP: i64 = 20;
    const LAST: i64 = 300;
    // The next second to be written, and those that are on their way: no commit is later than the overlap.
    let clock = Arc::new(Mutex::new((1, HashSet::new())));
    let store = stores[0].clone();
    store.append(&[event(0, 0, "m/a", "0")]).await.unwrap();
    let writers: Vec<_> = (0..4_u64)
        .map(|writer| {
            let (store, clock) = (stores[usize::try_from(writer).unwrap()].clone(), clock.clone());
            tokio::spawn(async move {
                loop {
                    let mine = {
                        let (next, under_way) = &mut *clock.lock().unwrap();
                        let oldest = under_way.iter().min().copied().unwrap_or(*next);
                        if *next > LAST {
                            return;
                        }
                        (*next - oldest < OVERLAP).then(|| {
                            under_way.insert(*next);
                            *next += 1;
                            *next - 1
                        })
                    };
                    // Another holds the time back: its commit comes first.
                    let Some(second) = mine else {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        continue;
                    };
                    tokio::time::sleep(Duration::from_millis(writer * 4)).await;
                    store.append(&[event(second.unsigned_abs().into(), second, "m/a", "0")]).await.unwrap();
                    clock.lock().unwrap().1.remove(&second);
                }
            })
        })
        .collect();
    let mut seen = BTreeMap::from([(0, Uuid::from_u128(0))]);
    let mut late = 0;
    let mut done = false;
    loop {
        let newest_seen = *seen.last_key_value().unwrap().0;
        let from = *seen.range(..=(newest_seen - OVERLAP).max(0)).next_back().unwrap().1;
        let page = store.page(&PageQuery { from: From::After(from), ..newest(1_000) }).await.unwrap();
        for id in ids(&page.items) {
            let second = i64::try_from(id.as_u128()).unwrap();
            if seen.insert(second, id).is_none() && second < newest_seen {
                late += 1;
            }
        }
        if done {
            break;
        }
        done = writers.iter().all(tokio::task::JoinHandle::is_finished);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), (0..=LAST).collect::<Vec<_>>());
    assert!(late > 0, "no commit was late: this proved nothing");
}

/// What databases like to change comes back byte for byte, what a gateway refuses too.
async fn what_is_hard_to_keep_comes_back(stores: Stores) {
    let store = &stores[0];
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let large = format!("\"{}\"", "0123456789abcdef".repeat(200 * 1024 / 16));
    let hard = [
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "18446744073709551616",
        "123456789012345678901234567890",
        "0.123456789012345678901234567890",
        "-0",
        "-0.0",
        "1.0",
        "1E2",
        "1e-400",
        "1e400",
        "1e7000",
        r#""\u0000""#,
        r#"{"\u0000":1}"#,
        r#"{"$oid":"5f43a2b1c3d4e5f601234567"}"#,
        r#"{"$numberLong":"12","$date":"never"}"#,
        r#"{"a.b":{"$set":1},".":2,"":3}"#,
        r#"{"z":1,"a":2,"m":{"y":3,"b":4}}"#,
        " {\n\t\"a\" :\r\n [ 1 , 2 ] } ",
        r#""😀 \ud83d\ude00 \/ \u00fc ü""#,
        r#""\ud800""#,
        r#"{"\udc00":"\ud800x"}"#,
        r#"{"a":1,"a":2,"\u0061":3}"#,
        "[]",
        "{}",
        "null",
        &deep,
        &large,
    ];
    let batch: Vec<Event> = hard
        .iter()
        .enumerate()
        .map(|(n, data)| event(n as u128 + 1, i64::try_from(n).unwrap(), "m/hard", data))
        .collect();
    assert!(store.append(&batch).await.unwrap().iter().all(|appended| *appended == Appended::Kept));
    // A topic may be as odd: with U+0000 in it, and long.
    let long = "x".repeat(60_000);
    let odd = [event(1_000, 1_000, "odd/\\u0000", "1"), event(1_001, 1_001, &format!("odd/{long}"), "1")];
    assert_eq!(store.append(&odd).await.unwrap(), [Appended::Kept, Appended::Kept]);
    for (event, data) in batch.iter().zip(&hard) {
        let shown = &data[..data.len().min(80)];
        assert_eq!(stores[1].get(&event.id).await.unwrap().as_ref(), Some(&event.text), "{shown}");
    }
    let page = store.page(&PageQuery { topic: Some("m/hard".parse().unwrap()), ..newest(100) }).await.unwrap();
    assert!(page.items.iter().eq(batch.iter().rev().map(|event| &event.text)));
    let page = store.page(&PageQuery { topic: Some("odd/+".parse().unwrap()), ..newest(100) }).await.unwrap();
    assert!(page.items.iter().eq(odd.iter().rev().map(|event| &event.text)));
    let page =
        store.page(&PageQuery { topic: Some(format!("odd/{long}").parse().unwrap()), ..newest(9) }).await.unwrap();
    assert_eq!(ids(&page.items), [Uuid::from_u128(1_001)]);
    assert!(store.append(&batch).await.unwrap().iter().all(|appended| *appended == Appended::Duplicate));
}

/// Writers that meet on the same ids, in other orders: each id is kept by one of them, and nobody gets stuck.
async fn several_open_and_write_at_once(stores: Stores) {
    const WRITERS: usize = 4;
    let events: Vec<Event> = (1..=300).map(|n| event(n, 0, &format!("m/{}", n % 7), "0")).collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = stores[writer].clone();
            let mut mine = events.clone();
            mine.rotate_left(writer * 71);
            if writer % 2 == 1 {
                mine.reverse();
            }
            tokio::spawn(async move {
                let mut kept = 0;
                for batch in mine.chunks(50) {
                    for appended in store.append(batch).await.unwrap() {
                        assert_ne!(appended, Appended::Conflict);
                        kept += usize::from(appended == Appended::Kept);
                    }
                }
                kept
            })
        })
        .collect();
    let mut kept = 0;
    for writer in writers {
        kept += writer.await.unwrap();
    }
    assert_eq!(kept, events.len());
    assert_eq!(stores[0].page(&newest(1_000)).await.unwrap().items.len(), events.len());
}

/// A page ends where its documents would be too large together; one is shown whatever its size, and each page leads on.
async fn pages_end_by_their_bytes(stores: Stores) {
    const MAX: usize = 100_000;
    let store = &stores[0];
    let data = |size: usize| format!("\"{}\"", "x".repeat(size));
    // Thirty a second apart in three topics, of 30 kB each, but one that alone is larger than a page.
    let events: Vec<Event> = (1..=30)
        .map(|n| {
            let size = if n == 17 { 2 * MAX } else { 30_000 };
            event(n, i64::try_from(n).unwrap(), &format!("m/{}", n % 3), &data(size))
        })
        .collect();
    store.append(&events).await.unwrap();
    let many: Vec<Event> = (100..=310).map(|n| event(n, -1_000, &format!("many/{n}"), "0")).collect();
    store.append(&many).await.unwrap();
    let walk = async |mut query: PageQuery| {
        let mut seen = Vec::new();
        loop {
            let page = store.page(&query).await.unwrap();
            let bytes: usize = page.items.iter().map(Bytes::len).sum();
            assert!(
                page.items.len() == 1 || (!page.items.is_empty() && bytes <= MAX),
                "{} of {bytes}",
                page.items.len()
            );
            let shown = ids(&page.items);
            seen.extend(shown.iter().map(Uuid::as_u128));
            let Some(next) = page.next else { return seen };
            assert_eq!(Some(&next.id), shown.last());
            query.from = match query.from {
                From::Newest | From::Before(_) => From::Before(next),
                From::After(_) => From::After(next.id),
                From::Following(_) => From::Following(next),
            };
        }
    };
    let all = PageQuery { max_bytes: MAX, since: Some(START), ..newest(1_000) };
    let forward = PageQuery { from: From::After(Uuid::from_u128(1)), ..all.clone() };
    let following = PageQuery { from: From::Following(store::Cursor::FIRST), ..all.clone() };
    assert_eq!(walk(all.clone()).await, (1..=30).rev().collect::<Vec<_>>());
    assert_eq!(walk(forward.clone()).await, (2..=30).collect::<Vec<_>>());
    assert_eq!(walk(following).await, (1..=30).collect::<Vec<_>>());
    for (topic, expected) in
        [("m/2", vec![2, 5, 8, 11, 14, 17, 20, 23, 26, 29]), ("m/+", (1..=30).collect()), ("#", (1..=30).collect())]
    {
        let query = PageQuery { topic: Some(topic.parse().unwrap()), ..all.clone() };
        assert_eq!(walk(query).await, expected.iter().rev().copied().collect::<Vec<u128>>(), "{topic}");
        let query = PageQuery { topic: Some(topic.parse().unwrap()), ..forward.clone() };
        let later: Vec<u128> = expected.into_iter().filter(|n| *n > 1).collect();
        assert_eq!(walk(query).await, later, "{topic}");
    }
    // The limit holds beside it, and is the end of a page that leads on too.
    let page = store.page(&PageQuery { limit: 2, ..forward }).await.unwrap();
    assert_eq!((ids(&page.items).len(), page.next.map(|next| next.id)), (2, Some(Uuid::from_u128(3))));
}

/// Whatever JSON there is comes back as the bytes that were sent.
fn any_json_comes_back(runtime: &tokio::runtime::Runtime, store: &Arc<dyn Store>) {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i128>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("JSON has no NaN", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
        ".*".prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just(r#""\ud800""#.to_owned()),
        Just("1e400".to_owned()),
    ];
    let json = leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[ {} ]", items.join(" ,\n"))),
            prop::collection::vec(("[$.a-z]{0,3}", inner), 0..5).prop_map(|members| {
                let members: Vec<String> = members.iter().map(|(name, value)| format!("{name:?}: {value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    });
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(64));
    runner
        .run(&json, |data| {
            let event = event(Uuid::now_v7().as_u128(), 0, "m/json", &data);
            runtime.block_on(async {
                assert_eq!(store.append(std::slice::from_ref(&event)).await.unwrap(), [Appended::Kept]);
                assert_eq!(store.get(&event.id).await.unwrap().unwrap(), event.text);
                assert_eq!(store.append(std::slice::from_ref(&event)).await.unwrap(), [Appended::Duplicate]);
            });
            Ok(())
        })
        .unwrap();
}

/// A store, opened four times or one that four share, with whatever must live as long as it.
type Opened = (Box<dyn std::any::Any>, Stores);

/// Runs every case on a store that `open` makes anew.
fn contract(open: impl Fn(&tokio::runtime::Runtime) -> Opened) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (_kept, stores) = open(&runtime);
    runtime.block_on(each_id_once(stores));
    let (_kept, stores) = open(&runtime);
    runtime.block_on(order_is_time_then_id(stores));
    let (_kept, stores) = open(&runtime);
    runtime.block_on(filters(stores));
    let (_kept, stores) = open(&runtime);
    runtime.block_on(pages_end_by_their_bytes(stores));
    let (_kept, stores) = open(&runtime);
    runtime.block_on(a_walk_is_stable_while_four_write(stores));
    let (_kept, stores) = open(&runtime);
    runtime.block_on(after_with_an_overlap_misses_no_late_commit(stores));
    let (_kept, stores) = open(&runtime);
    runtime.block_on(several_open_and_write_at_once(stores));
    let (_kept, stores) = open(&runtime);
    runtime.block_on(what_is_hard_to_keep_comes_back(stores));
    let (_kept, stores) = open(&runtime);
    any_json_comes_back(&runtime, &stores[0]);
}

/// Four processes' stores on one database, opened at the same time.
fn four(runtime: &tokio::runtime::Runtime, url: &str) -> Opened {
    let opening = (0..4).map(|_| store::open(at(url)));
    let opened = runtime.block_on(futures::future::join_all(opening));
    (Box::new(()), opened.into_iter().map(Result::unwrap).collect())
}

pub fn embedded(folder: &Path) -> Access<'_> {
    Access { url: "embedded:", password: None, data_dir: folder }
}

pub fn at(url: &str) -> Access<'_> {
    Access { url, password: None, data_dir: Path::new("/nowhere") }
}

#[test]
fn the_embedded_store() {
    contract(|runtime| {
        let folder = tempfile::tempdir().unwrap();
        let store = runtime.block_on(store::open(embedded(folder.path()))).unwrap();
        (Box::new(folder), vec![store; 4])
    });
}

crate::on_each_postgres!(
    the_postgres_store,
    postgres_newer_than_we_and_many_at_the_first_start,
    postgres_keeps_a_mirror_where_it_is_exact,
    postgres_away_and_back,
    postgres_pages_use_the_index
);

async fn the_postgres_store(on: Release) {
    // The contract has a runtime of its own.
    let contract = move || {
        let server = Postgres::on(on);
        contract(|runtime| four(runtime, &server.database()));
    };
    tokio::task::spawn_blocking(contract).await.unwrap();
}

#[test]
fn the_mongodb_store() {
    let server = Mongodb::start();
    contract(|runtime| four(runtime, &server.database()));
}

#[tokio::test]
async fn what_was_kept_is_there_after_a_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let one = event(1, 0, "m/a", "1");
    let first = store::open(embedded(folder.path())).await.unwrap();
    first.append(std::slice::from_ref(&one)).await.unwrap();
    // Nothing is closed: this is what a crash leaves.
    let again = store::open(at(&format!("embedded:{}", folder.path().display()))).await.unwrap();
    assert_eq!(again.get(&one.id).await.unwrap().unwrap(), one.text);
}

#[tokio::test]
async fn what_can_not_be_opened_says_why() {
    let folder = tempfile::tempdir().unwrap();
    drop(store::open(embedded(folder.path())).await.unwrap());
    let connection = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    connection.execute_batch("PRAGMA user_version = 99").unwrap();
    for (url, told) in [
        ("embedded:", "newer fpesa"),
        ("embedded:/proc/nowhere", "/proc/nowhere"),
        ("redis://h", "no store"),
        ("x", "URL"),
        ("postgres://u:hidden@h/d?nonsense=1", "nonsense"),
        ("postgres://u:hidden@h/d?sslrootcert=/nowhere.pem", "/nowhere.pem"),
        ("mongodb://u:hidden@h:port/d", "mongodb://user@host"),
        ("mongodb://u:hidden@h/d?tls=true&tlsCAFile=/nowhere.pem", "/nowhere.pem"),
    ] {
        let error = store::open(Access { url, ..embedded(folder.path()) }).await.err().unwrap().to_string();
        assert!(error.contains(told) && !error.contains("hidden"), "{url}: {error}");
    }
}

async fn postgres_newer_than_we_and_many_at_the_first_start(on: Release) {
    let server = Postgres::on(on);
    let url = server.database();
    let opening = (0..8).map(|_| store::open(at(&url)));
    for opened in futures::future::join_all(opening).await {
        opened.unwrap();
    }
    Postgres::sql(&url, "UPDATE fpesa_schema SET version = 99");
    let error = store::open(at(&url)).await.err().unwrap().to_string();
    assert!(error.contains("newer fpesa") && error.contains("99"), "{error}");
    let nobody = url.replace("fpesa@", "nobody:s3cret@");
    let error = store::open(at(&nobody)).await.err().unwrap().to_string();
    assert!(error.contains("nobody") && !error.contains("s3cret"), "{error}");
}

/// What is exact is there for ad-hoc queries; what is not has no mirror.
async fn postgres_keeps_a_mirror_where_it_is_exact(on: Release) {
    let server = Postgres::on(on);
    let url = server.database();
    let store = store::open(at(&url)).await.unwrap();
    let data = ["{\"n\": 123456789012345678901234567890}", "\"\\u0000\"", "{\"a\":1,\"a\":2}", "1e400"];
    for (n, data) in data.iter().enumerate() {
        store.append(&[event(n as u128 + 1, 0, "m/a", data)]).await.unwrap();
    }
    let found = Postgres::sql(&url, "SELECT doc->'data'->>'n' FROM fpesa_event WHERE doc IS NOT NULL");
    assert_eq!(found.trim(), "123456789012345678901234567890");
}

async fn postgres_away_and_back(on: Release) {
    let mut server = Postgres::on(on);
    let url = server.database();
    let store = store::open(at(&url)).await.unwrap();
    store.append(&[event(1, 0, "m/a", "1")]).await.unwrap();
    server.kill9();
    assert!(matches!(store.append(&[event(2, 0, "m/a", "1")]).await, Err(StoreError::Away(_))));
    assert!(matches!(store.page(&newest(1)).await, Err(StoreError::Away(_))));
    // A store that is away is opened all the same.
    let later = store::open(at(&url)).await.unwrap();
    server.restart();
    for store in [store, later] {
        store.append(&[event(2, 0, "m/a", "1")]).await.unwrap();
        assert_eq!(store.page(&newest(10)).await.unwrap().items.len(), 2);
    }
}

/// Every page is read along an index: no plan sorts or scans the table.
async fn postgres_pages_use_the_index(on: Release) {
    let server = Postgres::on(on);
    let url = server.database();
    let store = store::open(at(&url)).await.unwrap();
    for start in (0..20_000_i64).step_by(5_000) {
        let batch: Vec<Event> =
            (start..start + 5_000).map(|n| event(n.unsigned_abs().into(), n, &format!("m/{}", n % 50), "0")).collect();
        store.append(&batch).await.unwrap();
    }
    Postgres::sql(&url, "ANALYZE");
    let place = format!("({}, '{}'::uuid)", START + 9_000_000_000, Uuid::from_u128(9_000));
    let walk = "SELECT time, id FROM fpesa_event WHERE";
    let merged = format!(
        "SELECT place.time, place.id, event.text FROM (SELECT walked.time, walked.id \
         FROM unnest(ARRAY[1,2,3]::bigint[]) AS given (topic), LATERAL \
         ({walk} fpesa_event.topic = given.topic AND (time, id) < {place} ORDER BY time DESC, id DESC LIMIT 51) walked \
         ORDER BY time DESC, id DESC LIMIT 51) place JOIN fpesa_event event ON event.id = place.id \
         ORDER BY place.time DESC, place.id DESC"
    );
    for (sql, index) in [
        (format!("{walk} true AND (time, id) < {place} ORDER BY time DESC, id DESC LIMIT 51"), "fpesa_event_by_time"),
        (format!("{walk} true AND (time, id) > {place} ORDER BY time, id LIMIT 51"), "fpesa_event_by_time"),
        (merged, "fpesa_event_by_topic"),
    ] {
        let plan = Postgres::sql(&url, &format!("EXPLAIN {sql}"));
        assert!(plan.contains(&format!("using {index} on fpesa_event")), "{plan}");
        assert!(!plan.contains("Seq Scan on fpesa_event"), "{plan}");
    }
}
