//! How a connection of ours begins (AMQP 0-9-1, 2.2.4): greeting, login, limits, virtual host.

use std::time::Duration;

use amq_protocol::{
    auth::Credentials,
    frame::{AMQPFrame, ProtocolVersion},
    protocol::{
        AMQPClass,
        connection::{AMQPMethod, Open, Start, StartOk, TuneOk},
    },
    types::{AMQPValue, FieldTable},
    uri::AMQPUri,
};

use super::{
    convert::short,
    incoming::Incoming,
    session::{Session, Stream},
};
use crate::topology::Version;

/// What we understand beyond the standard: confirms and their refusal, alarms, the end of a consumer, a refused login.
const CAPABILITIES: [&str; 5] = [
    "publisher_confirms",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "authentication_failure_close",
];

/// Opens a session on a fresh stream, and says which version the broker is. `name` is what the broker's list of connections
/// shows.
pub(super) async fn open(
    stream: impl Stream + 'static,
    address: &AMQPUri,
    name: String,
) -> Result<(Session, Version), String> {
    let (mut session, start) = greet(stream).await?;
    let version = version_in(&start.server_properties);
    let mechanism = address.query.auth_mechanism.unwrap_or_default();
    if !start.mechanisms.to_string().split_whitespace().any(|known| known == mechanism.name()) {
        return Err(format!("the broker does not know the mechanism {mechanism}"));
    }
    let credentials = Credentials::from(address.authority.userinfo.clone());
    let answer = StartOk {
        client_properties: about_us(name),
        mechanism: mechanism.name().into(),
        response: credentials.sasl_auth_string(mechanism),
        locale: "en_US".into(),
    };
    let tune = match session.ask(0, AMQPClass::Connection(AMQPMethod::StartOk(answer))).await? {
        AMQPClass::Connection(AMQPMethod::Tune(tune)) => tune,
        AMQPClass::Connection(AMQPMethod::Secure(_)) => return Err(format!("{mechanism} asks for more than a login")),
        _ => return Err("the broker sets no limits".into()),
    };
    let heartbeat = smaller(tune.heartbeat, address.query.heartbeat.unwrap_or_default());
    let frame_max = smaller(tune.frame_max, address.query.frame_max.unwrap_or_default());
    let channel_max = smaller(tune.channel_max, address.query.channel_max.unwrap_or_default());
    session.say(0, AMQPClass::Connection(AMQPMethod::TuneOk(TuneOk { channel_max, frame_max, heartbeat })))?;
    session.channel_max = channel_max;
    session.frame_max = usize::try_from(frame_max).unwrap_or_default();
    session.beat = (heartbeat != 0).then(|| Duration::from_secs(heartbeat.into()) / 2);
    let open = Open { virtual_host: short(address.vhost.as_str()) };
    match session.ask(0, AMQPClass::Connection(AMQPMethod::Open(open))).await? {
        AMQPClass::Connection(AMQPMethod::OpenOk(_)) => Ok((session, version)),
        _ => Err("the broker does not open the virtual host".into()),
    }
}

/// The version of the broker at the other end of a fresh stream, which it says before anybody logs in.
pub(super) async fn version(stream: impl Stream + 'static) -> Result<Version, String> {
    greet(stream).await.map(|(_, start)| version_in(&start.server_properties))
}

async fn greet(stream: impl Stream + 'static) -> Result<(Session, Start), String> {
    let mut session = Session::new(stream);
    session.push(&AMQPFrame::ProtocolHeader(ProtocolVersion::amqp_0_9_1()))?;
    match session.next().await? {
        Incoming::Frame(AMQPFrame::Method(0, AMQPClass::Connection(AMQPMethod::Start(start)))) => Ok((session, start)),
        _ => Err("the broker does not speak AMQP 0-9-1".into()),
    }
}

/// The property `version`, such as `3.10.8`; unknown where it is none.
fn version_in(properties: &FieldTable) -> Version {
    let text = properties.inner().iter().find(|(name, _)| name.as_str() == "version").map(|(_, value)| match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        _ => String::new(),
    });
    let major = text.as_deref().and_then(|text| text.split('.').next()).and_then(|major| major.parse().ok());
    Version { major: major.unwrap_or_default() }
}

/// The smaller limit, where 0 is none.
fn smaller<N: Ord + Default>(a: N, b: N) -> N {
    let none = N::default();
    if a == none || b == none { a.max(b) } else { a.min(b) }
}

fn about_us(name: String) -> FieldTable {
    let mut capabilities = FieldTable::default();
    for capability in CAPABILITIES {
        capabilities.insert(capability.into(), AMQPValue::Boolean(true));
    }
    let mut about = FieldTable::default();
    for (key, value) in [("product", "fpesa"), ("version", env!("CARGO_PKG_VERSION")), ("platform", "rust")] {
        about.insert(key.into(), AMQPValue::LongString(value.into()));
    }
    about.insert("connection_name".into(), AMQPValue::LongString(name.into()));
    about.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    about
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, expected) in [("3.10.8", 3), ("4.1.0-rc.1", 4), ("", 0), ("x", 0)] {
            let mut properties = FieldTable::default();
            properties.insert("version".into(), AMQPValue::LongString(text.into()));
            assert_eq!(version_in(&properties).major, expected, "{text}");
        }
        assert_eq!(version_in(&FieldTable::default()).major, 0);
    }
}
