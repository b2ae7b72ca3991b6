//! What of a table does not work as it should, by the faults that the bus knows: `degraded` of `/readyz`.

use serde_json::{Value, json};

use crate::{
    bus::{BusState, Fault, Subject},
    route::table::{Action, Route, Table},
};

/// Routes and queues that do not serve, or not well.
pub(super) struct Degraded {
    /// `{"route", "why"}` for each route that refuses requests, `{"queue", "why"}` or `{"exchange", "why"}` for what no route
    /// is refused for.
    pub entries: Vec<Value>,
    /// Whether any route takes at least some requests; a table without routes does.
    pub serves: bool,
}

impl Degraded {
    /// For a gateway: routes, and what no route needs.
    pub fn routes(table: &Table, state: &BusState) -> Self {
        let mut told = Vec::new();
        let mut entries = Vec::new();
        let mut serves = table.routes.is_empty();
        for route in &table.routes {
            let faults: Vec<&Fault> = state.faults.iter().filter(|fault| concerns(route, fault)).collect();
            serves |= faults.is_empty() || takes_some(route, &faults);
            entries.extend(faults.iter().map(|fault| json!({ "route": route.id, "why": fault.why })));
            told.extend(faults);
        }
        let others = state.faults.iter().filter(|fault| !told.contains(fault));
        entries.extend(others.map(|fault| of_subject(fault, table)));
        Self { entries, serves }
    }

    /// For workers, who have no routes.
    pub fn workers(table: &Table, state: &BusState) -> Self {
        Self { entries: state.faults.iter().map(|fault| of_subject(fault, table)).collect(), serves: true }
    }

    pub fn any(&self) -> bool {
        !self.entries.is_empty()
    }
}

/// Whether a route refuses requests for a fault, all or some.
fn concerns(route: &Route, fault: &Fault) -> bool {
    if !fault.refuses {
        return false;
    }
    match (&route.action, &fault.subject) {
        (Action::Publish(publish), Subject::Exchange(name)) => publish.exchange == *name,
        (Action::Publish(publish), Subject::Queue(name)) => publish.mandatory && publish.reaches.contains(name),
        (Action::Publish(_), Subject::Replies) => false,
        (Action::Call(call), Subject::Exchange(name)) => call.exchange == *name,
        (Action::Call(call), Subject::Queue(name)) => call.exchange.is_empty() && call.key.text == *name,
        (Action::Call(_), Subject::Replies) => true,
    }
}

/// Whether a route whose key decides still has a queue to publish to.
fn takes_some(route: &Route, faults: &[&Fault]) -> bool {
    let Action::Publish(publish) = &route.action else { return false };
    let refuses =
        |queue: &String| faults.iter().any(|fault| matches!(&fault.subject, Subject::Queue(name) if name == queue));
    publish.key.references().next().is_some()
        && !faults.iter().any(|fault| matches!(fault.subject, Subject::Exchange(_)))
        && publish.reaches.iter().any(|queue| !refuses(queue))
}

fn of_subject(fault: &Fault, table: &Table) -> Value {
    match &fault.subject {
        Subject::Queue(name) => json!({ "queue": name, "why": fault.why }),
        Subject::Exchange(name) => json!({ "exchange": name, "why": fault.why }),
        Subject::Replies => {
            let call = table.routes.iter().find(|route| matches!(route.action, Action::Call(_)));
            json!({ "route": call.map_or("", |route| route.id.as_str()), "why": fault.why })
        }
    }
}
