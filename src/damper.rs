//! Says what happens very often only now and then, with how often it was.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// One kind of log line.
#[derive(Debug)]
pub(crate) struct Damper {
    /// At most one line in this time.
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    unsaid: u64,
}

impl Damper {
    pub fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::default() }
    }

    /// It happened `times` more; where a line is due, how often since the last one.
    pub fn pass(&self, times: u64) -> Option<u64> {
        self.pass_at(times, Instant::now())
    }

    fn pass_at(&self, times: u64, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.unsaid += times;
        if state.said.is_some_and(|said| now.saturating_duration_since(said) < self.interval) {
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Damper;

    #[test]
    fn one_in_a_while_and_none_is_forgotten() {
        let interval = Duration::from_secs(1);
        let (damper, start) = (Damper::new(interval), Instant::now());
        let at = |tenths: u32| damper.pass_at(1, start + interval * tenths / 10);
        assert_eq!([at(0), at(1), at(9), at(10), at(11), at(30)], [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
