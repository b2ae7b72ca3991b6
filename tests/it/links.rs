//! Links to RabbitMQ that break: what clients are told meanwhile, and how soon it serves again by itself.

use std::time::Duration;

use crate::support::{
    app::{App, Start},
    eventually,
    poster::{Answer, Poster, Probe, counts},
    proxy::{Mode, Proxy},
    rabbit::Rabbit,
};

/// What is known must be told within this, on a machine that does other things too.
const AT_ONCE: Duration = Duration::from_millis(250);
/// Serving again after the broker's return.
const BACK_WITHIN: Duration = Duration::from_secs(5);

async fn ready(app: &App) {
    eventually("readiness", || async { (app.get("/readyz").await.status() == 200).then_some(()) }).await;
}

/// What is known is told at once.
fn at_once(answers: &[Answer]) {
    let late: Vec<_> = answers.iter().filter(|answer| answer.status != 202 && answer.took > AT_ONCE).collect();
    assert!(late.is_empty(), "{} were told late: {:?}", late.len(), late.first());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_goes_silent_resets_and_cuts() {
    let rabbit = Rabbit::start().await;
    let proxy = Proxy::start(rabbit.port).await;
    let bus = format!("amqp://guest:guest@127.0.0.1:{}/%2f", proxy.port);
    let table = std::fs::read_to_string(crate::support::root().join("routes.yaml")).unwrap();
    let table = table.replace("    publish:\n", "    publish:\n      confirm_timeout: 1s\n");
    let app = Start::up().table(&table).args(&["--bus", &bus]).start().await;
    ready(&app).await;
    let probe = Probe::new(&app);

    // Reset: what was under way is unknown at once, and the link comes back by itself.
    let poster = Poster::start(&[&app], 16);
    for _ in 0..5 {
        probe.until("").await;
        proxy.set(Mode::Reset);
        probe.until("broker-unavailable").await;
        proxy.set(Mode::Pass);
        let took = probe.until("").await;
        assert!(took < BACK_WITHIN, "{took:?} after a reset");
    }
    // Cut somewhere in the middle of a frame.
    for bytes in [1, 10, 100, 333, 4_000] {
        proxy.cut_after(bytes).await;
        let took = probe.until("").await;
        assert!(took < BACK_WITHIN, "{took:?} after a cut");
    }
    proxy.set(Mode::Pass);
    let answers = poster.end().await;
    println!("resets and cuts: {:?}", counts(&answers));
    // A broken link is told at once: nobody waits for the confirm timeout.
    at_once(&answers);
    assert!(answers.iter().all(|answer| matches!(answer.status, 202 | 503 | 504)));
    probe.add(answers);

    // Silence: unknown at the confirm timeout, and away as soon as the heartbeat tells.
    ready(&app).await;
    let poster = Poster::start(&[&app], 16);
    probe.until("").await;
    proxy.set(Mode::Silent);
    let known = probe.until("broker-unavailable").await;
    println!("silence was known after {known:?}");
    assert!(known < Duration::from_secs(7), "{known:?}");
    proxy.set(Mode::Pass);
    let took = probe.until("").await;
    println!("serving {took:?} after the silence");
    assert!(took < BACK_WITHIN, "{took:?} after a silence");
    let answers = poster.end().await;
    println!("silence: {:?}", counts(&answers));
    assert!(answers.iter().any(|answer| answer.kind == "confirm-timeout" && answer.id.is_some()));
    assert!(answers.iter().all(|answer| answer.took < Duration::from_secs(2)), "nothing hangs");
    assert!(answers.iter().all(|answer| matches!(answer.status, 202 | 503 | 504)));
    probe.add(answers);
    probe.judge().await;
}
