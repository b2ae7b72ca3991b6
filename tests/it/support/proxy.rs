//! A TCP proxy that breaks links as networks do: silence, resets, a cut in the middle of a frame.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They arrive.
    Pass,
    /// They do not, and nobody is told: a black hole. New connections are taken, and silent.
    Silent,
    /// Every connection is reset (RST), new ones at once.
    Reset,
    /// The connections of now are cut after so many more bytes towards the server; new ones pass.
    CutAfter(usize),
}

pub struct Proxy {
    pub port: u16,
    /// With a number, so that a connection knows whether it was there before.
    mode: watch::Sender<(Mode, u64)>,
    ended: watch::Receiver<usize>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port, and passes on to `port`.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (mode, modes) = watch::channel((Mode::Pass, 0));
        let (ending, ended) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (modes, ending) = (modes.clone(), ending.clone());
                connections.spawn(async move {
                    pass(client, SocketAddr::from(([127, 0, 0, 1], port)), modes).await;
                    ending.send_modify(|ended| *ended += 1);
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port: own, mode, ended, accepting }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_modify(|(now, number)| (*now, *number) = (mode, *number + 1));
    }

    /// Cuts the connections of now after so many more bytes, and waits until the first of them is.
    pub async fn cut_after(&self, bytes: usize) {
        let mut ended = self.ended.clone();
        let before = *ended.borrow_and_update();
        self.set(Mode::CutAfter(bytes));
        ended.wait_for(|ended| *ended > before).await.unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(client: TcpStream, server: SocketAddr, modes: watch::Receiver<(Mode, u64)>) {
    let (mode, since) = *modes.borrow();
    if mode == Mode::Reset {
        reset(&client);
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    tokio::select! {
        () = copy(client_in, server_out, modes.clone(), since, true) => {}
        () = copy(server_in, client_out, modes.clone(), since, false) => {}
    }
}

/// Copies until an end is reached, or the mode says otherwise.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<(Mode, u64)>,
    since: u64,
    counted: bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut left = None;
    loop {
        let (mode, number) = *modes.borrow_and_update();
        match mode {
            Mode::Reset => {
                reset(from.as_ref());
                reset(to.as_ref());
                return;
            }
            // Only who was there before is cut.
            Mode::CutAfter(bytes) if number > since && left.is_none() => left = Some(bytes),
            _ => {}
        }
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return },
            read = from.read(&mut buffer), if mode != Mode::Silent => {
                let Ok(mut size @ 1..) = read else { return };
                let mut cut = false;
                if let (true, Some(left)) = (counted, &mut left) {
                    cut = size >= *left;
                    size = size.min(*left);
                    *left -= size;
                }
                if to.write_all(&buffer[..size]).await.is_err() || cut {
                    return;
                }
            }
        }
    }
}

fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}
