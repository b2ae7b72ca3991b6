//! A replica set of MongoDB whose primary is killed under load: POSTs go on, nothing is lost, nothing is kept twice.

use crate::support::{
    app::Start,
    eventually,
    mongodb::ReplicaSet,
    poster::{Poster, Probe, counts},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_costs_no_message() {
    let mut set = ReplicaSet::start().await;
    let app = Start::up().args(&["--store", &set.database()]).start().await;
    let probe = Probe::new(&app);
    let poster = Poster::start(&[&app], 8);
    for _ in 0..2 {
        let before = poster.kept();
        eventually("posts to be kept", || async { (poster.kept() > before + 300).then_some(()) }).await;
        let primary = set.primary().await;
        set.kill9(primary);
        // Kept by the next primary: what is posted after the end of the last one comes to be in history.
        let next = set.primary().await;
        assert_ne!(next, primary);
        let answer = probe.post().await;
        let id = answer.id.unwrap();
        eventually("it to be in history", || async {
            (app.get(&format!("/api/v1/messages/{id}")).await.status() == 200).then_some(())
        })
        .await;
        set.restart(primary).await;
    }
    let answers = poster.end().await;
    assert!(answers.iter().all(|answer| answer.status == 202), "{:?}", counts(&answers));
    println!("{} messages, 2 primaries killed", answers.len());
    probe.add(answers);
    probe.judge().await;
}
