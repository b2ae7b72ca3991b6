//! The unconfirmed publishes of one channel. Pure: what the broker says goes in, publishes with their outcomes come out.
//!
//! Exact, since the frames of a channel are read in their order: the broker sends the return of a message before its ack
//! (RabbitMQ, "Consumer Acknowledgements and Publisher Confirms"), and of each id one publish is outstanding at a time,
//! so a return names one publish.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::message::Outcome;

/// One publish.
struct Unconfirmed<P> {
    tag: u64,
    /// `None` once its outcome is told.
    publish: Option<P>,
}

/// The unconfirmed publishes of one channel. `P` is kept until its outcome is known.
pub(super) struct Outstanding<P> {
    /// The delivery tag of the last publish: the channel counts them from 1.
    last: u64,
    /// The highest tag that the broker has confirmed.
    confirmed: u64,
    by_tag: BTreeMap<u64, Arc<str>>,
    by_id: HashMap<Arc<str>, Unconfirmed<P>>,
}

impl<P> Default for Outstanding<P> {
    fn default() -> Self {
        Self { last: 0, confirmed: 0, by_tag: BTreeMap::new(), by_id: HashMap::new() }
    }
}

impl<P> Outstanding<P> {
    pub fn len(&self) -> usize {
        self.by_tag.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_tag.is_empty()
    }

    /// Whether a publish of this message id is outstanding: another must wait for it.
    pub fn holds(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// A publish was sent; of its id none was outstanding.
    pub fn sent(&mut self, id: Arc<str>, publish: P) {
        self.last += 1;
        self.by_tag.insert(self.last, id.clone());
        self.by_id.insert(id, Unconfirmed { tag: self.last, publish: Some(publish) });
    }

    /// The message with this id came back: no queue took it. Its ack is still to come.
    pub fn returned(&mut self, id: &str, tell: impl FnOnce(P, Outcome)) {
        if let Some(publish) = self.by_id.get_mut(id).and_then(|unconfirmed| unconfirmed.publish.take()) {
            tell(publish, Outcome::Unroutable);
        }
    }

    /// `basic.ack` or `basic.nack` of one publish or, `multiple`, of all up to it. How many there were.
    pub fn confirmed(&mut self, tag: u64, multiple: bool, outcome: Outcome, mut tell: impl FnMut(P, Outcome)) -> usize {
        let mut settled = 0;
        let mut settle = |id: Arc<str>| {
            settled += 1;
            if let Some(publish) = self.by_id.remove(&id).and_then(|unconfirmed| unconfirmed.publish) {
                tell(publish, outcome);
            }
        };
        if multiple {
            // Tag 0 is all of them.
            while let Some(first) = self.by_tag.first_entry()
                && (tag == 0 || *first.key() <= tag)
            {
                self.confirmed = self.confirmed.max(*first.key());
                settle(first.remove());
            }
        } else if let Some(id) = self.by_tag.remove(&tag) {
            self.confirmed = self.confirmed.max(tag);
            settle(id);
        }
        settled
    }

    /// The highest tag that the broker has confirmed: it has processed everything up to there.
    pub fn highest_confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Takes every publish whose outcome is not told, in the order that they were sent: the channel is gone.
    pub fn drain(&mut self) -> Vec<(u64, P)> {
        let mut publishes: Vec<(u64, P)> =
            self.by_id.drain().filter_map(|(_, unconfirmed)| Some((unconfirmed.tag, unconfirmed.publish?))).collect();
        publishes.sort_unstable_by_key(|(tag, _)| *tag);
        *self = Self::default();
        publishes
    }

    /// Takes every publish whose outcome is not told; their confirms are still taken in when they come.
    pub fn give_up(&mut self, mut tell: impl FnMut(P)) {
        for publish in self.by_id.values_mut().filter_map(|unconfirmed| unconfirmed.publish.take()) {
            tell(publish);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::Outstanding;
    use crate::message::Outcome;

    /// What a broker says of a publish.
    #[derive(Debug, Clone, Copy)]
    enum Fate {
        Routed,
        Returned,
        Rejected,
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![3 => Just(Fate::Routed), 1 => Just(Fate::Returned), 1 => Just(Fate::Rejected)]
    }

    proptest! {
        /// A broker that confirms in any order, with `multiple` wherever it is true of all up to there.
        #[test]
        fn each_gets_its_own(fates in prop::collection::vec((fate(), 0_u8..8), 1..200)) {
            let mut outstanding = Outstanding::default();
            let mut told = BTreeMap::new();
            // Publishes that the broker has taken and not confirmed, by tag.
            let mut open = BTreeMap::new();
            let mut highest = 0;
            let expected = |fate| match fate {
                Fate::Routed => Outcome::Routed,
                Fate::Returned => Outcome::Unroutable,
                Fate::Rejected => Outcome::Rejected,
            };
            for (at, (fate, confirms)) in fates.iter().enumerate() {
                let tag = at as u64 + 1;
                let id = format!("m{tag}");
                outstanding.sent(id.as_str().into(), tag);
                prop_assert!(outstanding.holds(&id));
                open.insert(tag, *fate);
                if matches!(fate, Fate::Returned) {
                    outstanding.returned(&id, |tag, outcome| assert!(told.insert(tag, outcome).is_none()));
                }
                for _ in 0..confirms / 4 {
                    let Some(nth) = open.keys().nth(usize::from(*confirms) * 7 % open.len().max(1)).copied() else { break };
                    let nacked = |fate: &Fate| matches!(fate, Fate::Rejected);
                    let kind = nacked(&open[&nth]);
                    let all_alike = open.range(..=nth).all(|(_, fate)| nacked(fate) == kind);
                    let outcome = if kind { Outcome::Rejected } else { Outcome::Routed };
                    let settled = outstanding.confirmed(nth, all_alike, outcome, |tag, outcome| {
                        assert!(told.insert(tag, outcome).is_none());
                    });
                    let before = open.len();
                    open.retain(|tag, _| if all_alike { *tag > nth } else { *tag != nth });
                    prop_assert_eq!(settled, before - open.len());
                    highest = highest.max(nth);
                    prop_assert_eq!(outstanding.highest_confirmed(), highest);
                }
                prop_assert_eq!(outstanding.len(), open.len());
            }
            for (tag, outcome) in &told {
                prop_assert_eq!(*outcome, expected(fates[usize::try_from(*tag).unwrap() - 1].0));
            }
            let left = outstanding.drain();
            prop_assert!(left.is_sorted() && left.iter().all(|(tag, publish)| tag == publish));
            prop_assert_eq!(told.len() + left.len(), fates.len());
            outstanding.confirmed(0, true, Outcome::Routed, |_, _| panic!("told twice"));
            prop_assert!(outstanding.is_empty() && !outstanding.holds("m1"));
        }
    }

    #[test]
    fn what_was_given_up_is_still_confirmed() {
        let mut outstanding = Outstanding::default();
        outstanding.sent("m".into(), 1);
        let mut given_up = Vec::new();
        outstanding.give_up(|publish| given_up.push(publish));
        assert_eq!((given_up, outstanding.len()), (vec![1], 1));
        assert_eq!(outstanding.confirmed(1, false, Outcome::Routed, |_, _| panic!("told twice")), 1);
        assert!(outstanding.is_empty());
    }
}
