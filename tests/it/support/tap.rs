//! A way to the broker that reads along: which queues and exchanges a client looks at.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Listens on a port of its own, and passes everything on.
pub struct Tap {
    pub port: u16,
    looks: Arc<Mutex<BTreeMap<String, usize>>>,
}

const METHOD: u8 = 1;
const QUEUE_DECLARE: [u8; 4] = [0, 50, 0, 10];
const PASSIVE: u8 = 1;

impl Tap {
    pub async fn start(broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let looks = Arc::new(Mutex::new(BTreeMap::new()));
        let seen = looks.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", broker)).await else { return };
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                    let mut bytes = Vec::new();
                    let mut begun = false;
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(size @ 1..) = from_client.read(&mut buffer).await {
                        bytes.extend_from_slice(&buffer[..size]);
                        // The greeting is no frame.
                        if !begun && bytes.len() >= 8 {
                            bytes.drain(..8);
                            begun = true;
                        }
                        while begun && let Some(frame) = frame(&mut bytes) {
                            note(&frame, &seen);
                        }
                        if to_server.write_all(&buffer[..size]).await.is_err() {
                            break;
                        }
                    }
                    back.abort();
                });
            }
        });
        Self { port, looks }
    }

    /// Passive declarations of queues since [`Tap::forget`], by name.
    pub fn looks(&self) -> BTreeMap<String, usize> {
        self.looks.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.looks.lock().unwrap().clear();
    }
}

fn frame(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let size = u32::from_be_bytes(bytes.get(3..7)?.try_into().unwrap()) as usize + 8;
    (bytes.len() >= size).then(|| bytes.drain(..size).collect())
}

fn note(frame: &[u8], looks: &Mutex<BTreeMap<String, usize>>) {
    if frame[0] != METHOD || frame.get(7..11) != Some(&QUEUE_DECLARE[..]) {
        return;
    }
    // After the reserved word: the name, then the flags.
    let end = 14 + usize::from(frame[13]);
    if frame[end] & PASSIVE != 0 {
        let name = String::from_utf8_lossy(&frame[14..end]).into_owned();
        *looks.lock().unwrap().entry(name).or_default() += 1;
    }
}
