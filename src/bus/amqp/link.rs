//! Connecting: addresses, credentials, TLS, and the pauses between tries. Nothing of a URL reaches a log or an error.

use std::{fs, future::Future, time::Duration};

use lapin::{
    Connection, ConnectionProperties,
    runtime::default_runtime,
    tcp::{AMQPUriTcpExt as _, OwnedIdentity, OwnedTLSConfig},
    uri::AMQPUri,
};
use tokio_util::sync::CancellationToken;

use super::{
    handshake,
    session::{Session, Stream},
};
use crate::{
    bus::ReplyLimits,
    settings::{BusAddress, Settings, bus_addresses, mask_urls},
    topology::Version,
};

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long the broker may take over one step on a link, and over its orderly end.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
pub(super) const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Seconds between heartbeats: a silent link is known after at most twice that.
const HEARTBEAT: u16 = 5;
/// How often it is asked for a sign of life, and how long it may owe one.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(800);
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(4);
/// RabbitMQ from 4.1 on takes no smaller frame limit.
const MIN_FRAME_BYTES: u32 = 8_192;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The broker is served again within 5 s of its return: so no pause is longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Where the broker is, and as whom we come.
#[derive(Clone)]
pub struct Options {
    addresses: Vec<AMQPUri>,
    ca: Option<String>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    /// What replies to calls may be.
    pub replies: ReplyLimits,
    /// Whether routes are served: they publish and call, and workers need neither.
    pub(super) serves_routes: bool,
}

impl Options {
    /// Reads the settings: `bus` (one URL, several, or one with several hosts), its password and TLS files. The error is
    /// a sentence without secrets.
    pub fn of(settings: &Settings) -> Result<Self, String> {
        let file = |path: &Option<std::path::PathBuf>| match path {
            None => Ok(None),
            Some(path) => {
                fs::read(path).map(Some).map_err(|error| format!("bus_tls: {} can't be read: {error}", path.display()))
            }
        };
        let ca = file(&settings.bus_tls.ca_file)?.map(|pem| String::from_utf8_lossy(&pem).into_owned());
        let identity = match (file(&settings.bus_tls.cert_file)?, file(&settings.bus_tls.key_file)?) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err("bus_tls: cert_file and key_file go together".into()),
        };
        let mut addresses = addresses(settings.bus.expose())?;
        if let Some(password) = &settings.bus_password {
            for address in &mut addresses {
                password.expose().clone_into(&mut address.authority.userinfo.password);
            }
        }
        Ok(Self { addresses, ca, identity, replies: ReplyLimits::default(), serves_routes: true })
    }

    /// One address, for tests of the adapter alone.
    pub fn at(url: &str) -> Result<Self, String> {
        Ok(Self {
            addresses: addresses(url)?,
            ca: None,
            identity: None,
            replies: ReplyLimits::default(),
            serves_routes: true,
        })
    }

    /// For a process that runs workers alone.
    #[must_use]
    pub fn for_workers(self) -> Self {
        Self { serves_routes: false, ..self }
    }

    /// Whether a broker answers now.
    pub async fn answers(&self) -> bool {
        match self.connect("look").await {
            Ok(connection) => connection.close(200, "bye".into()).await.is_ok(),
            Err(_) => false,
        }
    }

    /// The version of the first broker that greets us; nobody logs in.
    pub async fn version(&self) -> Result<Version, String> {
        self.first(|address, tls| async move { handshake::version(stream(&address, &tls).await?).await }).await
    }

    fn tls(&self) -> OwnedTLSConfig {
        OwnedTLSConfig {
            cert_chain: self.ca.clone(),
            identity: self.identity.clone().map(|(pem, key)| OwnedIdentity::PKCS8 { pem, key }),
        }
    }

    /// Connects to the first address that answers.
    pub(super) async fn connect(&self, role: &str) -> Result<Connection, String> {
        self.first(|address, tls| {
            let properties = ConnectionProperties::default().with_connection_name(name(role).into());
            async move {
                let runtime = default_runtime().map_err(|error| error.to_string())?;
                let connecting = Connection::connect_uri_with_config(address, properties, tls, runtime);
                connecting.await.map_err(|error| error.to_string())
            }
        })
        .await
    }

    /// The same, for a role that looks at each frame itself.
    pub(super) async fn open(&self, role: &str) -> Result<Session, String> {
        self.open_known(role).await.map(|(session, _)| session)
    }

    /// The same, with the broker's version.
    pub(super) async fn open_known(&self, role: &str) -> Result<(Session, Version), String> {
        self.first(|address, tls| {
            let name = name(role);
            async move { handshake::open(stream(&address, &tls).await?, &address, name).await }
        })
        .await
    }

    async fn first<T, F>(&self, connect: impl Fn(AMQPUri, OwnedTLSConfig) -> F) -> Result<T, String>
    where
        F: Future<Output = Result<T, String>>,
    {
        let mut last = String::from("no address is given");
        for address in &self.addresses {
            match tokio::time::timeout(CONNECT_WITHIN, connect(address.clone(), self.tls())).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => last = format!("{}: {error}", address.authority.host),
                Err(_) => last = format!("{}: no answer within {CONNECT_WITHIN:?}", address.authority.host),
            }
        }
        Err(last)
    }
}

async fn stream(address: &AMQPUri, tls: &OwnedTLSConfig) -> Result<impl Stream + use<>, String> {
    let runtime = default_runtime().map_err(|error| error.to_string())?;
    address.connect_with_config_async(tls.as_ref(), &runtime).await.map_err(|error| error.to_string())
}

/// What the broker's list of connections shows.
fn name(role: &str) -> String {
    format!("fpesa {role} {}", std::process::id())
}

/// As whom and where on the broker: what the first address of the setting `bus` says.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// Its password, from the URL or beside it; `None` where neither has one.
    pub password: Option<String>,
    /// The virtual host.
    pub vhost: String,
}

impl Login {
    /// Reads the settings. The error is a sentence without secrets.
    pub fn of(settings: &Settings) -> Result<Self, String> {
        let text = settings.bus.expose();
        let address = addresses(text)?.into_iter().next().ok_or("bus: no address is given")?;
        // The URL's parser fills in a password where none is written.
        let written = bus_addresses(text)?.first().is_some_and(|address| address.has_password);
        let password = match &settings.bus_password {
            Some(password) => Some(password.expose().to_owned()),
            None => written.then(|| address.authority.userinfo.password.clone()),
        };
        Ok(Self { user: address.authority.userinfo.username.clone(), password, vhost: address.vhost })
    }
}

/// The addresses of the setting `bus`.
fn addresses(text: &str) -> Result<Vec<AMQPUri>, String> {
    let uri = |address: BusAddress| {
        let mut uri: AMQPUri = address.url.parse().map_err(|_| {
            format!("bus: `{}` can't be read: write it as in amqp://user:password@host:5672/vhost", mask_urls(text))
        })?;
        // The parser takes an IPv6 address for no host at all.
        uri.authority.host = address.host;
        uri.query.heartbeat = Some(uri.query.heartbeat.unwrap_or(HEARTBEAT));
        uri.query.frame_max = uri.query.frame_max.map(|size| if size == 0 { 0 } else { size.max(MIN_FRAME_BYTES) });
        Ok(uri)
    };
    bus_addresses(text)?.into_iter().map(uri).collect()
}

/// Runs `link` again and again until `stop`, which ends the link as well, with full-jitter pauses that grow while it fails at
/// once.
pub(super) async fn supervise<F, R>(role: &str, stop: &CancellationToken, mut link: F)
where
    F: FnMut() -> R,
    R: Future<Output = Ended>,
{
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    while !stop.is_cancelled() {
        let ended = link().await;
        if stop.is_cancelled() {
            return;
        }
        if ended.was_up {
            pause = FIRST_PAUSE;
            told = false;
        }
        if !told {
            tracing::warn!(role, why = ended.why, "the link to the broker is down: connecting until it works");
            told = true;
        }
        let jitter = rand_below(pause);
        tokio::select! {
            () = tokio::time::sleep(jitter) => {}
            () = stop.cancelled() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How a link ended.
pub(super) struct Ended {
    pub was_up: bool,
    pub why: String,
}

impl Ended {
    pub fn never_up(why: String) -> Self {
        Self { was_up: false, why }
    }

    pub fn after_up(why: impl std::fmt::Display) -> Self {
        Self { was_up: true, why: why.to_string() }
    }
}

/// A random part of a duration; random enough to keep a crowd from coming back all at once.
fn rand_below(most: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_fields().0;
    most.mul_f64(f64::from(random) / f64::from(u32::MAX)).max(Duration::from_millis(10))
}

#[cfg(test)]
mod tests {
    use super::addresses;

    #[test]
    fn several_addresses() {
        for (text, expected) in [
            ("amqp://h", vec![("h", 5672, "/")]),
            ("amqp://u:p@h1:1,h2:2/v", vec![("h1", 1, "v"), ("h2", 2, "v")]),
            ("amqp://u:p@h1/a,amqp://x:y@h2/b", vec![("h1", 5672, "a"), ("h2", 5672, "b")]),
            ("amqp://h:5673/%2f", vec![("h", 5673, "/")]),
            ("amqp://h/", vec![("h", 5672, "/")]),
        ] {
            let found = addresses(text).unwrap();
            let found: Vec<_> =
                found.iter().map(|a| (a.authority.host.as_str(), a.authority.port, a.vhost.as_str())).collect();
            assert_eq!(found, expected, "{text}");
        }
        for (text, expected) in [("", None), ("?frame_max=4096", Some(8_192)), ("?frame_max=0", Some(0))] {
            let found = addresses(&format!("amqp://h/v{text}")).unwrap();
            assert_eq!(found[0].query.frame_max, expected, "{text}");
        }
        let error = addresses("amqp://u:secret@h:nope").unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
