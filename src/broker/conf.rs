//! `fpesa broker conf`: the lines that rabbitmq.conf needs.

use super::MissingSetting;
use crate::{bus::amqp::Login, settings::Settings};

/// Port of web-MQTT, unless `feed.url` names another.
const WEB_MQTT: u16 = 15_675;

/// Lines for rabbitmq.conf, with the reasons.
pub fn conf(settings: &Settings) -> Result<String, MissingSetting> {
    if settings.bus_is_embedded() {
        return Err(MissingSetting(
            "these lines are for RabbitMQ: say which with --bus amqp://user@host:5672/vhost".into(),
        ));
    }
    let vhost = Login::of(settings).map_err(MissingSetting)?.vhost;
    let url = settings.feed.url.as_deref().and_then(|url| url::Url::parse(url).ok());
    // Behind a proxy the browser's port says nothing about the broker's.
    let port = url.as_ref().filter(|url| url.scheme() == "ws").and_then(url::Url::port).unwrap_or(WEB_MQTT);
    let path = url.as_ref().map_or("/mqtt", |url| url.path());
    Ok(format!(
        "# For rabbitmq.conf. The feed's plugins are switched on with
#   rabbitmq-plugins enable rabbitmq_mqtt rabbitmq_web_mqtt
# and users, permissions, queues and bindings come with
#   fpesa broker definitions > definitions.json && rabbitmqctl import_definitions definitions.json

# Nobody reads the feed without a user: the default lets anonymous browsers in, as guest.
mqtt.allow_anonymous = false
mqtt.vhost = {vhost}
mqtt.exchange = amq.topic
# Browsers come over WebSockets alone: no MQTT port of its own.
mqtt.listeners.tcp = none
web_mqtt.tcp.port = {port}
web_mqtt.ws_path = {path}
"
    ))
}
