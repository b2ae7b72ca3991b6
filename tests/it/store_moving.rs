//! The contract of the store port, the part that moving and retention stand on: walks forward, places, removal.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use fpesa_workers::store::{Appended, Cursor, From, PAGE_BYTES, PageQuery, Store, StoreError};
use uuid::Uuid;

use crate::support::{
    history::{START, all, embedded, event, events, fill, open},
    mongodb::Mongodb,
    postgres::Postgres,
    release::Release,
};

fn following(place: Cursor, limit: usize) -> PageQuery {
    PageQuery {
        limit,
        max_bytes: PAGE_BYTES,
        from: From::Following(place),
        topic: None,
        since: None,
        until: None,
        count: false,
    }
}

/// Walks forward, and gives the pages' ids.
async fn walk(store: &Arc<dyn Store>, mut query: PageQuery) -> Vec<Vec<Uuid>> {
    let mut pages = Vec::new();
    loop {
        let page = store.page(&query).await.unwrap();
        pages.push(page.items.iter().map(|text| serde_json::from_slice::<Head>(text).unwrap().id).collect());
        match page.next {
            Some(next) => query.from = From::Following(next),
            None => return pages,
        }
    }
}

#[derive(serde::Deserialize)]
struct Head {
    id: Uuid,
}

fn ids(numbers: impl IntoIterator<Item = u128>) -> Vec<Uuid> {
    numbers.into_iter().map(Uuid::from_u128).collect()
}

async fn walks_go_forward(store: Arc<dyn Store>) {
    assert_eq!(walk(&store, following(Cursor::FIRST, 3)).await, [ids([])]);
    // Three share a time: then the id decides.
    let kept = [(9, 5), (3, 1), (7, 1), (1, 9), (5, 1), (2, 20)];
    for (n, seconds) in kept {
        store.append(&[event(n, seconds, if n == 7 { "m/b" } else { "m/a" }, "0")]).await.unwrap();
    }
    assert_eq!(walk(&store, following(Cursor::FIRST, 4)).await, [ids([3, 5, 7, 9]), ids([1, 2])]);
    // A page that is exactly full and the last one has nothing after it.
    assert_eq!(walk(&store, following(Cursor::FIRST, 6)).await, [ids([3, 5, 7, 9, 1, 2])]);
    let place = Cursor { time: START + 1_000_000, id: Uuid::from_u128(5) };
    assert_eq!(walk(&store, following(place, 2)).await, [ids([7, 9]), ids([1, 2])]);
    // Nothing needs to stand at the place.
    let between = Cursor { time: START + 6_000_000, id: Uuid::nil() };
    assert_eq!(walk(&store, following(between, 9)).await, [ids([1, 2])]);
    let part = PageQuery {
        topic: Some("m/a".parse().unwrap()),
        since: Some(START + 1_000_000),
        until: Some(START + 9_000_000),
        ..following(Cursor::FIRST, 2)
    };
    assert_eq!(walk(&store, part.clone()).await, [ids([3, 5]), ids([9])]);
    assert_eq!(walk(&store, PageQuery { topic: Some("nothing/#".parse().unwrap()), ..part }).await, [ids([])]);
}

async fn pages_of_large_documents_are_small(store: Arc<dyn Store>) {
    let large = format!("\"{}\"", "x".repeat(PAGE_BYTES / 5));
    for n in 1..=12 {
        let data = if n == 6 { format!("\"{}\"", "y".repeat(PAGE_BYTES * 3 / 2)) } else { large.clone() };
        store.append(&[event(n, 1, "m/a", &data)]).await.unwrap();
    }
    let pages = walk(&store, following(Cursor::FIRST, 1_000)).await;
    assert!(pages.len() >= 3, "{pages:?}");
    assert!(pages.iter().all(|page| (1..=6).contains(&page.len())), "{pages:?}");
    assert_eq!(pages.concat(), ids(1..=12));
}

async fn places(store: Arc<dyn Store>) {
    assert_eq!(store.place(0).await, Ok(None));
    fill(&store, &events(5)).await;
    let place = |n: i64| Cursor { time: START + n * 1_000_000, id: Uuid::from_u128(n.unsigned_abs().into()) };
    for newer in 0..5_u32 {
        assert_eq!(store.place(newer.into()).await, Ok(Some(place(5 - i64::from(newer)))));
    }
    assert_eq!(store.place(5).await, Ok(None));
    assert_eq!(store.place(u64::MAX).await, Ok(None));
}

async fn the_oldest_are_removed(store: Arc<dyn Store>) {
    fill(&store, &events(30)).await;
    let cut = store.place(9).await.unwrap().unwrap();
    assert_eq!(store.remove_before(&cut, 15).await, Ok(15));
    assert_eq!(walk(&store, following(Cursor::FIRST, 100)).await, [ids(16..=30)], "the oldest go first");
    assert_eq!(store.remove_before(&cut, 15).await, Ok(5));
    assert_eq!(store.remove_before(&cut, 15).await, Ok(0));
    // What is at the cut and after it stays, and every way of reading it ends there.
    let newest = PageQuery { from: From::Newest, count: true, ..following(cut, 100) };
    let page = store.page(&newest).await.unwrap();
    assert_eq!((page.items.len(), page.next, page.total), (10, None, Some(10)));
    let before = PageQuery { from: From::Before(cut), ..newest.clone() };
    assert_eq!(store.page(&before).await.unwrap().items.len(), 0, "a cursor at the cut");
    let long_gone = Cursor { time: START + 3_000_000, id: Uuid::from_u128(3) };
    let page = store.page(&PageQuery { from: From::Before(long_gone), ..newest.clone() }).await.unwrap();
    assert_eq!((page.items.len(), page.next), (0, None), "a cursor past the cut simply ends");
    for (topic, count) in [("m/0", 2), ("m/+", 10)] {
        let filtered = PageQuery { topic: Some(topic.parse().unwrap()), ..newest.clone() };
        assert_eq!(store.page(&filtered).await.unwrap().total, Some(count), "{topic}");
    }
    assert_eq!(store.get(&Uuid::from_u128(20)).await, Ok(None));
    let after = |n| PageQuery { from: From::After(Uuid::from_u128(n)), ..newest.clone() };
    assert_eq!(store.page(&after(20)).await, Err(StoreError::UnknownAfter));
    assert_eq!(store.page(&after(25)).await.unwrap().items.len(), 5);
    // One that comes once more is kept as any other, and goes with the next cut.
    assert_eq!(store.append(&events(3)).await.unwrap(), vec![Appended::Kept; 3]);
    assert_eq!(store.remove_before(&cut, 15).await, Ok(3));
}

/// Several remove, others write on both sides of the cut: nothing else is removed, and nobody is told a conflict.
async fn removal_while_others_write(store: Arc<dyn Store>) {
    const OLD: u128 = 1_500;
    let old = events(OLD);
    fill(&store, &old).await;
    let cut = Cursor { time: START + 100_000_000_000, id: Uuid::nil() };
    let (removed, again) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let done = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..2_u128 {
        let (store, old, again) = (store.clone(), old.clone(), again.clone());
        writers.push(tokio::spawn(async move {
            for (n, redelivered) in (0_u128..).zip(old.chunks(50)) {
                let new = event((writer + 1) * 1_000_000 + n, 200_000 + i64::try_from(n).unwrap(), "m/new", "0");
                assert_eq!(store.append(&[new]).await.unwrap(), [Appended::Kept]);
                // What is being removed comes once more, as a broker delivers again.
                for appended in store.append(redelivered).await.unwrap() {
                    assert_ne!(appended, Appended::Conflict);
                    again.fetch_add(u64::from(appended == Appended::Kept), Ordering::Relaxed);
                }
            }
        }));
    }
    let removers: Vec<_> = (0..3)
        .map(|_| {
            let (store, removed, done) = (store.clone(), removed.clone(), done.clone());
            tokio::spawn(async move {
                loop {
                    let last = done.load(Ordering::Relaxed);
                    let batch = store.remove_before(&cut, 40).await.unwrap();
                    removed.fetch_add(batch, Ordering::Relaxed);
                    if batch == 0 && last {
                        break;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for remover in removers {
        remover.await.unwrap();
    }
    // One that passed over what another one held may have ended first.
    removed.fetch_add(store.remove_before(&cut, 10_000).await.unwrap(), Ordering::Relaxed);
    let left = all(&store).await;
    assert_eq!(left.len(), 2 * old.chunks(50).count());
    assert!(left.iter().all(|event| event.place() > cut));
    assert_eq!(left.iter().map(|event| event.id).collect::<HashSet<_>>().len(), left.len());
    let all_old = u64::try_from(OLD).unwrap() + again.load(Ordering::Relaxed);
    assert_eq!(removed.load(Ordering::Relaxed), all_old, "each was counted once");
}

/// A store with whatever must live as long as it.
pub type Opened = (Box<dyn std::any::Any>, Arc<dyn Store>);

/// Runs every case on a store that `open` makes anew.
pub fn contract(open: impl Fn(&tokio::runtime::Runtime) -> Opened) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    macro_rules! cases {
        ($($case:ident),*) => {
            $(
                println!("case {}", stringify!($case));
                let (_kept, store) = open(&runtime);
                runtime.block_on($case(store));
            )*
        };
    }
    cases!(
        walks_go_forward,
        pages_of_large_documents_are_small,
        places,
        the_oldest_are_removed,
        removal_while_others_write
    );
}

#[test]
fn the_embedded_store() {
    contract(|runtime| {
        let folder = tempfile::tempdir().unwrap();
        let store = runtime.block_on(open(&embedded(folder.path())));
        (Box::new(folder), store)
    });
}

crate::on_each_postgres!(the_postgres_store);

async fn the_postgres_store(on: Release) {
    // The contract has a runtime of its own.
    let contract = move || {
        let server = Postgres::on(on);
        contract(|runtime| (Box::new(()), runtime.block_on(open(&server.database()))));
    };
    tokio::task::spawn_blocking(contract).await.unwrap();
}

#[test]
fn the_mongodb_store() {
    let server = Mongodb::start();
    contract(|runtime| (Box::new(()), runtime.block_on(open(&server.database()))));
}
