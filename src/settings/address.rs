//! Addresses as people write them: whether one can be meant as it stands, what to write instead, and how it is shown.
//! A password may hold anything: up to the last `@` everything belongs to the credentials, whatever a URL parser would
//! take it for. No text that leaves this file holds a part of a password.

use std::fmt::Write as _;

use percent_encoding::percent_decode_str;

/// Parameters whose values are shown: no server takes a secret in them.
const PUBLIC_PARAMETERS: [&str; 33] = [
    "application_name",
    "appName",
    "authMechanism",
    "authSource",
    "auth_mechanism",
    "channel_binding",
    "channel_max",
    "connectTimeoutMS",
    "connect_timeout",
    "connection_timeout",
    "dbname",
    "directConnection",
    "frame_max",
    "heartbeat",
    "host",
    "journal",
    "keepalives",
    "keepalives_idle",
    "load_balance_hosts",
    "maxPoolSize",
    "options",
    "port",
    "readPreference",
    "replicaSet",
    "retryWrites",
    "serverSelectionTimeoutMS",
    "ssl",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "tls",
    "tlsCAFile",
    "user",
];

/// Parameters of a bus URL.
const BUS_PARAMETERS: [&str; 5] = ["auth_mechanism", "channel_max", "connection_timeout", "frame_max", "heartbeat"];

/// The parts of `scheme://credentials@hosts/path?query`. The credentials reach to the last `@`.
struct Parts<'a> {
    scheme: &'a str,
    credentials: Option<&'a str>,
    hosts: &'a str,
    /// Path and query, with their `/` or `?`.
    tail: &'a str,
}

fn parts(url: &str) -> Option<Parts<'_>> {
    let (scheme, rest) = url.split_once("://")?;
    let (credentials, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => (Some(credentials), rest),
        None => (None, rest),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some(Parts { scheme, credentials, hosts: &rest[..end], tail: &rest[end..] })
}

/// Several URLs with commas between them; a comma anywhere else belongs to one URL.
fn split_urls<'a>(text: &'a str, schemes: &[&str]) -> Vec<&'a str> {
    let mut urls = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(',') {
        if schemes.iter().any(|scheme| text[at + 1..].starts_with(scheme)) {
            urls.push(&text[start..at]);
            start = at + 1;
        }
    }
    urls.push(&text[start..]);
    urls
}

/// Whether `hosts` is `host`, `host:port` or several with commas between them.
fn are_hosts(hosts: &str) -> bool {
    hosts.split(',').all(|host| {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, port),
            _ => (host, "0"),
        };
        let bracketed = name.starts_with('[') && name.ends_with(']');
        let name_is_sane =
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte) || byte >= 0x80);
        (bracketed || name_is_sane) && port.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The same text with every password in it as `***`, for whoever is shown a URL or a list of them.
pub fn mask_urls(text: &str) -> String {
    let Some(Parts { scheme, credentials, hosts, tail }) = parts(text) else { return text.to_owned() };
    let mut shown = format!("{scheme}://");
    if let Some(credentials) = credentials {
        let user = credentials.split(':').next().unwrap_or("");
        // Credentials with a comma may be several URLs: the user of the first one is shown, and nothing after it.
        shown.push_str(if user.contains([',', '/', '?', '#', '@']) { "" } else { user });
        shown.push_str(if credentials == user { "@" } else { ":***@" });
    }
    shown.push_str(if are_hosts(hosts) { hosts } else { "***" });
    let (path, query) = match tail.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (tail, None),
    };
    let (path, fragment) = path.split_once('#').map_or((path, ""), |(path, _)| (path, "#***"));
    shown.push_str(path);
    shown.push_str(fragment);
    if let Some(query) = query {
        shown.push('?');
        let masked = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, value)) if PUBLIC_PARAMETERS.contains(&name) && !value.contains("://") => pair.to_owned(),
            Some((name, _)) if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
                format!("{name}=***")
            }
            _ => "***".to_owned(),
        });
        shown.push_str(&masked.collect::<Vec<_>>().join("&"));
    }
    shown
}

/// A line of any text, such as a message of a library or of a panic, with everything that may be a part of a URL's
/// credentials as `***`: from the scheme to the line's last `@`.
pub fn mask_line(line: &str) -> String {
    let Some((before, after)) = line.split_once("://") else { return line.to_owned() };
    let ends = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '<' | '>');
    if !after.contains('@') {
        let end = after.find(ends).unwrap_or(after.len());
        return format!("{before}://{}{}", mask_parameters(&after[..end]), mask_line(&after[end..]));
    }
    // A password with a blank or a quote ends no URL: what follows the last `@` does.
    let credentials = after.rfind('@').map_or(0, |at| at + 1);
    let end = after[credentials..].find(ends).map_or(after.len(), |at| credentials + at);
    let start = before.rfind(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)).map_or(0, |at| at + 1);
    let start = if before.is_char_boundary(start) { start } else { before.len() };
    let url = format!("{}://{}", &before[start..], &after[..end]);
    format!("{}{}{}", &before[..start], mask_urls(&url), mask_line(&after[end..]))
}

/// `path?query` with the values of parameters that are called as secrets are as `***`.
fn mask_parameters(text: &str) -> String {
    const SECRET: [&str; 6] = ["pass", "pwd", "secret", "token", "key", "sig"];
    let Some((path, query)) = text.split_once('?') else { return text.to_owned() };
    let mask = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if SECRET.iter().any(|word| name.to_ascii_lowercase().contains(word)) => format!("{name}=***"),
        _ => pair.to_owned(),
    };
    format!("{path}?{}", query.split('&').map(mask).collect::<Vec<_>>().join("&"))
}

/// Every line of a text as [`mask_line`] shows it.
pub fn mask_text(text: &str) -> String {
    text.split('\n').map(mask_line).collect::<Vec<_>>().join("\n")
}

/// What keeps the credentials of a URL from being what they were meant as; a sentence without them.
fn check_credentials(credentials: &str) -> Result<(), String> {
    const RESERVED: [(char, &str); 7] =
        [('/', "%2F"), ('?', "%3F"), ('#', "%23"), ('[', "%5B"), (']', "%5D"), (' ', "%20"), ('\t', "%09")];
    let mut wrong: Vec<(char, &str)> =
        RESERVED.iter().filter(|(character, _)| credentials.contains(*character)).copied().collect();
    let bytes = credentials.as_bytes();
    let bent = |at: usize| !bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if credentials.match_indices('%').any(|(at, _)| bent(at)) {
        wrong.push(('%', "%25"));
    }
    if credentials.chars().any(|c| c.is_control() && c != '\t') {
        return Err("user and password hold a control character".into());
    }
    if wrong.is_empty() {
        return Ok(());
    }
    if credentials.contains('@') {
        wrong.push(('@', "%40"));
    }
    let mut what = String::new();
    for (index, (character, code)) in wrong.iter().enumerate() {
        let joint = match index {
            0 => "",
            _ if index + 1 == wrong.len() => " and ",
            _ => ", ",
        };
        let shown = match character {
            ' ' => "a space".to_owned(),
            '\t' => "a tab".to_owned(),
            character => format!("`{character}`"),
        };
        let _ = write!(what, "{joint}{shown} as `{code}`");
    }
    Err(format!("in user and password write {what}"))
}

/// Whether a store's URL can be meant as it stands; the error says what to write.
pub fn check_store_url(url: &str) -> Result<(), String> {
    let Some(Parts { credentials, hosts, .. }) = parts(url) else { return Ok(()) };
    let credentials = credentials.unwrap_or("");
    check_credentials(credentials)?;
    // The stores' drivers end the credentials at the first one.
    if credentials.contains('@') {
        return Err("in user and password write `@` as `%40`".into());
    }
    if !are_hosts(hosts) {
        return Err("what follows the last `@` is not a host, or a host and a port".into());
    }
    Ok(())
}

/// One address of a bus.
#[derive(Clone, PartialEq, Eq)]
pub struct BusAddress {
    /// The URL as its parser wants it: one host, and what is special encoded.
    pub url: String,
    /// The host, without brackets.
    pub host: String,
    /// The host and, where there is one, the port.
    pub authority: String,
    /// The virtual host.
    pub vhost: String,
    /// Whether the URL itself has a password.
    pub has_password: bool,
}

/// The addresses of `amqp://u:p@h1:5672,h2:5673/v` and of `amqp://u:p@h1/v,amqp://u:p@h2/v` alike. The error is a
/// sentence that says what to write, without secrets.
pub fn bus_addresses(text: &str) -> Result<Vec<BusAddress>, String> {
    let form = "write it as in amqp://user:password@host:5672/vhost";
    let mut addresses = Vec::new();
    for url in split_urls(text, &["amqp://", "amqps://"]) {
        let wrong = |why: String| format!("bus: `{}`: {why}", mask_urls(url));
        let Some(Parts { scheme, credentials, hosts, tail }) = parts(url) else {
            return Err(wrong(form.into()));
        };
        check_credentials(credentials.unwrap_or("")).map_err(&wrong)?;
        if !are_hosts(hosts) {
            return Err(wrong(format!("the host can't be read: {form}")));
        }
        let (path, query) = match tail.split_once('?') {
            Some((path, query)) => (path, query),
            None => (tail, ""),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let name = pair.split('=').next().unwrap_or("");
            if !BUS_PARAMETERS.contains(&name) {
                let sane = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                let name = if sane { name } else { "***" };
                return Err(wrong(format!(
                    "`{name}` is not a parameter of a bus URL (there are {}); a password stands before the `@`, or in \
                     the file that bus_password_file names",
                    BUS_PARAMETERS.join(", ")
                )));
            }
        }
        // An empty vhost is the default one, which AMQP URIs spell `%2f`.
        let vhost = path.strip_prefix('/').filter(|vhost| !vhost.is_empty()).unwrap_or("%2f");
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        let login = credentials.map(|credentials| format!("{}@", credentials.replace('@', "%40"))).unwrap_or_default();
        for authority in hosts.split(',') {
            let host = match authority.rsplit_once(':') {
                Some((host, port)) if !port.contains(']') => host,
                _ => authority,
            };
            addresses.push(BusAddress {
                url: format!("{scheme}://{login}{authority}/{vhost}{query}"),
                host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                authority: authority.to_owned(),
                vhost: percent_decode_str(vhost).decode_utf8_lossy().into_owned(),
                has_password: credentials.is_some_and(|credentials| credentials.contains(':')),
            });
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked() {
        for (text, masked) in [
            ("amqp://u:p@h:5672/v", "amqp://u:***@h:5672/v"),
            ("amqp://u:p@h1,h2:5673/v", "amqp://u:***@h1,h2:5673/v"),
            // Up to the last `@`: what lies between might be a part of a password.
            ("amqp://u:p@h1/v,amqp://x:y@h2/v", "amqp://u:***@h2/v"),
            ("amqp://u:12/34@host", "amqp://u:***@host"),
            ("amqp://u:se,cret@h1,h2", "amqp://u:***@h1,h2"),
            ("amqp://u:secret", "amqp://***"),
            ("amqp://h/v?heartbeat=5&x=y&z", "amqp://h/v?heartbeat=5&x=***&***"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://h/d?user=u&password=p&sslmode=require", "postgres://h/d?user=u&password=***&sslmode=require"),
            ("postgres://h/d#frag", "postgres://h/d#***"),
            ("mongodb://u:p%40w@h/d?x=y", "mongodb://u:***@h/d?x=***"),
            ("mongodb://a/b:p@h/d", "mongodb://:***@h/d"),
            ("amqp://[::1]:5672/v", "amqp://[::1]:5672/v"),
            ("embedded:", "embedded:"),
        ] {
            assert_eq!(mask_urls(text), masked);
        }
        for (line, masked) in [
            ("unexpected argument 'amqp://u:p@h' found", "unexpected argument 'amqp://u:***@h' found"),
            ("can't read \"postgres://u:pa s'x@h/d\": no", "can't read \"postgres://u:***@h/d\": no"),
            ("see https://example.org/docs?page=5#part for more", "see https://example.org/docs?page=5#part for more"),
            ("postgres://h/d?user=u&password=p is away", "postgres://h/d?user=u&password=*** is away"),
            ("two: http://a/b and http://c:80/d", "two: http://a/b and http://c:80/d"),
            ("nothing here @all", "nothing here @all"),
        ] {
            assert_eq!(mask_line(line), masked);
        }
    }

    #[test]
    fn addresses_of_a_bus() {
        let urls = |text: &str| -> Vec<String> {
            bus_addresses(text).unwrap().into_iter().map(|address| address.url).collect()
        };
        for (text, expected) in [
            ("amqp://h", vec!["amqp://h/%2f"]),
            ("amqp://u:p@h1:1,h2:2/v", vec!["amqp://u:p@h1:1/v", "amqp://u:p@h2:2/v"]),
            ("amqp://u:p@h1/a,amqps://x:y@h2/b", vec!["amqp://u:p@h1/a", "amqps://x:y@h2/b"]),
            ("amqp://u:se,cret@h1,h2", vec!["amqp://u:se,cret@h1/%2f", "amqp://u:se,cret@h2/%2f"]),
            ("amqp://u:p@ssw0rd@h", vec!["amqp://u:p%40ssw0rd@h/%2f"]),
            (
                "amqp://u:pw@h1,h2/?heartbeat=20",
                vec!["amqp://u:pw@h1/%2f?heartbeat=20", "amqp://u:pw@h2/%2f?heartbeat=20"],
            ),
        ] {
            assert_eq!(urls(text), expected, "{text}");
        }
        for (text, told) in [
            ("amqp://u:12/34@host", "`/` as `%2F`"),
            ("amqp://u:p@s:s/w@host/", "`/` as `%2F` and `@` as `%40`"),
            ("amqp://u:a%zz@host", "`%` as `%25`"),
            ("amqp://u:p%40ss@h/?password=other", "`password` is not a parameter"),
            ("amqp://u:s3cret@h:nope", "the host can't be read"),
        ] {
            let error = bus_addresses(text).err().unwrap();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
