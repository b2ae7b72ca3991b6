//! `fpesa tail`: the live feed on the terminal, from the embedded bus or from RabbitMQ's web-MQTT alike.

use std::{num::NonZeroU16, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use bytes::{Bytes, BytesMut};
use fpesa_workers::topic::Filter;
use futures::{SinkExt as _, StreamExt as _};
use hyper::Request;
use rmqtt_codec::{
    types::{Protocol, QoS},
    v3::{self, Packet},
};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};
use tokio_util::codec::{Decoder as _, Encoder as _};
use uuid::Uuid;

use crate::{
    app::Usage,
    ask::{self, Address},
    commands::patience::{Limit, Patience},
    output::{Reader, note, write_out},
    settings::mask_text,
};

/// Seconds; half of it without a word and we say that we are there.
const KEEP_ALIVE: u16 = 30;
/// How long the server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Largest packet that is taken, in bytes.
const MAX_PACKET: u32 = 64 * 1024 * 1024;

/// `/feed.json`
#[derive(Debug, Deserialize)]
struct FeedDocument {
    url: String,
    topics: Vec<String>,
    username: Option<String>,
    password: Option<String>,
}

/// Prints payloads, one a line, until the process is stopped. `false` when the filter is refused.
/// A gateway that is away is waited for as long as other commands do, or for ever.
pub async fn tail(base: &str, filter: &str, wait: bool) -> anyhow::Result<bool> {
    let parsed: Filter = filter.parse().map_err(|error| Usage(format!("`{filter}` is no topic filter: {error}")))?;
    let base = ask::address(base)?;
    let mut patience = ask::patience(&base, Limit::of(wait));
    let document = feed_document(&base, &mut patience).await?;
    let allowed = document.topics.iter().filter_map(|topic| topic.parse::<Filter>().ok());
    if !allowed.into_iter().any(|allowed| parsed.is_subset_of(&allowed)) {
        note(&format!("fpesa: `{filter}` can't be read: the table's feed allows {}", document.topics.join(", ")));
        return Ok(false);
    }
    patience.reset();
    loop {
        match session(&base, &document, filter, &mut patience).await {
            Ok(()) => return Ok(true),
            Err(Broken::ForGood(error)) => return Err(error),
            Err(Broken::Link(error)) => patience.pause(&mask_text(&format!("{error:#}"))).await?,
        }
    }
}

/// Why a session ended.
enum Broken {
    /// Another one may work.
    Link(anyhow::Error),
    /// None will.
    ForGood(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self::Link(error.into())
    }
}

/// Prints what arrives until nobody reads it any more.
async fn session(base: &Address, document: &FeedDocument, filter: &str, patience: &mut Patience) -> Result<(), Broken> {
    let mut link = connect(base, document, filter).await?;
    patience.reset();
    listen(&mut link).await
}

/// A link with the subscription.
async fn connect(base: &Address, document: &FeedDocument, filter: &str) -> anyhow::Result<Link> {
    let mut url = base.url.join(&document.url).context("the feed's address can't be read")?;
    let scheme = match url.scheme() {
        "https" | "wss" => {
            bail!("the feed is behind TLS, which `fpesa tail` does not speak: give the inner address with --url")
        }
        _ => "ws",
    };
    let _ = url.set_scheme(scheme);
    let mut request = url.as_str().into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
    let (socket, _) = tokio::time::timeout(ANSWER_WITHIN, connect_async(request))
        .await
        .map_err(|_| anyhow!("the feed does not answer"))?
        .context("the feed can't be reached")?;
    let mut link = Link { socket, codec: v3::Codec::new(MAX_PACKET), bytes: BytesMut::new() };
    link.send(Packet::Connect(Box::new(v3::Connect {
        protocol: Protocol(4),
        clean_session: true,
        keep_alive: KEEP_ALIVE,
        client_id: format!("fpesa-tail-{}", Uuid::new_v4().simple()).into(),
        username: document.username.clone().map(Into::into),
        password: document.password.clone().map(Bytes::from),
        ..v3::Connect::default()
    })))
    .await?;
    match link.answer().await? {
        Packet::ConnectAck(ack) if ack.return_code == v3::ConnectAckReason::ConnectionAccepted => {}
        Packet::ConnectAck(ack) => bail!("the feed refused us: {}", ack.return_code.reason()),
        other => bail!("the feed answered with a packet of type {}", other.packet_type()),
    }
    let packet_id = NonZeroU16::MIN;
    link.send(Packet::Subscribe { packet_id, topic_filters: vec![(filter.into(), QoS::AtLeastOnce)] }).await?;
    match link.answer().await? {
        Packet::SubscribeAck { status, .. } if !status.contains(&v3::SubscribeReturnCode::Failure) => {}
        _ => bail!("the feed refused the subscription to `{filter}`"),
    }
    note(&format!("fpesa: listening to {filter} at {url}"));
    Ok(link)
}

async fn listen(link: &mut Link) -> Result<(), Broken> {
    let half = Duration::from_secs(u64::from(KEEP_ALIVE) / 2);
    loop {
        let packet = match tokio::time::timeout(half, link.next()).await {
            Ok(packet) => packet?,
            Err(_) => {
                link.send(Packet::PingRequest).await?;
                match tokio::time::timeout(ANSWER_WITHIN, link.next()).await {
                    Ok(packet) => packet?,
                    Err(_) => return Err(anyhow!("the feed went silent").into()),
                }
            }
        };
        if let Packet::Publish(publish) = packet {
            if write_out(&[&publish.payload[..], b"\n"].concat()).map_err(Broken::ForGood)? == Reader::Gone {
                return Ok(());
            }
            if let Some(packet_id) = publish.packet_id {
                link.send(Packet::PublishAck { packet_id }).await?;
            }
        }
    }
}

struct Link {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    codec: v3::Codec,
    bytes: BytesMut,
}

impl Link {
    async fn send(&mut self, packet: Packet) -> anyhow::Result<()> {
        let mut bytes = BytesMut::new();
        self.codec.encode(packet, &mut bytes).map_err(|error| anyhow!("a packet can't be written: {error}"))?;
        self.socket.send(Message::Binary(bytes.freeze())).await.context("the feed went away")
    }

    async fn answer(&mut self) -> anyhow::Result<Packet> {
        tokio::time::timeout(ANSWER_WITHIN, self.next()).await.map_err(|_| anyhow!("the feed does not answer"))?
    }

    async fn next(&mut self) -> anyhow::Result<Packet> {
        loop {
            let decoded =
                self.codec.decode(&mut self.bytes).map_err(|error| anyhow!("the feed sent no MQTT: {error}"))?;
            if let Some((packet, _)) = decoded {
                return Ok(packet);
            }
            match self.socket.next().await {
                Some(Ok(Message::Binary(more))) => self.bytes.extend_from_slice(&more),
                Some(Ok(Message::Close(_))) | None => bail!("the feed closed the connection"),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error).context("the feed went away"),
            }
        }
    }
}

/// Asks the gateway where and what may be read.
async fn feed_document(base: &Address, patience: &mut Patience) -> anyhow::Result<FeedDocument> {
    let answer = ask::gateway(base, || Request::get("/feed.json"), patience).await?;
    if !answer.status().is_success() {
        bail!("{base}/feed.json answers {}: is this a gateway of fpesa?", answer.status());
    }
    serde_json::from_slice(answer.body()).context("/feed.json is not what it must be")
}
