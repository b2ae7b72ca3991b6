//! Clients that post without a pause, and remember every answer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::task::JoinHandle;

use super::{app::App, eventually};

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// When it came.
    pub at: Instant,
    pub took: Duration,
    pub status: u16,
    /// The problem's suffix; empty for a 202.
    pub kind: String,
    /// The id of a 202 and of an unknown outcome.
    pub id: Option<String>,
}

pub struct Poster {
    stop: Arc<AtomicBool>,
    kept: Arc<AtomicUsize>,
    /// The longest that `/healthz` took meanwhile, in microseconds.
    slowest: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<Answer>>>,
}

impl Poster {
    /// Several clients, each with one post at a time.
    pub fn start(apps: &[&App], clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sent, kept) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let kept_by_all = kept.clone();
        let clients = (0..clients)
            .map(|n| {
                let app = apps[n % apps.len()];
                let (client, url) = (app.client.clone(), app.url("/api/v1/messages"));
                let (stop, sent, kept) = (stop.clone(), sent.clone(), kept_by_all.clone());
                tokio::spawn(async move {
                    let mut answers = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let n = sent.fetch_add(1, Ordering::Relaxed);
                        answers.push(post(&client, &url, n).await);
                        if answers.last().is_some_and(|answer| answer.status == 202) {
                            kept.fetch_add(1, Ordering::Relaxed);
                        } else {
                            // Refused at once: a breath, as clients take one.
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                    }
                    answers
                })
            })
            .collect();
        let slowest = Arc::new(AtomicU64::new(0));
        // Several at a time, for the slowest of few samples says little.
        for _ in 0..4 {
            tokio::spawn(pace(apps[0].client.clone(), apps[0].url("/healthz"), stop.clone(), slowest.clone()));
        }
        Self { stop, kept, slowest, clients }
    }

    /// How long a request took at most that waits for nothing: a measure of how busy the machine is.
    pub fn pace(&self) -> Duration {
        Duration::from_micros(self.slowest.load(Ordering::Relaxed))
    }

    /// How many got a 202 so far.
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// All answers, in the order that they came.
    pub async fn end(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers = Vec::new();
        for client in self.clients {
            answers.extend(client.await.unwrap());
        }
        answers.sort_by_key(|answer| answer.at);
        answers
    }
}

async fn pace(client: reqwest::Client, url: String, stop: Arc<AtomicBool>, slowest: Arc<AtomicU64>) {
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let _ = client.get(&url).send().await;
        slowest.fetch_max(start.elapsed().as_micros().try_into().unwrap(), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn post(client: &reqwest::Client, url: &str, n: usize) -> Answer {
    let start = Instant::now();
    let body = format!(r#"{{"text":"message {n}","topic":"ledger"}}"#);
    let response = client.post(url).header("content-type", "application/json").body(body).send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let kind = body["type"].as_str().and_then(|kind| kind.rsplit('/').next()).unwrap_or_default().to_owned();
    let id = body["id"].as_str().map(str::to_owned);
    Answer { at: Instant::now(), took: start.elapsed(), status, kind, id }
}

/// Posts of the test's own, each remembered for the ledger.
pub struct Probe<'a> {
    app: &'a App,
    answers: Mutex<Vec<Answer>>,
}

impl<'a> Probe<'a> {
    pub fn new(app: &'a App) -> Self {
        Self { app, answers: Mutex::default() }
    }

    /// One post.
    pub async fn post(&self) -> Answer {
        let answer = post(&self.app.client, &self.app.url("/api/v1/messages"), 0).await;
        self.answers.lock().unwrap().push(answer.clone());
        answer
    }

    /// Posts until the answer is of this kind (empty: a 202), and gives how long that took.
    pub async fn until(&self, kind: &str) -> Duration {
        let start = Instant::now();
        eventually(&format!("an answer {kind:?}"), || async { (self.post().await.kind == kind).then_some(()) }).await;
        start.elapsed()
    }

    /// What others posted.
    pub fn add(&self, answers: Vec<Answer>) {
        self.answers.lock().unwrap().extend(answers);
    }

    pub async fn judge(self) {
        judge(self.app, &self.answers.into_inner().unwrap()).await;
    }
}

/// How often each status and problem came.
pub fn counts(answers: &[Answer]) -> BTreeMap<(u16, String), usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry((answer.status, answer.kind.clone())).or_default() += 1;
    }
    counts
}

/// Judges by the ledger: every id of a 202 comes to be in history, none is there twice, and what is there besides was
/// told to be unknown.
pub async fn judge(app: &App, answers: &[Answer]) {
    let kept: Vec<&String> =
        answers.iter().filter(|answer| answer.status == 202).filter_map(|answer| answer.id.as_ref()).collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let there = history(app).await;
        let missing = kept.iter().filter(|id| !there.contains_key(**id)).count();
        if missing == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{missing} of {} that got a 202 are not in history", kept.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let there = history(app).await;
    assert!(there.values().all(|count| *count == 1), "some are there twice");
    let told: std::collections::HashSet<&String> = answers.iter().filter_map(|answer| answer.id.as_ref()).collect();
    let strangers = there.keys().filter(|id| !told.contains(id)).count();
    assert_eq!(strangers, 0, "messages are in history whose clients were told that they were not sent");
}

/// Every id in history, with how often it is there.
pub async fn history(app: &App) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    let mut path = "/api/v1/messages?limit=1000".to_owned();
    loop {
        // Just after a fault the link of calls may still be on its way back.
        let page = eventually("a page of history", || async {
            let response = app.get(&path).await;
            if response.status() == 200 { response.json::<Value>().await.ok() } else { None }
        })
        .await;
        for item in page["items"].as_array().unwrap() {
            *found.entry(item["id"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/api/v1/messages?limit=1000&before={next}"),
            None => return found,
        }
    }
}
