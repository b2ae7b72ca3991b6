//! Publishes without their confirm, and whom to tell. Pure: what the broker says goes in, outcomes come out.
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
struct Publish<D> {
    id: Arc<str>,
    /// `None` once its outcome is told.
    done: Option<D>,
}

/// The publishes of one channel. `D` is whom to tell.
pub(super) struct Outstanding<D> {
    /// The delivery tag of the last publish: the channel counts them from 1.
    last: u64,
    by_tag: BTreeMap<u64, Publish<D>>,
    by_id: HashMap<Arc<str>, u64>,
}

impl<D> Default for Outstanding<D> {
    fn default() -> Self {
        Self { last: 0, by_tag: BTreeMap::new(), by_id: HashMap::new() }
    }
}

impl<D> Outstanding<D> {
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
    pub fn sent(&mut self, id: &str, done: D) {
        let id: Arc<str> = id.into();
        self.last += 1;
        self.by_id.insert(id.clone(), self.last);
        self.by_tag.insert(self.last, Publish { id, done: Some(done) });
    }

    /// The message with this id came back: no queue took it. Its ack is still to come.
    pub fn returned(&mut self, id: &str, tell: impl FnOnce(D, Outcome)) {
        let publish = self.by_id.get(id).and_then(|tag| self.by_tag.get_mut(tag));
        if let Some(done) = publish.and_then(|publish| publish.done.take()) {
            tell(done, Outcome::Unroutable);
        }
    }

    /// `basic.ack` or `basic.nack` of one publish or, `multiple`, of all up to it. How many there were.
    pub fn confirmed(&mut self, tag: u64, multiple: bool, outcome: Outcome, mut tell: impl FnMut(D, Outcome)) -> usize {
        let mut settled = 0;
        let mut settle = |by_id: &mut HashMap<Arc<str>, u64>, publish: Publish<D>| {
            by_id.remove(&publish.id);
            settled += 1;
            if let Some(done) = publish.done {
                tell(done, outcome);
            }
        };
        if multiple {
            // Tag 0 is all of them.
            while let Some(first) = self.by_tag.first_entry()
                && (tag == 0 || *first.key() <= tag)
            {
                settle(&mut self.by_id, first.remove());
            }
        } else if let Some(publish) = self.by_tag.remove(&tag) {
            settle(&mut self.by_id, publish);
        }
        settled
    }

    /// Tells everyone who waits; their confirms are still taken in when they come.
    pub fn tell_all(&mut self, outcome: Outcome, mut tell: impl FnMut(D, Outcome)) {
        for done in self.by_tag.values_mut().filter_map(|publish| publish.done.take()) {
            tell(done, outcome);
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
            let expected = |fate| match fate {
                Fate::Routed => Outcome::Routed,
                Fate::Returned => Outcome::Unroutable,
                Fate::Rejected => Outcome::Rejected,
            };
            for (at, (fate, confirms)) in fates.iter().enumerate() {
                let tag = at as u64 + 1;
                outstanding.sent(&format!("m{tag}"), tag);
                let id = format!("m{tag}");
                prop_assert!(outstanding.holds(&id));
                open.insert(tag, *fate);
                if matches!(fate, Fate::Returned) {
                    outstanding.returned(&format!("m{tag}"), |tag, outcome| assert!(told.insert(tag, outcome).is_none()));
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
                }
                prop_assert_eq!(outstanding.len(), open.len());
            }
            for (tag, outcome) in &told {
                prop_assert_eq!(*outcome, expected(fates[usize::try_from(*tag).unwrap() - 1].0));
            }
            outstanding.tell_all(Outcome::Unknown, |tag, outcome| assert!(told.insert(tag, outcome).is_none()));
            prop_assert_eq!(told.len(), fates.len());
            outstanding.confirmed(0, true, Outcome::Routed, |_, _| panic!("told twice"));
            prop_assert!(outstanding.is_empty() && !outstanding.holds("m1"));
        }
    }
}
