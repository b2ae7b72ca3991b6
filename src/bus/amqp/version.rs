//! The broker's version, from the greeting that it sends before anybody logs in (lapin does not pass it on).

use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use lapin::{
    runtime::default_runtime,
    tcp::{AMQPUriTcpExt as _, OwnedTLSConfig},
    uri::AMQPUri,
};

/// How long the greeting may take.
const WITHIN: Duration = Duration::from_secs(3);
/// What a client of AMQP 0-9-1 says first (4.2.2).
const HEADER: &[u8] = b"AMQP\0\0\x09\x01";
/// A greeting is some hundred bytes.
const LONGEST: usize = 16 * 1024;

/// The major version; `None` where it can't be learned.
pub(super) async fn major(address: &AMQPUri, tls: &OwnedTLSConfig) -> Option<u32> {
    let greeting = async {
        let runtime = default_runtime().ok()?;
        let mut stream = address.connect_with_config_async(tls.as_ref(), &runtime).await.ok()?;
        stream.write_all(HEADER).await.ok()?;
        stream.flush().await.ok()?;
        // A frame: type, channel, size, then `connection.start` with the server's properties.
        let mut head = [0; 7];
        stream.read_exact(&mut head).await.ok()?;
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut body = vec![0; usize::try_from(size).ok()?.min(LONGEST)];
        stream.read_exact(&mut body).await.ok()?;
        Some(body)
    };
    major_in(&tokio::time::timeout(WITHIN, greeting).await.ok()??)
}

/// The property `version`, a long string such as `3.10.8`.
fn major_in(greeting: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"\x07versionS";
    let at = greeting.windows(NAME.len()).position(|part| part == NAME)? + NAME.len();
    let (size, rest) = greeting.get(at..)?.split_first_chunk::<4>()?;
    let text = rest.get(..usize::try_from(u32::from_be_bytes(*size)).ok()?)?;
    std::str::from_utf8(text).ok()?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major_in;

    #[test]
    fn versions() {
        assert_eq!(major_in(b"..\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0\x063.10.8.."), Some(3));
        assert_eq!(major_in(b"\x07versionS\0\0\0\x054.1.0"), Some(4));
        for bent in [&b""[..], b"\x07versionS\0\0", b"\x07versionS\0\0\0\xff4.1.0", b"\x07versionS\0\0\0\x01x"] {
            assert_eq!(major_in(bent), None);
        }
    }
}
