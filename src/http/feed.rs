//! The feed's WebSocket: the handshake, and frames in and out of a session.

use std::pin::Pin;

use axum::{
    body::Body,
    extract::{
        FromRequestParts as _, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::{Response, header, request::Parts},
    response::IntoResponse as _,
};
use bytes::Bytes;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _, future};

use super::{connection::Connection, head::request_host, origin, problem::Problem, state::Gateway};
use crate::feed::{self, Frame};

/// Largest frame and message that a client may send.
const MAX_FRAME_BYTES: usize = 64 * 1024;
/// What is read at a time: clients send little, and every session has such a buffer.
const READ_BUFFER_BYTES: usize = 2 * 1024;
/// What MQTT calls itself in a handshake (MQTT 5, section 6; the second is that of 3.1).
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Opens a session of the embedded feed.
pub async fn upgrade(gateway: &Gateway, parts: &mut Parts, connection: &Connection) -> Result<Response<Body>, Problem> {
    let Some(feed) = gateway.vitals.feed.clone() else { return Err(Problem::not_found()) };
    let Ok(upgrade) = WebSocketUpgrade::from_request_parts(parts, &()).await else {
        return Err(Problem::not_a_websocket());
    };
    let host = request_host(&parts.headers, &parts.uri, parts.version)?;
    origin::check(&parts.headers, host, &gateway.settings.cors.origins)?;
    let offered = parts.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    if !offered.flat_map(|value| value.split(',')).any(|protocol| PROTOCOLS.contains(&protocol.trim())) {
        return Err(Problem::wrong_subprotocol());
    }
    let place = feed.take_place().ok_or_else(Problem::too_many_sessions)?;
    if !connection.upgrade() {
        return Err(Problem::too_many_sessions());
    }
    let upgrade = upgrade
        .protocols(PROTOCOLS)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_message_size(MAX_FRAME_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0);
    Ok(upgrade.on_upgrade(move |socket| feed::serve(place, frames(socket))).into_response())
}

type Frames = Pin<Box<dyn Both + Send>>;

trait Both: Stream<Item = Frame> + Sink<Bytes, Error = axum::Error> {}
impl<T: Stream<Item = Frame> + Sink<Bytes, Error = axum::Error>> Both for T {}

/// A WebSocket as frames of the MQTT stream; pings are answered by the socket itself.
fn frames(socket: WebSocket) -> Frames {
    let both =
        socket.with(|bytes: Bytes| future::ready(Ok::<_, axum::Error>(Message::Binary(bytes)))).filter_map(|message| {
            future::ready(match message {
                Ok(Message::Binary(bytes)) => Some(Some(Frame::Binary(bytes))),
                Ok(Message::Text(_)) => Some(Some(Frame::Text)),
                Ok(Message::Ping(_) | Message::Pong(_)) => None,
                Ok(Message::Close(_)) | Err(_) => Some(None),
            })
        });
    Box::pin(both.take_while(|frame| future::ready(frame.is_some())).filter_map(future::ready))
}
