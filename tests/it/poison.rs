//! Messages and replies that can't be read, on RabbitMQ: each is set aside alone, and what is around it never notices.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use fpesa::{
    bus::amqp::{Amqp, Options},
    message::{HeaderValue, Message, Properties},
    topology::QueueKind,
};
use futures::future::join_all;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    bus_contract::{Shared, queue, topology},
    support::{
        app::{App, Start},
        eventually,
        rabbit::Rabbit,
        raw_amqp::{RawAmqp, RawProperties, entry, flag, long},
        release::Release,
    },
};

crate::on_each_rabbitmq!(poison_stands_alone, a_reply_that_can_not_be_read_is_its_calls, a_stream_is_not_consumed);

const GOOD: usize = 600;
const CLOUDEVENT: &str = "application/cloudevents+json";
/// What is no UTF-8.
const BENT: &[u8] = b"a\xFF\xC3(";

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// In history.
    Kept,
    /// On the dead-letter queue, with this reason.
    Reason(&'static str),
}

/// One message of the corpus.
struct Strange {
    name: String,
    fate: Fate,
    key: Vec<u8>,
    exchange: &'static str,
    properties: RawProperties,
    body: Vec<u8>,
}

fn event() -> String {
    let id = Uuid::now_v7();
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/x","type":"t","time":"2026-01-01T00:00:00.000001Z","data":1}}"#
    )
}

fn good() -> RawProperties {
    RawProperties::default().text(flag::CONTENT_TYPE, CLOUDEVENT).with(flag::DELIVERY_MODE, [2])
}

/// A table within a table, and so on.
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(entry(b"n", b'V', b""), |inner, _| entry(b"n", b'F', &long(&inner)))
}

fn corpus() -> Vec<Strange> {
    const UNREADABLE: Fate = Fate::Reason("unreadable");
    const NO_EVENT: Fate = Fate::Reason("not-an-event");
    let strange = |name: &str, fate, properties| Strange {
        name: name.to_owned(),
        fate,
        exchange: "",
        key: b"messages.persist".to_vec(),
        properties,
        body: event().into_bytes(),
    };
    let headers = |entries: &[u8]| good().with(flag::HEADERS, long(entries));
    let mut all = Vec::new();
    for (name, flag) in [
        ("content_type", flag::CONTENT_TYPE),
        ("content_encoding", flag::CONTENT_ENCODING),
        ("correlation_id", flag::CORRELATION_ID),
        ("reply_to", flag::REPLY_TO),
        ("message_id", flag::MESSAGE_ID),
        ("type", flag::TYPE),
        ("app_id", flag::APP_ID),
        ("cluster_id", flag::CLUSTER_ID),
    ] {
        all.push(strange(&format!("{name} is not UTF-8"), UNREADABLE, good().text(flag, BENT)));
    }
    all.push(strange("a header's name is not UTF-8", UNREADABLE, headers(&entry(BENT, b't', &[1]))));
    let large = [entry(BENT, b't', &[1]), entry(b"large", b'S', &long(&vec![b'x'; 100_000]))].concat();
    all.push(strange("large headers and a bad name", UNREADABLE, headers(&large)));
    let small = f64::MIN_POSITIVE.to_be_bytes();
    for (name, letter, value) in [
        ("a long string that is not UTF-8", b'S', long(BENT)),
        ("a signed byte", b'b', vec![0x80]),
        ("an unsigned byte", b'B', vec![0x80]),
        ("a short number", b's', vec![0x80, 0]),
        ("an unsigned short number", b'u', vec![0x80, 0]),
        ("an unsigned number", b'i', vec![0x80, 0, 0, 0]),
        ("a number", b'I', vec![0x80, 0, 0, 0]),
        ("a long number", b'l', vec![0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("a float", b'f', vec![0x7F, 0x7F, 0xFF, 0xFF]),
        ("a double", b'd', small.to_vec()),
        ("a decimal", b'D', vec![255, 0xFF, 0xFF, 0xFF, 0xFF]),
        ("a time out of range", b'T', vec![0xFF; 8]),
        ("nothing", b'V', vec![]),
        ("bytes", b'x', long(BENT)),
        ("a list", b'A', long(&[&b"VA"[..], &long(b"t\x01"), b"S", &long(BENT)].concat())),
        ("a deep table", b'F', long(&nested(500))),
        ("a table with a name that is not UTF-8", b'F', long(&entry(BENT, b'V', b""))),
    ] {
        all.push(strange(&format!("a header is {name}"), Fate::Kept, headers(&entry(b"h", letter, &value))));
    }
    all.push(strange("100 kB of headers", Fate::Kept, headers(&entry(b"large", b'S', &long(&vec![b'x'; 100_000])))));
    let many: Vec<u8> = (0..9_000).flat_map(|n| entry(format!("{n}").as_bytes(), b't', &[1])).collect();
    all.push(strange("9,000 headers", Fate::Kept, headers(&many)));
    all.push(strange("a timestamp out of range", Fate::Kept, good().with(flag::TIMESTAMP, [0xFF; 8])));
    for (name, body) in
        [("no body", &b""[..]), ("no JSON", b"{\"specversion\":"), ("no UTF-8", BENT), ("no event", b"{}")]
    {
        all.push(Strange { body: body.to_vec(), ..strange(name, NO_EVENT, good()) });
    }
    // What would have the broker send the copy to the queue again, and to a further one.
    let further = long(&[&b"S"[..], &long(b"messages.persist"), b"S", &long(b"messages.other")].concat());
    all.push(Strange {
        body: b"CC".to_vec(),
        ..strange("further keys", NO_EVENT, headers(&entry(b"CC", b'A', &further)))
    });
    let bent_key = [b"messages.", BENT].concat();
    all.push(Strange { exchange: "amq.topic", key: bent_key, ..strange("the key is not UTF-8", UNREADABLE, good()) });
    all
}

fn table(prefetch: u16) -> String {
    let table = std::fs::read_to_string(crate::support::root().join("routes.yaml")).unwrap();
    table.replace("batch: 500", &format!("batch: 500, prefetch: {prefetch}")).replace(
        "  messages.dead: {}",
        "  messages.dead: {}\n  messages.other: { bind: [{ exchange: amq.topic, key: 'other.#' }] }\n  ",
    )
}

async fn ready(app: &App) {
    eventually("readiness", || async { (app.get("/readyz").await.status() == 200).then_some(()) }).await;
}

/// The counter of a verdict of the worker that keeps messages.
async fn verdicts(app: &App, verdict: &str) -> usize {
    let series = format!(r#"fpesa_worker_events_total{{worker="persist",verdict="{verdict}"}} "#);
    let metrics = app.get("/metrics").await.text().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or_else(|| panic!("{metrics}"));
    line.parse().unwrap()
}

async fn poison_stands_alone(release: Release) {
    let rabbit = Rabbit::on(release).await;
    what_the_broker_refuses_itself(&rabbit).await;
    for prefetch in [1, 10, 1_000] {
        println!("prefetch {prefetch}");
        let app = Start::up().table(&table(prefetch)).args(&["--bus", &rabbit.url()]).start().await;
        ready(&app).await;
        among_good_ones(&app, &rabbit).await;
    }
    without_a_dead_letter(&rabbit).await;
    messages_of_others_have_their_place(&rabbit).await;
}

/// Without the header of ours they take the time of their arrival, and not that of the whole second in `timestamp`.
async fn messages_of_others_have_their_place(rabbit: &Rabbit) {
    let app = Start::up().table(&table(1_000)).args(&["--bus", &rabbit.url()]).start().await;
    ready(&app).await;
    let mut raw = RawAmqp::connect(rabbit.port).await;
    let mut all = Vec::new();
    for n in 0..16 {
        let id = Uuid::new_v4().to_string();
        let seconds = 1_700_000_000_u64.to_be_bytes();
        let properties = RawProperties::default()
            .text(flag::CONTENT_TYPE, "application/json")
            .text(flag::MESSAGE_ID, &id)
            .with(flag::DELIVERY_MODE, [2])
            .with(flag::TIMESTAMP, seconds);
        raw.send(b"", b"messages.persist", &properties.bytes(), n.to_string().as_bytes()).await;
        all.push(id);
    }
    raw.confirmed().await.unwrap();
    app.kept(16).await;
    crate::history::in_order(&app, &all).await;
}

/// What no broker lets in needs no worker that can read it.
async fn what_the_broker_refuses_itself(rabbit: &Rabbit) {
    for (name, properties) in [
        ("an expiration", good().text(flag::EXPIRATION, BENT)),
        ("a user", good().text(flag::USER_ID, BENT)),
        ("a number that is none", good().with(flag::HEADERS, long(&entry(b"h", b'd', &f64::NAN.to_be_bytes())))),
        ("a header's type", good().with(flag::HEADERS, long(&entry(b"h", b'Z', b"?")))),
    ] {
        let mut raw = RawAmqp::connect(rabbit.port).await;
        raw.send(b"", b"messages.persist", &properties.bytes(), b"").await;
        assert!(
            raw.confirmed().await.is_err(),
            "{name} that can't be read has become possible: it belongs in the corpus"
        );
    }
}

async fn among_good_ones(app: &App, rabbit: &Rabbit) {
    let mut corpus = corpus();
    let mut raw = RawAmqp::connect(rabbit.port).await;
    let every = GOOD / corpus.len();
    for (at, strange) in corpus.iter_mut().enumerate() {
        for _ in 0..every {
            raw.send(b"", b"messages.persist", &good().bytes(), event().as_bytes()).await;
        }
        if strange.fate == Fate::Reason("unreadable") {
            // Told apart on the dead-letter queue by what came.
            strange.body.extend(format!(" {at}").into_bytes());
        }
        raw.send(strange.exchange.as_bytes(), &strange.key, &strange.properties.bytes(), &strange.body).await;
    }
    for _ in every * corpus.len()..GOOD {
        raw.send(b"", b"messages.persist", &good().bytes(), event().as_bytes()).await;
    }
    raw.confirmed().await.unwrap();
    let kept = GOOD + corpus.iter().filter(|strange| strange.fate == Fate::Kept).count();
    app.kept(kept as u64).await;
    let (_, mut dead): (Vec<_>, Vec<_>) = corpus.into_iter().partition(|strange| strange.fate == Fate::Kept);
    let counted = dead.len();
    eventually("all to be judged", || async { (verdicts(app, "rejected").await >= counted).then_some(()) }).await;

    let bus: Shared = Amqp::connect(Options::at(&rabbit.url()).unwrap());
    eventually("the link", || async { (bus.state().link != fpesa::bus::Link::Down).then_some(()) }).await;
    let mut buried = bus.consume("messages.dead", 100).await.unwrap();
    while !dead.is_empty() {
        let delivery = tokio::time::timeout(Duration::from_secs(20), buried.next()).await.unwrap().unwrap();
        let Message { properties, body, .. } = &delivery.message;
        let at = dead.iter().position(|strange| strange.body == *body).expect("one of ours, once");
        let strange = dead.swap_remove(at);
        judge(&strange, properties);
        delivery.ticket.ack();
    }
    let more = tokio::time::timeout(Duration::from_millis(500), buried.next()).await;
    assert!(more.is_err(), "{more:?}");
    drop(buried);
    // Each was delivered once: nothing was given back, and nothing came twice.
    let counts = join_all(["kept", "duplicate", "retried", "rejected"].map(|verdict| verdicts(app, verdict))).await;
    assert_eq!(counts, [kept, 0, 0, counted], "{}", app.stderr());
    // The message that named a further queue came to it once, and its copy did not.
    let mut further = bus.consume("messages.other", 10).await.unwrap();
    let original = tokio::time::timeout(Duration::from_secs(20), further.next()).await.unwrap().unwrap();
    assert!(!original.message.properties.headers.contains_key("fpesa-reason"));
    original.ticket.ack();
    let more = tokio::time::timeout(Duration::from_millis(500), further.next()).await;
    assert!(more.is_err(), "{more:?}");
    assert!(!app.stderr().contains("consuming again") && !app.stderr().contains("panicked"), "{}", app.stderr());
    bus.close().await;
}

/// What a message on the dead-letter queue came with.
fn judge(strange: &Strange, properties: &Properties) {
    let name = &strange.name;
    let header =
        |name: &str| properties.headers.get(name).and_then(HeaderValue::to_text).map(std::borrow::Cow::into_owned);
    let Fate::Reason(reason) = strange.fate else { panic!("{name}") };
    assert_eq!(header("fpesa-reason").as_deref(), Some(reason), "{name}");
    assert_eq!(header("fpesa-queue").as_deref(), Some("messages.persist"), "{name}");
    assert!(header("fpesa-detail").is_some_and(|detail| detail.len() > 10), "{name}");
    assert_eq!(properties.unreadable, None, "{name}: the copy can be read");
    let raw = header("fpesa-raw-properties").map(|text| BASE64.decode(text).unwrap());
    if reason == "unreadable" && strange.exchange.is_empty() {
        // A broker may leave out what its own model of a message has no place for, and what can be read is there as well.
        let (raw, came) = (raw.unwrap(), strange.properties.bytes());
        let most = raw.len().min(48 * 1024);
        assert!(raw == came[..most.min(came.len())] || contains(&raw, BENT), "{name}: {}", raw.escape_ascii());
        assert!(properties.persistent, "{name}");
    } else {
        assert_eq!(raw, None, "{name}");
    }
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

/// It is rejected, said, and does not come again; its neighbours are kept.
async fn without_a_dead_letter(rabbit: &Rabbit) {
    rabbit.ctl(&["delete_queue", "messages.persist"]);
    let table = table(10).replace("    dead_letter: messages.dead\n", "");
    let app = Start::up().table(&table).args(&["--bus", &rabbit.url()]).start().await;
    ready(&app).await;
    let mut raw = RawAmqp::connect(rabbit.port).await;
    for n in 0..30 {
        let properties = if n % 3 == 1 { good().text(flag::MESSAGE_ID, BENT) } else { good() };
        raw.publish(b"messages.persist", &properties, event().as_bytes()).await;
    }
    app.kept(20).await;
    eventually("all to be judged", || async { (verdicts(&app, "rejected").await == 10).then_some(()) }).await;
    eventually("an empty queue", || async {
        let counts = rabbit.ctl(&["list_queues", "--silent", "--no-table-headers", "name", "messages"]);
        counts.lines().any(|line| line.split_whitespace().eq(["messages.persist", "0"])).then_some(())
    })
    .await;
    assert_eq!(verdicts(&app, "rejected").await, 10, "none came again");
    let told = app.stderr();
    assert!(told.contains("unreadable") && told.contains("`message_id` is not UTF-8"), "{told}");
}

const CALLS: &str = "
version: 1
routes:
  - id: ask
    method: GET
    path: /ask/{kind}
    params: { path: { kind: { type: string } } }
    call: { queue: asked, timeout: 5s }
queues:
  asked: { type: rpc }
";

/// The properties of a reply, out of the call's correlation id.
type Reply<'a> = Box<dyn Fn(&[u8]) -> RawProperties + 'a>;

async fn a_reply_that_can_not_be_read_is_its_calls(release: Release) {
    let rabbit = Rabbit::on(release).await;
    let app = Start::up().command(&["gateway"]).table(CALLS).args(&["--bus", &rabbit.url()]).start().await;
    let bus: Shared = Amqp::connect(Options::at(&rabbit.url()).unwrap());
    bus.declare(&topology([("asked".to_owned(), queue(QueueKind::Rpc))])).await.unwrap();
    let mut calls = bus.consume("asked", 100).await.unwrap();
    ready(&app).await;
    let connections = || rabbit.ctl(&["list_connections", "--silent", "--no-table-headers", "client_properties"]);
    let links = |text: &str| text.matches("fpesa call").count();
    assert!(links(&connections()) >= 1, "{}", connections());

    let deep = entry(b"deep", b'F', &long(&nested(500)));
    let plain = |correlation: &[u8]| RawProperties::default().text(flag::CORRELATION_ID, correlation);
    let headers = |correlation: &[u8], entries: &[u8]| plain(correlation).with(flag::HEADERS, long(entries));
    // How the worker replies, by the call's path, and what the client gets.
    let status = entry(b"status", b'I', &201_u32.to_be_bytes());
    let kinds: Vec<(&str, u16, Reply<'_>)> = vec![
        ("content-type", 502, Box::new(|id| plain(id).text(flag::CONTENT_TYPE, BENT))),
        ("type", 502, Box::new(|id| plain(id).text(flag::TYPE, BENT))),
        ("app-id", 502, Box::new(|id| plain(id).text(flag::APP_ID, BENT))),
        ("header-name", 502, Box::new(|id| headers(id, &entry(BENT, b't', &[1])))),
        ("status-table", 502, Box::new(|id| headers(id, &entry(b"status", b'F', &long(b""))))),
        ("status-bytes", 502, Box::new(|id| headers(id, &entry(b"status", b'S', &long(BENT))))),
        ("deep", 200, Box::new(|id| headers(id, &deep))),
        ("status", 201, Box::new(|id| headers(id, &status))),
        ("correlation-bent", 504, Box::new(|id| plain(id).text(flag::CORRELATION_ID, [id, BENT].concat()))),
        ("correlation-missing", 504, Box::new(|_| RawProperties::default().text(flag::TYPE, "x"))),
    ];
    // Calls in flight meanwhile, which are answered last.
    let waiting = |n: usize| app.get_later(&format!("/ask/later{n}"));
    let asked: Vec<_> =
        (0..20).map(waiting).chain(kinds.iter().map(|(kind, ..)| app.get_later(&format!("/ask/{kind}")))).collect();
    let mut raw = RawAmqp::connect(rabbit.port).await;
    let mut later = BTreeMap::new();
    for _ in 0..asked.len() {
        let call = tokio::time::timeout(Duration::from_secs(20), calls.next()).await.unwrap().unwrap();
        let body: Value = serde_json::from_slice(&call.message.body).unwrap();
        let kind = body["params"]["path"]["kind"].as_str().unwrap().to_owned();
        let Properties { reply_to, correlation_id, .. } = call.message.properties.clone();
        let (to, id) = (reply_to.unwrap(), correlation_id.unwrap());
        call.ticket.ack();
        match kinds.iter().find(|(name, ..)| *name == kind) {
            Some((_, _, reply)) => raw.publish(to.as_bytes(), &reply(id.as_bytes()), b"{}").await,
            None => drop(later.insert(to.clone() + &id, (to, id))),
        }
    }
    for (to, id) in later.into_values() {
        raw.publish(to.as_bytes(), &plain(id.as_bytes()), b"{}").await;
    }
    let answers = join_all(asked).await;
    for (n, answer) in answers.iter().enumerate() {
        let (status, body) = answer.as_ref().unwrap();
        let (kind, expected) = n.checked_sub(20).map_or(("later", 200), |n| (kinds[n].0, kinds[n].1));
        assert_eq!(*status, expected, "{kind}: {body}");
        if expected == 502 {
            let body: Value = serde_json::from_str(body).unwrap();
            assert!(body["type"].as_str().unwrap().ends_with("/invalid-reply"), "{kind}: {body}");
        }
    }
    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("fpesa_late_replies_total 2\n"), "{metrics}");
    assert!(!app.stderr().contains("is down"), "{}", app.stderr());
}

/// A worker that consumed a stream would skip what came while it was away.
async fn a_stream_is_not_consumed(release: Release) {
    let rabbit = Rabbit::on(release).await;
    let streams = r#"{"queues":[{"name":"streamed","vhost":"/","durable":true,"auto_delete":false,
        "arguments":{"x-queue-type":"stream"}}]}"#;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), streams).unwrap();
    rabbit.ctl(&["import_definitions", &file.path().display().to_string()]);
    let table = "
version: 1
routes:
  - id: keep
    method: POST
    path: /keep
    body: {}
    publish: { exchange: '', key: streamed }
queues:
  streamed: { declare: passive, type: quorum }
workers:
  persist: { queue: streamed }
";
    let app = Start::up().table(table).args(&["--bus", &rabbit.url()]).start().await;
    let told = eventually("the worker to say so", || async {
        let told = app.stderr();
        told.contains("can't consume").then_some(told)
    })
    .await;
    assert!(told.contains("streamed") && told.contains("stream can't be"), "{told}");
    // What the broker says is told: it names the argument that a stream does not take.
    assert!(told.contains("406"), "{told}");
    assert_eq!(app.json("/readyz").await["workers"], serde_json::json!([]));
    // Nothing of it is consumed.
    let mut raw = RawAmqp::connect(rabbit.port).await;
    raw.publish(b"streamed", &good(), event().as_bytes()).await;
    let consumers = rabbit.ctl(&["list_queues", "--silent", "--no-table-headers", "name", "consumers"]);
    assert!(consumers.lines().any(|line| line.split_whitespace().eq(["streamed", "0"])), "{consumers}");
}
