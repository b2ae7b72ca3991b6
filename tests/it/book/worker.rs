//! The book's worker in Rust.

// ANCHOR: worker
use async_trait::async_trait;
use fpesa_workers::{Answer, Job, Verdict, Worker};
use serde_json::{Value, json};

/// Answers calls with the sum of what they bring.
pub struct Sum;

#[async_trait]
impl Worker for Sum {
    /// Calls are answered one by one.
    fn most(&self) -> usize {
        1
    }

    async fn work(&self, jobs: &[Job]) -> Vec<Verdict> {
        jobs.iter().map(answer).collect()
    }
}

fn answer(job: &Job) -> Verdict {
    if job.left().is_some_and(|left| left.is_zero()) {
        return Verdict::Expired;
    }
    // The gateway has checked the body already: this is for whoever else calls.
    let Ok(call) = serde_json::from_slice::<Value>(&job.body) else {
        return Verdict::Reject { reason: "not-a-call".into(), detail: "the body is no JSON".into() };
    };
    let (a, b) = (&call["body"]["a"], &call["body"]["b"]);
    let sum = a.as_f64().unwrap_or_default() + b.as_f64().unwrap_or_default();
    Verdict::Answered(Answer {
        status: 200,
        content_type: "application/json".into(),
        body: json!({ "sum": sum }).to_string().into(),
        ..Answer::default()
    })
}
// ANCHOR_END: worker

#[tokio::test]
async fn it_adds() {
    use std::time::{Duration, SystemTime};
    let job = |body: &'static str| Job { body: body.into(), ..Job::default() };
    let late = Job { deadline: Some(SystemTime::now() - Duration::from_secs(1)), ..Job::default() };
    let jobs = [job(r#"{"body":{"a":1,"b":2.5}}"#), job("nothing"), late];
    let verdicts = Sum.work(&jobs).await;
    assert!(matches!(&verdicts[0], Verdict::Answered(answer) if answer.body == r#"{"sum":3.5}"#), "{verdicts:?}");
    assert!(matches!(&verdicts[1], Verdict::Reject { reason, .. } if reason == "not-a-call"), "{verdicts:?}");
    assert_eq!(verdicts[2], Verdict::Expired);
}
