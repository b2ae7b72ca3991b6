//! What is known of the queues and exchanges that routes publish to, and which of them a message would reach. A browser's
//! queue satisfies `mandatory`: only looking tells that the queue which keeps messages is gone.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    bus::{Fault, Subject},
    message::Message,
    topology::{Topology, topic_matches},
};

/// What is older than this is looked at before a message is published to it.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// The topology in force, with what is known of it.
pub(super) struct Watch {
    pub topology: Topology,
    pub queues: HashMap<String, Arc<Watched>>,
    pub exchanges: HashMap<String, Arc<Watched>>,
    bindings: HashMap<String, Bindings>,
}

/// A queue or an exchange.
pub(super) struct Watched {
    pub subject: Subject,
    /// When the last look at it began ([`Clock`]); 0 for never on this link.
    looked: AtomicU64,
    there: AtomicBool,
    /// Whether anything was published to it since the last look.
    wanted: AtomicBool,
}

/// Milliseconds since a process's start, never 0.
#[derive(Clone, Copy)]
pub(super) struct Clock(Instant);

impl Default for Clock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock {
    pub fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// Of one exchange: the watched queues by the keys that reach them.
#[derive(Default)]
struct Bindings {
    /// Reached by any key, or by what a key does not tell (a headers exchange).
    any: Vec<Arc<Watched>>,
    exact: HashMap<String, Vec<Arc<Watched>>>,
    /// Patterns of a topic exchange that begin with a wildcard.
    open: Vec<(String, Arc<Watched>)>,
    /// The others: the words before the first wildcard, then the rest of each pattern.
    patterns: HashMap<String, Vec<(String, Arc<Watched>)>>,
}

/// What is known of where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// All of it was there a moment ago.
    There,
    /// Some of it was not looked at lately.
    Unsure,
    /// Some of it is not there.
    Missing,
}

impl Watched {
    fn new(subject: Subject) -> Arc<Self> {
        let (looked, there, wanted) = (AtomicU64::new(0), AtomicBool::new(true), AtomicBool::new(false));
        Arc::new(Self { subject, looked, there, wanted })
    }

    pub fn is_there(&self) -> bool {
        self.there.load(Ordering::Acquire)
    }

    /// Whether it must be looked at before anything is published to it.
    pub fn is_stale(&self, now: u64, fresh: Duration) -> bool {
        let looked = self.looked.load(Ordering::Acquire);
        looked == 0 || now.saturating_sub(looked) > u64::try_from(fresh.as_millis()).unwrap_or(u64::MAX)
    }

    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Notes what a look that began at `began` showed.
    pub fn seen(&self, there: bool, began: u64) {
        self.there.store(there, Ordering::Release);
        self.looked.store(began, Ordering::Release);
        self.wanted.store(false, Ordering::Relaxed);
    }

    /// Forgets when it was looked at: the link that saw it is gone.
    pub fn forget(&self) {
        self.looked.store(0, Ordering::Release);
    }

    fn want(&self) {
        // A store would take the cache line from every other core that publishes.
        if !self.is_wanted() {
            self.wanted.store(true, Ordering::Relaxed);
        }
    }
}

impl Watch {
    /// Of a topology; what `before` knows of the same queues and exchanges is still known.
    pub fn new(topology: Topology, before: Option<&Self>) -> Self {
        let known = |subject: Subject| {
            let known = before.and_then(|before| match &subject {
                Subject::Queue(name) => before.queues.get(name),
                Subject::Exchange(name) => before.exchanges.get(name),
                Subject::Replies => None,
            });
            known.cloned().unwrap_or_else(|| Watched::new(subject))
        };
        let queue = |name: &String| (name.clone(), known(Subject::Queue(name.clone())));
        let exchange = |name: &String| (name.clone(), known(Subject::Exchange(name.clone())));
        let queues: HashMap<_, _> = topology.watched_queues.iter().map(queue).collect();
        let exchanges: HashMap<_, _> = topology.watched_exchanges.iter().map(exchange).collect();
        let mut bindings: HashMap<String, Bindings> = HashMap::new();
        for (name, watched) in &queues {
            for binding in topology.queues.get(name).into_iter().flat_map(|queue| &queue.bind) {
                let of = bindings.entry(binding.exchange.clone()).or_default();
                of.add(kind(&binding.exchange, &topology), &binding.key, watched);
            }
        }
        Self { topology, queues, exchanges, bindings }
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Watched>> {
        self.queues.values().chain(self.exchanges.values())
    }

    /// What is known of where a mandatory message goes, by looks that are not older than `fresh`. Asks for a look at it soon.
    pub fn reach(&self, message: &Message, now: u64, fresh: Duration) -> Reach {
        // The default exchange reaches one queue and no browser's: `mandatory` says all.
        let Some(exchange) = self.exchanges.get(&message.exchange) else { return Reach::There };
        let mut reach = Reach::There;
        let mut look = |watched: &Watched| {
            watched.want();
            if watched.is_stale(now, fresh) {
                reach = if reach == Reach::Missing { reach } else { Reach::Unsure };
            } else if !watched.is_there() {
                reach = Reach::Missing;
            }
        };
        look(exchange);
        self.each_reached(message, |watched| look(watched));
        reach
    }

    /// Why a message would reach what is missing, or what a fault keeps from taking it.
    pub fn refuses(&self, message: &Message, faults: &BTreeMap<Subject, Fault>) -> Option<String> {
        let why = |subject: &Subject, there: bool| {
            let fault = faults
                .get(subject)
                .filter(|fault| fault.refuses && !fault.broker_answers)
                .map(|fault| fault.why.clone());
            fault.or_else(|| (!there).then(|| missing(subject)))
        };
        let exchange = self.exchanges.get(&message.exchange).is_none_or(|watched| watched.is_there());
        let refused = why(&Subject::Exchange(message.exchange.clone()), exchange);
        if refused.is_some() || !message.mandatory {
            return refused;
        }
        let mut refused = None;
        self.each_reached(message, |watched| {
            if refused.is_none() {
                refused = why(&watched.subject, watched.is_there());
            }
        });
        refused
    }

    fn each_reached(&self, message: &Message, mut each: impl FnMut(&Arc<Watched>)) {
        if message.exchange.is_empty() {
            self.queues.get(&message.key).into_iter().for_each(each);
            return;
        }
        if let Some(bindings) = self.bindings.get(&message.exchange) {
            bindings.each(&message.key, &mut each);
        }
    }
}

/// What is said of something that is not there.
pub(super) fn missing(subject: &Subject) -> String {
    match subject {
        Subject::Queue(name) => format!("queue `{name}` is missing on the broker"),
        Subject::Exchange(name) => format!("exchange `{name}` is missing on the broker"),
        Subject::Replies => "the queue for replies is missing on the broker".into(),
    }
}

fn kind<'t>(exchange: &str, topology: &'t Topology) -> &'t str {
    match exchange {
        "amq.topic" => "topic",
        "amq.direct" => "direct",
        name => topology.exchanges.get(name).map_or("", |exchange| exchange.kind.as_str()),
    }
}

impl Bindings {
    fn add(&mut self, kind: &str, key: &str, queue: &Arc<Watched>) {
        let wildcard = |word: &str| word == "*" || word == "#";
        match kind {
            "topic" if key.split('.').any(wildcard) => {
                let literal: Vec<&str> = key.split('.').take_while(|word| !wildcard(word)).collect();
                let rest: Vec<&str> = key.split('.').skip(literal.len()).collect();
                let patterns = if literal.is_empty() {
                    &mut self.open
                } else {
                    self.patterns.entry(literal.join(".")).or_default()
                };
                patterns.push((rest.join("."), queue.clone()));
            }
            "topic" | "direct" => self.exact.entry(key.to_owned()).or_default().push(queue.clone()),
            _ => self.any.push(queue.clone()),
        }
    }

    fn each(&self, key: &str, each: &mut impl FnMut(&Arc<Watched>)) {
        self.any.iter().for_each(&mut *each);
        self.exact.get(key).into_iter().flatten().for_each(&mut *each);
        self.open.iter().filter(|(pattern, _)| topic_matches(pattern, key)).for_each(|(_, queue)| each(queue));
        if self.patterns.is_empty() {
            return;
        }
        let mut among = |literal: &str, matches: &dyn Fn(&str) -> bool| {
            for (pattern, queue) in self.patterns.get(literal).into_iter().flatten() {
                if matches(pattern) {
                    each(queue);
                }
            }
        };
        for (end, _) in key.match_indices('.') {
            among(&key[..end], &|pattern| topic_matches(pattern, &key[end + 1..]));
        }
        // `a.#` takes `a` as well.
        among(key, &|pattern| pattern.split('.').all(|word| word == "#"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::topology::{Binding, Declare, Queue, QueueKind};

    fn watch(patterns: &[String]) -> Watch {
        let mut topology = Topology::default();
        topology.watched_exchanges.insert("amq.topic".into());
        for (index, key) in patterns.iter().enumerate() {
            let name = format!("q{index}");
            topology.watched_queues.insert(name.clone());
            let bind = vec![Binding { exchange: "amq.topic".into(), key: key.clone(), arguments: BTreeMap::new() }];
            let queue = Queue {
                kind: QueueKind::Quorum,
                bind,
                max_length: None,
                delivery_limit: None,
                dead_letter: None,
                arguments: BTreeMap::new(),
                declare: Declare::Active,
            };
            topology.queues.insert(name, queue);
        }
        Watch::new(topology, None)
    }

    fn message(key: &str) -> Message {
        Message { exchange: "amq.topic".into(), key: key.into(), mandatory: true, ..Message::default() }
    }

    proptest! {
        /// The index finds what a look at every pattern finds.
        #[test]
        fn reached_queues(
            patterns in proptest::collection::vec("([ab]|\\*|#|)(\\.([ab]|\\*|#|)){0,3}", 1..12),
            key in "([ab]|)(\\.([ab]|)){0,4}",
        ) {
            let watch = watch(&patterns);
            let mut found = BTreeSet::new();
            watch.each_reached(&message(&key), |watched| {
                if let Subject::Queue(name) = &watched.subject {
                    found.insert(name.clone());
                }
            });
            let expected: BTreeSet<String> = patterns
                .iter()
                .enumerate()
                .filter(|(_, pattern)| topic_matches(pattern, &key))
                .map(|(index, _)| format!("q{index}"))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_messages_own_key_decides() {
        let watch = watch(&["a.#".into(), "b.*".into()]);
        for watched in watch.all() {
            watched.seen(watched.subject != Subject::Queue("q1".into()), 10);
        }
        assert_eq!(watch.reach(&message("a.x"), 20, FRESH), Reach::There);
        assert_eq!(watch.reach(&message("b.x"), 20, FRESH), Reach::Missing);
        assert_eq!(watch.reach(&message("c"), 20, FRESH), Reach::There);
        assert_eq!(watch.reach(&message("a.x"), 5_000, FRESH), Reach::Unsure);
        let none = BTreeMap::new();
        assert_eq!(watch.refuses(&message("a"), &none), None);
        assert_eq!(watch.refuses(&message("b.x"), &none).unwrap(), "queue `q1` is missing on the broker");
        let why = "queue `q0` differs".to_owned();
        let faults = [(Subject::Queue("q0".into()), Fault::queue("q0", why.clone()))].into();
        assert_eq!(watch.refuses(&message("a"), &faults), Some(why));
        assert_eq!(watch.refuses(&Message { mandatory: false, ..message("a") }, &faults), None);
    }
}
