//! Which connections are open, which have been silent for too long, and which one is closed to make room for another.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ipnet::IpNet;
use tokio::sync::Notify;

use super::connection::{Connection, Phase, PhaseSince};

/// How long a client may take to begin its first request, and over the head of any request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be idle between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A body that has been awaited for so long may be given up for a new client, if nothing idle is left.
const BODY_GRACE: Duration = Duration::from_secs(1);
/// How many connections are chosen for closing at a time, at least: choosing looks at all of them.
const MIN_SHED_BATCH: usize = 16;

/// One connection in so many is never a WebSocket, so that probes and short requests still find a place.
const UPGRADE_RESERVE: usize = 10;

/// What bounds the connections of a listener.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Connections at the same time, WebSockets included.
    pub connections: usize,
    /// Connections of one address at the same time; `None` for any number.
    pub per_address: Option<usize>,
    /// Addresses that `per_address` does not count, because many clients come through them.
    pub trusted: Vec<IpNet>,
    /// How long a client may take none of what is written to it.
    pub write_timeout: Duration,
    /// Bytes a second that must move while a body is written.
    pub min_body_rate: Option<u64>,
}

/// The place of a connection; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Place(Arc<Connection>);

impl Place {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.table().remove(&self.0);
    }
}

/// Whether a new connection is let in.
#[derive(Debug)]
pub(super) enum Admission {
    /// It has a place now.
    Admitted(Place),
    /// Its address has too many, and all of them are at work.
    AddressIsFull,
    /// All are at work: it has to wait.
    Full,
}

/// All connections of a listener.
#[derive(Debug)]
pub(super) struct Connections {
    limits: ConnectionLimits,
    epoch: Instant,
    upgraded: AtomicUsize,
    closing_after_answers: AtomicBool,
    inner: Mutex<Inner>,
    /// Wakes who waits for a place.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    next_id: u64,
    open: HashMap<u64, Arc<Connection>>,
    by_address: HashMap<IpAddr, Vec<u64>>,
    /// Those that were asked to close and have not yet done so.
    closing: HashSet<u64>,
    /// Those that are closed next, each as long as its state stays the same.
    to_shed: VecDeque<(u64, PhaseSince)>,
    shed: u64,
}

impl Connections {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            epoch: Instant::now(),
            upgraded: AtomicUsize::new(0),
            closing_after_answers: AtomicBool::new(false),
            inner: Mutex::default(),
            freed: Notify::new(),
        })
    }

    pub(super) fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }

    /// From now on each answer is the last one on its connection.
    pub(super) fn close_after_answers(&self) {
        self.closing_after_answers.store(true, Ordering::Relaxed);
    }

    pub(super) fn are_closing(&self) -> bool {
        self.closing_after_answers.load(Ordering::Relaxed)
    }

    /// The time of phases.
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Counts one more WebSocket; refused when too many of the connections are.
    pub(super) fn take_upgrade(&self) -> bool {
        let most = self.limits.connections - self.limits.connections.div_ceil(UPGRADE_RESERVE);
        let more = |upgraded: usize| (upgraded < most).then_some(upgraded + 1);
        self.upgraded.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// A connection that was asked to close had something to do.
    pub(super) fn stays(&self, id: u64) {
        self.inner().closing.remove(&id);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection; the one that has been idle for longest is closed for it where that is needed.
    pub(super) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Admission {
        let address = address.map(whole).filter(|address| self.is_counted(*address)).map(client);
        let now = self.now();
        let mut inner = self.inner();
        // Not once but until there is room: one that was asked to close may have had something to do, and stayed though
        // another one had come for it.
        if let (Some(address), Some(most)) = (address, self.limits.per_address) {
            while inner.open_of(address) >= most {
                if !inner.shed_of(address, now) {
                    return Admission::AddressIsFull;
                }
            }
        }
        while inner.staying() >= self.limits.connections {
            if !inner.shed_oldest(now) {
                return Admission::Full;
            }
        }
        inner.next_id += 1;
        let id = inner.next_id;
        let connection = Arc::new(Connection::new(id, address, self.clone()));
        inner.open.insert(id, connection.clone());
        if let Some(address) = address {
            inner.by_address.entry(address).or_default().push(id);
        }
        Admission::Admitted(Place(connection))
    }

    /// Whether `per_address` holds for it.
    fn is_counted(&self, address: IpAddr) -> bool {
        self.limits.per_address.is_some() && !self.limits.trusted.iter().any(|network| network.contains(&address))
    }

    fn remove(&self, connection: &Connection) {
        let mut inner = self.inner();
        inner.open.remove(&connection.id());
        inner.closing.remove(&connection.id());
        if let Some(address) = connection.address()
            && let Some(ids) = inner.by_address.get_mut(&address)
        {
            ids.retain(|id| *id != connection.id());
            if ids.is_empty() {
                inner.by_address.remove(&address);
            }
        }
        drop(inner);
        if connection.state().phase() == Phase::Upgraded {
            self.upgraded.fetch_sub(1, Ordering::Relaxed);
        }
        self.freed.notify_one();
    }

    /// Closes the connection that has been idle for longest, to have its file descriptor.
    pub(super) fn shed_oldest(&self) -> bool {
        let now = self.now();
        self.inner().shed_oldest(now)
    }

    /// Closes what has been silent for too long, and what is too many; gives how many were closed for others' sake since the
    /// last look.
    pub(super) fn close_expired(&self) -> u64 {
        let now = self.now();
        let mut inner = self.inner();
        let expired: Vec<(u64, PhaseSince)> = inner
            .open
            .iter()
            .map(|(id, connection)| (*id, connection.state()))
            .filter(|(_, state)| {
                let most = match state.phase() {
                    Phase::Opened | Phase::Head => HEAD_TIMEOUT,
                    Phase::Idle => IDLE_TIMEOUT,
                    _ => return false,
                };
                now.saturating_sub(state.since()) >= most
            })
            .collect();
        for (id, state) in expired {
            inner.ask_to_close(id, state);
        }
        while inner.staying() > self.limits.connections && inner.shed_oldest(now) {}
        std::mem::take(&mut inner.shed)
    }

    /// Waits until a place may be free.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Waits until all are closed.
    pub(super) async fn all_closed(&self) {
        loop {
            let freed = self.freed.notified();
            if self.inner().open.is_empty() {
                return;
            }
            freed.await;
        }
    }

    /// Asks all connections to finish what is under way.
    pub(super) fn drain(&self) {
        for connection in self.inner().open.values() {
            connection.ask_to_drain();
        }
    }
}

impl Inner {
    /// Connections that were not asked to close.
    fn staying(&self) -> usize {
        self.open.len() - self.closing.len()
    }

    fn open_of(&self, address: IpAddr) -> usize {
        let ids = self.by_address.get(&address).map_or(&[][..], Vec::as_slice);
        ids.iter().filter(|id| !self.closing.contains(id)).count()
    }

    /// Asks the oldest idle connection of an address to close; whoever is there already is not cut for one more.
    fn shed_of(&mut self, address: IpAddr, now: Duration) -> bool {
        let ids = self.by_address.get(&address).map_or(&[][..], Vec::as_slice);
        let open = ids.iter().filter_map(|id| Some((*id, self.open.get(id)?.state())));
        let oldest = open
            .filter(|(id, state)| !self.closing.contains(id) && shed_rank(*state, now) == Some(0))
            .min_by_key(|(_, state)| state.since());
        let Some((id, state)) = oldest else { return false };
        self.shed += 1;
        self.ask_to_close(id, state)
    }

    fn shed_oldest(&mut self, now: Duration) -> bool {
        loop {
            let Some((id, state)) = self.to_shed.pop_front() else {
                self.choose_to_shed(now);
                if self.to_shed.is_empty() {
                    return false;
                }
                continue;
            };
            if self.ask_to_close(id, state) {
                self.shed += 1;
                return true;
            }
        }
    }

    /// Chooses a batch, so that not every new connection costs a look at all others.
    fn choose_to_shed(&mut self, now: Duration) {
        let mut candidates: Vec<_> = self
            .open
            .iter()
            .filter(|(id, _)| !self.closing.contains(id))
            .filter_map(|(id, connection)| {
                let state = connection.state();
                Some((shed_rank(state, now)?, state.since(), *id, state))
            })
            .collect();
        // Bodies are given up when there is nothing else.
        let rank = candidates.iter().map(|(rank, ..)| *rank).min();
        candidates.retain(|(each, ..)| Some(*each) == rank);
        let batch = (candidates.len() / 64).max(MIN_SHED_BATCH).min(candidates.len());
        if batch < candidates.len() {
            candidates.select_nth_unstable(batch);
            candidates.truncate(batch);
        }
        candidates.sort_unstable();
        self.to_shed.extend(candidates.into_iter().map(|(_, _, id, state)| (id, state)));
    }

    /// Whether it is still as it was chosen, and was asked now.
    fn ask_to_close(&mut self, id: u64, state: PhaseSince) -> bool {
        let Some(connection) = self.open.get(&id) else { return false };
        if connection.state() != state || !self.closing.insert(id) {
            return false;
        }
        connection.ask_to_close(state);
        true
    }
}

/// How soon a connection may be closed for another: what is idle or only begins to speak first, bodies that are awaited
/// after it; `None` for what is at work.
fn shed_rank(state: PhaseSince, now: Duration) -> Option<u8> {
    match state.phase() {
        Phase::Opened | Phase::Head | Phase::Idle => Some(0),
        Phase::Body if now.saturating_sub(state.since()) >= BODY_GRACE => Some(1),
        Phase::Body | Phase::Busy | Phase::Writing | Phase::Upgraded => None,
    }
}

/// An IPv4 address as such, also where it comes in IPv6's clothes.
fn whole(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The client behind an address: an IPv6 client has a network of 64 bits to itself.
fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use super::*;
    use crate::http::connection::Request;

    fn limits(connections: usize, per_address: Option<usize>) -> ConnectionLimits {
        ConnectionLimits {
            connections,
            per_address,
            trusted: vec!["10.0.0.0/8".parse().unwrap()],
            write_timeout: Duration::from_secs(30),
            min_body_rate: None,
        }
    }

    fn admit(table: &Arc<Connections>, address: &str) -> Result<Place, &'static str> {
        match table.admit(Some(address.parse().unwrap())) {
            Admission::Admitted(place) => Ok(place),
            Admission::AddressIsFull => Err("address"),
            Admission::Full => Err("full"),
        }
    }

    fn asked(place: &Place) -> Option<Request> {
        match place.0.poll_request(&mut Context::from_waker(futures::task::noop_waker_ref())) {
            Poll::Ready(request) => Some(request),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_oldest_idle_connection_makes_room_and_what_works_stays() {
        let table = Connections::new(limits(3, None));
        let busy = admit(&table, "192.0.2.1").unwrap();
        busy.0.request_begins();
        let first = admit(&table, "192.0.2.1").unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let second = admit(&table, "192.0.2.1").unwrap();
        let third = admit(&table, "192.0.2.1").unwrap();
        assert_eq!([&busy, &first, &second, &third].map(asked), [None, Some(Request::Close), None, None]);
        drop(first);
        for place in [&second, &third] {
            place.0.request_begins();
        }
        assert_eq!(admit(&table, "192.0.2.1").unwrap_err(), "full");
        drop(second);
        assert!(admit(&table, "192.0.2.1").is_ok());
    }

    #[test]
    fn what_speaks_after_it_was_chosen_stays() {
        let table = Connections::new(limits(1, None));
        let first = admit(&table, "192.0.2.1").unwrap();
        let second = admit(&table, "192.0.2.1").unwrap();
        first.0.bytes_came();
        first.0.request_begins();
        assert_eq!(asked(&first), None);
        second.0.request_begins();
        // Both are at work now, one more than the limit: nobody else comes in before one of them ends.
        assert_eq!(admit(&table, "192.0.2.1").unwrap_err(), "full");
        drop((first, second));
        assert!(table.inner().open.is_empty());
    }

    #[test]
    fn the_limits_hold_again_after_one_stayed() {
        for (connections, per_address) in [(1, None), (100, Some(1))] {
            let table = Connections::new(limits(connections, per_address));
            let first = admit(&table, "192.0.2.1").unwrap();
            let second = admit(&table, "192.0.2.1").unwrap();
            first.0.bytes_came();
            assert_eq!(asked(&first), None);
            // Both go for the third.
            let third = admit(&table, "192.0.2.1").unwrap();
            assert_eq!([&first, &second, &third].map(asked), [Some(Request::Close), Some(Request::Close), None]);
        }
        // Where nobody comes any more the next look does it.
        let table = Connections::new(limits(1, None));
        let first = admit(&table, "192.0.2.1").unwrap();
        let second = admit(&table, "192.0.2.1").unwrap();
        first.0.bytes_came();
        assert_eq!(asked(&first), None);
        table.close_expired();
        assert_eq!([&first, &second].map(|place| asked(place).is_some()).iter().filter(|asked| **asked).count(), 1);
    }

    #[test]
    fn an_address_has_its_share_and_proxies_have_any() {
        let table = Connections::new(limits(100, Some(2)));
        let two = ["2001:db8::1", "2001:db8::2"].map(|address| admit(&table, address).unwrap());
        for place in &two {
            place.0.request_begins();
        }
        assert_eq!(admit(&table, "2001:db8::3").unwrap_err(), "address");
        assert!(admit(&table, "2001:db8:0:1::3").is_ok());
        let mapped: Vec<_> = (0..9).map(|_| admit(&table, "::ffff:10.1.2.3").unwrap()).collect();
        for place in &mapped {
            place.0.request_begins();
        }
        // An idle one makes room for another of its own address.
        two[0].0.request_ends();
        let third = admit(&table, "2001:db8::3").unwrap();
        assert_eq!([asked(&two[0]), asked(&two[1]), asked(&third)], [Some(Request::Close), None, None]);
    }

    #[test]
    fn websockets_leave_a_tenth() {
        let table = Connections::new(limits(20, None));
        let places: Vec<_> = (0..20).map(|_| admit(&table, "192.0.2.1").unwrap()).collect();
        let upgraded = places.iter().filter(|place| place.0.upgrade()).count();
        assert_eq!(upgraded, 18);
        places[0].0.request_ends();
        drop(places);
        assert_eq!(table.upgraded.load(Ordering::Relaxed), 0);
    }
}
