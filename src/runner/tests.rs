//! What a worker's panics and failures come to, on the embedded bus.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use fpesa_workers::{Job, Verdict, Worker};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Arrivals, Consuming, DeadLetters, Runner, SAID_EVERY};
use crate::{
    bus::{Bus, Delivery, embedded::Embedded},
    damper::Damper,
    http::metrics::Metrics,
    message::{HeaderValue, Message, Outcome},
    route::table::WorkerSpec,
    topology::{Declare, Queue, QueueKind, Topology},
};

/// Panics at `panic`, fails at `fail`, says nothing of what comes after `silence`, and keeps the rest.
#[derive(Default)]
struct Moody {
    /// What it was given, with whether it came again.
    seen: Mutex<Vec<(String, bool)>>,
}

#[async_trait]
impl Worker for Moody {
    fn most(&self) -> usize {
        usize::MAX
    }

    async fn work(&self, jobs: &[Job]) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for job in jobs {
            let body = String::from_utf8_lossy(&job.body).into_owned();
            if body == "silence" {
                break;
            }
            assert_ne!(body, "panic", "as it was told");
            self.seen.lock().unwrap().push((body.clone(), job.redelivered));
            verdicts.push(if body == "fail" { Verdict::Retry("as it was told".into()) } else { Verdict::Kept });
        }
        verdicts
    }
}

fn queue(dead_letter: Option<&str>) -> Queue {
    Queue {
        kind: QueueKind::Quorum,
        bind: Vec::new(),
        max_length: None,
        delivery_limit: dead_letter.map(|_| crate::topology::DeliveryLimit::Count(2)),
        dead_letter: dead_letter.map(str::to_owned),
        arguments: BTreeMap::new(),
        declare: Declare::Active,
    }
}

/// Works through bodies, all of one batch, and gives what the worker saw of each and what is on the dead-letter queue.
async fn work_through(bodies: &[&str], dead: usize) -> (Vec<(String, bool)>, Vec<Delivery>) {
    let folder = tempfile::tempdir().unwrap();
    let bus = Embedded::open(folder.path(), |_| ()).unwrap();
    let queues = [("q".to_owned(), queue(Some("dead"))), ("dead".to_owned(), queue(None))].into();
    bus.declare(&Topology { queues, ..Topology::default() }).await.unwrap();
    let worker = Arc::new(Moody::default());
    for body in bodies {
        let message = Message { key: "q".into(), body: body.to_string().into(), mandatory: true, ..Message::default() };
        assert_eq!(bus.publish(message, Instant::now() + Duration::from_secs(20)).await, Outcome::Routed);
    }
    let stop = CancellationToken::new();
    let runner = Runner {
        name: "moody".into(),
        spec: WorkerSpec { queue: "q".into(), kind: "moody".into(), batch: 100, prefetch: 100, concurrency: 1 },
        dead_letters: DeadLetters::of(&queue(Some("dead"))),
        worker: worker.clone(),
        bus: bus.clone(),
        metrics: Arc::new(Metrics::default()),
        consuming: watch::Sender::new(Consuming::new()),
        at_work: CancellationToken::new(),
        stop: stop.clone(),
        arrivals: Arrivals::default(),
        said: Damper::new(SAID_EVERY),
    };
    let running = tokio::spawn(runner.run());
    let mut buried = bus.consume("dead", 100).await.unwrap();
    let mut found = Vec::new();
    for _ in 0..dead {
        found.push(tokio::time::timeout(Duration::from_secs(60), buried.next()).await.unwrap().unwrap());
    }
    stop.cancel();
    running.await.unwrap();
    assert!(buried.next_now().is_none());
    let mut rest = bus.consume("q", 100).await.unwrap();
    assert!(rest.next_now().is_none(), "the queue is empty");
    let seen = worker.seen.lock().unwrap().clone();
    (seen, found)
}

fn header(delivery: &Delivery, name: &str) -> String {
    delivery.message.properties.headers.get(name).and_then(HeaderValue::to_text).unwrap_or_default().into_owned()
}

#[tokio::test]
async fn a_job_that_panics_harms_no_other() {
    let (seen, dead) = work_through(&["a", "b", "panic", "c", "d"], 1).await;
    assert!(["a", "b", "c", "d"].iter().all(|body| seen.iter().any(|(seen, _)| seen == body)), "{seen:?}");
    assert!(seen.iter().all(|(_, redelivered)| !redelivered), "none of the others was given back: {seen:?}");
    assert_eq!(dead[0].message.body, "panic");
    assert_eq!(header(&dead[0], "fpesa-reason"), "delivery-limit");
}

#[tokio::test]
async fn what_fails_too_often_says_why() {
    let (seen, dead) = work_through(&["a", "fail"], 1).await;
    let tries = seen.iter().filter(|(body, _)| body == "fail").count();
    assert_eq!(tries, 3, "the first, and as many again as the limit says");
    assert_eq!(header(&dead[0], "fpesa-reason"), "delivery-limit");
    let detail = "it was delivered 3 times and failed each time; the last time: as it was told";
    assert_eq!(header(&dead[0], "fpesa-detail"), detail);
    assert_eq!(header(&dead[0], "fpesa-queue"), "q");
    assert_eq!(header(&dead[0], "x-delivery-count"), "", "of another queue");
    assert_eq!(header(&dead[0], "x-first-death-reason"), "", "by us, not by the bus");
}

#[tokio::test]
async fn no_verdict_is_a_failure() {
    // Nothing after it: whether that comes with it in one batch each time, and so fails too, is a matter of time.
    let (seen, dead) = work_through(&["a", "silence"], 1).await;
    assert!(seen.iter().all(|(body, _)| body == "a"), "{seen:?}");
    assert_eq!(dead[0].message.body, "silence");
    assert!(header(&dead[0], "fpesa-detail").contains("no verdict"));
}

#[test]
fn arrivals_differ() {
    let arrivals = Arrivals::default();
    let times: Vec<i64> = (0..10_000).map(|_| arrivals.next()).collect();
    assert!(times.windows(2).all(|two| two[0] < two[1]));
}
