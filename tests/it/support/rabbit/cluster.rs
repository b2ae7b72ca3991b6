//! Several nodes that are one broker.

use super::{Epmd, Rabbit};
use crate::support::release::Release;

pub struct Cluster {
    pub nodes: Vec<Rabbit>,
}

impl Cluster {
    /// Starts nodes, joins them, and imports what `fpesa broker definitions` prints.
    pub async fn on(on: Release, count: usize) -> Self {
        let epmd = Epmd::start(on);
        let mut nodes: Vec<Rabbit> = (0..count).map(|_| Rabbit::launch(on, epmd.clone(), "", false)).collect();
        for node in &mut nodes {
            node.ready().await;
        }
        let first = nodes[0].env[1].1.clone();
        for node in &nodes[1..] {
            node.ctl(&["stop_app"]);
            node.ctl(&["reset"]);
            node.ctl(&["join_cluster", &first]);
            node.ctl(&["start_app"]);
        }
        // Now, not before: a quorum queue takes its members from the nodes that are there when it is declared.
        nodes[0].import();
        Self { nodes }
    }

    /// One URL with every address.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("amqp://guest:guest@{}/%2f", hosts.join(","))
    }
}
