//! The pulse of the last quarter of an hour: what was asked and how it ended, counted as it happens and put down every few
//! seconds, so that a page that is opened now has a past to show. No label in it takes a client's value.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    metrics::{PUBLISH_OUTCOMES as OUTCOMES, publish_outcome},
    state::Gateway,
};
use crate::{message::Outcome, route::table::Action};

/// Seconds from one sample to the next; samples lie on whole multiples of it, so that those of several gateways add up.
const EVERY: u64 = 5;
/// Samples that are kept: 15 minutes.
const SAMPLES: usize = 180;
/// Classes of statuses, by their first digit.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
/// Upper bounds of the call latency's buckets, in milliseconds; one bucket more is for what took longer.
const BOUNDS: [u64; 20] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1_000, 2_000, 5_000, 10_000];

type Counts = [u64; CLASSES.len() + OUTCOMES.len() + BOUNDS.len() + 1];

/// Counts since the start, and what they were.
#[derive(Debug)]
pub struct Pulse {
    /// Tells this process from others behind the same address.
    instance: String,
    /// Statuses, then outcomes, then the buckets of call latency.
    counts: [AtomicU64; CLASSES.len() + OUTCOMES.len() + BOUNDS.len() + 1],
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    last: Counts,
    samples: VecDeque<Sample>,
}

/// What happened in one interval.
#[derive(Debug)]
struct Sample {
    /// Its end, in seconds since 1970.
    time: u64,
    counts: Counts,
    /// Sessions of the embedded feed at its end.
    sessions: Option<u64>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            instance: Uuid::new_v4().simple().to_string(),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            kept: Mutex::new(Kept { last: [0; _], samples: VecDeque::with_capacity(SAMPLES + 1) }),
        }
    }
}

impl Pulse {
    /// A request of one of the table's routes was answered.
    pub fn answered(&self, action: &Action, status: u16, took: Duration) {
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        self.count(class);
        if matches!(action, Action::Call(_)) {
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let bucket = BOUNDS.partition_point(|bound| bound * 1_000 < took);
            self.count(CLASSES.len() + OUTCOMES.len() + bucket);
        }
    }

    /// A publish ended.
    pub fn published(&self, outcome: Outcome) {
        self.count(CLASSES.len() + publish_outcome(outcome));
    }

    fn count(&self, index: usize) {
        self.counts[index].fetch_add(1, Ordering::Relaxed);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts down what happened since the last sample.
    fn sample(&self, time: u64, sessions: Option<u64>) {
        let now: Counts = std::array::from_fn(|index| self.counts[index].load(Ordering::Relaxed));
        let mut kept = self.kept();
        let counts = std::array::from_fn(|index| now[index] - kept.last[index]);
        kept.last = now;
        kept.samples.push_back(Sample { time, counts, sessions });
        if kept.samples.len() > SAMPLES {
            kept.samples.pop_front();
        }
    }

    /// `/pulse.json`: columns of equal length, oldest first; counts are of the interval that ends at `time`.
    pub(super) fn document(&self) -> Value {
        let kept = self.kept();
        let column = |index: usize| kept.samples.iter().map(|sample| sample.counts[index]).collect::<Vec<_>>();
        let named = |names: &[&str], from: usize| -> Value {
            names.iter().enumerate().map(|(n, name)| ((*name).to_owned(), json!(column(from + n)))).collect()
        };
        let latency = CLASSES.len() + OUTCOMES.len();
        // An interval without a call is an empty list: most are, and the document stays small.
        let calls: Vec<&[u64]> = kept
            .samples
            .iter()
            .map(|sample| &sample.counts[latency..])
            .map(|buckets| if buckets.iter().all(|count| *count == 0) { &[] } else { buckets })
            .collect();
        json!({
            "instance": self.instance,
            "every": EVERY,
            "time": kept.samples.iter().map(|sample| sample.time).collect::<Vec<_>>(),
            "requests": named(&CLASSES, 0),
            "publishes": named(&OUTCOMES, CLASSES.len()),
            "calls": { "bounds_ms": BOUNDS, "counts": calls },
            "sessions": kept.samples.iter().map(|sample| sample.sessions).collect::<Vec<_>>(),
        })
    }
}

/// Samples until `shutdown`.
pub async fn beat(gateway: Arc<Gateway>, shutdown: CancellationToken) {
    loop {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let next = (since.as_secs() / EVERY + 1) * EVERY;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(next).saturating_sub(since)) => {}
        }
        let sessions = gateway.vitals.feed.as_ref().map(|feed| feed.session_count() as u64);
        gateway.pulse.sample(next, sessions);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Pulse, SAMPLES};
    use crate::{
        message::Outcome,
        route::{
            table::{Action, Call},
            template::Template,
        },
    };

    #[test]
    #[allow(clippy::unwrap_used)]
    fn each_count_is_in_the_sample_that_follows_it_and_old_samples_go() {
        let pulse = Pulse::default();
        let call = Action::Call(Call {
            exchange: String::new(),
            key: Template::parse("q").unwrap(),
            timeout: Duration::from_secs(1),
            headers: Vec::new(),
            reply: None,
        });
        pulse.answered(&call, 200, Duration::from_micros(1_500));
        pulse.answered(&call, 504, Duration::from_secs(60));
        pulse.published(Outcome::Rejected);
        pulse.sample(5, Some(3));
        pulse.published(Outcome::Routed);
        pulse.sample(10, Some(2));
        let document = pulse.document();
        assert_eq!(document["time"], serde_json::json!([5, 10]));
        assert_eq!(document["requests"]["2xx"], serde_json::json!([1, 0]));
        assert_eq!(document["requests"]["5xx"], serde_json::json!([1, 0]));
        assert_eq!(document["publishes"]["rejected"], serde_json::json!([1, 0]));
        assert_eq!(document["publishes"]["routed"], serde_json::json!([0, 1]));
        assert_eq!(document["sessions"], serde_json::json!([3, 2]));
        let calls = &document["calls"]["counts"];
        assert_eq!((&calls[0][1], &calls[0][20], &calls[1]), (&1.into(), &1.into(), &serde_json::json!([])));
        for time in 3..=SAMPLES as u64 + 10 {
            pulse.sample(time * 5, None);
        }
        let times = pulse.document()["time"].as_array().unwrap().clone();
        assert_eq!((times.len(), times[SAMPLES - 1].as_u64()), (SAMPLES, Some((SAMPLES as u64 + 10) * 5)));
    }
}
