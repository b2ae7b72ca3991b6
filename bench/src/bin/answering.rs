//! The same gateway on a bus that answers at once: what mapping costs, without any bus or disk.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use fpesa::{
    app,
    bus::{Bus, BusError, BusState, Deliveries, Link},
    files::Disk,
    http::{
        head::HostPolicy,
        metrics::Metrics,
        state::Gateway,
        vitals::{Consuming, Vitals},
    },
    live::Live,
    message::{CallError, Message, Outcome, Reply},
    reload,
    route::compile::compile,
    settings::{Effective, Flags},
    topology::Topology,
};
use fpesa_workers::memory::MemoryBudget;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

struct Answering;

#[async_trait]
impl Bus for Answering {
    async fn declare(&self, _: &Topology) -> Result<(), BusError> {
        Ok(())
    }

    async fn publish(&self, _: Message, _: Instant) -> Outcome {
        Outcome::Routed
    }

    async fn call(&self, _: Message, _: Instant) -> Result<Reply, CallError> {
        Err(CallError::NoWorker)
    }

    async fn consume(&self, queue: &str, _: u16) -> Result<Deliveries, BusError> {
        Err(BusError::NoQueue(queue.to_owned()))
    }

    fn state(&self) -> BusState {
        BusState { link: Link::Up, ..BusState::default() }
    }

    fn retries(&self) -> bool {
        false
    }

    async fn close(&self) {}
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Effective::load(None, &Flags::default())?.settings;
    let table = compile(&Disk::new(&settings.routes)).table.ok_or_else(|| anyhow::anyhow!("the table has errors"))?;
    let metrics = Arc::new(Metrics::default());
    metrics.expect(&table);
    let live = Live::new(table, Vec::new(), "");
    let shutdown = CancellationToken::new();
    let drain = settings.drain_timeout;
    let vitals = Vitals {
        live,
        bus: Arc::new(Answering),
        feed: None,
        metrics,
        memory: MemoryBudget::new(settings.limits.memory.bytes()),
        workers: Arc::new(Consuming::default),
        able: None,
        reload: reload::asking().0,
        hosts: HostPolicy::default(),
        stopping: shutdown.clone(),
        shutdown,
    };
    let gateway = Gateway::new(vitals, settings);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    app::serve(listener, Arc::new(gateway), None, drain).await
}
