//! What lapin brings as the words of the wire, and the topology's arguments as its own.

use std::time::Duration;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::Value;

use crate::{
    message::{HeaderValue, Headers, Message, Properties},
    topology::Arguments,
};

/// A short string (at most 255 bytes); what is longer can't be sent and becomes empty, which no exchange or queue is.
pub(super) fn short(text: impl Into<String>) -> ShortString {
    ShortString::try_new(text.into()).unwrap_or_default()
}

pub(super) fn from_amqp(properties: &BasicProperties) -> Properties {
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    let expiration = properties.expiration().as_ref().and_then(|text| text.as_str().parse().ok());
    Properties {
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        kind: text(properties.kind()),
        app_id: text(properties.app_id()),
        timestamp: *properties.timestamp(),
        expiration: expiration.map(Duration::from_millis),
        priority: *properties.priority(),
        persistent: *properties.delivery_mode() == Some(2),
        headers: properties.headers().as_ref().map(headers).unwrap_or_default(),
        unreadable: None,
    }
}

/// Headers of the types that are known here; a table or list, such as `x-death`, has no place in them.
fn headers(table: &FieldTable) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in table.inner() {
        let value = match value {
            AMQPValue::LongString(text) => HeaderValue::Text(text.to_string()),
            AMQPValue::ShortString(text) => HeaderValue::Text(text.to_string()),
            AMQPValue::Boolean(flag) => HeaderValue::Bool(*flag),
            AMQPValue::ShortShortInt(n) => HeaderValue::Int((*n).into()),
            AMQPValue::ShortShortUInt(n) => HeaderValue::Int((*n).into()),
            AMQPValue::ShortInt(n) => HeaderValue::Int((*n).into()),
            AMQPValue::ShortUInt(n) => HeaderValue::Int((*n).into()),
            AMQPValue::LongInt(n) => HeaderValue::Int((*n).into()),
            AMQPValue::LongUInt(n) => HeaderValue::Int((*n).into()),
            AMQPValue::LongLongInt(n) => HeaderValue::Int(*n),
            AMQPValue::Timestamp(n) => HeaderValue::Int(i64::try_from(*n).unwrap_or(i64::MAX)),
            _ => continue,
        };
        headers.insert(name.to_string(), value);
    }
    headers
}

pub(super) fn message(exchange: &str, key: &str, properties: &BasicProperties, body: Vec<u8>) -> Message {
    Message {
        exchange: exchange.to_owned(),
        key: key.to_owned(),
        properties: from_amqp(properties),
        body: body.into(),
        mandatory: false,
    }
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
