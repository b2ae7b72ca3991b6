//! From the files of a table to a [`Table`], or to every problem in them at once. Nothing in here stops at the first
//! mistake: what can still be read is read.

mod actions;
mod bus;
mod known;
mod params;
mod reach;
mod routes;

pub use reach::may_match;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use fpesa_workers::{KINDS, topic::Filter};

use self::{bus::Kinds, reach::Reach};
use super::{
    decode::At,
    file::{Payload, TableFile, Unroutable},
    grammar,
    problem::{Place, Problem, Severity, Source, did_you_mean, meant, suggest},
    read,
    schema::{SchemaCache, Schemas},
    source::{Files, Refused, Unreadable},
    structure,
    table::{Action, Route, Table, WorkerSpec},
    template::{Piece, Template},
    yaml,
};
use crate::topology::{Declare, QueueKind, SampleKey, Topology};

/// What came of compiling.
#[derive(Debug)]
pub struct Compiled {
    /// The table, when no problem is an error.
    pub table: Option<Table>,
    /// Every problem, warnings included, by file and place.
    pub problems: Vec<Problem>,
}

/// Routes that don't say wait this long for a reply.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Routes that don't say wait this long for a confirm.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// Routes that don't say take bodies up to this many bytes.
pub const MAX_SIZE: u64 = 256 * 1024;

/// Most problems that are told of one table: nobody reads on, and a file of garbage has very many.
pub const MOST_PROBLEMS: usize = 1_000;

/// Compiles the table that `files` holds.
pub fn compile(files: &dyn Files) -> Compiled {
    compile_again(files, &SchemaCache::default())
}

/// The same with what an earlier compilation made of schemas that say the same still.
pub fn compile_again(files: &dyn Files, cache: &SchemaCache) -> Compiled {
    let mut problems = Vec::new();
    let table = table(files, cache, &mut problems);
    problems.sort_by(by_place);
    problems.dedup();
    let failed = problems.iter().any(|problem| problem.severity == Severity::Error);
    if problems.len() > MOST_PROBLEMS {
        // An error is never cut away for a warning.
        problems.sort_by_key(|problem| problem.severity);
        problems.truncate(MOST_PROBLEMS);
        problems.sort_by(by_place);
    }
    Compiled { table: table.filter(|_| !failed), problems }
}

fn by_place(a: &Problem, b: &Problem) -> std::cmp::Ordering {
    let key = |problem: &Problem| (problem.line, problem.column, problem.severity, problem.code);
    a.file.cmp(&b.file).then_with(|| key(a).cmp(&key(b))).then_with(|| a.message.cmp(&b.message))
}

fn table(files: &dyn Files, cache: &SchemaCache, problems: &mut Vec<Problem>) -> Option<Table> {
    let source = match files.table() {
        Ok(source) => source,
        Err(why) => {
            problems.push(unreadable(&why));
            return None;
        }
    };
    let root = match yaml::parse(&source) {
        Ok(root) => root,
        Err(problem) => {
            problems.push(*problem);
            return None;
        }
    };
    structure::check(&source, &root, &grammar::TABLE, "the table", problems);
    let mut file = read::table(&source, &root);
    include(files, &source, &mut file, problems);
    let mut schemas = Schemas::load(files, cache, problems);

    let mut compiler = Compiler { source: &source, file: &file, schemas: &mut schemas, problems };
    let (mut topology, kinds) = compiler.topology();
    let reach = Reach::of(&topology, &kinds);
    let routes = compiler.routes(&Bus { topology: &topology, kinds: &kinds, reach: &reach });
    let workers = compiler.workers(&topology);
    let feed = compiler.feed();
    compiler.warn_unconsumed(&topology, &workers);
    compiler.warn_unbound(&topology, &routes);
    schemas.warn_unused(problems);

    watch(&mut topology, &routes);
    let mut table = Table::new(routes.into_iter().map(Arc::new).collect(), topology, workers, feed);
    table.schemas = schemas.documents();
    Some(table)
}

/// What the bus has by the table, for the routes that name it.
struct Bus<'t> {
    topology: &'t Topology,
    kinds: &'t Kinds,
    reach: &'t Reach<'t>,
}

fn unreadable(refused: &Refused) -> Problem {
    let source = Source { name: refused.name.as_str().into(), text: "".into() };
    let (code, hint) = match &refused.why {
        Unreadable::TooLarge => ("too-large", "split it: `include` takes routes from other files"),
        Unreadable::Missing => ("unreadable", "name another file with `--routes`, or write this one"),
        _ => ("unreadable", "a table is a file of YAML in UTF-8"),
    };
    Problem::at(&source, Place::default(), code, format!("the table can't be read: {}", refused.why)).hint(hint)
}

fn include(files: &dyn Files, source: &Source, file: &mut TableFile, problems: &mut Vec<Problem>) {
    let globs = file.include.clone();
    // A file that several globs name is taken once.
    let mut taken: HashSet<Arc<str>> = HashSet::new();
    for glob in &globs {
        match files.include(&glob.value) {
            Ok(found) if found.is_empty() => {
                problems.push(
                    Problem::at(source, glob.at, "include-missing", format!("`{}` names no file", glob.value))
                        .hint("a glob is relative to this file's folder"),
                );
            }
            Ok(found) => {
                for included in found.into_iter().filter(|included| taken.insert(included.name.clone())) {
                    match yaml::parse(&included) {
                        Ok(root) => {
                            structure::check(&included, &root, &grammar::INCLUDED, "an included file", problems);
                            file.routes.extend(read::routes(&included, &root));
                        }
                        Err(problem) => problems.push(*problem),
                    }
                }
            }
            Err(refused) => {
                let message = format!("`{}` can't be read: {}", refused.name, refused.why);
                let hint = match refused.why {
                    Unreadable::Outside => "move it below this file's folder",
                    Unreadable::TooLarge => "split it: a glob takes several files",
                    _ => "a glob such as `routes/*.yaml` names files of YAML in UTF-8",
                };
                problems.push(Problem::at(source, glob.at, "unreadable", message).hint(hint));
            }
        }
    }
}

/// What publish routes reach is watched on the bus: while it is missing they answer 503.
fn watch(topology: &mut Topology, routes: &[Route]) {
    for route in routes {
        if let Action::Publish(publish) = &route.action {
            topology.watched_queues.extend(publish.reaches.iter().cloned());
            if !publish.exchange.is_empty() {
                topology.watched_exchanges.insert(publish.exchange.clone());
            }
        }
        topology.calls |= matches!(route.action, Action::Call(_));
        let (exchange, key) = match &route.action {
            Action::Publish(publish) => (&publish.exchange, &publish.key),
            Action::Call(call) => (&call.exchange, &call.key),
        };
        let sample = sample(topology, exchange, key);
        let known = topology.samples.get(exchange);
        if known.is_none_or(|known| sample.exact && !known.exact) {
            topology.samples.insert(exchange.clone(), sample);
        }
    }
}

/// A key that a route may publish with. Brokers look at keys only where a topic exchange routes by them.
fn sample(topology: &Topology, exchange: &str, key: &Template) -> SampleKey {
    let text = |piece: &Piece| match piece {
        Piece::Literal(text) => text.clone(),
        Piece::Reference(reference) => reference.default.clone().unwrap_or_else(|| "x".into()),
    };
    let by_key = match exchange {
        "amq.topic" => true,
        name if name.is_empty() || name.starts_with("amq.") => false,
        name => topology.exchanges.get(name).is_none_or(|exchange| matches!(exchange.kind.as_str(), "" | "topic")),
    };
    SampleKey {
        key: key.pieces.iter().map(text).collect(),
        exact: !by_key || key.references().all(|value| value.default.is_some()),
    }
}

struct Compiler<'a> {
    source: &'a Source,
    file: &'a TableFile,
    schemas: &'a mut Schemas,
    problems: &'a mut Vec<Problem>,
}

impl Compiler<'_> {
    /// A problem in the main file.
    fn problem(&mut self, at: Place, code: &'static str, message: impl Into<String>, hint: Option<String>) {
        let mut problem = Problem::at(self.source, at, code, message);
        problem.hint = hint;
        self.problems.push(problem);
    }

    fn payload(&self, given: Option<Payload>) -> Payload {
        given.or(self.file.defaults.payload).unwrap_or(Payload::Event)
    }

    fn mandatory(&self, given: Option<Unroutable>) -> bool {
        given.or(self.file.defaults.unroutable) != Some(Unroutable::Accept)
    }

    fn workers(&mut self, topology: &Topology) -> BTreeMap<String, WorkerSpec> {
        let file = self.file;
        let mut workers = BTreeMap::new();
        for (key, worker) in &file.workers {
            let kind = worker.kind.clone().unwrap_or(At { value: key.name.clone(), at: key.at });
            if !KINDS.contains(&kind.value.as_str()) {
                let hint = if worker.kind.is_some() {
                    suggest(&kind.value, KINDS.iter().copied())
                } else {
                    Some(format!("add `kind:` with one of {}", KINDS.join(", ")))
                };
                self.problem(kind.at, "unknown-worker", format!("`{}` is no kind of worker", kind.value), hint);
            }
            let Some(queue) = &worker.queue else { continue };
            self.can_be_consumed(queue, topology);
            if !topology.queues.contains_key(&queue.value) {
                let hint = did_you_mean(&queue.value, topology.queues.keys().map(String::as_str))
                    .map_or("declare it under `queues:`".to_owned(), meant);
                let hint = Some(hint);
                self.problem(queue.at, "unknown-queue", format!("there is no queue `{}`", queue.value), hint);
            }
            // A worker that answers takes its jobs one by one, several at a time.
            let answers = kind.value == "history";
            let batch = worker.batch.unwrap_or(500);
            let prefetch = worker.prefetch.unwrap_or(if answers { 32 } else { 2 * batch });
            workers.insert(
                key.name.clone(),
                WorkerSpec {
                    queue: queue.value.clone(),
                    kind: kind.value,
                    batch: usize::try_from(batch).unwrap_or(500),
                    prefetch: u16::try_from(prefetch).unwrap_or(u16::MAX),
                    concurrency: usize::try_from(worker.concurrency.unwrap_or(1)).unwrap_or(1),
                },
            );
        }
        workers
    }

    /// A stream is read from an offset, and keeps what was read: a worker would skip what came while it was away.
    fn can_be_consumed(&mut self, queue: &At<String>, topology: &Topology) {
        if topology.is_stream(&queue.value) {
            let message = format!("`{}` is a stream, which is published to only", queue.value);
            let hint = Some("bind a quorum queue to the same exchange, and let the worker consume that".into());
            self.problem(queue.at, "bad-argument", message, hint);
        }
    }

    fn feed(&mut self) -> Vec<Filter> {
        let file = self.file;
        let mut filters = Vec::new();
        for topic in &file.feed {
            match topic.value.parse::<Filter>() {
                Ok(filter) => filters.push(filter),
                Err(why) => {
                    let message = format!("`{}` is no topic filter: {why}", topic.value);
                    self.problem(topic.at, "bad-filter", message, Some("write it as in `messages/#`".into()));
                }
            }
        }
        filters
    }

    /// What others bound to their queue is not known, and while it is missing nobody is told.
    fn warn_unbound(&mut self, topology: &Topology, routes: &[Route]) {
        let mut named: HashSet<&str> =
            topology.queues.values().filter_map(|queue| queue.dead_letter.as_deref()).collect();
        let mut by_exchange = false;
        for route in routes {
            match &route.action {
                Action::Publish(publish) => {
                    by_exchange |= !publish.exchange.is_empty() && publish.mandatory;
                    named.extend(publish.reaches.iter().map(String::as_str));
                }
                Action::Call(call) if call.exchange.is_empty() => drop(named.insert(&call.key.text)),
                Action::Call(_) => {}
            }
        }
        for (key, queue) in self.file.queues.iter().filter(|_| by_exchange) {
            let passive = queue.declare == Declare::Passive && queue.kind != QueueKind::Rpc;
            if passive && queue.bind.is_empty() && !named.contains(key.name.as_str()) {
                let message =
                    format!("what is bound to `{}` is not known: while it is missing, no route is refused", key.name);
                self.problems.push(
                    Problem::at(self.source, key.at, "unbound-queue", message)
                        .hint("say under `bind:` what its owner bound; fpesa does not bind it")
                        .warning(),
                );
            }
        }
    }

    fn warn_unconsumed(&mut self, topology: &Topology, workers: &BTreeMap<String, WorkerSpec>) {
        let consumed = workers.values().map(|worker| &worker.queue);
        let keep_dead = topology.queues.values().filter_map(|queue| queue.dead_letter.as_ref());
        let busy: HashSet<&String> = consumed.chain(keep_dead).collect();
        for (key, queue) in &self.file.queues {
            // Who declares a queue elsewhere consumes it elsewhere.
            if !busy.contains(&key.name) && queue.declare == Declare::Active && queue.kind != QueueKind::Stream {
                self.problems.push(
                    Problem::at(self.source, key.at, "unconsumed-queue", format!("nobody consumes `{}`", key.name))
                        .hint("add a worker for it under `workers:`, if it is one of fpesa's own")
                        .warning(),
                );
            }
        }
    }
}
