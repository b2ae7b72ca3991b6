//! What RabbitMQ needs for a table: definitions to import and lines for rabbitmq.conf. Nothing here talks to a broker.

mod conf;
mod definitions;
mod password;
mod permissions;
mod topics;

pub use conf::conf;
pub use definitions::{Broker, definitions};
pub use permissions::Permissions;

/// Why they can't be printed: a setting is missing. Told to a person, exit status 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MissingSetting(pub String);

/// The exchange that RabbitMQ's MQTT plugin reads from.
const FEED_EXCHANGE: &str = "amq.topic";
/// Names of the queues that the MQTT plugin makes for browsers.
const FEED_QUEUES: &str = "^mqtt-subscription-";
