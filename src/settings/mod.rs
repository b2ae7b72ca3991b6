//! Settings, weakest first: defaults, `fpesa.yaml`, the environment, flags. Unknown keys are errors, secrets are masked
//! wherever they are shown.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    error::{Actual, Kind},
    value::Value,
};
use fpesa_workers::{retention, store};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{http::head::is_host, units};

mod address;
mod layers;
mod memory;
mod secret;

pub use address::{BusAddress, bus_addresses, check_store_url, mask_line, mask_text, mask_urls};
pub use memory::MemoryShare;
pub use secret::Secret;

use layers::{Defaults, Environment, FILE, FlagLayer, KEYS, YamlFile};

/// Everything that a process is told from outside its table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The table.
    pub routes: PathBuf,
    /// Where the gateway listens.
    pub listen: SocketAddr,
    /// The bus's URL.
    pub bus: Secret,
    /// The store's URL.
    pub store: Secret,
    /// Folder of the embedded bus and store.
    pub data_dir: PathBuf,
    /// Level or filter of the log.
    pub log: String,
    /// What bounds a gateway.
    pub limits: Limits,
    /// Pages of history.
    pub history: History,
    /// Replies to calls.
    pub reply: Reply,
    /// Hosts that requests may be for; empty for any.
    pub hosts: Vec<String>,
    /// What stands in front of a gateway.
    pub proxies: Proxies,
    /// Cross-origin requests.
    pub cors: Cors,
    /// What browsers are told of the feed.
    pub feed: Feed,
    /// TLS towards the broker.
    pub bus_tls: BusTls,
    /// The broker's password, beside its URL.
    pub bus_password: Option<Secret>,
    /// The store's password, beside its URL.
    pub store_password: Option<Secret>,
    /// How long history is kept.
    pub keep: Keep,
    /// Whether `--listen` was given: workers listen only then.
    #[serde(skip)]
    pub listen_is_a_flag: bool,
    /// How long a stopping process serves as before, while `/readyz` is 503 already.
    #[serde(deserialize_with = "duration_or_zero")]
    pub drain_delay: Duration,
    /// How long a stopping process finishes what it holds.
    #[serde(deserialize_with = "duration")]
    pub drain_timeout: Duration,
}

/// `limits.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests that are worked on at the same time.
    pub max_in_flight: usize,
    /// Calls that wait for a reply at the same time.
    pub max_calls: usize,
    /// How long a request's body may take in all.
    #[serde(deserialize_with = "duration")]
    pub body_timeout: Duration,
    /// Bytes a second that a body must make, in either direction; `None` with `off`.
    #[serde(deserialize_with = "rate")]
    pub min_body_rate: Option<u64>,
    /// How long the client may take none of an answer.
    #[serde(deserialize_with = "duration")]
    pub write_timeout: Duration,
    /// Connections at the same time, WebSockets included.
    pub connections: usize,
    /// Connections of one client address at the same time; `None` with `off` or 0.
    #[serde(deserialize_with = "count_or_off")]
    pub per_address: Option<usize>,
    /// Sessions of the embedded feed at the same time.
    pub feed_sessions: usize,
    /// Bytes of bodies, replies and pages that are held at the same time.
    #[serde(deserialize_with = "share")]
    pub memory: MemoryShare,
    /// How long one body may be checked.
    #[serde(deserialize_with = "duration")]
    pub validation: Duration,
}

/// `proxies.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxies {
    /// Addresses and networks through which many clients come: `limits.per_address` does not count them.
    #[serde(deserialize_with = "networks")]
    pub trusted: Vec<IpNet>,
}

/// `history.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Largest page, in bytes.
    #[serde(deserialize_with = "size")]
    pub max_page_bytes: usize,
}

/// `reply.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// Largest reply to a call, in bytes.
    #[serde(deserialize_with = "size")]
    pub max_size: usize,
}

/// `cors.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins that may read answers, or `*`.
    pub origins: Vec<String>,
}

/// `feed.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// Where browsers connect, with a networked bus.
    pub url: Option<String>,
    /// The browser's user there.
    pub username: Option<String>,
    /// Its password: public, and good for reading only.
    pub password: Option<Secret>,
}

/// `bus_tls.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusTls {
    /// Authorities that the broker's certificate may come from, PEM.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// The client's key, PEM.
    pub key_file: Option<PathBuf>,
}

/// `keep.*`: what a persist worker keeps of its store. (`store` is a URL, and has no room for keys below it.)
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// Events are removed when their time is longer ago.
    #[serde(default, deserialize_with = "age")]
    pub age: Option<Duration>,
    /// So many of the newest events stay.
    pub count: Option<u64>,
}

/// Flags that set settings; what is not given sets nothing.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Flags {
    /// `--routes`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<PathBuf>,
    /// `--listen`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// `--bus`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    /// `--store`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// `--data-dir`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// `--log`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// Settings with where each came from.
#[derive(Debug)]
pub struct Effective {
    /// The settings.
    pub settings: Settings,
    origins: Figment,
}

/// Why there are no settings; told to a person, exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl Effective {
    /// Reads all layers. `config` is the file that `--config` names; without it `fpesa.yaml` counts where it is.
    pub fn load(config: Option<&Path>, flags: &Flags) -> Result<Self, SettingsError> {
        let path = config.unwrap_or(Path::new(FILE));
        let mut figment = Figment::from(Defaults);
        if config.is_some() || path.exists() {
            figment = figment.merge(YamlFile::read(path)?);
        }
        let environment = Environment::read(
            std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))),
        )?;
        let figment = figment.merge(environment).merge(FlagLayer(flags));
        let mut settings: Settings = figment.extract().map_err(|error| SettingsError(told(&error, &figment)))?;
        settings.listen_is_a_flag = flags.listen.is_some();
        settings.check()?;
        Ok(Self { settings, origins: figment })
    }

    /// `key: value   # from where`, one a line, secrets masked.
    pub fn show(&self) -> String {
        let mut lines: Vec<(String, String)> = Vec::new();
        for (key, _) in KEYS {
            let Ok(value) = self.origins.find_value(key) else { continue };
            let secret = matches!(key, "bus" | "store" | "bus_password" | "store_password" | "feed.password");
            let shown = match &value {
                Value::String(_, text) if secret => Secret::from(text.as_str()).masked(),
                Value::String(_, text) => mask_urls(text),
                Value::Num(_, number) => number.to_u128().map_or_else(|| format!("{number:?}"), |n| n.to_string()),
                Value::Array(_, items) => {
                    let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                    format!("[{}]", items.join(", "))
                }
                other => format!("{other:?}"),
            };
            let from = self.origins.find_metadata(key).map_or("default", |metadata| metadata.name.as_ref());
            let from = match from {
                "flag" => format!("--{}", key.replace('_', "-")),
                "environment" => format!("FPESA_{}", key.to_uppercase().replace('.', "__")),
                from => from.to_owned(),
            };
            lines.push((format!("{key}: {shown}"), from));
        }
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
        lines.iter().map(|(line, from)| format!("{line:width$}  # {from}\n")).collect()
    }
}

impl Settings {
    /// Whether the bus lives in this process.
    pub fn bus_is_embedded(&self) -> bool {
        self.bus.expose().starts_with("embedded:")
    }

    /// Whether the store lives in this process.
    pub fn store_is_embedded(&self) -> bool {
        self.store.expose().starts_with("embedded:")
    }

    /// Where the store is, for whoever opens it.
    pub fn store_access(&self) -> store::Access<'_> {
        store::Access {
            url: self.store.expose(),
            password: self.store_password.as_ref().map(Secret::expose),
            data_dir: &self.data_dir,
        }
    }

    /// What a persist worker keeps.
    pub fn keep(&self) -> retention::Keep {
        retention::Keep { age: self.keep.age, count: self.keep.count }
    }

    fn check(&self) -> Result<(), SettingsError> {
        let bus = self.bus.expose();
        let any_of = |text: &str, starts: &[&str]| {
            starts.iter().any(|start| text.len() > start.len() && text.starts_with(start))
        };
        if bus != "embedded:" && !any_of(bus, &["amqp://", "amqps://"]) {
            return Err(SettingsError(format!(
                "unknown bus URL `{}`: expected embedded:, or amqp://user@host:5672/vhost (amqps:// with TLS)",
                self.bus.masked()
            )));
        }
        if bus != "embedded:" {
            bus_addresses(bus).map_err(SettingsError)?;
        }
        let store = self.store.expose();
        let networked = ["mongodb://", "mongodb+srv://", "postgres://", "postgresql://"];
        if !store.starts_with("embedded:") && !any_of(store, &networked) {
            return Err(SettingsError(format!(
                "unknown store URL `{}`: expected embedded: (or embedded:/some/folder), mongodb:// or postgres://",
                self.store.masked()
            )));
        }
        check_store_url(store).map_err(|why| SettingsError(format!("store: `{}`: {why}", mask_urls(store))))?;
        for (name, limit) in [
            ("limits.max_in_flight", self.limits.max_in_flight),
            ("limits.max_calls", self.limits.max_calls),
            ("limits.connections", self.limits.connections),
            ("limits.feed_sessions", self.limits.feed_sessions),
        ] {
            if limit == 0 {
                return Err(SettingsError(format!("{name} must be at least 1")));
            }
        }
        if self.keep.count == Some(0) {
            return Err(SettingsError("keep.count must be at least 1".into()));
        }
        if let Some(host) = self.hosts.iter().find(|host| host.is_empty() || !is_host(host)) {
            return Err(SettingsError(format!(
                "hosts: `{host}` is not a host: write it as in api.example.com, without scheme or path"
            )));
        }
        for origin in &self.cors.origins {
            let scheme = origin.starts_with("http://") || origin.starts_with("https://");
            if origin != "*" && (!scheme || origin.ends_with('/')) {
                return Err(SettingsError(format!(
                    "cors.origins: `{origin}` is no origin: write it as in https://app.example.com, or *"
                )));
            }
        }
        Ok(())
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    units::duration(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// A duration that may be nothing: `0s`.
fn duration_or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "0s" { Ok(Duration::ZERO) } else { units::duration(&text).map_err(de::Error::custom) }
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "off" { Ok(None) } else { units::rate(&text).map(Some).map_err(de::Error::custom) }
}

/// A number, with 0 and `off` for no limit.
fn count_or_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum CountOrWord {
        Count(usize),
        Word(String),
    }
    match CountOrWord::deserialize(deserializer) {
        Ok(CountOrWord::Count(count)) => Ok((count > 0).then_some(count)),
        Ok(CountOrWord::Word(word)) if word == "off" => Ok(None),
        _ => Err(de::Error::custom("expected a whole number, or off")),
    }
}

/// Networks such as `10.0.0.0/8`, or single addresses.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |text: &String| {
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        network.ok_or_else(|| {
            de::Error::custom(format!(
                "`{text}` is not an address or a network (write it as in 10.0.0.0/8 or 192.0.2.7)"
            ))
        })
    };
    Vec::<String>::deserialize(deserializer)?.iter().map(network).collect()
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let size = units::size(&String::deserialize(deserializer)?).map_err(de::Error::custom)?;
    usize::try_from(size).map_err(de::Error::custom)
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MemoryShare, D::Error> {
    MemoryShare::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

fn age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    units::age(&String::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

/// A figment error as one sentence: what, and where it came from.
fn told(error: &figment::Error, figment: &Figment) -> String {
    let first = error.clone().into_iter().next().unwrap_or_else(|| error.clone());
    let key = first.path.join(".");
    let from =
        first.metadata.as_ref().or_else(|| figment.find_metadata(&key)).map_or("", |metadata| metadata.name.as_ref());
    let place = if from.is_empty() { String::new() } else { format!(" (from {from})") };
    // Text where something else belongs may be a secret that went astray.
    let what = match &first.kind {
        Kind::InvalidType(Actual::Str(_), expected) => format!("expected {expected}, not text"),
        kind => mask_text(&kind.to_string()),
    };
    format!("{key}: {what}{place}")
}
