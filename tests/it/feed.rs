//! The live feed with real clients: raw frames, paho-mqtt and `fpesa tail`. (MQTT.js in Chromium is the page's test.)

use std::{
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use rmqtt_codec::{
    types::{Protocol, QoS},
    v3,
    v5::{self, SubscribeAckReason as Reason},
};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _, http::HeaderValue},
};
use tokio_util::codec::{Decoder as _, Encoder as _};

use crate::support::{
    app::{App, Start},
    eventually,
    rabbit::Rabbit,
    root,
};

/// `fpesa tail`, once it listens.
pub struct Tail {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

pub async fn tail(app: &App, filter: &str) -> Tail {
    use std::io::{BufRead as _, BufReader};
    let mut command = Command::new(env!("CARGO_BIN_EXE_fpesa"));
    command.args(["tail", filter, "--url", &app.base]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = lines.clone();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
    let told = Arc::new(Mutex::new(String::new()));
    let kept = told.clone();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || {
        stderr.lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push_str(&line));
    });
    eventually("tail to listen", || async { told.lock().unwrap().contains("listening to").then_some(()) }).await;
    Tail { child, lines }
}

impl Tail {
    pub async fn line(&mut self) -> String {
        eventually("a line of tail", || async { self.lines.lock().unwrap().pop() }).await
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn socket(app: &App) -> Socket {
    handshake(app, Some("mqtt"), None).await.unwrap()
}

async fn handshake(app: &App, protocol: Option<&'static str>, origin: Option<&str>) -> Result<Socket, Error> {
    handshake_at(&app.url("/mqtt").replace("http", "ws"), protocol, origin).await
}

async fn handshake_at(url: &str, protocol: Option<&'static str>, origin: Option<&str>) -> Result<Socket, Error> {
    let mut request = url.into_client_request().unwrap();
    if let Some(protocol) = protocol {
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    }
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    Ok(connect_async(request).await?.0)
}

fn connect(client: &str, keep_alive: u16) -> Bytes {
    encode(v3::Packet::Connect(Box::new(v3::Connect {
        protocol: Protocol(4),
        clean_session: true,
        keep_alive,
        client_id: client.into(),
        ..v3::Connect::default()
    })))
}

fn subscribe(filter: &str, qos: QoS) -> Bytes {
    encode(v3::Packet::Subscribe { packet_id: 1.try_into().unwrap(), topic_filters: vec![(filter.into(), qos)] })
}

fn encode(packet: v3::Packet) -> Bytes {
    let mut bytes = BytesMut::new();
    v3::Codec::new(1 << 20).encode(packet, &mut bytes).unwrap();
    bytes.freeze()
}

async fn send(socket: &mut Socket, bytes: impl Into<Bytes>) {
    socket.send(Message::Binary(bytes.into())).await.unwrap();
}

/// Packets as they come, over whatever frames.
struct Packets {
    codec: v3::Codec,
    bytes: BytesMut,
}

impl Packets {
    fn new() -> Self {
        Self { codec: v3::Codec::new(1 << 20), bytes: BytesMut::new() }
    }

    /// The next packet; `None` when the connection ended.
    async fn next(&mut self, socket: &mut Socket) -> Option<v3::Packet> {
        loop {
            if let Some((packet, _)) = self.codec.decode(&mut self.bytes).unwrap() {
                return Some(packet);
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), socket.next()).await.expect("a frame in time");
            match frame {
                Some(Ok(Message::Binary(bytes))) => self.bytes.extend_from_slice(&bytes),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }
}

async fn ends(mut socket: Socket) {
    let mut packets = Packets::new();
    while let Some(packet) = packets.next(&mut socket).await {
        assert!(matches!(packet, v3::Packet::ConnectAck(_)), "{packet:?}");
    }
}

async fn subscribed(app: &App, client: &str, filter: &str, qos: QoS) -> (Socket, Packets) {
    let mut socket = socket(app).await;
    let mut packets = Packets::new();
    send(&mut socket, connect(client, 0)).await;
    let ack = packets.next(&mut socket).await.unwrap();
    assert!(matches!(ack, v3::Packet::ConnectAck(ack) if ack.return_code == v3::ConnectAckReason::ConnectionAccepted));
    send(&mut socket, subscribe(filter, qos)).await;
    assert!(matches!(packets.next(&mut socket).await, Some(v3::Packet::SubscribeAck { .. })));
    (socket, packets)
}

async fn publish(packets: &mut Packets, socket: &mut Socket) -> Value {
    match packets.next(socket).await {
        Some(v3::Packet::Publish(publish)) => serde_json::from_slice(&publish.payload).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn packets_may_be_split_and_merged() {
    let app = App::up().await;
    let mut socket = socket(&app).await;
    let mut packets = Packets::new();
    // Byte by byte, then two packets and a half in one frame.
    for byte in connect("split", 0) {
        send(&mut socket, vec![byte]).await;
    }
    assert!(matches!(packets.next(&mut socket).await, Some(v3::Packet::ConnectAck(_))));
    let ping = encode(v3::Packet::PingRequest);
    let merged = [&subscribe("messages/+", QoS::AtLeastOnce)[..], &ping, &ping[..1]].concat();
    send(&mut socket, merged).await;
    let Some(v3::Packet::SubscribeAck { status, .. }) = packets.next(&mut socket).await else { panic!() };
    assert_eq!(status, [v3::SubscribeReturnCode::Success(QoS::AtLeastOnce)]);
    assert_eq!(packets.next(&mut socket).await, Some(v3::Packet::PingResponse));
    send(&mut socket, ping.slice(1..)).await;
    assert_eq!(packets.next(&mut socket).await, Some(v3::Packet::PingResponse));
    let id = app.keep(r#"{"text":"hi"}"#).await;
    assert_eq!(publish(&mut packets, &mut socket).await["id"], *id);
    assert_eq!(app.json("/readyz").await["ready"], true);
    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("fpesa_feed_sessions 1"), "{metrics}");
}

#[tokio::test]
async fn what_is_no_mqtt_ends_the_session() {
    let app = App::up().await;
    // No CONNECT first, garbage, a second CONNECT, a packet that is too large, a text frame.
    for bytes in [
        subscribe("messages/#", QoS::AtMostOnce).to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0x10, 0xff, 0xff, 0xff, 0xff, 0xff],
        [connect("twice", 0), connect("twice", 0)].concat(),
        [&connect("large", 0)[..], &[0x30, 0xff, 0xff, 0x7f]].concat(),
        [&connect("bad", 0)[..], &[0x00, 0x00]].concat(),
    ] {
        let mut socket = socket(&app).await;
        send(&mut socket, bytes).await;
        ends(socket).await;
    }
    let mut text = socket(&app).await;
    text.send(Message::text("hello")).await.unwrap();
    ends(text).await;
    let mut large = socket(&app).await;
    // The server cuts it off while it is being sent, or after.
    let _ = large.send(Message::Binary(vec![0x30; 1 << 20].into())).await;
    ends(large).await;
    // Nobody but the sender was hurt.
    let (mut socket, mut packets) = subscribed(&app, "fine", "messages/#", QoS::AtMostOnce).await;
    let id = app.keep(r#"{"text":"hi"}"#).await;
    assert_eq!(publish(&mut packets, &mut socket).await["id"], *id);
}

#[tokio::test]
async fn a_client_that_never_says_connect_is_cut() {
    let app = App::up().await;
    let socket = socket(&app).await;
    let start = Instant::now();
    ends(socket).await;
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn the_handshake_is_checked() {
    let app = App::up().await;
    let status = |result: Result<Socket, Error>| match result {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    };
    assert_eq!(status(handshake(&app, None, None).await), 400);
    assert_eq!(status(handshake(&app, Some("chat"), None).await), 400);
    assert_eq!(status(handshake(&app, Some("mqtt"), Some("https://evil.example")).await), 403);
    assert!(handshake(&app, Some("mqtt"), Some(&app.base)).await.is_ok());
    assert_eq!(app.get("/mqtt").await.status(), 426);
}

#[tokio::test]
async fn only_what_the_table_names_can_be_read_and_nothing_published() {
    let app = App::up().await;
    for (filter, granted) in [
        ("messages/#", true),
        ("messages/+", true),
        ("messages/a/b", true),
        ("messages", true),
        ("#", false),
        ("+/a", false),
        ("orders/#", false),
        ("$SYS/#", false),
        ("messages/#/x", false),
        ("$share/g/messages/#", false),
    ] {
        let mut socket = socket(&app).await;
        let mut packets = Packets::new();
        send(&mut socket, connect("", 0)).await;
        packets.next(&mut socket).await.unwrap();
        send(&mut socket, subscribe(filter, QoS::ExactlyOnce)).await;
        let Some(v3::Packet::SubscribeAck { status, .. }) = packets.next(&mut socket).await else { panic!("{filter}") };
        // Exactly once is granted as at least once.
        let expected =
            if granted { v3::SubscribeReturnCode::Success(QoS::AtLeastOnce) } else { v3::SubscribeReturnCode::Failure };
        assert_eq!(status, [expected], "{filter}");
    }
    // Version 3 has no word for a refused publish: the session ends.
    let (mut socket, _) = subscribed(&app, "writer", "messages/#", QoS::AtMostOnce).await;
    let publish = rmqtt_codec::types::Publish {
        dup: false,
        retain: false,
        qos: QoS::AtLeastOnce,
        topic: "messages/x".into(),
        packet_id: Some(7.try_into().unwrap()),
        payload: Bytes::from_static(b"no"),
        properties: None,
    };
    send(&mut socket, encode(v3::Packet::Publish(Box::new(publish)))).await;
    ends(socket).await;
}

#[tokio::test]
async fn version_5_says_why() {
    let app = App::up().await;
    let mut socket = socket(&app).await;
    let mut codec = v5::Codec::new(1 << 20, 1 << 20);
    let mut bytes = BytesMut::new();
    let connect = v5::Connect { client_id: "".into(), clean_start: true, keep_alive: 1, ..Default::default() };
    codec.encode(v5::Packet::Connect(Box::new(connect)), &mut bytes).unwrap();
    let subscribe = v5::Subscribe {
        packet_id: 1.try_into().unwrap(),
        id: None,
        user_properties: Vec::new(),
        topic_filters: ["messages/#", "#", "a#"].map(|f| (f.into(), v5::SubscriptionOptions::default())).to_vec(),
    };
    codec.encode(v5::Packet::Subscribe(subscribe), &mut bytes).unwrap();
    send(&mut socket, bytes.split().freeze()).await;
    let mut incoming = BytesMut::new();
    let mut got = Vec::new();
    while let Some(Ok(frame)) = tokio::time::timeout(Duration::from_secs(20), socket.next()).await.unwrap() {
        if let Message::Binary(more) = frame {
            incoming.extend_from_slice(&more);
        }
        while let Some((packet, _)) = codec.decode(&mut incoming).unwrap() {
            got.push(packet);
        }
    }
    // Silent after that, it is told that its keep-alive passed.
    let [v5::Packet::ConnectAck(ack), v5::Packet::SubscribeAck(granted), v5::Packet::Disconnect(bye)] = &got[..] else {
        panic!("{got:?}")
    };
    assert!(ack.assigned_client_id.is_some());
    assert_eq!(
        (ack.max_qos, ack.retain_available, ack.shared_subscription_available),
        (QoS::AtLeastOnce, false, false)
    );
    let expected = [Reason::GrantedQos0, Reason::NotAuthorized, Reason::TopicFilterInvalid];
    assert_eq!(granted.status, expected);
    assert_eq!(bye.reason_code, v5::DisconnectReasonCode::KeepAliveTimeout);
}

#[tokio::test]
async fn a_second_session_takes_the_client_id_over() {
    let app = App::up().await;
    let (first, _) = subscribed(&app, "same", "messages/#", QoS::AtMostOnce).await;
    let (mut second, mut packets) = subscribed(&app, "same", "messages/#", QoS::AtMostOnce).await;
    ends(first).await;
    let id = app.keep(r#"{"text":"hi"}"#).await;
    assert_eq!(publish(&mut packets, &mut second).await["id"], *id);
}

#[tokio::test]
async fn no_more_than_the_window_is_in_flight_at_qos_1() {
    let app = App::up().await;
    let (mut socket, mut packets) = subscribed(&app, "slow", "messages/#", QoS::AtLeastOnce).await;
    for n in 0..30 {
        app.keep(&format!(r#"{{"text":"{n}"}}"#)).await;
    }
    let mut ids = Vec::new();
    for n in 0..30 {
        if ids.len() == 20 {
            // Without an ack nothing more comes.
            let more = tokio::time::timeout(Duration::from_millis(300), packets.next(&mut socket)).await;
            assert!(more.is_err(), "{more:?}");
            for packet_id in ids.drain(..) {
                send(&mut socket, encode(v3::Packet::PublishAck { packet_id })).await;
            }
        }
        let Some(v3::Packet::Publish(publish)) = packets.next(&mut socket).await else { panic!("{n}") };
        let event: Value = serde_json::from_slice(&publish.payload).unwrap();
        assert_eq!(event["data"]["text"], n.to_string());
        ids.push(publish.packet_id.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_browser_slows_nobody_and_costs_a_bounded_amount() {
    let app = App::up().await;
    let (_stalled, _) = subscribed(&app, "stalled", "messages/#", QoS::AtMostOnce).await;
    let (mut reader, mut packets) = subscribed(&app, "reader", "messages/#", QoS::AtMostOnce).await;
    let text = "x".repeat(60_000);
    // 30 MB: far more than sockets and the session's bound take together.
    let posts = tokio::time::timeout(Duration::from_secs(60), async {
        for n in 0..500 {
            app.keep(&format!(r#"{{"text":"{text}","n":{n}}}"#)).await;
            assert_eq!(publish(&mut packets, &mut reader).await["data"]["n"], n);
        }
    });
    posts.await.expect("publishes go on");
    eventually("messages to be dropped", || async {
        let metrics = app.get("/metrics").await.text().await.unwrap();
        let dropped = metrics.lines().find_map(|line| line.strip_prefix("fpesa_feed_dropped_total "))?;
        (dropped.parse::<u64>().unwrap() > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn sessions_are_told_when_the_process_ends() {
    let mut app = App::up().await;
    let (socket, _) = subscribed(&app, "there", "messages/#", QoS::AtMostOnce).await;
    app.term();
    ends(socket).await;
    assert!(app.wait(Duration::from_secs(10)).await.success());
}

#[tokio::test]
async fn tail_prints_what_passes_and_teaches_what_may_be_read() {
    let app = App::up().await;
    let mut listener = tail(&app, "messages/+").await;
    let id = app.keep(r#"{"text":"hi"}"#).await;
    assert_eq!(serde_json::from_str::<Value>(&listener.line().await).unwrap()["id"], *id);
    let run = |args: &[&str]| Start::up().command(args).run();
    let (status, stdout, stderr) = run(&["tail", "orders/#", "--url", &app.base]).await;
    assert_eq!((status, stdout.as_str()), (1, ""));
    assert!(stderr.contains("messages/#"), "{stderr}");
    let (status, _, stderr) = run(&["tail", "a#"]).await;
    assert_eq!(status, 2, "{stderr}");
}

#[tokio::test]
async fn paho_reads_the_feed_in_both_versions() {
    let python = root().join(".tools/venv/bin/python");
    assert!(python.exists(), "the Python clients are missing: run scripts/setup");
    let app = App::up().await;
    for version in ["3.1.1", "5"] {
        let script = root().join("tests/it/python/listen.py");
        let mut command = Command::new(&python);
        command.arg(script).args([&app.base["http://".len()..], version]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("paho to subscribe", || async {
            let metrics = app.get("/metrics").await.text().await.unwrap();
            metrics.contains("fpesa_feed_sessions 1").then_some(())
        })
        .await;
        // It ends after its third message; until its subscription is in force some may pass it by.
        let done = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        let output = tokio::select! {
            output = done => output.unwrap(),
            () = async { loop {
                app.keep(r#"{"text":"to paho"}"#).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            } } => unreachable!(),
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{version}: {text}");
        assert_eq!(text.matches("to paho").count(), 3, "{version}: {text}");
        eventually("the session to end", || async {
            let metrics = app.get("/metrics").await.text().await.unwrap();
            metrics.contains("fpesa_feed_sessions 0").then_some(())
        })
        .await;
    }
}

/// The feed of RabbitMQ's own plugin, as `fpesa broker` sets it up.
pub async fn by_the_real_plugin(app: &App, rabbit: &Rabbit) {
    let url = format!("ws://127.0.0.1:{}/mqtt", rabbit.web_mqtt);
    let as_user = |user: Option<&'static str>, password: &'static str, client: &'static str| {
        encode(v3::Packet::Connect(Box::new(v3::Connect {
            protocol: Protocol(4),
            clean_session: true,
            keep_alive: 60,
            client_id: client.into(),
            username: user.map(Into::into),
            password: user.map(|_| Bytes::from_static(password.as_bytes())),
            ..v3::Connect::default()
        })))
    };
    for (user, password) in [(None, ""), (Some("browser"), "wrong"), (Some("nobody"), "look")] {
        let mut socket = handshake_at(&url, Some("mqtt"), None).await.unwrap();
        send(&mut socket, as_user(user, password, "stranger")).await;
        let answer = Packets::new().next(&mut socket).await;
        let refused = match &answer {
            None => true,
            Some(v3::Packet::ConnectAck(ack)) => ack.return_code != v3::ConnectAckReason::ConnectionAccepted,
            Some(_) => false,
        };
        assert!(refused, "{user:?}: {answer:?}");
    }
    let come = |client: &'static str| {
        let connect = as_user(Some("browser"), "look", client);
        async {
            let mut socket = handshake_at(&url, Some("mqtt"), None).await.unwrap();
            let mut packets = Packets::new();
            send(&mut socket, connect).await;
            assert!(matches!(packets.next(&mut socket).await, Some(v3::Packet::ConnectAck(_))));
            (socket, packets)
        }
    };
    for (filter, granted) in [
        ("messages/#", true),
        ("messages/+", true),
        ("messages/a/b", true),
        ("messages", true),
        ("#", false),
        ("+/a", false),
        ("orders/#", false),
        ("messagesx", false),
        ("$SYS/#", false),
    ] {
        let (mut socket, mut packets) = come("reader").await;
        send(&mut socket, subscribe(filter, QoS::AtLeastOnce)).await;
        let answer = packets.next(&mut socket).await;
        assert_eq!(matches!(answer, Some(v3::Packet::SubscribeAck { .. })), granted, "{filter}: {answer:?}");
    }
    // At QoS 0 a stalled browser would be bounded by nothing on RabbitMQ 4: its user may not make such a queue.
    let (mut socket, mut packets) = come("at-most-once").await;
    send(&mut socket, subscribe("messages/#", QoS::AtMostOnce)).await;
    let answer = packets.next(&mut socket).await;
    assert!(!matches!(answer, Some(v3::Packet::SubscribeAck { .. })), "{answer:?}");
    // A browser that publishes is cut, and nobody gets what it sent.
    let (mut listener, mut heard) = come("listener").await;
    send(&mut listener, subscribe("messages/#", QoS::AtLeastOnce)).await;
    assert!(matches!(heard.next(&mut listener).await, Some(v3::Packet::SubscribeAck { .. })));
    let (mut writer, mut packets) = come("writer").await;
    let publish = rmqtt_codec::types::Publish {
        dup: false,
        retain: false,
        qos: QoS::AtLeastOnce,
        topic: "messages/x".into(),
        packet_id: Some(7.try_into().unwrap()),
        payload: Bytes::from_static(b"no"),
        properties: None,
    };
    send(&mut writer, encode(v3::Packet::Publish(Box::new(publish)))).await;
    assert!(packets.next(&mut writer).await.is_none());
    let id = app.keep(r#"{"text":"the first that comes"}"#).await;
    let Some(v3::Packet::Publish(first)) = heard.next(&mut listener).await else { panic!("no message") };
    assert!(String::from_utf8_lossy(&first.payload).contains(&id));
    drop(listener);
    a_stalled_one_costs_a_bounded_amount(app, rabbit, come("stalled").await).await;
}

async fn a_stalled_one_costs_a_bounded_amount(app: &App, rabbit: &Rabbit, stalled: (Socket, Packets)) {
    let (mut stalled, mut packets) = stalled;
    send(&mut stalled, subscribe("messages/#", QoS::AtLeastOnce)).await;
    assert!(matches!(packets.next(&mut stalled).await, Some(v3::Packet::SubscribeAck { .. })));
    // Nobody reads the socket from here on. 30 MB: far more than a browser's queue may hold.
    let text = "x".repeat(60_000);
    for n in 0..500 {
        app.keep(&format!(r#"{{"text":"{text}","n":{n}}}"#)).await;
    }
    let listed = rabbit.ctl(&["list_queues", "--silent", "name", "messages", "message_bytes"]);
    let line = listed.lines().find(|line| line.starts_with("mqtt-subscription-stalled")).expect("the browser's queue");
    let numbers: Vec<u64> = line.split('\t').skip(1).map(|number| number.parse().unwrap()).collect();
    println!("a stalled browser's queue: {} messages, {} bytes", numbers[0], numbers[1]);
    assert!(numbers[0] > 0, "{line}");
    assert!(numbers[1] <= 5 * 1024 * 1024, "{line}");
}
