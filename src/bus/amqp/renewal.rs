//! When a channel is exchanged for a new one.

/// A channel whose first publish to a quorum queue came while the queue's leader was lost remembers the dead node, and
/// rejects every publish to that queue for as long as the node is away (seen with RabbitMQ 3.10.8): so one that rejects is
/// exchanged once nothing is outstanding on it. That a queue is really full looks the same: the pauses grow.
pub(super) struct Renewal {
    /// Seconds in a row in which publishes were rejected.
    rejecting: u32,
    /// How many make it due.
    after: u32,
    /// Seconds that it has been due: in-flight publishes that do not land must not keep others out.
    due: Option<u32>,
}

impl Default for Renewal {
    fn default() -> Self {
        Self { rejecting: 0, after: 1, due: None }
    }
}

impl Renewal {
    const LONGEST: u32 = 16;
    const WAITS: u32 = 2;

    pub fn is_due(&self) -> bool {
        self.due.is_some()
    }

    /// A second has passed, with so many rejected publishes.
    pub fn second(&mut self, rejected: usize) {
        if let Some(waited) = &mut self.due {
            *waited += 1;
            if *waited > Self::WAITS {
                self.done();
            }
        } else if rejected == 0 {
            *self = Self::default();
        } else {
            self.rejecting += 1;
            if self.rejecting >= self.after {
                self.due = Some(0);
            }
        }
    }

    pub fn done(&mut self) {
        *self = Self { rejecting: 0, after: (self.after * 2).min(Self::LONGEST), due: None };
    }
}
