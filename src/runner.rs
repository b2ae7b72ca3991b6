//! Joins a queue to a worker: takes deliveries, hands them over as jobs, and settles each by its verdict. The only room
//! that knows both the bus and the workers.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use fpesa_workers::{Answer, Job, Verdict, Worker};
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{Bus, Deliveries, Delivery},
    http::metrics::Metrics,
    message::{APP_ID, HeaderValue, Headers, Message, Outcome, Properties},
    route::table::WorkerSpec,
};

mod workers;

pub use workers::{Retiring, Workers};

/// How long a reply or a dead letter may take to be confirmed.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);
/// Pause before a job that did not work is given back, so that it does not spin.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between tries to consume.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

struct Runner {
    name: String,
    spec: WorkerSpec,
    dead_letter: Option<String>,
    worker: Arc<dyn Worker>,
    bus: Arc<dyn Bus>,
    metrics: Arc<Metrics>,
    consuming: watch::Sender<Consuming>,
    /// Cancelled at the first consumer.
    at_work: CancellationToken,
    stop: CancellationToken,
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
                        let mut batch = vec![delivery];
                        while batch.len() < most {
                            let Some(delivery) = deliveries.next_now() else { break };
                            batch.push(delivery);
                        }
                        working.push(self.work(batch));
                    }
                    None => open = false,
                },
            }
        }
    }

    async fn work(&self, batch: Vec<Delivery>) {
        let jobs: Vec<Job> = batch.iter().map(job).collect();
        // A worker that panics is a failed batch, not a dead process.
        let verdicts = AssertUnwindSafe(self.worker.work(&jobs)).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(worker = self.name, jobs = jobs.len(), "the worker panicked: its jobs are given back");
            jobs.iter().map(|_| Verdict::Retry("the worker panicked".into())).collect()
        });
        let mut settling = FuturesUnordered::new();
        for (delivery, verdict) in batch.into_iter().zip(verdicts) {
            self.metrics.judged(&self.name, word(&verdict));
            match verdict {
                Verdict::Kept | Verdict::Duplicate | Verdict::Expired => delivery.ticket.ack(),
                verdict => settling.push(self.settle(delivery, verdict)),
            }
        }
        while settling.next().await.is_some() {}
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
                tracing::warn!(worker = self.name, queue = self.spec.queue, reason, detail, "a message can't be kept");
                let bury = self.dead_letter.as_ref().map(|queue| self.bury(&delivery.message, queue, &reason, &detail));
                let buried = match bury {
                    Some(message) => {
                        self.bus.publish(message, Instant::now() + CONFIRM_WITHIN).await == Outcome::Routed
                    }
                    None => false,
                };
                // Without a copy in the dead-letter queue it is the broker's to put it there.
                if buried { delivery.ticket.ack() } else { delivery.ticket.reject() }
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

    /// The message for the dead-letter queue: body and properties unchanged, with the reason.
    fn bury(&self, message: &Message, queue: &str, reason: &str, detail: &str) -> Message {
        const MOST: usize = 500;
        let mut dead = message.clone();
        let mut end = detail.len().min(MOST);
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        let headers = &mut dead.properties.headers;
        headers.insert("fpesa-reason".into(), reason.into());
        headers.insert("fpesa-detail".into(), detail[..end].into());
        headers.insert("fpesa-queue".into(), self.spec.queue.as_str().into());
        dead.properties.expiration = None;
        dead.properties.persistent = true;
        dead.exchange = String::new();
        queue.clone_into(&mut dead.key);
        dead.mandatory = true;
        dead
    }
}

fn job(delivery: &Delivery) -> Job {
    let properties = &delivery.message.properties;
    let text = |(name, value): (&String, &HeaderValue)| Some((name.clone(), value.to_text()?.into_owned()));
    let headers: BTreeMap<String, String> = properties.headers.iter().filter_map(text).collect();
    let deadline = headers.get("fpesa-deadline").and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    Job {
        key: delivery.message.key.clone(),
        message_id: properties.message_id.clone(),
        content_type: properties.content_type.clone(),
        kind: properties.kind.clone(),
        timestamp: properties.timestamp,
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
