//! Says what happens very often only now and then, with how often it was.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// At most one line in this time.
const EVERY: Duration = Duration::from_secs(1);

/// One kind of line.
#[derive(Default)]
pub(super) struct Damper(Mutex<State>);

#[derive(Default)]
struct State {
    said: Option<Instant>,
    unsaid: u64,
}

impl Damper {
    /// Whether a line is due: then how many before it were not said.
    pub fn is_due(&self) -> Option<u64> {
        self.is_due_at(Instant::now())
    }

    fn is_due_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.said.is_some_and(|said| now.saturating_duration_since(said) < EVERY) {
            state.unsaid += 1;
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{Damper, EVERY};

    #[test]
    fn one_in_a_while_and_none_is_forgotten() {
        let (damper, start) = (Damper::default(), Instant::now());
        let at = |tenths: u32| damper.is_due_at(start + EVERY * tenths / 10);
        assert_eq!([at(0), at(1), at(9), at(10), at(11), at(30)], [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
