//! How a connection of ours begins (AMQP 0-9-1, 2.2.4): greeting, login, limits, virtual host.

use std::time::Duration;

use amq_protocol::{
    auth::Credentials,
    frame::{AMQPFrame, ProtocolVersion},
    protocol::{
        AMQPClass,
        connection::{AMQPMethod, Open, StartOk, TuneOk},
    },
    types::{AMQPValue, FieldTable},
    uri::AMQPUri,
};

use super::{
    convert::short,
    incoming::Incoming,
    session::{Session, Stream},
};

/// What we understand beyond the standard: confirms and their refusal, alarms, the end of a consumer, a refused login.
const CAPABILITIES: [&str; 5] = [
    "publisher_confirms",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "authentication_failure_close",
];

/// Opens a session on a fresh stream. `name` is what the broker's list of connections shows.
pub(super) async fn open(stream: impl Stream + 'static, address: &AMQPUri, name: String) -> Result<Session, String> {
    let mut session = Session::new(stream);
    session.push(&AMQPFrame::ProtocolHeader(ProtocolVersion::amqp_0_9_1()))?;
    let Incoming::Frame(AMQPFrame::Method(0, AMQPClass::Connection(AMQPMethod::Start(start)))) = session.next().await?
    else {
        return Err("the broker does not speak AMQP 0-9-1".into());
    };
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
    session.frame_max = usize::try_from(frame_max).unwrap_or_default();
    session.beat = (heartbeat != 0).then(|| Duration::from_secs(heartbeat.into()) / 2);
    let open = Open { virtual_host: short(address.vhost.as_str()) };
    match session.ask(0, AMQPClass::Connection(AMQPMethod::Open(open))).await? {
        AMQPClass::Connection(AMQPMethod::OpenOk(_)) => Ok(session),
        _ => Err("the broker does not open the virtual host".into()),
    }
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
