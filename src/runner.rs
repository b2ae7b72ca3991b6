//! Joins a queue to a worker: takes deliveries, hands them over as jobs, and settles each by its verdict. The only room
//! that knows both the bus and the workers.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use fpesa_workers::{Answer, Job, Verdict, Worker};
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{Bus, Deliveries, Delivery},
    damper::Damper,
    http::metrics::Metrics,
    message::{APP_ID, HeaderValue, Headers, Message, Outcome, Properties},
    route::table::WorkerSpec,
};

mod dead_letter;
#[cfg(test)]
mod tests;
mod workers;

use dead_letter::{DeadLetters, failed_before};
pub use workers::{Retiring, Workers};

/// How long a reply or a dead letter may take to be confirmed.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);
/// Pause before a job that did not work is given back, so that it does not spin.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Reasons of the runner's own for which a message is moved to the dead-letter queue.
const UNREADABLE: &str = "unreadable";
const DELIVERY_LIMIT: &str = "delivery-limit";
/// At most one line in this time about messages that are set aside.
const SAID_EVERY: Duration = Duration::from_secs(1);
/// Longest pause between tries to consume.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

struct Runner {
    name: String,
    spec: WorkerSpec,
    dead_letters: Option<DeadLetters>,
    worker: Arc<dyn Worker>,
    bus: Arc<dyn Bus>,
    metrics: Arc<Metrics>,
    consuming: watch::Sender<Consuming>,
    /// Cancelled at the first consumer.
    at_work: CancellationToken,
    stop: CancellationToken,
    arrivals: Arrivals,
    /// What is said of messages that are set aside.
    said: Damper,
}

/// How many runners consume, by the worker's name: two while one takes the place of the other.
pub type Consuming = BTreeMap<String, usize>;

impl Runner {
    /// Works until it is stopped, and does what is to be done beside it.
    async fn run(self) {
        tokio::join!(self.consume(), self.tend());
    }

    /// What the worker does beside its jobs.
    async fn tend(&self) {
        loop {
            tokio::select! {
                removed = AssertUnwindSafe(self.worker.tend()).catch_unwind() => match removed {
                    Ok(removed) => self.metrics.removed(&self.name, removed),
                    Err(_) => {
                        tracing::error!(worker = self.name, "what is done beside its jobs panicked: it is not done any more");
                        return;
                    }
                },
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Consumes until it is stopped; what ends a consumer is tried again.
    async fn consume(&self) {
        let mut pause = Duration::from_millis(100);
        let mut told = false;
        while !self.stop.is_cancelled() {
            match self.bus.consume(&self.spec.queue, self.spec.prefetch).await {
                Ok(deliveries) => {
                    pause = Duration::from_millis(100);
                    told = false;
                    self.consuming.send_modify(|names| *names.entry(self.name.clone()).or_default() += 1);
                    self.at_work.cancel();
                    self.serve(deliveries).await;
                    self.consuming.send_modify(|names| {
                        if let Some(others) = names.get_mut(&self.name).filter(|count| **count > 1) {
                            *others -= 1;
                        } else {
                            names.remove(&self.name);
                        }
                    });
                    if !self.stop.is_cancelled() {
                        tracing::warn!(
                            worker = self.name,
                            queue = self.spec.queue,
                            "the consumer ended: consuming again"
                        );
                    }
                }
                Err(error) => {
                    if !told {
                        tracing::warn!(worker = self.name, %error, "can't consume: trying until it works");
                        told = true;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.stop.cancelled() => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// One consumer's life. When it is stopped, what came already is still worked on.
    async fn serve(&self, mut deliveries: Deliveries) {
        // A worker that takes jobs one by one answers several at a time, so that a slow one holds nobody up.
        let alone = self.worker.most() == 1;
        let places = if alone { usize::from(self.spec.prefetch) } else { self.spec.concurrency };
        let most = self.spec.batch.min(self.worker.most());
        let mut working = FuturesUnordered::new();
        let mut stopping = false;
        let mut open = true;
        while open || !working.is_empty() {
            tokio::select! {
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    deliveries.stop();
                }
                Some(()) = working.next(), if !working.is_empty() => {}
                delivery = deliveries.next(), if open && working.len() < places => match delivery {
                    Some(delivery) => {
                        let mut batch = vec![Received { delivery, at: self.arrivals.next() }];
                        while batch.len() < most {
                            let Some(delivery) = deliveries.next_now() else { break };
                            batch.push(Received { delivery, at: self.arrivals.next() });
                        }
                        working.push(self.work(batch));
                    }
                    None => open = false,
                },
            }
        }
    }

    async fn work(&self, batch: Vec<Received>) {
        let can_be_read = |received: &Received| received.delivery.message.properties.unreadable.is_none();
        let (readable, unreadable): (Vec<_>, Vec<_>) = batch.into_iter().partition(can_be_read);
        tokio::join!(self.set_aside(unreadable), self.work_on(readable));
    }

    /// Buries what can't be read; the worker never sees it.
    async fn set_aside(&self, batch: Vec<Received>) {
        let mut settling = FuturesUnordered::new();
        for Received { delivery, .. } in batch {
            let detail = delivery.message.properties.unreadable.as_ref().map(|unreadable| unreadable.why.clone());
            let verdict = Verdict::Reject { reason: UNREADABLE.into(), detail: detail.unwrap_or_default() };
            self.metrics.judged(&self.name, word(&verdict));
            settling.push(self.settle(delivery, verdict));
        }
        while settling.next().await.is_some() {}
    }

    async fn work_on(&self, batch: Vec<Received>) {
        if batch.is_empty() {
            return;
        }
        let jobs: Vec<Job> = batch.iter().map(job).collect();
        let verdicts = self.judge(&jobs).await;
        let mut settling = FuturesUnordered::new();
        for (Received { delivery, .. }, verdict) in batch.into_iter().zip(verdicts) {
            let verdict = self.with_limit(&delivery, verdict);
            self.metrics.judged(&self.name, word(&verdict));
            match verdict {
                Verdict::Kept | Verdict::Duplicate | Verdict::Expired => delivery.ticket.ack(),
                verdict => settling.push(self.settle(delivery, verdict)),
            }
        }
        while settling.next().await.is_some() {}
    }

    /// The worker's verdict on each job. Where one makes it panic, each is worked on alone: the others are not given back
    /// for it.
    async fn judge(&self, jobs: &[Job]) -> Vec<Verdict> {
        if let Some(verdicts) = self.try_jobs(jobs).await {
            return verdicts;
        }
        let mut verdicts = Vec::with_capacity(jobs.len());
        for job in jobs {
            let alone = if jobs.len() > 1 { self.try_jobs(std::slice::from_ref(job)).await } else { None };
            verdicts.extend(alone.unwrap_or_else(|| vec![Verdict::Retry("the worker panicked".into())]));
        }
        verdicts
    }

    /// A verdict for each job, or `None` where the worker panicked.
    async fn try_jobs(&self, jobs: &[Job]) -> Option<Vec<Verdict>> {
        let worked = AssertUnwindSafe(async { self.worker.work(jobs).await }).catch_unwind().await;
        let Ok(mut verdicts) = worked else {
            tracing::error!(worker = self.name, jobs = jobs.len(), "the worker panicked");
            return None;
        };
        verdicts.resize_with(jobs.len(), || Verdict::Retry("the worker gave no verdict".into()));
        Some(verdicts)
    }

    /// What has failed too often is rejected, and not given back once more.
    fn with_limit(&self, delivery: &Delivery, verdict: Verdict) -> Verdict {
        let Verdict::Retry(why) = verdict else { return verdict };
        let failed = failed_before(delivery) + 1;
        if self.dead_letters.as_ref().is_some_and(|dead| dead.are_due(failed)) {
            let detail = format!("it was delivered {failed} times and failed each time; the last time: {why}");
            return Verdict::Reject { reason: DELIVERY_LIMIT.into(), detail };
        }
        Verdict::Retry(why)
    }

    async fn settle(&self, delivery: Delivery, verdict: Verdict) {
        match verdict {
            Verdict::Answered(answer) => {
                if let Some(reply) = self.reply(&delivery.message, answer) {
                    // Nobody may wait any more: a late reply is dropped, and the job is done all the same.
                    self.bus.publish(reply, Instant::now() + CONFIRM_WITHIN).await;
                }
                delivery.ticket.ack();
            }
            Verdict::Retry(why) => {
                tracing::warn!(worker = self.name, why, "a job did not work: it is given back");
                tokio::time::sleep(RETRY_PAUSE).await;
                delivery.ticket.retry();
            }
            Verdict::Reject { reason, detail } => {
                let queue = self.spec.queue.as_str();
                if let Some(times) = self.said.pass(1) {
                    let to = self
                        .dead_letters
                        .as_ref()
                        .map_or("nowhere: its queue has no `dead_letter`", |dead| &dead.queue);
                    tracing::warn!(
                        worker = self.name,
                        queue,
                        reason,
                        detail,
                        to,
                        unsaid = times - 1,
                        "a message is set aside"
                    );
                }
                let Some(dead) = &self.dead_letters else { return delivery.ticket.reject() };
                let message = dead_letter::message(&delivery.message, queue, &dead.queue, &reason, &detail);
                let outcome = self.bus.publish(message, Instant::now() + CONFIRM_WITHIN).await;
                // Without a copy in the dead-letter queue it is the broker's to put it there.
                if outcome == Outcome::Routed { delivery.ticket.ack() } else { delivery.ticket.reject() }
            }
            Verdict::Kept | Verdict::Duplicate | Verdict::Expired => delivery.ticket.ack(),
        }
    }

    fn reply(&self, call: &Message, answer: Answer) -> Option<Message> {
        let mut headers = Headers::new();
        headers.insert("status".into(), HeaderValue::Int(answer.status.into()));
        headers.insert("fpesa-worker".into(), format!("{}@{}", self.name, std::process::id()).into());
        for (name, value) in answer.headers {
            headers.insert(format!("http.{name}"), value.into());
        }
        if let Some(parent) = call.properties.headers.get("traceparent") {
            headers.insert("traceparent".into(), parent.clone());
        }
        Some(Message {
            key: call.properties.reply_to.clone()?,
            properties: Properties {
                correlation_id: call.properties.correlation_id.clone(),
                content_type: Some(answer.content_type),
                app_id: Some(APP_ID.into()),
                headers,
                ..Properties::default()
            },
            body: answer.body,
            mandatory: true,
            ..Message::default()
        })
    }
}

/// A delivery, and when it came.
struct Received {
    delivery: Delivery,
    /// In microseconds since 1970.
    at: i64,
}

/// When messages arrive: each later than the one before it, so that their order is that of their times.
#[derive(Default)]
struct Arrivals(AtomicI64);

impl Arrivals {
    /// Microseconds since 1970.
    fn next(&self) -> i64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let later = |last: i64| now.max(last.saturating_add(1));
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(later(last))).map_or(now, later)
    }
}

fn job(received: &Received) -> Job {
    let delivery = &received.delivery;
    let properties = &delivery.message.properties;
    let text = |(name, value): (&String, &HeaderValue)| Some((name.clone(), value.to_text()?.into_owned()));
    let headers: BTreeMap<String, String> = properties.headers.iter().filter_map(text).collect();
    let deadline = headers.get("fpesa-deadline").and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    Job {
        key: delivery.message.key.clone(),
        message_id: properties.message_id.clone(),
        content_type: properties.content_type.clone(),
        kind: properties.kind.clone(),
        arrived: received.at,
        deadline: deadline.map(SystemTime::from),
        headers,
        redelivered: delivery.redelivered,
        body: delivery.message.body.clone(),
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Kept => "kept",
        Verdict::Duplicate => "duplicate",
        Verdict::Answered(_) => "answered",
        Verdict::Retry(_) => "retried",
        Verdict::Reject { .. } => "rejected",
        Verdict::Expired => "expired",
    }
}
