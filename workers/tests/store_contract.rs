//! The contract of the store port: every adapter passes every case. A further adapter is one more line at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{collections::HashSet, path::Path, sync::Arc};

use bytes::Bytes;
use fpesa_workers::{
    event::Event,
    store::{self, Appended, From, PageQuery, Store, StoreError},
};
use proptest::prelude::*;
use uuid::Uuid;

const START: i64 = 1_800_000_000_000_000;

fn event(n: u128, seconds: i64, topic: &str, data: &str) -> Event {
    let id = Uuid::from_u128(n);
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(START + seconds * 1_000_000) * 1000).unwrap();
    let time = time.format(&time::format_description::well_known::Rfc3339).unwrap();
    let text = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/t","type":"t","subject":"{topic}","time":"{time}","data":{data}}}"#
    );
    Event::parse(text.into()).unwrap()
}

fn newest(limit: usize) -> PageQuery {
    PageQuery { limit, from: From::Newest, topic: None, since: None, until: None, count: false }
}

fn ids(items: &[Bytes]) -> Vec<Uuid> {
    items.iter().map(|text| Event::parse(text.clone()).unwrap().id).collect()
}

async fn each_id_once(store: Arc<dyn Store>) {
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

async fn order_is_time_then_id(store: Arc<dyn Store>) {
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

async fn filters(store: Arc<dyn Store>) {
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

async fn a_walk_is_stable_while_four_write(store: Arc<dyn Store>) {
    let there: Vec<Event> = (0..500).map(|n| event(n * 2, i64::try_from(n).unwrap() / 7, "m/a", "0")).collect();
    store.append(&there).await.unwrap();
    let writers: Vec<_> = (0..4_u128)
        .map(|writer| {
            let store = store.clone();
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
    let mut seen = Vec::new();
    let mut query = newest(11);
    loop {
        let page = store.page(&query).await.unwrap();
        seen.extend(ids(&page.items));
        match page.next {
            Some(next) => query.from = From::Before(next),
            None => break,
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let unique: HashSet<Uuid> = seen.iter().copied().collect();
    assert_eq!(unique.len(), seen.len(), "none twice");
    assert!(there.iter().all(|event| unique.contains(&event.id)), "none missing");
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

/// Runs every case on a store that `open` makes anew.
fn contract<T>(open: impl Fn() -> (T, Arc<dyn Store>)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (_kept, store) = open();
        each_id_once(store).await;
        let (_kept, store) = open();
        order_is_time_then_id(store).await;
        let (_kept, store) = open();
        filters(store).await;
        let (_kept, store) = open();
        a_walk_is_stable_while_four_write(store).await;
    });
    let (_kept, store) = open();
    any_json_comes_back(&runtime, &store);
}

#[test]
fn the_embedded_store() {
    contract(|| {
        let folder = tempfile::tempdir().unwrap();
        let store = store::open("embedded:", folder.path()).unwrap();
        (folder, store)
    });
}

#[tokio::test]
async fn what_was_kept_is_there_after_a_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let one = event(1, 0, "m/a", "1");
    let first = store::open("embedded:", folder.path()).unwrap();
    first.append(std::slice::from_ref(&one)).await.unwrap();
    // Nothing is closed: this is what a crash leaves.
    let again = store::open(&format!("embedded:{}", folder.path().display()), Path::new("/nowhere")).unwrap();
    assert_eq!(again.get(&one.id).await.unwrap().unwrap(), one.text);
}

#[tokio::test]
async fn what_can_not_be_opened_says_why() {
    let folder = tempfile::tempdir().unwrap();
    drop(store::open("embedded:", folder.path()).unwrap());
    let connection = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    connection.execute_batch("PRAGMA user_version = 99").unwrap();
    for (url, told) in [
        ("embedded:", "newer fpesa"),
        ("embedded:/proc/nowhere", "/proc/nowhere"),
        ("redis://h", "no store"),
        ("x", "URL"),
    ] {
        let error = store::open(url, folder.path()).err().unwrap().to_string();
        assert!(error.contains(told), "{url}: {error}");
    }
}
