//! Declaring a topology exactly as the wire contract has it, on a connection of its own: a refusal may end the connection.
//! Every refusal is found in one run. What a refused candidate made is removed again.

use std::collections::{BTreeMap, BTreeSet};

use amq_protocol::protocol::{AMQPClass, exchange, queue};

use super::{
    convert::{arguments, short},
    link::Options,
    owner::ReplyQueue,
    refusal::{self, Attempt},
    rpc::{Failure, NOT_FOUND, PRECONDITION_FAILED, Refusal, Rpc, passive_exchange, passive_queue},
};
use crate::{
    bus::{BusError, Fault, Subject},
    message::Message,
    topology::{Arguments, Binding, Declare, Queue, QueueKind, Topology, Version},
};

/// Methods that are on their way at a time.
const WINDOW: usize = 32;
/// Connections that one run may lose to refusals before it gives up.
const MAX_CONNECTIONS: u32 = 32;

/// Declares what is in force, or the part of it that `only` names, and gives what the broker refuses of it.
pub(super) async fn in_force(
    options: &Options,
    topology: &Topology,
    only: Option<&BTreeSet<Subject>>,
) -> Result<Vec<Fault>, BusError> {
    let mut run = Run::new(options);
    let result = run.declare(topology, only).await;
    run.end(result).await
}

/// Declares a candidate beside what is in force. When any of it is refused, all refusals are the error, and what was made
/// for it is removed. Else gives the defects that do not keep it from working.
pub(super) async fn candidate(
    options: &Options,
    topology: &Topology,
    in_force: &Topology,
) -> Result<Vec<Fault>, BusError> {
    let mut run = Run::new(options);
    let result = async {
        run.absent = run.absent_of(topology, in_force).await?;
        run.declare(topology, None).await
    };
    let result = result.await;
    let refused = run.faults.values().any(|fault| fault.refuses);
    if result.is_err() || refused {
        run.undo(in_force).await;
    }
    let faults = run.end(result).await?;
    if refused { Err(BusError::Topology(faults)) } else { Ok(faults) }
}

/// One method, and what it is for.
struct Step {
    subject: Subject,
    attempt: Attempt,
    method: AMQPClass,
    /// The type of an exchange: one that is refused for it speaks for all others of the type.
    kind: Option<String>,
}

struct Run<'o> {
    options: &'o Options,
    rpc: Option<Rpc>,
    connections: u32,
    version: Version,
    faults: BTreeMap<Subject, Fault>,
    /// What was not there before a candidate was declared.
    absent: BTreeSet<Subject>,
    made: Vec<Subject>,
    bound: Vec<(String, Binding)>,
    refused_kinds: BTreeMap<String, Refusal>,
}

impl<'o> Run<'o> {
    fn new(options: &'o Options) -> Self {
        Self {
            options,
            rpc: None,
            connections: 0,
            version: Version::default(),
            faults: BTreeMap::new(),
            absent: BTreeSet::new(),
            made: Vec::new(),
            bound: Vec::new(),
            refused_kinds: BTreeMap::new(),
        }
    }

    async fn end(self, result: Result<(), String>) -> Result<Vec<Fault>, BusError> {
        if let Some(rpc) = self.rpc {
            rpc.close().await;
        }
        result.map_err(BusError::Down)?;
        Ok(self.faults.into_values().collect())
    }

    /// The connection, made anew after a refusal that ended it.
    async fn rpc(&mut self) -> Result<&mut Rpc, String> {
        if self.rpc.is_none() {
            if self.connections == MAX_CONNECTIONS {
                return Err("the broker ended too many connections for what the table declares".into());
            }
            self.connections += 1;
            let rpc = Rpc::connect(self.options, "declare").await?;
            self.version = rpc.version;
            self.rpc = Some(rpc);
        }
        self.rpc.as_mut().ok_or_else(|| "no connection".into())
    }

    /// What is not in force and not on the broker either: what a candidate would make.
    async fn absent_of(&mut self, topology: &Topology, in_force: &Topology) -> Result<BTreeSet<Subject>, String> {
        let exchanges = topology
            .exchanges
            .iter()
            .filter(|(name, exchange)| exchange.declare == Declare::Active && !in_force.exchanges.contains_key(*name));
        let queues = topology.queues.iter().filter(|(name, queue)| {
            queue.declare == Declare::Active && queue.kind != QueueKind::Rpc && !in_force.queues.contains_key(*name)
        });
        let new: Vec<Subject> = exchanges
            .map(|(name, _)| Subject::Exchange(name.clone()))
            .chain(queues.map(|(name, _)| Subject::Queue(name.clone())))
            .collect();
        let subjects: Vec<&Subject> = new.iter().collect();
        match self.rpc().await?.missing(&subjects).await {
            Ok(missing) => Ok(missing.into_iter().map(|index| new[index].clone()).collect()),
            Err(Failure::Refused(refusal)) => Err(refusal.text),
            Err(Failure::Broken(why)) => Err(why),
        }
    }

    async fn declare(&mut self, topology: &Topology, only: Option<&BTreeSet<Subject>>) -> Result<(), String> {
        // The version decides arguments.
        self.rpc().await?;
        let wanted = |subject: &Subject| only.is_none_or(|only| only.contains(subject));
        let exchanges: Vec<Step> = topology
            .exchanges
            .iter()
            .map(|(name, exchange)| {
                let passive = exchange.declare == Declare::Passive;
                Step {
                    subject: Subject::Exchange(name.clone()),
                    attempt: if passive { Attempt::Look } else { Attempt::Declare },
                    method: if passive { passive_exchange(name, false) } else { declare_exchange(name, exchange) },
                    kind: (!passive).then(|| exchange.kind.clone()),
                }
            })
            .filter(|step| wanted(&step.subject))
            .collect();
        self.run(exchanges).await?;
        self.declare_queues(topology, &wanted).await?;
        self.bind(topology, only).await?;
        self.try_publishing(topology, &wanted).await?;
        self.try_calling(topology, &wanted).await
    }

    async fn declare_queues(&mut self, topology: &Topology, wanted: &impl Fn(&Subject) -> bool) -> Result<(), String> {
        let version = self.version;
        let names: Vec<&str> = dead_letters_first(topology)
            .into_iter()
            .filter(|name| wanted(&Subject::Queue((*name).to_owned())))
            .collect();
        let step = |name: &&str| {
            let queue = topology.queues.get(*name)?;
            let passive = queue.declare == Declare::Passive;
            Some(Step {
                subject: Subject::Queue((*name).to_owned()),
                attempt: if passive { Attempt::Look } else { Attempt::Declare },
                method: if passive {
                    passive_queue(name, false)
                } else {
                    declare_queue(name, &queue.declared_arguments(version))
                },
                kind: None,
            })
        };
        let refused = self.run(names.iter().filter_map(step).collect()).await?;
        // One from before the broker's upgrade lacks the argument that keeps it from dropping, and may lack nothing else.
        let from_before = |(name, refusal): (&str, &Refusal)| {
            let queue = topology.queues.get(name)?;
            (refusal.code == PRECONDITION_FAILED && queue.keeps_for_ever(version)).then(|| {
                let mut arguments = queue.declared_arguments(version);
                arguments.remove("x-delivery-limit");
                Step {
                    subject: Subject::Queue(name.to_owned()),
                    attempt: Attempt::Declare,
                    method: declare_queue(name, &arguments),
                    kind: None,
                }
            })
        };
        let again: Vec<Step> = refused
            .iter()
            .filter_map(|(subject, refusal)| match subject {
                Subject::Queue(name) => from_before((name, refusal)),
                _ => None,
            })
            .collect();
        for step in again {
            let subject = step.subject.clone();
            let known = self.faults.remove(&subject);
            let name = match &subject {
                Subject::Queue(name) => name.clone(),
                _ => continue,
            };
            if self.run(vec![step]).await?.is_empty() {
                let why = refusal::would_drop(&name);
                self.faults.insert(subject.clone(), Fault { subject, refuses: false, broker_answers: false, why });
            } else if let Some(known) = known {
                // The first difference that the broker names may be the one that is allowed: both are told.
                let second = self.faults.get(&subject).map(|fault| fault.why.clone()).unwrap_or_default();
                self.faults.insert(subject.clone(), Fault { why: second, ..known });
            }
        }
        Ok(())
    }

    async fn bind(&mut self, topology: &Topology, only: Option<&BTreeSet<Subject>>) -> Result<(), String> {
        let mut bindings = Vec::new();
        for (name, queue) in active_queues(topology) {
            let subject = Subject::Queue(name.clone());
            if self.refuses(&subject) {
                continue;
            }
            for binding in &queue.bind {
                let exchange = Subject::Exchange(binding.exchange.clone());
                let wanted = only.is_none_or(|only| only.contains(&subject) || only.contains(&exchange));
                if wanted && !self.refuses(&exchange) {
                    bindings.push((name.clone(), binding.clone()));
                }
            }
        }
        let steps = bindings
            .iter()
            .map(|(name, binding)| Step {
                subject: Subject::Queue(name.clone()),
                attempt: Attempt::Bind(binding.exchange.clone()),
                method: AMQPClass::Queue(queue::AMQPMethod::Bind(queue::Bind {
                    queue: short(name),
                    exchange: short(&binding.exchange),
                    routing_key: short(&binding.key),
                    nowait: false,
                    arguments: arguments(&binding.arguments),
                })),
                kind: None,
            })
            .collect();
        let refused = self.run(steps).await?;
        self.bound =
            bindings.into_iter().filter(|(name, _)| !refused.contains_key(&Subject::Queue(name.clone()))).collect();
        Ok(())
    }

    /// Whether the broker's user may publish what the routes publish.
    async fn try_publishing(&mut self, topology: &Topology, wanted: &impl Fn(&Subject) -> bool) -> Result<(), String> {
        for (name, sample) in &topology.samples {
            let subject = Subject::Exchange(name.clone());
            if !wanted(&subject) || self.refuses(&subject) {
                continue;
            }
            let probe = Message { exchange: name.clone(), key: sample.key.clone(), ..Message::default() };
            match self.rpc().await?.try_publish(&probe).await {
                // One that is not there is told by the looks at it.
                Ok(()) | Err(Failure::Refused(Refusal { code: NOT_FOUND, .. })) => {}
                Err(Failure::Broken(why)) => return Err(why),
                Err(Failure::Refused(refusal)) => {
                    if refusal.ended_connection {
                        self.rpc = None;
                    }
                    let mut fault = refusal::fault(subject, &Attempt::Publish, &refusal);
                    // The broker may allow other keys than the one that was tried.
                    fault.refuses = sample.exact;
                    self.faults.insert(fault.subject.clone(), fault);
                }
            }
        }
        Ok(())
    }

    /// Whether the broker's user may have the queue that replies come to. It goes with this connection.
    async fn try_calling(&mut self, topology: &Topology, wanted: &impl Fn(&Subject) -> bool) -> Result<(), String> {
        if !topology.calls || !wanted(&Subject::Replies) {
            return Ok(());
        }
        let ReplyQueue { declare, consume, .. } = ReplyQueue::new();
        let step = |method| Step { subject: Subject::Replies, attempt: Attempt::Replies, method, kind: None };
        if self.run(vec![step(declare)]).await?.is_empty() {
            self.run(vec![step(consume)]).await?;
        }
        Ok(())
    }

    fn refuses(&self, subject: &Subject) -> bool {
        self.faults.get(subject).is_some_and(|fault| fault.refuses)
    }

    /// Runs steps in order, and gives those that the broker refused; each is a fault, the first of its subject.
    async fn run(&mut self, steps: Vec<Step>) -> Result<BTreeMap<Subject, Refusal>, String> {
        let mut refused = BTreeMap::new();
        let mut window = WINDOW;
        let mut at = 0;
        while at < steps.len() {
            if let Some(refusal) = steps[at].kind.as_ref().and_then(|kind| self.refused_kinds.get(kind)).cloned() {
                self.refuse(&steps[at], &refusal, &mut refused);
                at += 1;
                continue;
            }
            if self.rpc.is_none() && self.connections == MAX_CONNECTIONS {
                let text =
                    format!("not tried: the broker ended {MAX_CONNECTIONS} connections for what comes before it");
                self.refuse(&steps[at], &Refusal { code: 0, text, ended_connection: true }, &mut refused);
                at += 1;
                continue;
            }
            let until = (at + window).min(steps.len());
            let methods: Vec<AMQPClass> = steps[at..until].iter().map(|step| step.method.clone()).collect();
            let (answers, failure) = self.rpc().await?.ask_all(&methods).await;
            for step in &steps[at..at + answers.len()] {
                if step.attempt == Attempt::Declare && self.absent.contains(&step.subject) {
                    self.made.push(step.subject.clone());
                }
            }
            at += answers.len();
            match failure {
                None => window = WINDOW,
                Some(Failure::Broken(why)) => return Err(why),
                Some(Failure::Refused(refusal)) if !refusal.ended_connection => {
                    self.refuse(&steps[at], &refusal, &mut refused);
                    at += 1;
                }
                Some(Failure::Refused(refusal)) => {
                    self.rpc = None;
                    // The connection's end may overtake answers: which step it was is certain when it was alone.
                    if window == 1 {
                        self.refuse(&steps[at], &refusal, &mut refused);
                        if let Some(kind) = &steps[at].kind {
                            self.refused_kinds.insert(kind.clone(), refusal);
                        }
                        at += 1;
                        window = WINDOW;
                    } else {
                        window = 1;
                    }
                }
            }
        }
        Ok(refused)
    }

    fn refuse(&mut self, step: &Step, refusal: &Refusal, refused: &mut BTreeMap<Subject, Refusal>) {
        refused.entry(step.subject.clone()).or_insert_with(|| refusal.clone());
        let fault = refusal::fault(step.subject.clone(), &step.attempt, refusal);
        self.faults.entry(step.subject.clone()).or_insert(fault);
    }

    /// Removes what was made for a candidate. A queue that somebody uses already, or that holds a message, stays.
    async fn undo(&mut self, in_force: &Topology) {
        let bound = std::mem::take(&mut self.bound);
        for (name, binding) in bound {
            let ours = in_force.queues.get(&name).is_some_and(|queue| queue.bind.contains(&binding));
            if ours || self.made.contains(&Subject::Queue(name.clone())) {
                continue;
            }
            let unbind = AMQPClass::Queue(queue::AMQPMethod::Unbind(queue::Unbind {
                queue: short(&name),
                exchange: short(&binding.exchange),
                routing_key: short(&binding.key),
                arguments: arguments(&binding.arguments),
            }));
            self.remove(unbind, &name).await;
        }
        for subject in std::mem::take(&mut self.made).into_iter().rev() {
            match &subject {
                Subject::Queue(name) if self.is_idle(name).await => {
                    // The flags `if_empty` and `if_unused` would end the connection: quorum queues do not have them.
                    let delete = queue::Delete { queue: short(name), if_unused: false, if_empty: false, nowait: false };
                    self.remove(AMQPClass::Queue(queue::AMQPMethod::Delete(delete)), name).await;
                }
                Subject::Exchange(name) => {
                    let delete = exchange::Delete { exchange: short(name), if_unused: true, nowait: false };
                    self.remove(AMQPClass::Exchange(exchange::AMQPMethod::Delete(delete)), name).await;
                }
                Subject::Queue(_) | Subject::Replies => {}
            }
        }
    }

    async fn is_idle(&mut self, queue: &str) -> bool {
        let Ok(rpc) = self.rpc().await else { return false };
        matches!(
            rpc.ask(passive_queue(queue, false)).await,
            Ok(AMQPClass::Queue(queue::AMQPMethod::DeclareOk(queue::DeclareOk {
                message_count: 0,
                consumer_count: 0,
                ..
            })))
        )
    }

    async fn remove(&mut self, method: AMQPClass, name: &str) {
        let removed = match self.rpc().await {
            Ok(rpc) => rpc.ask(method).await.map_err(|failure| match failure {
                Failure::Refused(refusal) => refusal.text,
                Failure::Broken(why) => why,
            }),
            Err(why) => Err(why),
        };
        if let Err(why) = removed {
            tracing::warn!(name, why, "what a refused table declared could not be removed from the broker");
        }
    }
}

/// Those that we make.
fn active_queues(topology: &Topology) -> impl Iterator<Item = (&String, &Queue)> {
    topology.queues.iter().filter(|(_, queue)| queue.declare == Declare::Active && queue.kind != QueueKind::Rpc)
}

fn declare_exchange(name: &str, exchange: &crate::topology::Exchange) -> AMQPClass {
    AMQPClass::Exchange(exchange::AMQPMethod::Declare(exchange::Declare {
        exchange: short(name),
        kind: short(exchange.kind.as_str()),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments: arguments(&exchange.arguments),
    }))
}

fn declare_queue(name: &str, declared: &Arguments) -> AMQPClass {
    AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
        queue: short(name),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: arguments(declared),
    }))
}

/// A queue's dead-letter queue stands before it.
fn dead_letters_first(topology: &Topology) -> Vec<&str> {
    fn visit<'t>(topology: &'t Topology, name: &'t str, done: &mut BTreeSet<&'t str>, order: &mut Vec<&'t str>) {
        let Some(queue) = topology.queues.get(name).filter(|queue| queue.kind != QueueKind::Rpc) else { return };
        if !done.insert(name) {
            return;
        }
        if let Some(dead) = &queue.dead_letter {
            visit(topology, dead, done, order);
        }
        order.push(name);
    }
    let (mut done, mut order) = (BTreeSet::new(), Vec::new());
    for name in topology.queues.keys() {
        visit(topology, name, &mut done, &mut order);
    }
    order
}
