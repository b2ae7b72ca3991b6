//! One budget of bytes for everything large that a process holds at a time: request bodies, replies and pages of history. What
//! is small is not counted: there are limits on how many of those there can be.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

/// What has fewer bytes is not counted.
pub const MIN_COUNTED_BYTES: usize = 16 * 1024;

/// How many bytes may be held, and how many are.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: usize,
    held: AtomicUsize,
}

/// The budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many bytes are held already")]
pub struct OverBudget;

impl MemoryBudget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0) })
    }

    /// Bytes that may be held.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Takes so many bytes out of the budget until the answer is dropped.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Result<Held, OverBudget> {
        let mut held = Held { budget: self.clone(), bytes: 0 };
        held.grow(bytes)?;
        Ok(held)
    }

    /// Bytes that are held, if they are worth counting, for as long as any part of them is.
    pub fn guard(self: &Arc<Self>, bytes: Bytes) -> Result<Bytes, OverBudget> {
        if bytes.len() < MIN_COUNTED_BYTES {
            return Ok(bytes);
        }
        Ok(self.hold(bytes.len())?.guard(bytes))
    }
}

/// Bytes taken out of a budget; dropping it gives them back.
#[derive(Debug)]
pub struct Held {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Held {
    /// Takes further bytes.
    pub fn grow(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let limit = self.budget.limit;
        let grown = |held: usize| held.checked_add(bytes).filter(|held| *held <= limit);
        // Nothing else is ordered by the count.
        self.budget.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).map_err(|_| OverBudget)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Bytes that these are held for, as long as any part of them is there.
    pub fn guard(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(HeldBytes { bytes, _held: self })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct HeldBytes {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Hold(usize),
        Guard(usize),
        Grow(usize, usize),
        Drop(usize),
        Slice(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let size = || prop_oneof![0..100_usize, 10_000..40_000_usize];
        prop_oneof![
            size().prop_map(Step::Hold),
            size().prop_map(Step::Guard),
            (any::<usize>(), size()).prop_map(|(at, size)| Step::Grow(at, size)),
            any::<usize>().prop_map(Step::Drop),
            any::<usize>().prop_map(Step::Slice),
        ]
    }

    /// Does the steps and says whether the budget was ever exceeded.
    fn run(budget: &Arc<MemoryBudget>, steps: &[Step]) -> bool {
        let (mut helds, mut bytes) = (Vec::new(), Vec::new());
        let mut within = true;
        for step in steps {
            match step {
                Step::Hold(size) => helds.extend(budget.hold(*size)),
                Step::Guard(size) => bytes.extend(budget.guard(vec![7; *size].into())),
                Step::Grow(at, size) if !helds.is_empty() => {
                    let at = at % helds.len();
                    let _ = helds[at].grow(*size);
                }
                Step::Drop(at) if !helds.is_empty() => drop(helds.swap_remove(at % helds.len())),
                Step::Drop(at) if !bytes.is_empty() => drop(bytes.swap_remove(at % bytes.len())),
                // A part keeps all of it.
                Step::Slice(at) if !bytes.is_empty() => {
                    let at = at % bytes.len();
                    let part = bytes[at].slice(bytes[at].len() / 2..);
                    bytes[at] = part;
                }
                Step::Grow(..) | Step::Drop(_) | Step::Slice(_) => {}
            }
            within &= budget.held() <= budget.limit();
        }
        within
    }

    proptest! {
        #[test]
        fn what_is_held_is_within_the_limit_and_given_back(
            steps in prop::collection::vec(prop::collection::vec(step(), 0..60), 3)
        ) {
            let budget = MemoryBudget::new(100_000);
            let within = thread::scope(|scope| {
                let running: Vec<_> = steps.iter().map(|steps| scope.spawn(|| run(&budget, steps))).collect();
                running.into_iter().all(|running| running.join().unwrap())
            });
            prop_assert!(within);
            prop_assert_eq!(budget.held(), 0);
        }
    }

    #[test]
    fn the_last_byte_counts() {
        let budget = MemoryBudget::new(MIN_COUNTED_BYTES);
        assert_eq!(budget.hold(MIN_COUNTED_BYTES + 1).unwrap_err(), OverBudget);
        let all = budget.guard(vec![0; MIN_COUNTED_BYTES].into()).unwrap();
        let part = all.slice(..1);
        drop(all);
        assert!(budget.hold(1).is_err());
        assert!(budget.guard(Bytes::from_static(b"small")).is_ok());
        drop(part);
        assert_eq!(budget.held(), 0);
    }
}
