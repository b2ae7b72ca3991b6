//! Copies history from one store to another while both are in use. Both are walked side by side, and what the second one
//! lacks is written; then both are walked again, from the start: everything is compared byte for byte, and what arrived
//! late, with an earlier time, while the first walk had passed is found and written too.
//!
//! So whatever was in the first store when the second walk began is in the second one at the end. Nothing is remembered
//! between runs: one that was killed is run again, and reads what is there already.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    event::Event,
    lines,
    store::{Appended, Cursor, From, PAGE_BYTES, PageQuery, Part, Store, StoreError, Walk, events, patiently},
};

/// Events of the second store that are read at a time.
const PAGE: usize = 1_000;
/// Single events that are read at the same time.
const READING: usize = 8;
/// Most ids that are named of each kind of trouble.
const NAMED: usize = 1_000;

/// What a copy is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The first walk begins, over about so many events, where they could be counted.
    Copying(Option<u64>),
    /// The second walk is about to begin.
    Checking,
    /// It goes over about so many events.
    CheckingOf(Option<u64>),
    /// So many events are done.
    Did(u64),
}

/// How a copy ended. It is complete when [`Copied::is_complete`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// Events that were written.
    pub copied: u64,
    /// Events that were there already.
    pub present: u64,
    /// Events that were read from both stores and are the same, byte for byte.
    pub checked: u64,
    /// Events that are there with the same id, type, subject and data, and differ in something else, such as their time.
    pub alike: u64,
    /// Ids that are another event's in the second store.
    pub conflicts: Trouble,
    /// Events that were written and are not to be found.
    pub lost: Trouble,
    /// SHA-256 of what was checked, as `fpesa export` would print it, in hexadecimal digits.
    pub digest: String,
}

/// Events that something is wrong with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trouble {
    /// How many.
    pub count: u64,
    /// The first ones of them.
    pub ids: Vec<Uuid>,
}

/// Why a copy did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store that is copied {side}: {error}")]
pub struct CopyError {
    side: &'static str,
    error: StoreError,
}

impl Copied {
    /// Whether the second store has everything, as it is in the first one.
    pub fn is_complete(&self) -> bool {
        self.conflicts.count == 0 && self.lost.count == 0
    }
}

impl Trouble {
    fn add(&mut self, id: Uuid) {
        self.count += 1;
        if self.ids.len() < NAMED {
            self.ids.push(id);
        }
    }
}

/// Copies everything of `from` that `to` lacks, and says what it does.
pub async fn copy(
    from: &Arc<dyn Store>,
    to: &Arc<dyn Store>,
    told: &mut (dyn FnMut(Told) + Send),
) -> Result<Copied, CopyError> {
    let walk = start(from).await?;
    told(Told::Copying(walk.count().await.ok()));
    let first = pass(walk, to, false, told).await?;
    // Where nothing was to be written everything has been compared.
    let (copied, last) = if first.copied == 0 {
        (0, first)
    } else {
        told(Told::Checking);
        let walk = start(from).await?;
        told(Told::CheckingOf(walk.count().await.ok()));
        let second = pass(walk, to, true, told).await?;
        (first.copied + second.copied, second)
    };
    Ok(Copied {
        copied,
        present: (last.checked + last.alike).saturating_sub(copied),
        checked: last.checked,
        alike: last.alike,
        conflicts: last.conflicts,
        lost: last.lost,
        digest: last.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

async fn start(from: &Arc<dyn Store>) -> Result<Walk, CopyError> {
    Walk::start(from.clone(), Part::default()).await.map_err(of_from)
}

fn of_from(error: StoreError) -> CopyError {
    CopyError { side: "from", error }
}

fn of_to(error: StoreError) -> CopyError {
    CopyError { side: "to", error }
}

/// One walk through both stores.
async fn pass(
    mut walk: Walk,
    to: &Arc<dyn Store>,
    reads_back: bool,
    told: &mut (dyn FnMut(Told) + Send),
) -> Result<Pass, CopyError> {
    let mut pass = Pass::new(to.clone(), reads_back);
    let mut page = walk.next().await.map_err(of_from)?;
    while let Some(events) = page {
        // The next page is read while this one is written.
        let (next, settled) = tokio::join!(walk.next(), pass.settle(&events));
        settled.map_err(of_to)?;
        told(Told::Did(events.len() as u64));
        page = next.map_err(of_from)?;
    }
    Ok(pass)
}

/// What a walk knows and has found so far.
struct Pass {
    to: Arc<dyn Store>,
    beside: Beside,
    /// Whether what is written is read again.
    reads_back: bool,
    copied: u64,
    checked: u64,
    alike: u64,
    conflicts: Trouble,
    lost: Trouble,
    digest: Sha256,
    line: Vec<u8>,
}

impl Pass {
    fn new(to: Arc<dyn Store>, reads_back: bool) -> Self {
        Self {
            beside: Beside::new(to.clone()),
            to,
            reads_back,
            copied: 0,
            checked: 0,
            alike: 0,
            conflicts: Trouble::default(),
            lost: Trouble::default(),
            digest: Sha256::new(),
            line: Vec::new(),
        }
    }

    /// Writes what of these events is not there, and compares what is.
    async fn settle(&mut self, events: &[Event]) -> Result<(), StoreError> {
        let wanted: HashSet<Uuid> = events.iter().map(|event| event.id).collect();
        let Some(last) = events.last() else { return Ok(()) };
        let mut there = self.beside.up_to(last.place(), &wanted).await?;
        let missing: Vec<Event> = events.iter().filter(|event| !there.contains_key(&event.id)).cloned().collect();
        let mut written = HashSet::new();
        if !missing.is_empty() {
            let start = Instant::now();
            let appended = patiently(|| self.to.append(&missing)).await?;
            breathe(start.elapsed()).await;
            for (event, appended) in missing.iter().zip(&appended) {
                if let Appended::Refused(why) = appended {
                    tracing::warn!(id = %event.id, why, "the second store can never keep this one");
                }
            }
            let kept = missing.iter().zip(&appended).filter(|(_, appended)| **appended == Appended::Kept);
            written.extend(kept.map(|(event, _)| event.id));
            self.copied += written.len() as u64;
            // One that stands elsewhere in the order, or came this moment, is looked at by its id.
            let looks = |id: &Uuid| self.reads_back || !written.contains(id);
            let read: Vec<Uuid> = missing.iter().map(|event| event.id).filter(looks).collect();
            let to = self.to.clone();
            let mut reading = stream::iter(read)
                .map(|id| {
                    let to = to.clone();
                    async move { patiently(|| to.get(&id)).await.map(|text| (id, text)) }
                })
                .buffer_unordered(READING);
            while let Some(read) = reading.next().await {
                let (id, text) = read?;
                there.extend(text.map(|text| (id, text)));
            }
        }
        for event in events {
            match there.get(&event.id) {
                Some(text) if *text == event.text => {
                    self.checked += 1;
                    self.line.clear();
                    lines::write(text, &mut self.line);
                    self.digest.update(&self.line);
                }
                Some(text) if event.is_same_as(text) => self.alike += 1,
                Some(_) => self.conflicts.add(event.id),
                None if !self.reads_back && written.contains(&event.id) => {}
                None => self.lost.add(event.id),
            }
        }
        Ok(())
    }
}

/// Leaves a store to its other writers for a part of the time that it was taken from them: they wait for a lock by
/// looking now and then, and must find it free.
async fn breathe(took: Duration) {
    const LONGEST: Duration = Duration::from_millis(100);
    tokio::time::sleep((took / 3).min(LONGEST)).await;
}

/// The second store, read in step with the first one.
struct Beside {
    store: Arc<dyn Store>,
    at: Cursor,
    read: VecDeque<Event>,
    ended: bool,
}

impl Beside {
    fn new(store: Arc<dyn Store>) -> Self {
        Self { store, at: Cursor::FIRST, read: VecDeque::new(), ended: false }
    }

    /// Reads on up to a place, and gives what is wanted of it.
    async fn up_to(&mut self, place: Cursor, wanted: &HashSet<Uuid>) -> Result<HashMap<Uuid, Bytes>, StoreError> {
        let mut found = HashMap::new();
        loop {
            while let Some(event) = self.read.pop_front_if(|event| event.place() <= place) {
                if wanted.contains(&event.id) {
                    found.insert(event.id, event.text);
                }
            }
            if self.ended || !self.read.is_empty() {
                return Ok(found);
            }
            let from = From::Following(self.at);
            let query = PageQuery {
                limit: PAGE,
                max_bytes: PAGE_BYTES,
                from,
                topic: None,
                since: None,
                until: None,
                count: false,
            };
            let page = patiently(|| self.store.page(&query)).await?;
            match page.next {
                Some(next) => self.at = next,
                None => self.ended = true,
            }
            self.read = events(page.items)?.into();
        }
    }
}
