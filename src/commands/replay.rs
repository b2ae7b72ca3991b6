//! `fpesa replay`: publishes history again, oldest first, each message confirmed.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};
use clap::Args;
use fpesa_workers::{
    event::{Event, TIME_HEADER, time_text},
    store::Walk,
};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, poll, stream::FuturesUnordered};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::task::unconstrained;

use super::{
    patience::{Limit, Patience, Tried},
    stores::{PartFlags, Use, open},
};
use crate::{
    app::Usage,
    bus::{
        Bus, BusError,
        amqp::{Amqp, Options},
    },
    cli::Common,
    message::{APP_ID, CLOUDEVENT, HeaderValue, Headers, Message, Outcome, Properties, Refusal},
    output::{note, say},
    settings::{Settings, mask_urls},
    topology::{Arguments, Declare, Exchange, Topology},
};

/// Most messages without an answer of the broker.
const IN_FLIGHT: usize = 256;
/// How long a message may take to be confirmed.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
/// By how much a message may be late without the next one being so too.
const LATE: Duration = Duration::from_millis(50);
/// How long a broker that is away is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest routing key, in bytes (AMQP 0-9-1, a short string).
const LONGEST_KEY: usize = 255;

/// Flags of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The exchange to publish to; '' is the default one, which takes the name of a queue as key
    #[arg(long, value_name = "NAME")]
    pub to_exchange: String,
    /// One routing key for all [default: each event's subject, with dots for slashes]
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Most messages a second [default: as fast as the broker confirms]
    #[arg(long, value_name = "NUMBER")]
    pub rate: Option<NonZeroU32>,
    /// Which part
    #[command(flatten)]
    pub part: PartFlags,
    /// Keep trying while a server is away, instead of giving up after 10 s
    #[arg(long)]
    pub wait: bool,
    /// Settings
    #[command(flatten)]
    pub common: Common,
}

/// Examples of `replay`.
pub const EXAMPLES: &str = "Examples:
  fpesa replay --since 2026-11-23T18:00:00Z --to-exchange again --bus amqp://user@host:5672 --store postgres://user@host/db
  fpesa replay --since 1h --topic 'messages/news' --to-exchange '' --key rebuild.index --rate 500 --bus amqp://user@host:5672
The same ids as before, with the header fpesa-replay: true. Give an exchange of its own: whoever listens hears it all again.";

/// `fpesa replay`: `false` when a message did not reach a queue.
pub async fn replay(args: &ReplayArgs, settings: &Settings) -> anyhow::Result<bool> {
    if settings.bus_is_embedded() {
        return Err(Usage(
            "`fpesa replay` needs a bus that other processes reach, as in --bus amqp://user@host:5672\n\
             (the embedded bus lives in one process, which is not this one)"
                .into(),
        )
        .into());
    }
    if args.part.since.is_none() {
        return Err(Usage("say from when on, as in --since 2026-11-23T18:27:58Z or --since 12h".into()).into());
    }
    let part = args.part.part()?;
    let too_long = |text: &str| text.len() > LONGEST_KEY;
    if too_long(&args.to_exchange) || args.key.as_deref().is_some_and(too_long) {
        return Err(Usage(format!("an exchange's name and a routing key have at most {LONGEST_KEY} bytes")).into());
    }
    let options = Options::of(settings).map_err(Usage)?;
    let limit = Limit::of(args.wait);
    let store = open("store", settings.store_access(), Use::Read, limit).await?;
    let mut walk = Walk::start(store, part).await?;
    let bus = Amqp::connect(options);
    let broker = format!("the broker {}", mask_urls(settings.bus.expose()));
    Patience::new(broker, limit).until(|| look_for(&*bus, &args.to_exchange)).await?;
    let mut replay = Replay { args, bus, counts: BTreeMap::new(), next: Instant::now() };
    let ended = replay.run(&mut walk).await;
    replay.bus.close().await;
    let told = WORDS.map(|word| format!("{word} {}", replay.counts.get(word).unwrap_or(&0)));
    say(&told.join(", "))?;
    ended?;
    Ok(replay.counts.keys().all(|word| *word == WORDS[0]))
}

/// Outcomes, as they are told.
const WORDS: [&str; 5] = ["routed", "rejected", "unroutable", "not-sent", "unknown"];

/// A publish to an exchange that is not there breaks the link: it is looked for first.
async fn look_for(bus: &dyn Bus, name: &str) -> anyhow::Result<Tried<()>> {
    let exchange = Exchange { kind: "topic".into(), arguments: Arguments::new(), declare: Declare::Passive };
    let exchanges = if name.is_empty() { BTreeMap::new() } else { BTreeMap::from([(name.to_owned(), exchange)]) };
    match bus.declare(&Topology { exchanges, ..Topology::default() }).await {
        Ok(()) => Ok(Tried::Done(())),
        Err(BusError::Down(why)) => Ok(Tried::Away(why)),
        Err(BusError::Topology(_)) => {
            bail!("there is no exchange `{name}` on the broker, or its user may not look: declare it first")
        }
        Err(error) => Err(error.into()),
    }
}

struct Replay<'a> {
    args: &'a ReplayArgs,
    bus: Arc<Amqp>,
    /// Messages by how they ended.
    counts: BTreeMap<&'static str, u64>,
    /// When the next message may go, with a rate.
    next: Instant,
}

impl Replay<'_> {
    async fn run(&mut self, walk: &mut Walk) -> anyhow::Result<()> {
        while let Some(events) = walk.next().await? {
            for window in events.chunks(IN_FLIGHT) {
                self.publish(window).await?;
            }
        }
        Ok(())
    }

    /// Publishes events, and waits for all of them. What was not sent is tried again in its turn, for a while.
    async fn publish(&mut self, events: &[Event]) -> anyhow::Result<()> {
        let mut left: Vec<&Event> = events.iter().collect();
        let mut since = Instant::now();
        loop {
            let outcomes = self.once(&left).await;
            let before = left.len();
            let mut again = Vec::new();
            for (event, outcome) in left.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::NotSent(_) => again.push(event),
                    outcome => self.count(event, outcome),
                }
            }
            let Some(first) = again.first() else { return Ok(()) };
            if again.len() < before {
                since = Instant::now();
            }
            if since.elapsed() > PATIENCE {
                *self.counts.entry(WORDS[3]).or_default() += again.len() as u64;
                return Err(anyhow!(
                    "the broker is away, or takes nothing: what follows was not sent; go on with --since {}",
                    time_of(first)
                ));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            left = again;
        }
    }

    /// One try of each, in their order; after one that can't be sent none is.
    async fn once(&mut self, events: &[&Event]) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::NotSent(crate::message::Away::Down); events.len()];
        let mut flying: FuturesUnordered<BoxFuture<'_, (usize, Outcome)>> = FuturesUnordered::new();
        for (at, event) in events.iter().enumerate() {
            let Some(message) = message(event, self.args) else {
                outcomes[at] = Outcome::Rejected;
                continue;
            };
            if let Some(rate) = self.args.rate {
                tokio::time::sleep_until(self.next.into()).await;
                // A timer is late by a millisecond or so, which is made up for; a pause is not.
                let earliest = Instant::now().checked_sub(LATE).unwrap_or(self.next);
                self.next = self.next.max(earliest) + Duration::from_secs(1) / rate.get();
            }
            let bus = self.bus.clone();
            let publish = async move { (at, bus.publish(message, Instant::now() + CONFIRM_WITHIN).await) };
            // The first poll hands it to the bus, whatever the runtime would have done in between: so they leave in their
            // order.
            let mut publish = unconstrained(publish).boxed();
            match poll!(publish.as_mut()) {
                Poll::Ready((at, outcome)) => {
                    outcomes[at] = outcome;
                    if matches!(outcome, Outcome::NotSent(_)) {
                        break;
                    }
                }
                Poll::Pending => flying.push(publish),
            }
        }
        while let Some((at, outcome)) = flying.next().await {
            outcomes[at] = outcome;
        }
        outcomes
    }

    fn count(&mut self, event: &Event, outcome: Outcome) {
        let (word, why) = match outcome {
            Outcome::Routed => (WORDS[0], ""),
            Outcome::Rejected if key(event, self.args).len() > LONGEST_KEY => {
                (WORDS[1], "its subject is too long for a routing key: give one with --key")
            }
            Outcome::Rejected => (WORDS[1], "the broker rejected it: is a queue full?"),
            Outcome::Refused(Refusal::Forbidden) => {
                (WORDS[1], "the broker refused it for good: may its user write to this exchange, with this key?")
            }
            Outcome::Refused(Refusal::TooLarge { .. }) => (WORDS[1], "it is larger than the broker allows"),
            Outcome::Unroutable => (WORDS[2], "no queue takes it"),
            Outcome::NotSent(_) => (WORDS[3], "it was not sent"),
            Outcome::Unknown => (WORDS[4], "the broker's answer never came: it may be there"),
        };
        *self.counts.entry(word).or_default() += 1;
        if !why.is_empty() {
            note(&format!("fpesa: {} ({}): {word}: {why}", event.id, time_of(event)));
        }
    }
}

fn time_of(event: &Event) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(event.time) * 1000);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

fn key(event: &Event, args: &ReplayArgs) -> String {
    args.key.clone().unwrap_or_else(|| event.subject.as_deref().unwrap_or("").replace('/', "."))
}

/// The message that an event was, and once more is; `None` where its key can't be sent.
fn message(event: &Event, args: &ReplayArgs) -> Option<Message> {
    #[derive(Deserialize, Default)]
    struct Members {
        r#type: Option<String>,
        traceparent: Option<serde_json::Value>,
    }
    let key = Some(key(event, args)).filter(|key| key.len() <= LONGEST_KEY)?;
    let members: Members = serde_json::from_slice(&event.text).unwrap_or_default();
    let mut headers = Headers::from([
        ("fpesa-replay".to_owned(), HeaderValue::Bool(true)),
        (TIME_HEADER.to_owned(), time_text(event.time).into()),
    ]);
    let parent = members.traceparent.as_ref().and_then(|parent| parent.as_str());
    headers.extend(parent.map(|parent| ("traceparent".to_owned(), parent.into())));
    Some(Message {
        exchange: args.to_exchange.clone(),
        key,
        properties: Properties {
            message_id: Some(event.id.to_string()),
            content_type: Some(CLOUDEVENT.into()),
            kind: members.r#type.filter(|kind| kind.len() <= LONGEST_KEY),
            app_id: Some(APP_ID.into()),
            timestamp: u64::try_from(event.time.div_euclid(1_000_000)).ok(),
            persistent: true,
            headers,
            ..Properties::default()
        },
        body: event.text.clone(),
        mandatory: true,
    })
}
