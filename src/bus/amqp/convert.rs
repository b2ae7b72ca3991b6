//! Messages to AMQP's properties and back.

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

pub(super) fn to_amqp(properties: Properties) -> BasicProperties {
    let mut out = BasicProperties::default().with_delivery_mode(if properties.persistent { 2 } else { 1 });
    let with =
        |out: BasicProperties, value: Option<String>, set: fn(BasicProperties, ShortString) -> BasicProperties| {
            match value {
                Some(value) => set(out, short(value)),
                None => out,
            }
        };
    out = with(out, properties.message_id, BasicProperties::with_message_id);
    out = with(out, properties.correlation_id, BasicProperties::with_correlation_id);
    out = with(out, properties.reply_to, BasicProperties::with_reply_to);
    out = with(out, properties.content_type, BasicProperties::with_content_type);
    out = with(out, properties.kind, BasicProperties::with_type);
    out = with(out, properties.app_id, BasicProperties::with_app_id);
    if let Some(timestamp) = properties.timestamp {
        out = out.with_timestamp(timestamp);
    }
    if let Some(expiration) = properties.expiration {
        out = out.with_expiration(short(expiration.as_millis().max(1).to_string()));
    }
    if let Some(priority) = properties.priority {
        out = out.with_priority(priority);
    }
    if !properties.headers.is_empty() {
        let mut table = FieldTable::default();
        for (name, value) in properties.headers {
            let value = match value {
                HeaderValue::Text(text) => AMQPValue::LongString(text.into()),
                HeaderValue::Int(number) => AMQPValue::LongLongInt(number),
                HeaderValue::Bool(flag) => AMQPValue::Boolean(flag),
            };
            table.insert(short(name), value);
        }
        out = out.with_headers(table);
    }
    out
}

pub(super) fn from_amqp(properties: &BasicProperties) -> Properties {
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    let expiration = properties.expiration().as_ref().and_then(|text| text.as_str().parse().ok());
    Properties {
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        content_type: text(properties.content_type()),
        kind: text(properties.kind()),
        app_id: text(properties.app_id()),
        timestamp: *properties.timestamp(),
        expiration: expiration.map(Duration::from_millis),
        priority: *properties.priority(),
        persistent: *properties.delivery_mode() == Some(2),
        headers: properties.headers().as_ref().map(headers).unwrap_or_default(),
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
