//! The embedded live feed: what goes through `amq.topic` reaches browsers as MQTT. Read-only, bounded, and never in
//! the way of a publish. No HTTP in here: a session runs over any stream of frames.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use fpesa_workers::topic::Filter;
use tokio::sync::mpsc;

mod outbox;
mod session;
pub mod wire;

pub use session::{Frame, serve};

use outbox::{Item, Outbox};
use wire::{Bye, Qos};

/// Messages between the bus and the fan-out. When even this is full, every session is ended, so that each client knows
/// that it must read the gap from history.
const BACKLOG: usize = 16_384;

/// The feed of one process.
#[derive(Debug)]
pub struct Feed {
    sessions: Mutex<Sessions>,
    /// Places that are taken, each by a WebSocket that is or becomes a session.
    places: AtomicUsize,
    max_sessions: usize,
    backlog: mpsc::Sender<(Arc<str>, Bytes)>,
    overrun: AtomicBool,
    dropped: AtomicU64,
}

/// The place of one session; dropping it gives the place back.
#[derive(Debug)]
pub struct SessionPlace(Arc<Feed>);

impl Drop for SessionPlace {
    fn drop(&mut self) {
        self.0.places.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Sessions {
    allowed: Vec<Filter>,
    closing: bool,
    next: u64,
    all: HashMap<u64, Arc<Outbox>>,
    by_client: HashMap<String, u64>,
    /// Sessions by filter: a topic is matched once per filter, however many sessions share it.
    by_filter: BTreeMap<Filter, HashMap<u64, Qos>>,
}

impl Feed {
    /// A feed of so many sessions at most, that lets nothing be subscribed yet. Needs a runtime: the fan-out is a task of its own, which ends with
    /// the feed.
    pub fn new(max_sessions: usize) -> Arc<Self> {
        let (backlog, mut received) = mpsc::channel::<(Arc<str>, Bytes)>(BACKLOG);
        let feed = Arc::new(Self {
            sessions: Mutex::default(),
            places: AtomicUsize::new(0),
            max_sessions,
            backlog,
            overrun: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&feed);
        tokio::spawn(async move {
            while let Some((topic, payload)) = received.recv().await {
                let Some(feed) = weak.upgrade() else { return };
                feed.fan_out(&topic, &payload);
            }
        });
        feed
    }

    /// A place for one more session; `None` when all are taken.
    pub fn take_place(self: &Arc<Self>) -> Option<SessionPlace> {
        let more = |taken: usize| (taken < self.max_sessions).then_some(taken + 1);
        self.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(SessionPlace(self.clone()))
    }

    /// Hands a message to every session that subscribed to its topic; never waits.
    pub fn publish(&self, topic: &str, payload: Bytes) {
        if self.backlog.try_send((topic.into(), payload)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.overrun.store(true, Ordering::Relaxed);
        }
    }

    fn fan_out(&self, topic: &Arc<str>, payload: &Bytes) {
        let sessions = self.sessions();
        if self.overrun.swap(false, Ordering::Relaxed) {
            for outbox in sessions.all.values() {
                outbox.end(Bye::TooSlow);
            }
            return;
        }
        let mut targets: HashMap<u64, Qos> = HashMap::new();
        for (_, subscribers) in sessions.by_filter.iter().filter(|(filter, _)| filter.matches(topic)) {
            for (session, qos) in subscribers {
                // Filters that overlap deliver once, with the best that was granted.
                targets.entry(*session).and_modify(|known| *known = (*known).max(*qos)).or_insert(*qos);
            }
        }
        for (session, qos) in targets {
            if let Some(outbox) = sessions.all.get(&session) {
                let lost = outbox.push(Item { topic: topic.clone(), payload: payload.clone(), qos });
                self.dropped.fetch_add(lost, Ordering::Relaxed);
            }
        }
    }

    /// What may be subscribed from now on. A session that subscribed to more is ended.
    pub fn set_topics(&self, allowed: Vec<Filter>) {
        let mut sessions = self.sessions();
        sessions.allowed = allowed;
        for (filter, subscribers) in &sessions.by_filter {
            if !sessions.allows(filter) {
                for outbox in subscribers.keys().filter_map(|session| sessions.all.get(session)) {
                    outbox.end(Bye::NotAuthorized);
                }
            }
        }
    }

    /// Sessions that are connected.
    pub fn session_count(&self) -> usize {
        self.sessions().all.len()
    }

    /// Messages that slow sessions missed, since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Ends every session with a word, and takes no new one.
    pub fn close(&self) {
        let mut sessions = self.sessions();
        sessions.closing = true;
        for outbox in sessions.all.values() {
            outbox.end(Bye::ShuttingDown);
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new session; one with the same client id is ended. `None` while the feed closes.
    fn enter(&self, client: &str) -> Option<(u64, Arc<Outbox>)> {
        let mut sessions = self.sessions();
        if sessions.closing {
            return None;
        }
        sessions.next += 1;
        let id = sessions.next;
        let outbox = Arc::new(Outbox::default());
        if let Some(old) = sessions.by_client.insert(client.to_owned(), id)
            && let Some(old) = sessions.all.get(&old)
        {
            old.end(Bye::TakenOver);
        }
        sessions.all.insert(id, outbox.clone());
        Some((id, outbox))
    }

    fn leave(&self, id: u64, client: &str) {
        let mut sessions = self.sessions();
        sessions.all.remove(&id);
        if sessions.by_client.get(client) == Some(&id) {
            sessions.by_client.remove(client);
        }
        sessions.by_filter.retain(|_, subscribers| {
            subscribers.remove(&id);
            !subscribers.is_empty()
        });
    }

    /// Whether the filter was granted.
    fn subscribe(&self, id: u64, filter: Filter, qos: Qos) -> bool {
        let mut sessions = self.sessions();
        if !sessions.allows(&filter) {
            return false;
        }
        sessions.by_filter.entry(filter).or_default().insert(id, qos);
        true
    }

    /// Whether there was such a subscription.
    fn unsubscribe(&self, id: u64, filter: &Filter) -> bool {
        let mut sessions = self.sessions();
        let Some(subscribers) = sessions.by_filter.get_mut(filter) else { return false };
        let there = subscribers.remove(&id).is_some();
        if subscribers.is_empty() {
            sessions.by_filter.remove(filter);
        }
        there
    }
}

impl Sessions {
    fn allows(&self, filter: &Filter) -> bool {
        self.allowed.iter().any(|allowed| filter.is_subset_of(allowed))
    }
}
