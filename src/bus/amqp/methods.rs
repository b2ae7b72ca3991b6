//! Methods that several parts say on their channels.

use amq_protocol::protocol::{AMQPClass, channel, confirm};

pub(super) fn open_channel() -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}))
}

pub(super) fn close_channel() -> AMQPClass {
    let close = channel::Close { reply_code: 200, reply_text: "done".into(), class_id: 0, method_id: 0 };
    AMQPClass::Channel(channel::AMQPMethod::Close(close))
}

/// The answer to a broker that closes a channel: its number is free from then on.
pub(super) fn agree_to_close() -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {}))
}

/// Begins publisher confirms. Said again it changes nothing, and is answered all the same.
pub(super) fn select_confirms() -> AMQPClass {
    AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false }))
}
