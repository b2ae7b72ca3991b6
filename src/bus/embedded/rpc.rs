//! Calls that wait for their replies. All of a process share one reply address; the correlation id tells them apart.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::message::{CallError, Reply};

/// `reply_to` of every call of this bus.
pub(super) const ADDRESS: &str = "fpesa.reply.embedded";

/// Whether a routing key on the default exchange is a reply's.
pub(super) fn is_reply_address(key: &str) -> bool {
    key == ADDRESS
}

type Answered = oneshot::Sender<Result<Reply, CallError>>;

/// Calls by correlation id.
#[derive(Default)]
pub(super) struct Pending(Mutex<HashMap<String, Answered>>);

impl Pending {
    fn calls(&self) -> MutexGuard<'_, HashMap<String, Answered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn expect(&self, correlation: String) -> oneshot::Receiver<Result<Reply, CallError>> {
        let (answered, reply) = oneshot::channel();
        self.calls().insert(correlation, answered);
        reply
    }

    pub(super) fn forget(&self, correlation: &str) {
        self.calls().remove(correlation);
    }

    /// Whether somebody still waited for it.
    pub(super) fn answer(&self, reply: Reply) -> bool {
        let waiting = reply.properties.correlation_id.as_ref().and_then(|id| self.calls().remove(id));
        waiting.is_some_and(|answered| answered.send(Ok(reply)).is_ok())
    }

    /// Ends a call whose queue went away with its last worker.
    pub(super) fn no_worker(&self, correlation: &str) {
        if let Some(answered) = self.calls().remove(correlation) {
            let _ = answered.send(Err(CallError::NoWorker));
        }
    }
}
