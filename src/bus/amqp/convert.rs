//! Names and the topology's arguments as the library's types.

use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::Value;

use crate::topology::Arguments;

/// A short string (at most 255 bytes); what is longer can't be sent and becomes empty, which no exchange or queue is.
pub(super) fn short(text: impl Into<String>) -> ShortString {
    ShortString::try_new(text.into()).unwrap_or_default()
}

pub(super) fn arguments(given: &Arguments) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in given {
        let value = match value {
            Value::Bool(flag) => AMQPValue::Boolean(*flag),
            Value::Number(number) => match number.as_i64() {
                Some(number) => AMQPValue::LongLongInt(number),
                None => AMQPValue::Double(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => AMQPValue::LongString(text.as_str().into()),
            _ => continue,
        };
        table.insert(short(name), value);
    }
    table
}
