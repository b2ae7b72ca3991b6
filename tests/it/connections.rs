//! What clients do with their connections, and what it does to others: silence, slowness, far too many of them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::support::{
    app::{App, Start},
    eventually,
};

pub fn address(app: &App) -> SocketAddr {
    app.base.strip_prefix("http://").unwrap().parse().unwrap()
}

pub async fn dial(app: &App) -> TcpStream {
    TcpStream::connect(address(app)).await.unwrap()
}

/// A connection from another loopback address.
async fn dial_from(app: &App, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(address(app)).await.unwrap()
}

/// One request on a connection that stays open; gives the status.
pub async fn ask(stream: &mut TcpStream, path: &str) -> Option<u16> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return head.split(' ').nth(1)?.parse().ok();
            }
        }
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
    }
}

/// Whether the server has closed it; what it sent before is read.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 1024];
    loop {
        match tokio::time::timeout(Duration::from_millis(1), stream.read(&mut bytes)).await {
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
}

async fn closed(streams: &mut [TcpStream]) -> usize {
    let mut count = 0;
    for stream in streams {
        count += usize::from(is_closed(stream).await);
    }
    count
}

/// Waits until so many are closed, which the system passes on in its own time; gives how many are.
async fn closed_in_time(streams: &mut [TcpStream], count: usize) -> usize {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let closed = closed(streams).await;
        if closed >= count || Instant::now() > deadline {
            return closed;
        }
    }
}

const POST: &str = "POST /api/v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

/// All that comes until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(25), stream.read_to_end(&mut answer)).await.expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn bodies_that_come_slowly_take_no_places() {
    let app = Start::up().env("FPESA_LIMITS__MAX_IN_FLIGHT", "2").start().await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = dial(&app).await;
        stream.write_all(format!("{POST}content-length: 100\r\n\r\n{{").as_bytes()).await.unwrap();
        slow.push(stream);
    }
    // The head of each was read: an answer on a connection that was opened after them all.
    for _ in 0..20 {
        app.keep(r#"{"text":"quick"}"#).await;
    }
    assert!(app.get("/metrics").await.text().await.unwrap().contains("fpesa_in_flight 0"));
    drop(slow);
}

#[tokio::test]
async fn a_body_slower_than_the_rate_is_cut_with_408() {
    let app =
        Start::up().env("FPESA_LIMITS__BODY_TIMEOUT", "1h").env("FPESA_LIMITS__MIN_BODY_RATE", "1KiB/s").start().await;
    // One sends 4 bytes a second, the other 4 KiB: the second outlives the first, and is taken.
    let mut slow = dial(&app).await;
    slow.write_all(format!("{POST}content-length: 100000\r\n\r\n{{\"text\":\"").as_bytes()).await.unwrap();
    let mut steady = dial(&app).await;
    let text = "x".repeat(100_000);
    let body = format!("{{\"text\":\"x\",\"more\":\"{text}\"}}");
    steady.write_all(format!("{POST}content-length: {}\r\n\r\n", body.len()).as_bytes()).await.unwrap();
    let mut sent = 0;
    while !is_closed(&mut slow).await {
        let _ = slow.write_all(b"x").await;
        let next = (sent + 1024).min(body.len() - 1);
        steady.write_all(&body.as_bytes()[sent..next]).await.unwrap();
        sent = next;
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert!(sent < body.len() - 1, "the slow one was never cut");
    }
    steady.write_all(&body.as_bytes()[sent..]).await.unwrap();
    let mut answer = [0; 12];
    steady.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 202");

    let mut slow = dial(&app).await;
    slow.write_all(format!("{POST}content-length: 100000\r\n\r\n{{").as_bytes()).await.unwrap();
    let answer = rest(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("body-timeout"), "{answer}");
    assert!(answer.contains("1024 bytes a second"), "{answer}");
}

#[tokio::test]
async fn silent_sockets_and_slow_heads_lock_nobody_out() {
    let app = Start::up().env("FPESA_LIMITS__CONNECTIONS", "40").start().await;
    let mut silent = Vec::new();
    for n in 0..60 {
        let mut stream = dial(&app).await;
        if n % 2 == 0 {
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: lo").await;
        }
        silent.push(stream);
    }
    for _ in 0..10 {
        let mut honest = dial(&app).await;
        assert_eq!(ask(&mut honest, "/healthz").await, Some(200));
        silent.push(honest);
    }
    // Thirty had to go, and none of those that were served last.
    assert_eq!((closed_in_time(&mut silent[..60], 30).await, closed(&mut silent[60..]).await), (30, 0));
    eventually("a word about it", || async { app.stderr().contains("a connection limit is reached").then_some(()) })
        .await;
}

#[tokio::test]
async fn a_connection_that_works_is_not_closed_for_another() {
    let table = r"
version: 1
routes:
  - { id: ask, method: GET, path: /ask, call: { queue: silent, timeout: 8s } }
queues: { silent: {} }
";
    let app = Start::up().table(table).env("FPESA_LIMITS__CONNECTIONS", "4").start().await;
    let mut working: Vec<_> = Vec::new();
    for _ in 0..3 {
        let mut stream = dial(&app).await;
        stream.write_all(b"GET /ask HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        working.push(stream);
    }
    eventually("three calls to wait", || async {
        let metrics = app.get("/metrics").await.text().await.unwrap();
        metrics.contains("fpesa_in_flight 3").then_some(())
    })
    .await;
    for _ in 0..20 {
        assert_eq!(ask(&mut dial(&app).await, "/healthz").await, Some(200));
    }
    for stream in &mut working {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 504");
    }
}

#[tokio::test]
async fn an_address_has_its_share_of_connections() {
    // Nobody but 127.0.0.1 is a proxy here.
    let app =
        Start::up().env("FPESA_LIMITS__PER_ADDRESS", "8").env("FPESA_PROXIES__TRUSTED", "127.0.0.1").start().await;
    // Eight that wait for a body. One that had not yet begun to when the next came was idle, and made room for it.
    let mut busy = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let mut stream = dial_from(&app, "127.0.0.2").await;
        let _ = stream.write_all(format!("{POST}content-length: 100\r\n\r\n{{").as_bytes()).await;
        busy.push(stream);
        if busy.len() >= 8 && ask(&mut dial_from(&app, "127.0.0.2").await, "/healthz").await.is_none() {
            break;
        }
        assert!(Instant::now() < deadline, "the ninth is never refused");
    }
    assert_eq!(ask(&mut dial_from(&app, "127.0.0.3").await, "/healthz").await, Some(200));
    let mut proxied = Vec::new();
    for _ in 0..20 {
        proxied.push(dial(&app).await);
        assert_eq!(ask(proxied.last_mut().unwrap(), "/healthz").await, Some(200));
    }
    assert_eq!(closed(&mut proxied).await, 0);
    assert!(app.stderr().contains("limits.per_address"), "{}", app.stderr());
    // Idle ones make room for new ones of the same address, and of no other.
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(dial_from(&app, "127.0.0.4").await);
        assert_eq!(ask(idle.last_mut().unwrap(), "/healthz").await, Some(200));
    }
    assert_eq!((closed_in_time(&mut idle[..12], 12).await, closed(&mut idle[12..]).await), (12, 0));
    assert_eq!(closed(&mut proxied).await, 0);
}

#[tokio::test]
async fn the_share_of_an_address_can_be_switched_off_and_loopback_has_none() {
    for (setting, trusted) in [("off", "127.0.0.1"), ("0", "127.0.0.1"), ("8", "127.0.0.0/8")] {
        let app =
            Start::up().env("FPESA_LIMITS__PER_ADDRESS", setting).env("FPESA_PROXIES__TRUSTED", trusted).start().await;
        let mut all = Vec::new();
        for _ in 0..30 {
            all.push(dial_from(&app, "127.0.0.2").await);
            assert_eq!(ask(all.last_mut().unwrap(), "/healthz").await, Some(200), "{setting}");
        }
        assert_eq!(closed(&mut all).await, 0, "{setting}");
    }
    let (status, _, stderr) = Start::up().env("FPESA_PROXIES__TRUSTED", "10.0.0.0/33").run().await;
    assert_eq!(status, 2);
    assert!(stderr.contains("proxies.trusted") && stderr.contains("10.0.0.0/8"), "{stderr}");
    let (status, _, stderr) = Start::up().env("FPESA_LIMITS__PER_ADDRESS", "many").run().await;
    assert_eq!(status, 2);
    assert!(stderr.contains("limits.per_address") && stderr.contains("off"), "{stderr}");
}

#[tokio::test]
async fn a_head_has_its_time_and_garbage_harms_nobody() {
    let app = App::up().await;
    let mut silent = dial(&app).await;
    let mut slow = dial(&app).await;
    let mut idle = dial(&app).await;
    assert_eq!(ask(&mut idle, "/healthz").await, Some(200));
    let start = Instant::now();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nbroken header\r\n\r\n",
        &vec![b'A'; 200_000],
    ] {
        let mut stream = dial(&app).await;
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let answer = rest(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    app.keep(r#"{"text":"still there"}"#).await;
    // A byte now and then does not lengthen a head's time.
    let head = b"GET /healthz HTTP/1.1\r\nx-slow: ".iter().chain(std::iter::repeat(&b'y'));
    for byte in head {
        if slow.write_all(&[*byte]).await.is_err() || is_closed(&mut slow).await {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(25), "a slow head goes on for ever");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(start.elapsed() > Duration::from_secs(5), "a head has some time");
    tokio::time::timeout(Duration::from_secs(10), silent.read(&mut [0; 1])).await.expect("closed").ok();
    // Between two requests there is more time.
    assert_eq!(ask(&mut idle, "/healthz").await, Some(200));
}

/// Thirty messages of 200 KB: a page of 6 MB.
async fn keep_large_messages(app: &App) {
    let text = "x".repeat(200_000);
    for _ in 0..30 {
        app.keep(&format!(r#"{{"text":"x","more":"{text}"}}"#)).await;
    }
    app.kept(30).await;
}

fn resident_bytes(app: &App) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", app.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_one_that_takes_little_is_not() {
    let app = Start::up().env("FPESA_LIMITS__WRITE_TIMEOUT", "2s").start().await;
    keep_large_messages(&app).await;
    let open = || async {
        let socket = TcpSocket::new_v4().unwrap();
        // What the kernel holds for the client does not count as progress for long.
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        let mut stream = socket.connect(address(&app)).await.unwrap();
        stream.write_all(b"GET /api/v1/messages?limit=30 HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        stream
    };
    let before = resident_bytes(&app);
    let mut steady = open().await;
    let mut stalled = Vec::new();
    for _ in 0..10 {
        stalled.push(open().await);
    }
    // A steady reader takes 64 KiB each 100 ms: all of it lasts several write timeouts.
    let (mut read, mut bytes) = (0, vec![0; 64 * 1024]);
    let start = Instant::now();
    loop {
        let more = steady.read(&mut bytes).await.expect("it is not cut");
        read += more;
        if more == 0 || read >= 6_000_000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(read >= 6_000_000, "{read}");
    assert!(start.elapsed() > Duration::from_secs(4), "slow enough to mean something: {:?}", start.elapsed());
    // The stalled ones were cut: reading now gives less than all of it, and then the end.
    for stream in &mut stalled {
        let mut all = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await.expect("cut");
        assert!(all.len() < 5_000_000, "{}", all.len());
    }
    eventually("their bytes to be released", || async { (resident_bytes(&app) < before + 40_000_000).then_some(()) })
        .await;
    app.keep(r#"{"text":"still there"}"#).await;
}

#[tokio::test]
async fn few_file_descriptors_are_said_and_neither_spin_nor_flood() {
    let app = Start::up().shell("ulimit -n 64").start().await;
    assert!(app.stderr().contains("limits.connections") && app.stderr().contains("effective"), "{}", app.stderr());
    let mut many = Vec::new();
    for _ in 0..200 {
        many.push(dial(&app).await);
    }
    let before = cpu_ticks(&app);
    let start = Instant::now();
    let mut answers = 0;
    for _ in 0..10 {
        let mut stream = dial(&app).await;
        answers += usize::from(ask(&mut stream, "/healthz").await == Some(200));
    }
    assert_eq!(answers, 10);
    app.keep(r#"{"text":"kept all the same"}"#).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // A hundredth of a second each: a process that spins uses all of the time.
    let spent = Duration::from_millis((cpu_ticks(&app) - before) * 10);
    assert!(spent < start.elapsed() / 2, "{spent:?} of {:?}", start.elapsed());
    let lines = app.stderr().lines().count();
    assert!(lines < 20, "{lines} lines\n{}", app.stderr());
}

/// User and system time of a process, in ticks.
fn cpu_ticks(app: &App) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", app.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn the_soft_limit_of_files_is_raised() {
    let app = Start::up().shell("ulimit -Sn 64").start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", app.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(fields[3], fields[4], "{line}");
}

/// A WebSocket's handshake, as far as the status.
pub async fn upgrade(app: &App) -> (u16, TcpStream) {
    let mut stream = dial(app).await;
    let request = "GET /mqtt HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   sec-websocket-protocol: mqtt\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    (std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap(), stream)
}

#[tokio::test]
async fn websockets_count_as_connections_and_leave_some() {
    let app = Start::up().env("FPESA_LIMITS__CONNECTIONS", "40").start().await;
    let mut open = Vec::new();
    let mut refused = Vec::new();
    for _ in 0..200 {
        let (status, stream) = upgrade(&app).await;
        if status == 101 { open.push(stream) } else { refused.push((status, stream)) }
    }
    assert_eq!((open.len(), refused.len()), (36, 164));
    assert!(refused.iter().all(|(status, _)| *status == 503));
    let (_, refusal) = refused.last_mut().unwrap();
    refusal.shutdown().await.unwrap();
    assert!(rest(refusal).await.contains("problems/overloaded"));
    assert_eq!(ask(&mut dial(&app).await, "/healthz").await, Some(200));
    app.keep(r#"{"text":"others are served"}"#).await;
    drop(open);
    eventually("a place for another WebSocket", || async { (upgrade(&app).await.0 == 101).then_some(()) }).await;
}

#[tokio::test]
async fn sessions_of_the_feed_are_bounded_before_the_upgrade() {
    let app = Start::up().env("FPESA_LIMITS__FEED_SESSIONS", "3").start().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let (status, stream) = upgrade(&app).await;
        assert_eq!(status, 101);
        open.push(stream);
    }
    assert_eq!(upgrade(&app).await.0, 503);
    drop(open.pop());
    eventually("the place of one that left", || async { (upgrade(&app).await.0 == 101).then_some(()) }).await;
}
