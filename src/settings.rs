//! Settings, weakest first: defaults, `fpesa.yaml`, the environment, flags. Unknown keys are errors, secrets are masked
//! wherever they are shown.

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::Serialized,
    value::{Dict, Map, Value},
};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{
    route::problem::{Problem, Source, suggest},
    units,
};

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
    /// Connections at the same time.
    pub connections: usize,
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

/// A text that is never shown whole: passwords go, in URLs too.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself; not for logs, answers or errors.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text with every password in it as `***`.
    pub fn masked(&self) -> String {
        if self.0.contains("://") {
            mask_urls(&self.0)
        } else if self.is_plain_url() {
            self.0.clone()
        } else {
            "***".into()
        }
    }

    fn is_plain_url(&self) -> bool {
        self.0.starts_with("embedded:")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// `scheme://user:password@host` with the password as `***`, in each of several URLs.
pub fn mask_urls(text: &str) -> String {
    let mask = |part: &str| {
        let Some((scheme, rest)) = part.split_once("://") else { return mask_authority(part) };
        format!("{scheme}://{}", mask_authority(rest))
    };
    text.split(',').map(mask).collect::<Vec<_>>().join(",")
}

fn mask_authority(rest: &str) -> String {
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:***@{host}{path}"),
            None => rest.to_owned(),
        },
        None => rest.to_owned(),
    }
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

const FILE: &str = "fpesa.yaml";

/// Each key with its default; `None` has none. The order is that of `fpesa config`.
const KEYS: [(&str, Option<&str>); 20] = [
    ("routes", Some("routes.yaml")),
    ("listen", Some("127.0.0.1:8080")),
    ("bus", Some("embedded:")),
    ("store", Some("embedded:")),
    ("data_dir", Some("./data")),
    ("log", Some("info")),
    ("limits.max_in_flight", Some("4096")),
    ("limits.max_calls", Some("1024")),
    ("limits.body_timeout", Some("10s")),
    ("limits.connections", Some("10000")),
    ("cors.origins", Some("[]")),
    ("feed.url", None),
    ("feed.username", Some("browser")),
    ("feed.password", None),
    ("bus_tls.ca_file", None),
    ("bus_tls.cert_file", None),
    ("bus_tls.key_file", None),
    ("bus_password", None),
    ("store_password", None),
    ("drain_timeout", Some("10s")),
];

/// Keys whose value a `…_file` key can read from a file.
const FROM_FILE: [&str; 6] = ["bus", "store", "bus_password", "store_password", "feed.username", "feed.password"];
/// Keys that are lists or numbers: the rest is text, whatever it looks like.
const NOT_TEXT: [&str; 4] = ["limits.max_in_flight", "limits.max_calls", "limits.connections", "cors.origins"];

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
        let settings: Settings = figment.extract().map_err(|error| SettingsError(told(&error, &figment)))?;
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
                Value::String(_, text) if secret => Secret(text.clone()).masked(),
                Value::String(_, text) => text.clone(),
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

    fn check(&self) -> Result<(), SettingsError> {
        let scheme = |text: &str| text.split(':').next().unwrap_or("").to_owned();
        let bus = self.bus.expose();
        if bus != "embedded:" && !matches!(scheme(bus).as_str(), "amqp" | "amqps") {
            return Err(SettingsError(format!(
                "bus: `{}` is none that is known: use embedded:, or amqp://user@host:5672/vhost (amqps:// with TLS)",
                mask_urls(bus)
            )));
        }
        let store = self.store.expose();
        if !matches!(scheme(store).as_str(), "embedded" | "mongodb" | "mongodb+srv" | "postgres")
            || !store.contains(':')
        {
            return Err(SettingsError(format!(
                "store: `{}` is none that is known: use embedded: (or embedded:/some/folder), mongodb:// or postgres://",
                mask_urls(store)
            )));
        }
        for (name, limit) in [
            ("limits.max_in_flight", self.limits.max_in_flight),
            ("limits.max_calls", self.limits.max_calls),
            ("limits.connections", self.limits.connections),
        ] {
            if limit == 0 {
                return Err(SettingsError(format!("{name} must be at least 1")));
            }
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

/// A figment error as one sentence: what, and where it came from.
fn told(error: &figment::Error, figment: &Figment) -> String {
    let first = error.clone().into_iter().next().unwrap_or_else(|| error.clone());
    let key = first.path.join(".");
    let from =
        first.metadata.as_ref().or_else(|| figment.find_metadata(&key)).map_or("", |metadata| metadata.name.as_ref());
    let place = if from.is_empty() { String::new() } else { format!(" (from {from})") };
    format!("{key}: {}{place}", first.kind)
}

/// A nested dictionary, filled by dotted keys.
#[derive(Default)]
struct Values(Dict);

impl Values {
    /// Sets a key from text; a `…_file` key sets the other one to what its file holds.
    fn read(&mut self, key: &str, text: &str) -> Result<(), SettingsError> {
        let Some(plain) = key.strip_suffix("_file").filter(|plain| FROM_FILE.contains(plain)) else {
            if FROM_FILE.contains(&key) {
                self.once(key, &format!("{key}_file"))?;
            }
            self.set(key, typed(key, text));
            return Ok(());
        };
        self.once(plain, key)?;
        let held =
            fs::read_to_string(text).map_err(|error| SettingsError(format!("{key}: {text} can't be read: {error}")))?;
        let held = held.strip_suffix('\n').unwrap_or(&held);
        self.set(plain, Value::from(held.strip_suffix('\r').unwrap_or(held)));
        Ok(())
    }

    fn once(&self, key: &str, file_key: &str) -> Result<(), SettingsError> {
        if Value::from(self.0.clone()).find(key).is_some() {
            return Err(SettingsError(format!("give either {key} or {file_key}, not both")));
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: Value) {
        match key.split_once('.') {
            Some((group, name)) => {
                let inner = self.0.entry(group.to_owned()).or_insert_with(|| Value::from(Dict::new()));
                if let Value::Dict(_, inner) = inner {
                    inner.insert(name.to_owned(), value);
                }
            }
            None => {
                self.0.insert(key.to_owned(), value);
            }
        }
    }
}

/// A value from text: a number or a list where the key wants one, else the text as it is (a password may be `0123`).
fn typed(key: &str, text: &str) -> Value {
    if !NOT_TEXT.contains(&key) {
        return Value::from(text);
    }
    if key == "cors.origins" {
        let text = text.trim().trim_start_matches('[').trim_end_matches(']');
        let items: Vec<String> = text
            .split(',')
            .map(|item| item.trim().trim_matches('"').to_owned())
            .filter(|item| !item.is_empty())
            .collect();
        return Value::from(items);
    }
    text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from)
}

fn is_known(key: &str) -> bool {
    KEYS.iter().any(|(name, _)| *name == key) || key.strip_suffix("_file").is_some_and(|key| FROM_FILE.contains(&key))
}

fn known_keys() -> Vec<&'static str> {
    KEYS.iter().map(|(name, _)| *name).collect()
}

struct Defaults;

impl Provider for Defaults {
    fn metadata(&self) -> Metadata {
        Metadata::named("default")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut values = Values::default();
        for (key, default) in KEYS {
            if let Some(default) = default {
                values.set(key, typed(key, default));
            }
        }
        values.set("bus_tls", Value::from(Dict::new()));
        Ok(Profile::Default.collect(values.0))
    }
}

/// The settings file, with unknown keys told by line.
struct YamlFile {
    name: String,
    dict: Dict,
}

impl YamlFile {
    fn read(path: &Path) -> Result<Self, SettingsError> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| SettingsError(format!("{name} can't be read: {error}")))?;
        let source = Source { name: name.as_str().into(), text: text.as_str().into() };
        let mut values = Values::default();
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self { name, dict: values.0 });
        }
        let problem = |problem: Problem| SettingsError(problem.render(false));
        let root = crate::route::yaml::parse(&source).map_err(|error| problem(*error))?;
        let mut found = BTreeMap::new();
        flatten(&root, "", &mut found);
        for (key, node) in &found {
            if !is_known(key) {
                let mut wrong = Problem::at(&source, node.1, "unknown-key", format!("there is no setting `{key}`"));
                wrong.hint = suggest(key, known_keys());
                return Err(problem(wrong));
            }
            let json = node.0.to_json();
            let value = match &json {
                serde_json::Value::String(text) => {
                    values.read(key, text)?;
                    continue;
                }
                serde_json::Value::Number(number) if !NOT_TEXT.contains(&key.as_str()) => {
                    return Err(problem(
                        Problem::at(&source, node.0.at, "wrong-type", format!("`{key}` must be text, not {number}"))
                            .hint("put it in quotes"),
                    ));
                }
                other => Value::serialize(other).map_err(|error| SettingsError(format!("{name}: {key}: {error}")))?,
            };
            values.set(key, value);
        }
        Ok(Self { name, dict: values.0 })
    }
}

type Found<'n> = BTreeMap<String, (&'n crate::route::yaml::Node, crate::route::problem::Place)>;

fn flatten<'n>(node: &'n crate::route::yaml::Node, prefix: &str, found: &mut Found<'n>) {
    if let crate::route::yaml::Value::Map(entries) = &node.value {
        for (key, value) in entries {
            let name = format!("{prefix}{}", key.name);
            let group = KEYS.iter().any(|(known, _)| known.starts_with(&format!("{name}.")));
            if group && matches!(value.value, crate::route::yaml::Value::Map(_)) {
                flatten(value, &format!("{name}."), found);
            } else {
                found.insert(name, (value, key.at));
            }
        }
    }
}

impl Provider for YamlFile {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// `FPESA_…` variables; `__` is the dot. Values stay text where text is wanted.
struct Environment(Dict);

impl Environment {
    fn read(vars: impl Iterator<Item = (String, String)>) -> Result<Self, SettingsError> {
        let mut values = Values::default();
        for (name, value) in vars {
            let Some(rest) = name.strip_prefix("FPESA_") else { continue };
            // Ours too, but of the tests and the build.
            if rest.starts_with("TEST_") || rest == "BIN" {
                continue;
            }
            let key = rest.to_lowercase().replace("__", ".");
            if !is_known(&key) {
                let hint = suggest(&key, known_keys()).map_or(String::new(), |hint| format!(": {hint}"));
                return Err(SettingsError(format!(
                    "the environment has {name}, and there is no setting `{key}`{hint}"
                )));
            }
            values.read(&key, &value)?;
        }
        Ok(Self(values.0))
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

struct FlagLayer<'a>(&'a Flags);

impl Provider for FlagLayer<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named("flag")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::defaults(self.0).data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked() {
        for (text, masked) in [
            ("amqp://u:p@h:5672/v", "amqp://u:***@h:5672/v"),
            ("amqp://u:p@h1,h2:5673/v", "amqp://u:***@h1,h2:5673/v"),
            ("amqp://u:p@h1/v,amqp://x:y@h2/v", "amqp://u:***@h1/v,amqp://x:***@h2/v"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("mongodb://u:p%40w@h/d?x=y", "mongodb://u:***@h/d?x=y"),
            ("s3cret", "***"),
            ("embedded:", "embedded:"),
        ] {
            assert_eq!(Secret::from(text).masked(), masked);
        }
    }

    #[test]
    fn the_environment_keeps_text_and_refuses_what_it_does_not_know() {
        let read = |name: &str, value: &str| Environment::read([(name.to_owned(), value.to_owned())].into_iter());
        let figment = Figment::from(Defaults).merge(read("FPESA_FEED__PASSWORD", "0123").unwrap());
        let settings: Settings = figment.extract().unwrap();
        assert_eq!(settings.feed.password.unwrap().expose(), "0123");
        let figment = Figment::from(Defaults).merge(read("FPESA_LIMITS__MAX_IN_FLIGHT", "7").unwrap());
        assert_eq!(figment.extract::<Settings>().unwrap().limits.max_in_flight, 7);
        assert!(read("FPESA_LISTENN", "x").err().unwrap().to_string().contains("did you mean `listen`"));
    }
}
