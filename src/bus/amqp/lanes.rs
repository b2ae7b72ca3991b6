//! Which channel a publish goes out on, and what becomes of the others when the broker closes one.
//!
//! AMQP refuses a publish by closing its channel, and does not say which publish it was. So everything that was under way on
//! the shared lane is suspect then, and goes again, with the same id, on a marked lane, which tells exactly which one was
//! refused. What shares a route and an exchange with a refused publish stays on a marked lane for a while.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Shared,
    content::Content,
    encode::{self, Unencodable},
    holds::Holds,
    lane::Lane,
    methods::{agree_to_close, close_channel, open_channel, select_confirms},
    publish_refusal::{outcome_of, route_of},
    publisher::Request,
    session::Session,
};
use crate::message::{Away, Outcome, Refusal};

/// Where everything goes of which nothing is known.
const SHARED: usize = 0;
/// Where suspects go, and kinds that have no lane of their own.
const COMMON: usize = 1;
/// Lanes for single kinds at most.
const MAX_SINGLE: u16 = 6;
/// How long a marked lane keeps a channel that nothing is sent on.
const KEEP_IDLE: Duration = Duration::from_secs(60);

/// The lanes of one link.
pub(super) struct Lanes<'a> {
    shared: &'a Shared,
    role: &'static str,
    /// [`SHARED`], [`COMMON`], and those for single kinds.
    all: Vec<Lane>,
    holds: Holds,
    /// Channel numbers that are free, and those that the broker has not yet agreed to have closed.
    free: VecDeque<u16>,
    closing: Vec<u16>,
}

impl<'a> Lanes<'a> {
    /// The fewest channels: the shared lane's, the common lane's, and one while the shared lane's is exchanged.
    pub const MIN_CHANNELS: u16 = 3;
    pub const MAX_CHANNELS: u16 = Self::MIN_CHANNELS + MAX_SINGLE;

    /// Channel `first` is open, with confirms. It and the ones after it are for publishes, `count` in all.
    pub fn new(shared: &'a Shared, role: &'static str, first: u16, count: u16) -> Self {
        let single = usize::from(count.min(Self::MAX_CHANNELS).saturating_sub(Self::MIN_CHANNELS));
        let mut all: Vec<Lane> = (0..COMMON + 1 + single).map(|at| Lane::new(at != SHARED)).collect();
        all[SHARED].begin(Some(first));
        let free = (first + 1..first + count).collect();
        Self { shared, role, all, holds: Holds::default(), free, closing: Vec::new() }
    }

    /// Whether more requests are taken: those of kinds that are held wait in their own lanes, and keep nobody out.
    pub fn has_room(&self, session: &Session) -> bool {
        let lane = &self.all[SHARED];
        self.may_send(lane, session) && lane.outstanding.len() + lane.waiting.len() < Lane::WINDOW
    }

    fn may_send(&self, lane: &Lane, session: &Session) -> bool {
        lane.is_open() && !session.is_full() && (lane.channel.is_some() || !self.free.is_empty())
    }

    /// Takes a publish. It goes out at once, or waits for its lane.
    pub fn submit(&mut self, session: &mut Session, request: Request) -> Result<(), String> {
        if self.holds.is_empty() {
            return self.send(session, SHARED, request);
        }
        let at = self.lane_of(&request);
        if at == SHARED {
            return self.send(session, SHARED, request);
        }
        self.all[at].waiting.push_back(request);
        Ok(())
    }

    fn lane_of(&self, request: &Request) -> usize {
        let otherwise = if request.suspect { COMMON } else { SHARED };
        if self.holds.is_empty() {
            return otherwise;
        }
        self.holds.lane_of(self.holds.kind_of(&request.message), Instant::now()).unwrap_or(otherwise)
    }

    /// Sends what waits and can go now, and exchanges channels that are due.
    pub fn advance(&mut self, session: &mut Session) -> Result<(), String> {
        for at in 0..self.all.len() {
            if self.all[at].renewal.is_due() && self.all[at].outstanding.is_empty() {
                self.retire(session, at)?;
                self.all[at].renewal.done();
            }
            if self.all[at].waiting.is_empty() {
                continue;
            }
            while self.may_send(&self.all[at], session)
                && let Some(request) = self.all[at].next_waiting()
            {
                // Its kind may have got a lane of its own since it began to wait. (That it has lost one does not matter:
                // a marked lane is right for every publish.)
                let own = self.lane_of(&request);
                if own > at {
                    self.all[own].waiting.push_back(request);
                } else {
                    self.send(session, at, request)?;
                }
            }
        }
        Ok(())
    }

    /// Sends a publish, or lets it wait while another of the same id is outstanding.
    fn send(&mut self, session: &mut Session, at: usize, request: Request) -> Result<(), String> {
        // A suspect goes even where nobody waits any more: else what is refused would never be found out.
        if !request.suspect && (request.done.is_closed(self.shared) || request.deadline <= Instant::now()) {
            request.give_up(self.shared, Away::Blocked);
            return Ok(());
        }
        let lane = &mut self.all[at];
        if lane.outstanding.holds(request.id()) {
            lane.waiting.push_back(request);
            return Ok(());
        }
        let channel = match lane.channel {
            Some(channel) => channel,
            None => {
                let Some(channel) = self.free.pop_front() else {
                    lane.waiting.push_back(request);
                    return Ok(());
                };
                // Nobody needs to wait for the broker's word: it does these in their order.
                session.say(channel, open_channel())?;
                session.say(channel, select_confirms())?;
                lane.begin(Some(channel));
                channel
            }
        };
        let frame_max = session.frame_max;
        match encode::publish(session.outgoing(), channel, frame_max, &request.message) {
            Ok(()) => {
                lane.outstanding.sent(Arc::from(request.id()), request);
                if lane.is_marked() {
                    session.say(channel, select_confirms())?;
                }
            }
            Err(why) => self.not_encodable(request, &why),
        }
        Ok(())
    }

    fn not_encodable(&self, request: Request, why: &Unencodable) {
        tracing::warn!(
            role = self.role,
            route = route_of(&request.message),
            exchange = request.message.exchange,
            key = shortened(&request.message.key),
            "a message can't be sent by AMQP: {why}"
        );
        request.tell(self.shared, Outcome::Refused(Refusal::Forbidden));
    }

    /// The lane that a channel belongs to.
    fn at(&self, channel: u16) -> Option<usize> {
        self.all.iter().position(|lane| lane.channel == Some(channel))
    }

    /// The message that is coming back on a channel.
    pub fn returned(&mut self, channel: u16) -> Option<&mut Option<Content>> {
        self.at(channel).map(|at| &mut self.all[at].returned)
    }

    /// The message with this id came back.
    pub fn unroutable(&mut self, channel: u16, id: &str) {
        let Some(at) = self.at(channel) else { return };
        let shared = self.shared;
        self.all[at].outstanding.returned(id, |request, outcome| request.tell(shared, outcome));
    }

    /// The broker confirmed publishes. Tags count from 1 on each channel: what a channel that no lane has any more might
    /// still say is not of these.
    pub fn confirmed(&mut self, channel: u16, tag: u64, multiple: bool, outcome: Outcome) {
        let Some(at) = self.at(channel) else { return };
        let (shared, holds, lane) = (self.shared, &mut self.holds, &mut self.all[at]);
        let marked = lane.is_marked();
        let confirmed = lane.outstanding.confirmed(tag, multiple, outcome, |request, outcome| {
            if marked && outcome == Outcome::Routed {
                let kind = holds.kind_of(&request.message);
                holds.confirmed(kind);
            }
            request.tell(shared, outcome);
        });
        lane.widen(confirmed);
        if outcome == Outcome::Rejected {
            lane.rejected += confirmed;
        }
    }

    /// `confirm.select` was answered.
    pub fn marked(&mut self, channel: u16) {
        if let Some(at) = self.at(channel) {
            self.all[at].marked();
        }
    }

    /// The broker agreed to a channel's end.
    pub fn channel_closed(&mut self, channel: u16) {
        if let Some(at) = self.closing.iter().position(|closing| *closing == channel) {
            self.closing.swap_remove(at);
            self.free.push_back(channel);
        }
    }

    /// The broker closed a channel because of a publish on it. The error ends the link.
    pub fn channel_refused(
        &mut self,
        session: &mut Session,
        channel: u16,
        code: u16,
        text: &str,
    ) -> Result<(), String> {
        session.say(channel, agree_to_close())?;
        let Some(at) = self.at(channel) else {
            // We were about to close it ourselves.
            self.channel_closed(channel);
            return Ok(());
        };
        self.free.push_back(channel);
        let processed = self.all[at].processed();
        if self.all[at].outstanding.is_empty() {
            return Err(format!("the broker closed a channel on which it had confirmed everything: {code} {text}"));
        }
        let publishes = self.all[at].outstanding.drain();
        self.all[at].begin(None);
        let marked = self.all[at].is_marked();
        if marked {
            self.all[at].narrow();
        }
        // From the last to the first: each goes to the front of its lane.
        for (tag, mut request) in publishes.into_iter().rev() {
            if marked && tag == processed + 1 {
                self.refused(request, code, text);
                continue;
            }
            // What the broker has processed it takes; its confirm is lost.
            request.suspect = tag > processed;
            request.sent = true;
            let at = self.lane_of(&request);
            self.all[at].waiting.push_front(request);
        }
        Ok(())
    }

    fn refused(&mut self, request: Request, code: u16, text: &str) {
        let kind = self.holds.kind_of(&request.message);
        let single = COMMON + 1..self.all.len();
        if let Some(unlogged) = self.holds.refused(kind, Instant::now(), single, COMMON) {
            tracing::warn!(
                role = self.role,
                route = route_of(&request.message),
                exchange = request.message.exchange,
                key = request.message.key,
                code,
                broker = text,
                unlogged,
                "the broker refused a message"
            );
        }
        let outcome = outcome_of(code, text, request.message.body.len());
        request.tell(self.shared, outcome);
    }

    /// Gives a lane's channel back.
    fn retire(&mut self, session: &mut Session, at: usize) -> Result<(), String> {
        if let Some(channel) = self.all[at].channel {
            session.say(channel, close_channel())?;
            self.closing.push(channel);
            self.all[at].begin(None);
        }
        Ok(())
    }

    /// A second has passed.
    pub fn second(&mut self, session: &mut Session) -> Result<(), String> {
        let now = Instant::now();
        let shared = self.shared;
        for at in 0..self.all.len() {
            let lane = &mut self.all[at];
            lane.renewal.second(std::mem::take(&mut lane.rejected));
            // Whoever waited for one that was never sent has given up.
            lane.waiting.retain(|request| request.sent || !request.done.is_closed(shared));
            if lane.is_marked() && lane.is_idle() && now.duration_since(lane.unused_since()) > KEEP_IDLE {
                self.retire(session, at)?;
            }
        }
        self.holds.forget_old(now);
        Ok(())
    }

    /// What was sent may have arrived, what waits did not.
    pub fn give_up(&mut self, away: Away) {
        let shared = self.shared;
        for lane in &mut self.all {
            lane.outstanding.give_up(|request| request.tell(shared, Outcome::Unknown));
            for request in lane.waiting.drain(..) {
                request.give_up(shared, away);
            }
        }
    }
}

/// For the log: what can't be sent may be very long.
fn shortened(text: &str) -> &str {
    const MOST: usize = 255;
    text.get(..text.floor_char_boundary(MOST)).unwrap_or(text)
}
