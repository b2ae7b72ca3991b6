//! The layers that settings come from, each with its keys checked and its values as text where text is wanted.

use std::{collections::BTreeMap, fs, path::Path};

use figment::{
    Metadata, Profile, Provider,
    providers::Serialized,
    value::{Dict, Map, Value},
};

use super::{Flags, SettingsError};
use crate::route::{
    problem::{Place, Problem, Source, suggest},
    yaml::{self, Node},
};

pub(super) const FILE: &str = "fpesa.yaml";

/// Each key with its default; `None` has none. The order is that of `fpesa config`.
pub(super) const KEYS: [(&str, Option<&str>); 33] = [
    ("routes", Some("routes.yaml")),
    ("listen", Some("127.0.0.1:8080")),
    ("bus", Some("embedded:")),
    ("store", Some("embedded:")),
    ("data_dir", Some("./data")),
    ("log", Some("info")),
    ("limits.max_in_flight", Some("4096")),
    ("limits.max_calls", Some("1024")),
    ("limits.body_timeout", Some("10s")),
    ("limits.min_body_rate", Some("1KiB/s")),
    ("limits.write_timeout", Some("30s")),
    ("limits.connections", Some("10000")),
    ("limits.per_address", Some("256")),
    ("limits.feed_sessions", Some("10000")),
    ("limits.memory", Some("25%")),
    ("limits.validation", Some("100ms")),
    ("history.max_page_bytes", Some("8MiB")),
    ("reply.max_size", Some("8MiB")),
    ("hosts", Some("[]")),
    ("proxies.trusted", Some("[127.0.0.0/8, ::1/128]")),
    ("cors.origins", Some("[]")),
    ("feed.url", None),
    ("feed.username", Some("browser")),
    ("feed.password", None),
    ("bus_tls.ca_file", None),
    ("bus_tls.cert_file", None),
    ("bus_tls.key_file", None),
    ("bus_password", None),
    ("store_password", None),
    ("keep.age", None),
    ("keep.count", None),
    ("drain_delay", Some("0s")),
    ("drain_timeout", Some("10s")),
];

/// Keys whose value a `…_file` key can read from a file.
const FROM_FILE: [&str; 6] = ["bus", "store", "bus_password", "store_password", "feed.username", "feed.password"];
/// Keys that are lists or numbers: the rest is text, whatever it looks like.
const NOT_TEXT: [&str; 9] = [
    "limits.max_in_flight",
    "limits.max_calls",
    "limits.connections",
    "limits.per_address",
    "limits.feed_sessions",
    "keep.count",
    "hosts",
    "cors.origins",
    "proxies.trusted",
];
/// Keys that are lists: in a text their items are separated by commas.
const LISTS: [&str; 3] = ["hosts", "cors.origins", "proxies.trusted"];

/// A nested dictionary, filled by dotted keys.
#[derive(Default)]
pub(super) struct Values(Dict);

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
    if LISTS.contains(&key) {
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

pub(super) struct Defaults;

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
        values.set("keep", Value::from(Dict::new()));
        Ok(Profile::Default.collect(values.0))
    }
}

/// The settings file, with unknown keys told by line.
pub(super) struct YamlFile {
    name: String,
    dict: Dict,
}

impl YamlFile {
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| SettingsError(format!("{name} can't be read: {error}")))?;
        let source = Source { name: name.as_str().into(), text: text.as_str().into() };
        let shown = Source { name: source.name.clone(), text: without_values(&text).into() };
        let mut values = Values::default();
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self { name, dict: values.0 });
        }
        let problem = |mut problem: Problem| {
            problem.source = shown.clone();
            SettingsError(problem.render(false))
        };
        let root = yaml::parse(&source).map_err(|mut error| {
            // The parser's own words may quote what stands there.
            if let Some(end) = error.message.find(": ") {
                error.message.truncate(end);
            }
            problem(*error)
        })?;
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
                    let what =
                        if FROM_FILE.contains(&key.as_str()) { "a number".to_owned() } else { number.to_string() };
                    return Err(problem(
                        Problem::at(&source, node.0.at, "wrong-type", format!("`{key}` must be text, not {what}"))
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

/// A settings file as it may be shown: only lines of keys that hold no secret have their values. A key that is not known
/// may be meant as one that does.
fn without_values(text: &str) -> String {
    let line = |line: &str| {
        let Some((key, _)) = line.split_once(':') else { return String::new() };
        let name = key.trim();
        let is_open = |known: &&str| {
            let secret = FROM_FILE.contains(known) || known.contains("password") || known.starts_with("feed");
            !secret && (*known == name || known.split('.').any(|part| part == name))
        };
        if known_keys().iter().any(is_open) && !line.contains("://") { line.to_owned() } else { format!("{key}: ***") }
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

type Found<'n> = BTreeMap<String, (&'n Node, Place)>;

fn flatten<'n>(node: &'n Node, prefix: &str, found: &mut Found<'n>) {
    if let yaml::Value::Map(entries) = &node.value {
        for (key, value) in entries {
            let name = format!("{prefix}{}", key.name);
            let group = KEYS.iter().any(|(known, _)| known.starts_with(&format!("{name}.")));
            if group && matches!(value.value, yaml::Value::Map(_)) {
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
pub(super) struct Environment(Dict);

impl Environment {
    pub fn read(vars: impl Iterator<Item = (String, String)>) -> Result<Self, SettingsError> {
        let mut values = Values::default();
        for (name, value) in vars {
            let Some(rest) = name.strip_prefix("FPESA_") else { continue };
            // Of the tests and the build.
            if rest.starts_with("TEST_") || rest == "BIN" || is_service_link(rest, &value) {
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

/// Whether Kubernetes or Docker made a variable for a service whose name is `fpesa` or begins with `fpesa-`:
/// `[X_]SERVICE_HOST`, `[X_]SERVICE_PORT[_NAME]` and `[X_]PORT[_N_PROTOCOL[_PROTO|_PORT|_ADDR]]`, with what they put there.
fn is_service_link(rest: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_address = |text: &str| {
        text.split_once("://").is_some_and(|(scheme, _)| PROTOCOLS.contains(&scheme.to_ascii_uppercase().as_str()))
    };
    let words: Vec<&str> = rest.split('_').collect();
    if words.iter().any(|word| !word.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())) {
        return false;
    }
    // The service's own name may hold the same words: any place where they begin will do.
    (0..words.len()).any(|at| match &words[at..] {
        ["SERVICE", "HOST"] => true,
        ["SERVICE", "PORT", ..] => is_number(value),
        ["PORT"] => is_address(value),
        ["PORT", port, protocol] => is_number(port) && PROTOCOLS.contains(protocol) && is_address(value),
        ["PORT", port, protocol, "PROTO" | "PORT" | "ADDR"] => is_number(port) && PROTOCOLS.contains(protocol),
        _ => false,
    })
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

pub(super) struct FlagLayer<'a>(pub &'a Flags);

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
    use figment::Figment;

    use super::*;
    use crate::settings::Settings;

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
