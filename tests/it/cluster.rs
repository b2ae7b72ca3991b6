//! Three nodes of RabbitMQ that are one broker: each is killed under full load, and comes back.

use std::time::{Duration, Instant};

use crate::support::{
    app::{App, Start},
    eventually,
    poster::{Poster, counts, judge},
    postgres::Postgres,
    rabbit::Cluster,
    release::Release,
};

/// A leader moves, links find another node: clients are told so meanwhile, and no longer than this.
const MOVES_WITHIN: Duration = Duration::from_secs(20);

crate::on_each_rabbitmq!(every_202_survives_the_loss_of_each_node);

async fn every_202_survives_the_loss_of_each_node(on: Release) {
    let postgres = Postgres::on(on);
    let store = postgres.database();
    let mut cluster = Cluster::on(on, 3).await;
    let url = cluster.url();
    let app = Start::up().command(&["gateway", "--bus", &url]).start().await;
    let work =
        |name: &'static str| Start::beside(&app).command(&["work", name, "--bus", &url, "--store", &store]).start();
    let _workers: [App; 3] = [work("persist").await, work("persist").await, work("history").await];
    eventually("readiness", || async { (app.get("/readyz").await.status() == 200).then_some(()) }).await;
    let poster = Poster::start(&[&app], 32);
    let mut moves = Vec::new();
    for n in 0..cluster.nodes.len() {
        let before = poster.kept();
        eventually("posts to be kept", || async { (poster.kept() > before + 500).then_some(()) }).await;
        let killed = Instant::now();
        cluster.nodes[n].kill9();
        // Kept again without the node, then with it.
        eventually("a time without posts, or with them", || async {
            (killed.elapsed() > Duration::from_millis(500)).then_some(())
        })
        .await;
        let before = poster.kept();
        eventually("posts to be kept without the node", || async { (poster.kept() > before + 500).then_some(()) })
            .await;
        println!("node {n}: kept again {:?} after its end", killed.elapsed());
        moves.push(killed);
        cluster.nodes[n].restart().await;
        cluster.nodes[n].ctl(&["await_startup"]);
        cluster.nodes[n].ctl(&["await_online_nodes", "3"]);
        // A member that comes back catches up before the next one goes: two of three must have everything.
        eventually("the queue to have all its members", || async {
            let listed = cluster.nodes[n].ctl(&["list_queues", "--silent", "name", "online"]);
            let line = listed.lines().find(|line| line.starts_with("messages.persist"))?;
            (line.matches("fpesa").count() == 3).then_some(())
        })
        .await;
    }
    let answers = poster.end().await;
    println!("{:?}", counts(&answers));
    for answer in &answers {
        let honest = match answer.status {
            202 => true,
            503 => matches!(answer.kind.as_str(), "broker-unavailable" | "broker-rejected" | "unroutable"),
            504 => answer.kind == "confirm-timeout" && answer.id.is_some(),
            _ => false,
        };
        assert!(honest, "{answer:?}");
        let moving = moves.iter().any(|killed| answer.at > *killed && answer.at < *killed + MOVES_WITHIN);
        assert!(answer.status == 202 || moving, "refused while nothing moved: {answer:?}");
    }
    judge(&app, &answers).await;
}
