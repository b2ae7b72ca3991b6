//! What the writer is told, by the broker, by consumers and by publishers.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
};

use tokio::sync::oneshot;

use crate::{
    bus::Settlement,
    message::{Message, Outcome},
    topology::QueueKind,
};

/// What the writer is asked.
pub(super) enum Command {
    /// Keep a message on these queues.
    Insert { queues: Vec<String>, message: Arc<Message>, done: oneshot::Sender<Outcome> },
    /// A consumer settled a delivery.
    Settle { queue: Arc<str>, seq: i64, how: Settlement },
    /// The broker changed something by itself.
    Op(Op),
    /// The window of a queue runs low.
    Load(String),
    /// Make these queues; their rows come back, or a sentence.
    Declare { queues: Vec<(String, QueueKind)>, done: oneshot::Sender<Result<BTreeMap<String, i64>, String>> },
    /// Write what is settled and end.
    Close { done: oneshot::Sender<()> },
}

/// Sends commands to the writer; never waits.
#[derive(Clone)]
pub(super) struct Sender(pub mpsc::Sender<Command>);

impl Sender {
    /// A command to a writer that has ended is of no use to anyone: the process is going down.
    pub fn send(&self, command: Command) {
        let _ = self.0.send(command);
    }
}

/// A change that the disk must learn.
#[derive(Debug)]
pub(super) enum Op {
    /// The message is settled for good.
    Delete(i64),
    /// It was given back this often.
    Returned(i64, u32),
    /// It goes from its queue to another, in one transaction.
    Move { seq: i64, to: String, message: Arc<Message> },
}
