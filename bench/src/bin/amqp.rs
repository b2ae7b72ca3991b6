//! What fpesa is measured against on RabbitMQ: lapin by hand, with nothing around it.
//!
//! `amqp publish URL SECONDS`: one task that owns its channel, confirmed publishes a second.
//! `amqp serve URL`: a minimal axum handler that publishes on a shared channel and waits for the confirm.
//! `amqp echo URL`: a worker that answers calls with their own body.
//! `amqp call URL SECONDS`: calls a second, 128 in flight.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use futures::{StreamExt as _, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::net::TcpListener;
use uuid::Uuid;

const OUTSTANDING: usize = 256;
const IN_FLIGHT: usize = 128;
const ECHO: &str = "bench.echo";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let what = args.next().context("amqp publish|serve|echo|call URL")?;
    let url = args.next().context("the broker's URL")?;
    let within = Duration::from_secs(args.next().map_or(Ok(4), |seconds| seconds.parse())?);
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    match what.as_str() {
        "publish" => println!("{:.0}", publish(&channel, within).await?),
        "serve" => serve(channel).await?,
        "echo" => echo(&channel).await?,
        "call" => println!("{:.0}", call(&channel, within).await?),
        other => bail!("no such part: {other}"),
    }
    connection.close(200, "bye".into()).await?;
    Ok(())
}

/// The message that the gateway makes of the request, property by property: what a broker does with a message depends on
/// what is in it.
fn event(data: &str) -> anyhow::Result<(BasicProperties, String)> {
    let (id, now) = (Uuid::now_v7().to_string(), OffsetDateTime::now_utc());
    let (trace, span) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
    let parent = format!("00-{trace}-{}-01", &span[..16]);
    let body = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/post-message","type":"post-message","subject":"messages/benchmark","time":"{}","traceparent":"{parent}","datacontenttype":"application/json","data":{data}}}"#,
        now.format(&Rfc3339)?,
    );
    let mut headers = FieldTable::default();
    headers.insert("fpesa-route".into(), AMQPValue::LongString("post-message".into()));
    headers.insert("traceparent".into(), AMQPValue::LongString(parent.into()));
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_message_id(id.into())
        .with_content_type("application/cloudevents+json".into())
        .with_type("post-message".into())
        .with_app_id("fpesa/1".into())
        .with_timestamp(u64::try_from(now.unix_timestamp())?)
        .with_headers(headers);
    Ok((properties, body))
}

const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };

/// Publish and confirm are one future, so that the next publish need not wait until this one's frames are written.
async fn publish(channel: &Channel, within: Duration) -> anyhow::Result<f64> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let data = format!(r#"{{"text": "{}", "topic": "benchmark"}}"#, "x".repeat(58));
    let (start, mut confirmed) = (Instant::now(), 0_u32);
    let mut outstanding = FuturesUnordered::new();
    while start.elapsed() < within {
        while outstanding.len() < OUTSTANDING {
            let (properties, body) = event(&data)?;
            outstanding.push(async move {
                let key = "messages.benchmark".into();
                let sent = channel.basic_publish("amq.topic".into(), key, MANDATORY, body.as_bytes(), properties);
                sent.await?.await
            });
        }
        if let Some(confirmation) = outstanding.next().await {
            anyhow::ensure!(matches!(confirmation?, Confirmation::Ack(None)), "not routed");
            confirmed += 1;
        }
    }
    Ok(f64::from(confirmed) / start.elapsed().as_secs_f64())
}

async fn serve(channel: Channel) -> anyhow::Result<()> {
    async fn handle(State(channel): State<Channel>, body: Bytes) -> Result<(StatusCode, String), StatusCode> {
        let data = std::str::from_utf8(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
        serde_json::from_str::<serde_json::Value>(data).map_err(|_| StatusCode::BAD_REQUEST)?;
        let (properties, body) = event(data).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let key = "messages.benchmark".into();
        let confirmed = async {
            channel.basic_publish("amq.topic".into(), key, MANDATORY, body.as_bytes(), properties).await?.await
        };
        match confirmed.await {
            Ok(Confirmation::Ack(None)) => Ok((StatusCode::ACCEPTED, "{}".to_owned())),
            _ => Err(StatusCode::SERVICE_UNAVAILABLE),
        }
    }
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/api/v1/messages", post(handle)).with_state(channel)).await?;
    Ok(())
}

async fn echo(channel: &Channel) -> anyhow::Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-expires".into(), AMQPValue::LongInt(5_000));
    let options = QueueDeclareOptions { durable: true, auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(ECHO.into(), options, arguments).await?;
    channel.basic_qos(512, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut calls = channel.basic_consume(ECHO.into(), "echo".into(), options, FieldTable::default()).await?;
    println!("listening on {ECHO}");
    let mut answering = FuturesUnordered::new();
    loop {
        tokio::select! {
            call = calls.next() => match call {
                Some(call) => answering.push(answer(channel, call?)),
                None => return Ok(()),
            },
            Some(answered) = answering.next(), if !answering.is_empty() => answered?,
        }
    }
}

/// Neither the next answer nor the next ack waits until this one's frames are written.
async fn answer(channel: &Channel, call: Delivery) -> lapin::Result<()> {
    let Some(reply_to) = call.properties.reply_to().clone() else { return Ok(()) };
    let mut properties = BasicProperties::default().with_content_type("application/json".into());
    if let Some(id) = call.properties.correlation_id().clone() {
        properties = properties.with_correlation_id(id);
    }
    let options = BasicPublishOptions::default();
    channel.basic_publish("".into(), reply_to, options, &call.data, properties).await?;
    channel.basic_ack(call.delivery_tag, BasicAckOptions::default()).await
}

async fn call(channel: &Channel, within: Duration) -> anyhow::Result<f64> {
    let name = format!("bench.reply.{}", Uuid::new_v4().simple());
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut replies = channel.basic_consume(name.as_str().into(), "".into(), options, FieldTable::default()).await?;
    let body = r#"{"id":"0193f1c2-7d3a-7c3e-9d4e-0123456789ab","route":"get-echo","method":"GET","path":"/echo","params":{"path":{},"query":{},"header":{}},"body":null}"#;
    let (start, mut answered) = (Instant::now(), 0_u32);
    let mut pending = HashSet::new();
    let mut sending = FuturesUnordered::new();
    while start.elapsed() < within {
        while pending.len() < IN_FLIGHT {
            let id = Uuid::now_v7().simple().to_string();
            let properties = BasicProperties::default()
                .with_reply_to(name.as_str().into())
                .with_correlation_id(id.as_str().into())
                .with_content_type("application/json".into());
            sending.push(channel.basic_publish("".into(), ECHO.into(), MANDATORY, body.as_bytes(), properties));
            pending.insert(id);
        }
        tokio::select! {
            Some(sent) = sending.next(), if !sending.is_empty() => drop(sent?),
            reply = replies.next() => {
                let reply = reply.context("the replies ended")??;
                let id = reply.properties.correlation_id().as_ref().map(ToString::to_string).unwrap_or_default();
                anyhow::ensure!(pending.remove(&id), "a reply to nothing");
                answered += 1;
            }
        }
    }
    Ok(f64::from(answered) / start.elapsed().as_secs_f64())
}
