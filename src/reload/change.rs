//! What differs between two tables: told in the log, in `/readyz` and by `fpesa reload`.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::route::table::Table;

/// Most names that each list has: the rest is counted.
const NAMED: usize = 100;

/// What a reload changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Ids of routes that are new.
    pub added: Vec<String>,
    /// Ids of routes that are gone.
    pub removed: Vec<String>,
    /// Ids of routes that answer differently.
    pub changed: Vec<String>,
    /// What else differs: `queues`, `exchanges`, `workers`, `feed`.
    pub other: Vec<String>,
    /// Routes that the lists have no room for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// How many routes a reload added, removed and changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// New ones.
    pub added: u64,
    /// Gone ones.
    pub removed: u64,
    /// Those that answer differently.
    pub changed: u64,
}

/// What differs between two tables.
pub fn between(before: &Table, after: &Table) -> (Change, Counts) {
    let shown = |table: &Table| -> BTreeMap<String, String> {
        table.routes.iter().map(|route| (route.id.clone(), format!("{route:?}"))).collect()
    };
    let (old, new) = (shown(before), shown(after));
    let mut change = Change::default();
    let mut list = |ids: Vec<&String>| {
        change.more += ids.len().saturating_sub(NAMED);
        let named: Vec<String> = ids.iter().take(NAMED).map(|id| (*id).clone()).collect();
        (named, ids.len() as u64)
    };
    let (added, added_count) = list(new.keys().filter(|id| !old.contains_key(*id)).collect());
    let (removed, removed_count) = list(old.keys().filter(|id| !new.contains_key(*id)).collect());
    let differs = |(id, text): &(&String, &String)| old.get(*id).is_some_and(|before| before != *text);
    let (changed, changed_count) = list(new.iter().filter(differs).map(|(id, _)| id).collect());
    let other = [
        ("exchanges", before.topology.exchanges != after.topology.exchanges),
        ("queues", before.topology.queues != after.topology.queues),
        ("workers", before.workers != after.workers),
        ("feed", before.feed != after.feed),
    ];
    let other = other.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what.to_owned()).collect();
    let counts = Counts { added: added_count, removed: removed_count, changed: changed_count };
    (Change { added, removed, changed, other, ..change }, counts)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |what: &str, names: &[String]| match names {
            [] => None,
            names => Some(format!("{what} {}", names.join(", "))),
        };
        let mut parts: Vec<String> =
            [list("added", &self.added), list("removed", &self.removed), list("changed", &self.changed)]
                .into_iter()
                .flatten()
                .collect();
        if self.more > 0 {
            parts.push(format!("and {} routes more", self.more));
        }
        parts.extend(list("also", &self.other));
        if parts.is_empty() { f.write_str("nothing that takes effect differs") } else { f.write_str(&parts.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{files::Disk, route::compile::compile};

    fn table(routes: &str, rest: &str) -> Table {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("routes.yaml"), format!("version: 1\nroutes:\n{routes}{rest}")).unwrap();
        let compiled = compile(&Disk::new(folder.path().join("routes.yaml")));
        compiled.table.unwrap_or_else(|| panic!("{:?}", compiled.problems))
    }

    fn route(id: &str, key: &str) -> String {
        format!(
            "  - {{ id: {id}, method: POST, path: /{id}, body: {{ schema: {{ type: object }} }}, \
             publish: {{ exchange: amq.topic, key: {key}, unroutable: accept }} }}\n"
        )
    }

    #[test]
    fn routes_are_compared_by_what_they_do() {
        let before = table(&(route("a", "x") + &route("b", "x")), "");
        // Written in another order, which takes nothing away from them.
        let (same, counts) = between(&before, &table(&(route("b", "x") + &route("a", "x")), ""));
        assert_eq!((same.to_string().as_str(), counts), ("nothing that takes effect differs", Counts::default()));
        let (change, counts) =
            between(&before, &table(&(route("b", "y") + &route("c", "x")), "feed: { topics: [m] }\n"));
        assert_eq!(change.to_string(), "added c; removed a; changed b; also feed");
        assert_eq!(counts, Counts { added: 1, removed: 1, changed: 1 });
        let many: String = (0..150).map(|n| route(&format!("r{n}"), "x")).collect();
        let (change, counts) = between(&before, &table(&many, ""));
        assert_eq!((change.added.len(), change.more, counts.added), (100, 50, 150));
    }
}
