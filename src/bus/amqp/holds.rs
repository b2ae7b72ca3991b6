//! Which publishes stay away from the shared channel, because of what the broker refused lately. Pure: the time comes in.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use super::publish_refusal::route_of;
use crate::message::Message;

/// Publishes that are expected to be refused together: those of one route to one exchange, or with one key where there is no
/// route (replies, dead letters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Kind(u64);

/// The kinds of which a publish was refused lately. They travel on channels of their own until their hold is over and one of
/// them has been confirmed since.
#[derive(Default)]
pub(super) struct Holds {
    hasher: RandomState,
    by_kind: HashMap<Kind, Hold>,
}

struct Hold {
    lane: usize,
    /// How often it was refused again after it had been released.
    relapses: u32,
    refused_at: Instant,
    /// Since it was refused the last time.
    confirmed: bool,
    logged_at: Option<Instant>,
    /// Refusals that were not logged.
    unlogged: u64,
}

impl Hold {
    fn ends_at(&self) -> Instant {
        self.refused_at + (Holds::FIRST * (1 << self.relapses.min(16))).min(Holds::LONGEST)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.confirmed && now >= self.ends_at()
    }
}

impl Holds {
    /// How long a kind is held that was refused for the first time; each relapse doubles it.
    pub const FIRST: Duration = Duration::from_secs(60);
    pub const LONGEST: Duration = Duration::from_secs(3_600);
    const MAX_KINDS: usize = 256;
    const LOG_EVERY: Duration = Duration::from_secs(10);

    pub fn is_empty(&self) -> bool {
        self.by_kind.is_empty()
    }

    pub fn kind_of(&self, message: &Message) -> Kind {
        Kind(self.hasher.hash_one((&message.exchange, route_of(message).unwrap_or(&message.key))))
    }

    /// The lane of a kind that is held.
    pub fn lane_of(&self, kind: Kind, now: Instant) -> Option<usize> {
        self.by_kind.get(&kind).filter(|hold| !hold.is_over(now)).map(|hold| hold.lane)
    }

    /// A publish of this kind was refused; `lanes` are those for single kinds, `common` the one for all others. Whether to
    /// log it, with how many refusals before it were not logged.
    pub fn refused(&mut self, kind: Kind, now: Instant, lanes: std::ops::Range<usize>, common: usize) -> Option<u64> {
        if !self.by_kind.contains_key(&kind) {
            let lane = self.take_lane(lanes, common);
            if self.by_kind.len() >= Self::MAX_KINDS {
                let oldest = self.by_kind.iter().min_by_key(|(_, hold)| hold.refused_at).map(|(kind, _)| *kind);
                oldest.and_then(|oldest| self.by_kind.remove(&oldest));
            }
            let hold = Hold { lane, relapses: 0, refused_at: now, confirmed: false, logged_at: None, unlogged: 0 };
            self.by_kind.insert(kind, hold);
        }
        let hold = self.by_kind.get_mut(&kind)?;
        hold.relapses += u32::from(hold.is_over(now));
        (hold.refused_at, hold.confirmed) = (now, false);
        if hold.logged_at.is_some_and(|at| now.duration_since(at) < Self::LOG_EVERY) {
            hold.unlogged += 1;
            return None;
        }
        hold.logged_at = Some(now);
        Some(std::mem::take(&mut hold.unlogged))
    }

    /// A publish of this kind was confirmed.
    pub fn confirmed(&mut self, kind: Kind) {
        if let Some(hold) = self.by_kind.get_mut(&kind) {
            hold.confirmed = true;
        }
    }

    /// Forgets the kinds whose hold is long over.
    pub fn forget_old(&mut self, now: Instant) {
        self.by_kind.retain(|_, hold| !(hold.is_over(now) && now.duration_since(hold.ends_at()) >= Self::LONGEST));
    }

    /// A lane that no kind is on, else the one of the kind whose last refusal is the longest ago: that one shares the common
    /// lane from now on.
    fn take_lane(&mut self, mut lanes: std::ops::Range<usize>, common: usize) -> usize {
        let taken = |lane: &usize| self.by_kind.values().any(|hold| hold.lane == *lane);
        if let Some(free) = lanes.clone().find(|lane| !taken(lane)) {
            return free;
        }
        let on_one = self.by_kind.values_mut().filter(|hold| lanes.contains(&hold.lane));
        match on_one.min_by_key(|hold| hold.refused_at) {
            Some(oldest) => std::mem::replace(&mut oldest.lane, common),
            None => lanes.next().unwrap_or(common),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Holds, Kind};
    use crate::message::Message;

    #[test]
    fn routes_to_one_exchange_are_kinds_of_their_own() {
        let holds = Holds::default();
        let of = |exchange: &str, key: &str, route: &str| {
            let mut message = Message { exchange: exchange.into(), key: key.into(), ..Message::default() };
            if !route.is_empty() {
                message.properties.headers.insert("fpesa-route".into(), route.into());
            }
            holds.kind_of(&message)
        };
        assert_eq!(of("a", "k.1", "r"), of("a", "k.2", "r"));
        assert_ne!(of("a", "k", "r"), of("a", "k", "s"));
        assert_ne!(of("a", "k", "r"), of("b", "k", "r"));
        assert_ne!(of("", "k", ""), of("", "l", ""));
    }

    #[test]
    fn a_kind_is_held_until_its_time_is_over_and_one_was_confirmed() {
        let (mut holds, kind, start) = (Holds::default(), Kind(1), Instant::now());
        assert_eq!(holds.refused(kind, start, 2..4, 1), Some(0));
        assert_eq!(holds.lane_of(kind, start), Some(2));
        assert_eq!(holds.refused(kind, start, 2..4, 1), None, "logged a moment ago");
        let over = start + Holds::FIRST;
        assert_eq!(holds.lane_of(kind, over), Some(2), "nothing was confirmed");
        holds.confirmed(kind);
        assert_eq!(holds.lane_of(kind, start + Holds::FIRST / 2), Some(2));
        assert_eq!(holds.lane_of(kind, over), None);
        assert_eq!(holds.refused(kind, over, 2..4, 1), Some(1));
        holds.confirmed(kind);
        assert_eq!(holds.lane_of(kind, over + Holds::FIRST), Some(2), "a relapse is held for longer");
        let later = over + Holds::FIRST * 2;
        assert_eq!(holds.lane_of(kind, later), None);
        holds.forget_old(later);
        assert!(!holds.is_empty(), "so that a relapse is known as one");
        holds.forget_old(later + Holds::LONGEST);
        assert!(holds.is_empty());
    }

    #[test]
    fn lanes_and_kinds_are_bounded() {
        let (mut holds, start) = (Holds::default(), Instant::now());
        let at = |n: u64| start + Duration::from_millis(n);
        for n in 0..1_000 {
            holds.refused(Kind(n), at(n), 2..4, 1);
        }
        assert_eq!(holds.by_kind.len(), Holds::MAX_KINDS);
        let now = at(1_000);
        assert_eq!(holds.lane_of(Kind(0), now), None, "forgotten");
        assert_eq!(holds.lane_of(Kind(997), now), Some(1), "it shares the common lane");
        let newest = [holds.lane_of(Kind(998), now), holds.lane_of(Kind(999), now)];
        assert!(newest.contains(&Some(2)) && newest.contains(&Some(3)), "{newest:?}");
        // Without lanes for single kinds all share the common one.
        assert_eq!(Holds::default().refused(Kind(1), start, 2..2, 1), Some(0));
    }
}
