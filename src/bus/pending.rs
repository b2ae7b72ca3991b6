//! Calls that wait for their replies: all of a process share one reply address, and the correlation id tells them apart.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use fpesa_workers::memory::{MemoryBudget, OverBudget};
use tokio::sync::oneshot;

use crate::message::{CallError, Reply};

type Answered = oneshot::Sender<Result<Reply, CallError>>;

/// What replies to calls may be.
#[derive(Debug, Clone)]
pub struct ReplyLimits {
    /// Most bytes of one.
    pub max_bytes: usize,
    /// Where their bytes are counted; `None` where whoever replied counts them already.
    pub memory: Option<Arc<MemoryBudget>>,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self { max_bytes: 8 * 1024 * 1024, memory: None }
    }
}

impl ReplyLimits {
    fn admit(&self, mut reply: Reply) -> Result<Reply, CallError> {
        if reply.body.len() > self.max_bytes {
            return Err(CallError::ReplyTooLarge);
        }
        if let Some(memory) = &self.memory {
            reply.body = memory.guard(reply.body).map_err(|OverBudget| CallError::Overloaded)?;
        }
        Ok(reply)
    }
}

/// Calls by correlation id.
#[derive(Default)]
pub(in crate::bus) struct Pending {
    calls: Mutex<HashMap<String, Answered>>,
    limits: ReplyLimits,
}

impl Pending {
    pub(in crate::bus) fn new(limits: ReplyLimits) -> Self {
        Self { calls: Mutex::default(), limits }
    }

    /// Most bytes of a reply: what has more need not be collected.
    pub(in crate::bus) fn max_reply_bytes(&self) -> usize {
        self.limits.max_bytes
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<String, Answered>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the reply of a call from now on.
    pub(in crate::bus) fn expect(&self, correlation: String) -> Expected<'_> {
        let (answered, reply) = oneshot::channel();
        self.calls().insert(correlation.clone(), answered);
        Expected { pending: self, correlation, reply }
    }

    /// Whether somebody still waits.
    pub(in crate::bus) fn expects(&self, correlation: &str) -> bool {
        self.calls().contains_key(correlation)
    }

    /// Whether somebody still waited for it.
    pub(in crate::bus) fn answer(&self, reply: Reply) -> bool {
        let waiting = reply.properties.correlation_id.as_ref().and_then(|id| self.calls().remove(id));
        waiting.is_some_and(|answered| answered.send(self.limits.admit(reply)).is_ok())
    }

    /// Ends every call: what their requests came to is not known.
    pub(in crate::bus) fn broken(&self) {
        for (_, answered) in self.calls().drain() {
            let _ = answered.send(Err(CallError::Unknown));
        }
    }

    /// Ends a call that gets no reply.
    pub(in crate::bus) fn fail(&self, correlation: &str, error: CallError) {
        if let Some(answered) = self.calls().remove(correlation) {
            let _ = answered.send(Err(error));
        }
    }
}

/// One call that waits. However it ends, its caller's going away included, nothing of it stays behind.
pub(in crate::bus) struct Expected<'p> {
    pending: &'p Pending,
    correlation: String,
    reply: oneshot::Receiver<Result<Reply, CallError>>,
}

impl Expected<'_> {
    /// What it was answered with until `deadline`.
    pub(in crate::bus) async fn answered(&mut self, deadline: Instant) -> Result<Reply, CallError> {
        match tokio::time::timeout_at(deadline.into(), &mut self.reply).await {
            Ok(answered) => answered.unwrap_or(Err(CallError::Unknown)),
            Err(_) => Err(CallError::Timeout),
        }
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.pending.calls().remove(&self.correlation);
    }
}
