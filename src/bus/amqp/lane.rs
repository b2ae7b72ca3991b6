//! One channel for publishes, with what waits for it and what the broker owes it.

use std::{collections::VecDeque, time::Instant};

use super::{content::Content, outstanding::Outstanding, publisher::Request, renewal::Renewal};

/// A channel, or the place of one: a lane whose channel the broker closed takes another at its next publish.
///
/// A *marked* lane sends `confirm.select` after each publish. The broker answers it in its turn, so the answers count the
/// publishes that it has processed: when it closes the channel, the one after those was refused. (It drops confirms that it
/// still owes on a channel that it closes, and everything that comes after the refused publish.)
pub(super) struct Lane {
    pub channel: Option<u16>,
    pub outstanding: Outstanding<Request>,
    /// Publishes that can't go yet.
    pub waiting: VecDeque<Request>,
    /// A message that is coming back.
    pub returned: Option<Content>,
    pub renewal: Renewal,
    /// Rejected since it was last looked at.
    pub rejected: usize,
    /// Most publishes without their confirm.
    pub window: usize,
    /// Answers to `confirm.select` on this channel, the one that begins it included; `None` on a lane without marks.
    marks: Option<u64>,
    used_at: Instant,
}

impl Lane {
    /// Most publishes without their confirm on a lane without marks, and on one with them: what comes after a refused
    /// publish is sent again.
    pub const WINDOW: usize = 512;
    const MARKED_WINDOW: usize = 128;

    pub fn new(marked: bool) -> Self {
        Self {
            channel: None,
            outstanding: Outstanding::default(),
            waiting: VecDeque::new(),
            returned: None,
            renewal: Renewal::default(),
            rejected: 0,
            window: if marked { Self::MARKED_WINDOW } else { Self::WINDOW },
            marks: marked.then_some(0),
            used_at: Instant::now(),
        }
    }

    pub fn is_marked(&self) -> bool {
        self.marks.is_some()
    }

    /// It has another channel, or none: what the broker says of the old one is not of these publishes.
    pub fn begin(&mut self, channel: Option<u16>) {
        self.channel = channel;
        self.outstanding = Outstanding::default();
        self.returned = None;
        self.marks = self.marks.map(|_| 0);
        self.used_at = Instant::now();
    }

    /// Whether another publish may go out now, as far as the lane is concerned.
    pub fn is_open(&self) -> bool {
        !self.renewal.is_due() && self.outstanding.len() < self.window
    }

    /// `confirm.select` was answered.
    pub fn marked(&mut self) {
        self.marks = self.marks.map(|marks| marks + 1);
    }

    /// The delivery tag of the last publish that the broker is known to have processed.
    pub fn processed(&self) -> u64 {
        let marked = self.marks.map_or(0, |marks| marks.saturating_sub(1));
        marked.max(self.outstanding.highest_confirmed())
    }

    /// Publishes were confirmed: a marked lane may have more at a time again.
    pub fn widen(&mut self, confirmed: usize) {
        if self.is_marked() {
            self.window = (self.window + confirmed).min(Self::MARKED_WINDOW);
            self.used_at = Instant::now();
        }
    }

    /// The broker refused a publish: the fewer are under way, the fewer are sent again.
    pub fn narrow(&mut self) {
        self.window = (self.window / 2).max(1);
    }

    /// Whether its channel is of no use at present.
    pub fn is_idle(&self) -> bool {
        self.outstanding.is_empty() && self.waiting.is_empty()
    }

    pub fn unused_since(&self) -> Instant {
        self.used_at
    }

    /// The first that waits and whose id is not outstanding.
    pub fn next_waiting(&mut self) -> Option<Request> {
        let at = self.waiting.iter().position(|request| !self.outstanding.holds(request.id()))?;
        self.waiting.remove(at)
    }
}
