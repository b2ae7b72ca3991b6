//! The only room that joins rooms: connect, compile, declare, serve, drain.

use std::{convert::Infallible, io::IsTerminal as _, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use axum::http::{HeaderValue, Method, Request, header};
use fpesa_workers::{memory::MemoryBudget, store, topic::topic_of_key};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::{Layer as _, ServiceExt as _};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

use crate::{
    bus::{self, Bus},
    commands::show,
    descriptors,
    feed::Feed,
    files::Disk,
    http::{
        connection::Connection,
        connections::ConnectionLimits,
        gateway,
        head::HostPolicy,
        metrics::Metrics,
        pulse,
        reply::WORKER_HEADERS,
        server::{self, Ending},
        state::Gateway,
        vitals::{Consuming, Look, Vitals},
    },
    live::Live,
    output::{note, say},
    reload::{self, Reloader, compile_noting},
    route::{compile::Compiled, table::Table},
    runner::Workers,
    settings::Settings,
    signal,
};

/// What a process does of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Gateway and workers.
    Up,
    /// The gateway alone.
    Gateway,
    /// These workers alone; none named: all of the table.
    Work(Vec<String>),
}

/// Wrong usage or settings: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Runs a process until it is told to stop.
pub async fn run(role: Role, settings: Settings) -> anyhow::Result<()> {
    check_role(&role, &settings)?;
    let mut settings = settings;
    descriptors::fit(&mut settings.limits);
    let stopping = signal::shutdown().context("signals can't be caught")?;
    let shutdown = after(&stopping, settings.drain_delay);
    let files = Disk::new(&settings.routes);
    let (Compiled { table, problems }, texts) = compile_noting(&files);
    show(&problems);
    let table = table.ok_or_else(|| anyhow!("the table has errors: nothing was started"))?;
    if let Role::Work(names) = &role {
        check_names(names, &table)?;
    }

    // Bound before anything else starts: a port that is taken is told at once.
    // Workers listen only where they are told to.
    let listens = settings.listen_is_a_flag || !matches!(role, Role::Work(_));
    let listener = if listens { Some(listen(settings.listen).await?) } else { None };
    let metrics = Arc::new(Metrics::default());
    metrics.expect(&table);
    let feed = settings.bus_is_embedded().then(|| Feed::new(settings.limits.feed_sessions));
    if let Some(feed) = &feed {
        feed.set_topics(table.feed.clone());
    }
    let memory = MemoryBudget::new(settings.limits.memory.bytes());
    let bus = connect(&role, &settings, feed.clone(), &memory)?;
    start(&bus, &table).await?;
    let live = Live::new(table, problems, &texts.digest);
    let workers = match &role {
        Role::Gateway => None,
        Role::Up => Some(start_workers(&settings, &bus, &metrics, &memory, &live, Vec::new()).await?),
        Role::Work(names) => Some(start_workers(&settings, &bus, &metrics, &memory, &live, names.clone()).await?),
    };
    let reloader = Reloader {
        files,
        live: live.clone(),
        bus: bus.clone(),
        feed: feed.clone(),
        workers: workers.clone(),
        metrics: metrics.clone(),
    };
    let (ask, askers) = reload::asking();
    tokio::spawn(reloader.run(texts, askers, shutdown.clone()));
    let asked = ask.clone();
    signal::on_hangup(stopping.clone(), move || drop(asked.begin())).context("signals can't be caught")?;

    let drain = settings.drain_timeout;
    let vitals = Vitals {
        live,
        bus: bus.clone(),
        feed: feed.clone(),
        metrics,
        memory,
        workers: consuming(workers.clone()),
        able: workers.clone().map(able),
        reload: ask,
        hosts: HostPolicy::new(&settings.hosts, Some(settings.listen.ip())),
        stopping: stopping.clone(),
        shutdown: shutdown.clone(),
    };
    match (&role, listener) {
        (Role::Work(_), listener) => {
            let serving =
                listener.map(|listener| serve_vitals(listener, Arc::new(vitals), &settings, drain)).transpose()?;
            if let Some(workers) = &workers {
                work(workers, &shutdown).await?;
            }
            if let Some(serving) = serving {
                serving.await?;
            }
        }
        (_, Some(listener)) => {
            if let Some(workers) = &workers {
                let _ = tokio::time::timeout(CONSUMING_WITHIN, all_consume(workers, &shutdown)).await;
            }
            serve(listener, Arc::new(Gateway::new(vitals, settings)), feed, drain).await?;
        }
        (_, None) => {}
    }
    if let Some(workers) = workers {
        workers.stop(drain / 2).await;
    }
    let _ = tokio::time::timeout(drain / 4, bus.close()).await;
    Ok(())
}

/// A token that is cancelled `delay` after `stopping` is: until then everything is served as before.
fn after(stopping: &CancellationToken, delay: Duration) -> CancellationToken {
    if delay.is_zero() {
        return stopping.clone();
    }
    let (stopping, shutdown) = (stopping.clone(), CancellationToken::new());
    let delayed = shutdown.clone();
    tokio::spawn(async move {
        stopping.cancelled().await;
        tokio::time::sleep(delay).await;
        delayed.cancel();
    });
    shutdown
}

fn check_role(role: &Role, settings: &Settings) -> Result<(), Usage> {
    let name = match role {
        Role::Up => return Ok(()),
        Role::Gateway => "gateway",
        Role::Work(_) => "work",
    };
    if settings.bus_is_embedded() {
        return Err(Usage(format!(
            "`fpesa {name}` needs a bus that other processes reach, as in --bus amqp://user@host:5672\n\
             (the embedded bus lives in one process: use `fpesa up` for everything in one)"
        )));
    }
    if settings.store_is_embedded() && matches!(role, Role::Work(_)) {
        return Err(Usage(
            "`fpesa work` needs a store that other processes reach, as in --store postgres://user@host/db\n\
             (the embedded store lives in one process: use `fpesa up` for everything in one)"
                .into(),
        ));
    }
    Ok(())
}

fn check_names(names: &[String], table: &Table) -> Result<(), Usage> {
    for name in names {
        if !table.workers.contains_key(name) {
            let known: Vec<&str> = table.workers.keys().map(String::as_str).collect();
            return Err(Usage(format!("the table has no worker `{name}` (it has {})", known.join(", "))));
        }
    }
    Ok(())
}

/// The bus that the settings name. The embedded one feeds `feed`.
fn connect(
    role: &Role,
    settings: &Settings,
    feed: Option<Arc<Feed>>,
    memory: &Arc<MemoryBudget>,
) -> anyhow::Result<Arc<dyn Bus>> {
    let max_bytes = settings.reply.max_size;
    let Some(feed) = feed else {
        let options = bus::amqp::Options::of(settings).map_err(Usage)?;
        let mut options = if matches!(role, Role::Work(_)) { options.for_workers() } else { options };
        options.replies = bus::ReplyLimits { max_bytes, memory: Some(memory.clone()) };
        return Ok(bus::amqp::Amqp::connect(options));
    };
    // Replies come from workers of this process, who count their bytes.
    let replies = bus::ReplyLimits { max_bytes, memory: None };
    let embedded = bus::embedded::Embedded::open_with(&settings.data_dir, replies, move |message| {
        feed.publish(&topic_of_key(&message.key), message.body.clone());
    })?;
    Ok(embedded)
}

/// A broker that is away, or that has something else, is no reason to end: `/readyz` says so, and it is tried again.
async fn start(bus: &Arc<dyn Bus>, table: &Table) -> anyhow::Result<()> {
    /// A broker that is there answers within it; one that is away holds a start up no longer.
    const WITHIN: Duration = Duration::from_secs(2);
    let declaring = bus.start(&table.topology);
    let declared = if bus.retries() {
        let late = |_| Err(bus::BusError::Down("no answer yet".into()));
        tokio::time::timeout(WITHIN, declaring).await.unwrap_or_else(late)
    } else {
        declaring.await
    };
    match declared {
        Ok(()) => Ok(()),
        Err(error @ (bus::BusError::Down(_) | bus::BusError::Topology(_))) if bus.retries() => {
            tracing::error!(%error, "the topology is not declared yet: trying until it works");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn start_workers(
    settings: &Settings,
    bus: &Arc<dyn Bus>,
    metrics: &Arc<Metrics>,
    memory: &Arc<MemoryBudget>,
    live: &Live,
    only: Vec<String>,
) -> anyhow::Result<Arc<Workers>> {
    let store = store::open(settings.store_access()).await?;
    let options = fpesa_workers::Options {
        keep: settings.keep(),
        max_page_bytes: settings.history.max_page_bytes,
        memory: memory.clone(),
    };
    let workers = Workers::new(bus.clone(), store, options, metrics.clone(), only);
    // The first table: there is nobody to stop.
    drop(workers.begin(&live.get().table));
    Ok(workers)
}

/// How long a gateway waits for its own workers before it serves: who is told of a start finds them at work, and a bus
/// that is away does not hold it up for long.
const CONSUMING_WITHIN: Duration = Duration::from_secs(2);

/// Waits until every worker consumes.
async fn all_consume(workers: &Workers, shutdown: &CancellationToken) {
    let mut consuming = workers.consuming();
    let wanted = workers.wanted();
    tokio::select! {
        _ = consuming.wait_for(|names| names.len() >= wanted) => {}
        () = shutdown.cancelled() => {}
    }
}

/// What `/readyz` tells of a process's own workers.
fn consuming(workers: Option<Arc<Workers>>) -> Arc<dyn Fn() -> Consuming + Send + Sync> {
    let names = workers.as_ref().map(|workers| workers.consuming());
    Arc::new(move || {
        let (Some(workers), Some(names)) = (&workers, &names) else {
            return Consuming { names: Vec::new(), all: true };
        };
        let names: Vec<String> = names.borrow().keys().cloned().collect();
        Consuming { all: names.len() >= workers.wanted(), names }
    })
}

/// What probes ask of a process's own workers.
fn able(workers: Arc<Workers>) -> Look {
    Box::new(move || {
        let workers = workers.clone();
        Box::pin(async move { workers.are_able().await })
    })
}

/// Workers alone: says when they consume, and waits for the end.
async fn work(workers: &Workers, shutdown: &CancellationToken) -> anyhow::Result<()> {
    all_consume(workers, shutdown).await;
    if !shutdown.is_cancelled() {
        let names: Vec<String> = workers.consuming().borrow().keys().cloned().collect();
        say(&format!("working: {}", names.join(", ")))?;
    }
    shutdown.cancelled().await;
    Ok(())
}

/// Serves health, readiness and metrics of workers.
fn serve_vitals(
    listener: TcpListener,
    vitals: Arc<Vitals>,
    settings: &Settings,
    drain: Duration,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    /// Connections at a time: a few scrapers and probes.
    const CONNECTIONS: usize = 64;
    say(&format!("listening on http://{}", listener.local_addr()?))?;
    let ending = Ending { stopping: vitals.stopping.clone(), shutdown: vitals.shutdown.clone(), drain: drain / 4 };
    let handler = move |request: Request<Incoming>, _| vitals.clone().handle(request);
    let limits = ConnectionLimits { connections: CONNECTIONS, per_address: None, ..connection_limits(settings) };
    Ok(tokio::spawn(server::serve(listener, handler, limits, ending)))
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("can't listen on {address}: choose another address with --listen (port 0 takes any)"))
}

/// Serves HTTP until the gateway is told to stop and what is under way is finished.
pub async fn serve(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    feed: Option<Arc<Feed>>,
    drain: Duration,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    say(&format!("listening on http://{address}"))?;
    if std::io::stderr().is_terminal() {
        note(&format!(
            "\n  the page   http://{address}/\n  the API    http://{address}/api/v1/messages\n  readiness  http://{address}/readyz\n"
        ));
    }
    let (stopping, shutdown) = (gateway.vitals.stopping.clone(), gateway.vitals.shutdown.clone());
    let ending = Ending { stopping, shutdown: shutdown.clone(), drain: drain / 2 };
    if let Some(feed) = feed {
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            shutdown.cancelled().await;
            feed.close();
        });
    }
    tokio::spawn(pulse::beat(gateway.clone(), shutdown.clone()));
    let limits = connection_limits(&gateway.settings);
    let origins = &gateway.settings.cors.origins;
    let (cors, same_origin) = (cors(origins), origins.is_empty());
    let handler = gateway.clone();
    let cors = cors.layer(tower::service_fn(move |request: Request<(Incoming, Arc<Connection>)>| {
        let gateway = handler.clone();
        let (parts, (body, connection)) = request.into_parts();
        async move { Ok::<_, Infallible>(gateway.handle(Request::from_parts(parts, body), &connection).await) }
    }));
    let shared = Arc::new((gateway, cors));
    // A preflight is answered before the gateway sees it, and carries a request id like every answer. Where no other
    // origin is let in, nothing else has to tell a browser of origins.
    let handler = move |request: Request<Incoming>, connection: Arc<Connection>| {
        let shared = shared.clone();
        async move {
            let (gateway, cors) = &*shared;
            let id = (request.method() == Method::OPTIONS).then(|| gateway::request_id(request.headers()));
            if id.is_none() && same_origin {
                return gateway.handle(request, &connection).await;
            }
            // In a box: few requests come here, and the room for one of them is every connection's.
            let request = request.map(|body| (body, connection));
            let mut response = match Box::pin(cors.clone().oneshot(request)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if let Some(id) = id.and_then(|id| HeaderValue::from_str(&id).ok()) {
                response.headers_mut().insert(gateway::REQUEST_ID, id);
            }
            response
        }
    };
    server::serve(listener, handler, limits, ending).await;
    Ok(())
}

fn connection_limits(settings: &Settings) -> ConnectionLimits {
    ConnectionLimits {
        connections: settings.limits.connections,
        per_address: settings.limits.per_address,
        trusted: settings.proxies.trusted.clone(),
        write_timeout: settings.limits.write_timeout,
        min_body_rate: settings.limits.min_body_rate,
    }
}

fn cors(origins: &[String]) -> CorsLayer {
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let ours = [gateway::REQUEST_ID, header::ALLOW, header::ACCEPT, header::ACCEPT_ENCODING];
    let exposed = ours.into_iter().chain(WORKER_HEADERS.map(|(_, header, _)| header)).collect::<Vec<_>>();
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods(AllowMethods::list(methods))
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::list(exposed))
        .max_age(Duration::from_secs(600))
}
