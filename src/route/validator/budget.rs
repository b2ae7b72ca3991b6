//! How much work one validation may do: counted in steps, and bounded by a moment where the clock matters.

use std::time::{Duration, Instant};

/// The work that a validation may still do.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Steps until the budget is looked at again.
    left: u64,
    /// Steps that follow those.
    reserve: u64,
    deadline: Option<Instant>,
    /// Steps that were ever in `left`.
    taken: u64,
}

/// The budget is spent: neither valid nor invalid is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

/// Steps between two looks at the clock: well below a millisecond of work.
const STEPS_PER_LOOK: u64 = 2_048;

impl Budget {
    /// So many steps, however long they take.
    pub fn steps(steps: u64) -> Self {
        Self { left: steps, reserve: 0, deadline: None, taken: steps }
    }

    /// Any number of steps until a moment.
    pub fn until(deadline: Instant) -> Self {
        Self { left: 0, reserve: u64::MAX / 2, deadline: Some(deadline), taken: 0 }
    }

    /// Any number of steps within a duration from now.
    pub fn within(duration: Duration) -> Self {
        Self::until(Instant::now() + duration)
    }

    /// No bound: for values that come with the table itself.
    pub fn unlimited() -> Self {
        Self::steps(u64::MAX / 2)
    }

    /// Steps that were taken so far.
    pub fn spent(&self) -> u64 {
        self.taken - self.left
    }

    /// Takes steps from the budget.
    #[inline]
    pub fn spend(&mut self, steps: u64) -> Result<(), Exhausted> {
        match self.left.checked_sub(steps) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => self.refill(steps),
        }
    }

    #[cold]
    fn refill(&mut self, steps: u64) -> Result<(), Exhausted> {
        let deadline = self.deadline.ok_or(Exhausted)?;
        if Instant::now() >= deadline {
            (self.taken, self.left) = (self.spent(), 0);
            return Err(Exhausted);
        }
        let refill = STEPS_PER_LOOK.max(steps);
        self.reserve = self.reserve.checked_sub(refill).ok_or(Exhausted)?;
        self.taken += refill;
        self.left = self.left + refill - steps;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted() {
        let mut budget = Budget::steps(3);
        assert_eq!(budget.spend(2), Ok(()));
        assert_eq!(budget.spend(2), Err(Exhausted));
        assert_eq!(budget.spend(1), Ok(()));
    }

    #[test]
    fn a_moment_that_has_passed_is_the_end() {
        assert_eq!(Budget::until(Instant::now()).spend(1), Err(Exhausted));
        let mut budget = Budget::within(Duration::from_secs(600));
        assert!((0..10_000).all(|_| budget.spend(7).is_ok()));
        assert_eq!(budget.spend(STEPS_PER_LOOK * 9), Ok(()));
    }
}
