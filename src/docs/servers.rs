//! Where messages travel: the bus, and the feed of browsers. No user and no password of a URL comes here.

use std::net::SocketAddr;

use serde_json::{Map, Value as Json, json};

use crate::settings::{Settings, bus_addresses};

/// The bus's name among the servers; further nodes are `bus-2` and so on.
pub const BUS: &str = "bus";
/// The feed's name among the servers.
pub const FEED: &str = "feed";

/// The servers of a document.
pub fn servers(settings: &Settings) -> Json {
    let mut out = Map::new();
    if settings.bus_is_embedded() {
        out.insert(
            BUS.into(),
            json!({
                "host": "localhost",
                "protocol": "amqp",
                "protocolVersion": "0.9.1",
                "description": "Embedded: it lives in the gateway's process, with RabbitMQ's exchanges, keys and queues, and \
                    nothing outside reaches it.",
            }),
        );
    } else {
        let secure = settings.bus.expose().starts_with("amqps:");
        for (index, host) in hosts(settings.bus.expose()).into_iter().enumerate() {
            let name = if index == 0 { BUS.to_owned() } else { format!("{BUS}-{}", index + 1) };
            out.insert(
                name,
                json!({
                    "host": host,
                    "protocol": if secure { "amqps" } else { "amqp" },
                    "protocolVersion": "0.9.1",
                    "description": "RabbitMQ.",
                }),
            );
        }
    }
    out.insert(FEED.into(), feed(settings));
    out.into()
}

fn feed(settings: &Settings) -> Json {
    let description = "MQTT over a WebSocket, subprotocol `mqtt`, for reading alone; `/feed.json` says where it is.";
    let url = settings.feed.url.as_deref().and_then(|url| url::Url::parse(url).ok());
    let (host, path, secure) = match url {
        _ if settings.bus_is_embedded() => (reached(settings.listen), "/mqtt".to_owned(), false),
        Some(url) => {
            let host = url.host_str().unwrap_or("localhost");
            let host = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
            (host, url.path().to_owned(), url.scheme() == "wss")
        }
        None => {
            let hosts = hosts(settings.bus.expose());
            let host = hosts.first().map_or("localhost", |host| host.split(':').next().unwrap_or(host));
            (format!("{host}:15675"), "/mqtt".to_owned(), false)
        }
    };
    json!({
        "host": host,
        "pathname": path,
        "protocol": if secure { "secure-mqtt" } else { "mqtt" },
        "protocolVersion": "3.1.1",
        "description": description,
    })
}

/// A listening address as a host that can be reached: any address is reached on this machine, and any port is not known.
fn reached(listen: SocketAddr) -> String {
    let host = if listen.ip().is_unspecified() { "localhost".to_owned() } else { listen.ip().to_string() };
    match (listen.port(), listen.is_ipv6() && !listen.ip().is_unspecified()) {
        (0, _) => host,
        (port, true) => format!("[{host}]:{port}"),
        (port, false) => format!("{host}:{port}"),
    }
}

/// Hosts with their ports, as the setting `bus` names them.
fn hosts(bus: &str) -> Vec<String> {
    let addresses = bus_addresses(bus).unwrap_or_default();
    addresses.into_iter().map(|address| address.authority).filter(|authority| !authority.is_empty()).collect()
}

/// The virtual host of the bus.
pub fn vhost(settings: &Settings) -> String {
    let addresses = bus_addresses(settings.bus.expose()).unwrap_or_default();
    match addresses.first() {
        Some(address) if !settings.bus_is_embedded() => address.vhost.clone(),
        _ => "/".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::hosts;

    #[test]
    fn hosts_without_their_users() {
        for (bus, expected) in [
            ("amqp://h", vec!["h"]),
            ("amqp://u:p@h:5672/v", vec!["h:5672"]),
            ("amqp://u:p@h1,h2:5673/v", vec!["h1", "h2:5673"]),
            ("amqps://u:p%40@h1/v,amqps://u:p@h2/v?heartbeat=5", vec!["h1", "h2"]),
        ] {
            assert_eq!(hosts(bus), expected, "{bus}");
        }
    }
}
