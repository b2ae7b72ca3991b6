//! MQTT packets of both versions as one small vocabulary: what a read-only session can be told, and what it says.
//! The codec's types stay in here.

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use rmqtt_codec::{types::QoS, v3, v5, version};
use tokio_util::codec::Decoder as _;

/// Largest packet that a client may send, in bytes.
pub const MAX_IN: u32 = 64 * 1024;

/// Delivery at most once or at least once; exactly once is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    /// `QoS` 0.
    AtMostOnce,
    /// `QoS` 1.
    AtLeastOnce,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bye {
    /// It may not do what it did, or no longer.
    NotAuthorized,
    /// It read too slowly.
    TooSlow,
    /// Another session has its client id.
    TakenOver,
    /// The process ends.
    ShuttingDown,
    /// It sent what is no MQTT.
    Malformed,
    /// It sent what may not come here.
    Protocol,
    /// It was silent for too long.
    KeepAlive,
    /// It asked for `QoS` 2.
    QosNotSupported,
}

/// What a client sends.
#[derive(Debug, PartialEq, Eq)]
pub enum In {
    /// The first packet.
    Connect(Connect),
    /// Asks for topics.
    Subscribe {
        /// To be answered with.
        id: NonZeroU16,
        /// Filters with the `QoS` asked for, 0 to 2.
        filters: Vec<(String, u8)>,
    },
    /// Wants topics no more.
    Unsubscribe {
        /// To be answered with.
        id: NonZeroU16,
        /// Filters.
        filters: Vec<String>,
    },
    /// Has a message of `QoS` 1.
    Ack(NonZeroU16),
    /// Wants to publish.
    Publish {
        /// `None` at `QoS` 0.
        id: Option<NonZeroU16>,
        /// 0 to 2.
        qos: u8,
    },
    /// Is there.
    Ping,
    /// Goes.
    Disconnect,
    /// Anything that a client has no reason to send here.
    Other,
}

/// `CONNECT`
#[derive(Debug, PartialEq, Eq)]
pub struct Connect {
    /// Empty: one is given.
    pub client: String,
    /// Whether an earlier session is forgotten; here it always is.
    pub clean: bool,
    /// Seconds; 0 for none.
    pub keep_alive: u16,
    /// Whether it wants something published when it goes.
    pub will: bool,
    /// Most messages of `QoS` 1 without an ack.
    pub receive_max: u16,
    /// Largest packet that it takes, in bytes.
    pub max_packet: Option<u32>,
}

/// How a `CONNECT` is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Welcome {
    /// Come in.
    Accepted,
    /// Nothing may be published here, a will neither.
    NotAuthorized,
    /// An empty client id needs a clean session (3.1.1).
    BadClient,
    /// The process ends.
    Unavailable,
}

/// How one filter of a `SUBSCRIBE` is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// With this.
    Granted(Qos),
    /// It is outside of what may be read.
    NotAuthorized,
    /// It is no filter.
    Invalid,
    /// The session has too many.
    TooMany,
    /// It is a shared subscription.
    Shared,
}

/// The bytes are no MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The codec of one session; which version it speaks is known from its first packet.
pub enum Wire {
    /// Before `CONNECT`.
    New,
    /// MQTT 3.1 and 3.1.1.
    V3(v3::Codec),
    /// MQTT 5.
    V5(v5::Codec),
}

impl Wire {
    /// The next packet, if it is here whole.
    pub fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<In>, Malformed> {
        if let Self::New = self {
            match version::VersionCodec.decode(bytes).map_err(|_| Malformed)? {
                None => return Ok(None),
                Some(version::ProtocolVersion::MQTT3) => *self = Self::V3(v3::Codec::new(MAX_IN)),
                Some(version::ProtocolVersion::MQTT5) => *self = Self::V5(v5::Codec::new(MAX_IN, u32::MAX)),
            }
        }
        match self {
            Self::New => Ok(None),
            Self::V3(codec) => Ok(codec.decode(bytes).map_err(|_| Malformed)?.map(|(packet, _)| from_v3(packet))),
            Self::V5(codec) => Ok(codec.decode(bytes).map_err(|_| Malformed)?.map(|(packet, _)| from_v5(packet))),
        }
    }

    /// `CONNACK`; `assigned` is the client id when the client brought none.
    pub fn connack(&mut self, welcome: Welcome, assigned: Option<&str>) -> Bytes {
        match self {
            Self::New => Bytes::new(),
            Self::V3(codec) => {
                use v3::ConnectAckReason as R;
                let return_code = match welcome {
                    Welcome::Accepted => R::ConnectionAccepted,
                    Welcome::NotAuthorized => R::NotAuthorized,
                    Welcome::BadClient => R::IdentifierRejected,
                    Welcome::Unavailable => R::ServiceUnavailable,
                };
                encoded(codec, v3::Packet::ConnectAck(v3::ConnectAck { return_code, session_present: false }))
            }
            Self::V5(codec) => {
                use v5::ConnectAckReason as R;
                let ack = v5::ConnectAck {
                    session_present: false,
                    reason_code: match welcome {
                        Welcome::Accepted => R::Success,
                        Welcome::NotAuthorized => R::NotAuthorized,
                        Welcome::BadClient => R::ClientIdentifierNotValid,
                        Welcome::Unavailable => R::ServerUnavailable,
                    },
                    // Nothing of a session outlives its connection, and nothing may be published.
                    session_expiry_interval_secs: Some(0),
                    max_qos: QoS::AtLeastOnce,
                    max_packet_size: Some(MAX_IN),
                    assigned_client_id: assigned.map(Into::into),
                    topic_alias_max: 0,
                    retain_available: false,
                    wildcard_subscription_available: true,
                    subscription_identifiers_available: false,
                    shared_subscription_available: false,
                    ..v5::ConnectAck::default()
                };
                encoded(codec, v5::Packet::ConnectAck(Box::new(ack)))
            }
        }
    }

    /// `SUBACK`
    pub fn suback(&mut self, id: NonZeroU16, grants: &[Grant]) -> Bytes {
        match self {
            Self::New => Bytes::new(),
            Self::V3(codec) => {
                use v3::SubscribeReturnCode as R;
                let status = grants.iter().map(|grant| match grant {
                    Grant::Granted(Qos::AtMostOnce) => R::Success(QoS::AtMostOnce),
                    Grant::Granted(Qos::AtLeastOnce) => R::Success(QoS::AtLeastOnce),
                    _ => R::Failure,
                });
                encoded(codec, v3::Packet::SubscribeAck { packet_id: id, status: status.collect() })
            }
            Self::V5(codec) => {
                use v5::SubscribeAckReason as R;
                let status = grants.iter().map(|grant| match grant {
                    Grant::Granted(Qos::AtMostOnce) => R::GrantedQos0,
                    Grant::Granted(Qos::AtLeastOnce) => R::GrantedQos1,
                    Grant::NotAuthorized => R::NotAuthorized,
                    Grant::Invalid => R::TopicFilterInvalid,
                    Grant::TooMany => R::QuotaExceeded,
                    Grant::Shared => R::SharedSubscriptionNotSupported,
                });
                let status = status.collect();
                let ack = v5::SubscribeAck { packet_id: id, properties: Vec::new(), reason_string: None, status };
                encoded(codec, v5::Packet::SubscribeAck(ack))
            }
        }
    }

    /// `UNSUBACK`; of each filter whether there was such a subscription.
    pub fn unsuback(&mut self, id: NonZeroU16, there: &[bool]) -> Bytes {
        match self {
            Self::New => Bytes::new(),
            Self::V3(codec) => encoded(codec, v3::Packet::UnsubscribeAck { packet_id: id }),
            Self::V5(codec) => {
                use v5::UnsubscribeAckReason as R;
                let status = there.iter().map(|there| if *there { R::Success } else { R::NoSubscriptionExisted });
                let status = status.collect();
                let ack = v5::UnsubscribeAck { packet_id: id, properties: Vec::new(), reason_string: None, status };
                encoded(codec, v5::Packet::UnsubscribeAck(ack))
            }
        }
    }

    /// `PINGRESP`
    pub fn pong(&mut self) -> Bytes {
        match self {
            Self::New => Bytes::new(),
            Self::V3(codec) => encoded(codec, v3::Packet::PingResponse),
            Self::V5(codec) => encoded(codec, v5::Packet::PingResponse),
        }
    }

    /// `PUBLISH`; `id` at `QoS` 1.
    pub fn publish(&mut self, topic: &str, payload: &Bytes, id: Option<NonZeroU16>) -> Bytes {
        let publish = |properties| rmqtt_codec::types::Publish {
            dup: false,
            retain: false,
            qos: if id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce },
            topic: topic.into(),
            packet_id: id,
            payload: payload.clone(),
            properties,
        };
        match self {
            Self::New => Bytes::new(),
            Self::V3(codec) => encoded(codec, v3::Packet::Publish(Box::new(publish(None)))),
            Self::V5(codec) => {
                let properties = Some(v5::PublishProperties::default());
                encoded(codec, v5::Packet::Publish(Box::new(publish(properties))))
            }
        }
    }

    /// The refusal of a client's publish; `None` where the version has none and the session must end.
    pub fn refuse_publish(&mut self, id: NonZeroU16) -> Option<Bytes> {
        match self {
            Self::New | Self::V3(_) => None,
            Self::V5(codec) => {
                let ack = v5::PublishAck {
                    packet_id: id,
                    reason_code: v5::PublishAckReason::NotAuthorized,
                    properties: Vec::new(),
                    reason_string: None,
                };
                Some(encoded(codec, v5::Packet::PublishAck(ack)))
            }
        }
    }

    /// `DISCONNECT` with its reason; empty where the version has none.
    pub fn bye(&mut self, bye: Bye) -> Bytes {
        use v5::DisconnectReasonCode as R;
        let Self::V5(codec) = self else { return Bytes::new() };
        let reason = match bye {
            Bye::NotAuthorized => R::NotAuthorized,
            Bye::TooSlow => R::QuotaExceeded,
            Bye::TakenOver => R::SessionTakenOver,
            Bye::ShuttingDown => R::ServerShuttingDown,
            Bye::Malformed => R::MalformedPacket,
            Bye::Protocol => R::ProtocolError,
            Bye::KeepAlive => R::KeepAliveTimeout,
            Bye::QosNotSupported => R::QosNotSupported,
        };
        encoded(codec, v5::Packet::Disconnect(v5::Disconnect::new(reason)))
    }
}

fn encoded<P, C: tokio_util::codec::Encoder<P>>(codec: &mut C, packet: P) -> Bytes {
    let mut bytes = BytesMut::new();
    // What is encoded here is ours and within every limit; should it fail all the same, nothing half is sent.
    match codec.encode(packet, &mut bytes) {
        Ok(()) => bytes.freeze(),
        Err(_) => Bytes::new(),
    }
}

fn from_v3(packet: v3::Packet) -> In {
    match packet {
        v3::Packet::Connect(connect) => In::Connect(Connect {
            client: connect.client_id.to_string(),
            clean: connect.clean_session,
            keep_alive: connect.keep_alive,
            will: connect.last_will.is_some(),
            receive_max: u16::MAX,
            max_packet: None,
        }),
        v3::Packet::Subscribe { packet_id, topic_filters } => In::Subscribe {
            id: packet_id,
            filters: topic_filters.into_iter().map(|(filter, qos)| (filter.to_string(), qos.value())).collect(),
        },
        v3::Packet::Unsubscribe { packet_id, topic_filters } => {
            In::Unsubscribe { id: packet_id, filters: topic_filters.iter().map(ToString::to_string).collect() }
        }
        v3::Packet::PublishAck { packet_id } => In::Ack(packet_id),
        v3::Packet::Publish(publish) => In::Publish { id: publish.packet_id, qos: publish.qos.value() },
        v3::Packet::PingRequest => In::Ping,
        v3::Packet::Disconnect => In::Disconnect,
        _ => In::Other,
    }
}

fn from_v5(packet: v5::Packet) -> In {
    match packet {
        v5::Packet::Connect(connect) => In::Connect(Connect {
            client: connect.client_id.to_string(),
            clean: connect.clean_start,
            keep_alive: connect.keep_alive,
            will: connect.last_will.is_some(),
            receive_max: connect.receive_max.map_or(u16::MAX, NonZeroU16::get),
            max_packet: connect.max_packet_size.map(std::num::NonZeroU32::get),
        }),
        v5::Packet::Subscribe(subscribe) => In::Subscribe {
            id: subscribe.packet_id,
            filters: subscribe
                .topic_filters
                .into_iter()
                .map(|(f, options)| (f.to_string(), options.qos.value()))
                .collect(),
        },
        v5::Packet::Unsubscribe(unsubscribe) => In::Unsubscribe {
            id: unsubscribe.packet_id,
            filters: unsubscribe.topic_filters.iter().map(ToString::to_string).collect(),
        },
        v5::Packet::PublishAck(ack) => In::Ack(ack.packet_id),
        v5::Packet::Publish(publish) => In::Publish { id: publish.packet_id, qos: publish.qos.value() },
        v5::Packet::PingRequest => In::Ping,
        v5::Packet::Disconnect(_) => In::Disconnect,
        _ => In::Other,
    }
}
