//! What the broker refuses, as a sentence: what was tried, the broker's own words, and what to do.

use super::rpc::{ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, Refusal};
use crate::bus::{Fault, Subject};

/// What was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    /// To make it, or to find it as the table has it.
    Declare,
    /// To find what others make.
    Look,
    /// To bind a queue to this exchange.
    Bind(String),
    /// To publish to it.
    Publish,
    /// To have the queue that replies to calls come to.
    Replies,
}

/// The fault that a refusal is.
pub(super) fn fault(subject: Subject, attempt: &Attempt, refusal: &Refusal) -> Fault {
    let what = match &subject {
        Subject::Queue(name) => format!("queue `{name}`"),
        Subject::Exchange(name) if name.is_empty() => "the default exchange".to_owned(),
        Subject::Exchange(name) => format!("exchange `{name}`"),
        Subject::Replies => "the queue for replies".to_owned(),
    };
    let Refusal { code, text, .. } = refusal;
    let permissions = "`fpesa broker permissions` prints what its user needs";
    let why = match (attempt, *code) {
        (Attempt::Look, NOT_FOUND) => format!("{what} is not on the broker, and the table says that others declare it"),
        (Attempt::Declare, PRECONDITION_FAILED) => format!(
            "{what} can't be declared on the broker as the table has it ({text}): give it another name, make the table say \
             what is there, or delete it on the broker"
        ),
        (Attempt::Declare | Attempt::Replies, ACCESS_REFUSED) => {
            format!("{what} may not be declared by the broker's user ({text}): {permissions}")
        }
        (Attempt::Bind(exchange), ACCESS_REFUSED) => {
            format!("{what} may not be bound to exchange `{exchange}` by the broker's user ({text}): {permissions}")
        }
        (Attempt::Publish, ACCESS_REFUSED) => {
            format!("the broker's user may not publish to {what} ({text}): {permissions}")
        }
        (Attempt::Bind(exchange), _) => {
            format!("{what} can't be bound to exchange `{exchange}`: the broker refuses it ({text})")
        }
        _ => format!("{what}: the broker refuses it ({text})"),
    };
    // Of a right to publish, which may depend on the key, the broker's word on each message is the truth.
    let broker_answers = matches!((attempt, *code), (Attempt::Publish, ACCESS_REFUSED));
    Fault { subject, refuses: true, broker_answers, why }
}

/// A queue from before an upgrade to RabbitMQ 4, whose default drops messages.
pub(super) fn would_drop(name: &str) -> String {
    format!(
        "queue `{name}` has no delivery limit of its own, and RabbitMQ 4 drops a message after 20 deliveries: set a policy for it \
         with `delivery-limit: -1` and write `delivery_limit: policy` in the table, or delete it on the broker, so that it is \
         declared anew"
    )
}
