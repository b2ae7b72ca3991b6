//! Answers one event, or one page of them.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::{
    Answer, Job, Verdict, Worker,
    event::{micros, uuid},
    gate::Gate,
    memory::{MemoryBudget, OverBudget},
    store::{Cursor, From, Page, PageQuery, Store, StoreError},
    topic::Filter,
};

/// Most time that a store may take for one answer.
const LONGEST: Duration = Duration::from_secs(10);

/// The worker `history`.
pub struct History {
    store: Arc<dyn Store>,
    gate: Gate,
    max_page_bytes: usize,
    memory: Arc<MemoryBudget>,
    /// Bounds what is read of the store and not counted yet.
    reading: Semaphore,
}

/// Pages that are read and put together at the same time. A store has about as many connections.
const CONCURRENT_READS: usize = 8;
/// What a page has around its items, in bytes: brackets, cursor and total.
const MAX_ENVELOPE_BYTES: usize = 256;

/// The part of a call that is read here.
#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    params: Params,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Params {
    path: Map<String, Value>,
    query: Map<String, Value>,
}

/// What is wrong with one query parameter.
struct Wrong {
    part: &'static str,
    name: &'static str,
    keyword: &'static str,
    detail: String,
}

impl Wrong {
    fn query(name: &'static str, keyword: &'static str, detail: impl Into<String>) -> Self {
        Self { part: "query", name, keyword, detail: detail.into() }
    }
}

impl History {
    /// A worker that reads from `store` and answers at most `max_page_bytes` at a time, unless one event is larger, as far
    /// as `memory` has room.
    pub fn new(store: Arc<dyn Store>, max_page_bytes: usize, memory: Arc<MemoryBudget>) -> Self {
        let reading = Semaphore::new(CONCURRENT_READS);
        Self { gate: Gate::new(store.clone()), store, max_page_bytes, memory, reading }
    }

    async fn answer(&self, body: &[u8]) -> Answer {
        let Ok(call) = serde_json::from_slice::<Call>(body) else {
            return problem(
                400,
                "malformed-body",
                "Malformed call",
                "the call is not the JSON that a gateway sends",
                None,
            );
        };
        match call.params.path.get("id") {
            Some(id) => self.one(id).await,
            None => self.page(&call.params.query).await,
        }
    }

    async fn one(&self, id: &Value) -> Answer {
        let Some(id) = id.as_str().and_then(uuid) else {
            let detail = "an id is a UUID".to_owned();
            return invalid(&[Wrong { part: "path", name: "id", keyword: "format", detail }]);
        };
        let _reading = self.reading.acquire().await;
        match self.store.get(&id).await {
            Ok(Some(text)) => self.within_memory(text, None),
            Ok(None) => problem(404, "message-not-found", "Message not found", "no message has this id", None),
            Err(error) => self.failed(&error),
        }
    }

    async fn page(&self, query: &Map<String, Value>) -> Answer {
        let mut asked = match read(query) {
            Ok(asked) => asked,
            Err(wrong) => return invalid(&wrong),
        };
        // A comma after each item.
        asked.max_bytes = self.max_page_bytes.saturating_sub(asked.limit + MAX_ENVELOPE_BYTES);
        let _reading = self.reading.acquire().await;
        match self.store.page(&asked).await {
            Ok(page) => {
                // Going forward a page leads on by the id of its last item, as `after` takes it.
                let next = page.next.map(|place| match asked.from {
                    From::After(_) => ("after", place.id.hyphenated().to_string()),
                    _ => ("before", place.encode()),
                });
                let link = next.as_ref().map(|(name, next)| link(query, name, next, asked.limit));
                self.within_memory(body(&page, next.map(|(_, next)| next).as_deref()), link)
            }
            Err(StoreError::UnknownAfter) => invalid(&[Wrong::query(
                "after",
                "unknown-id",
                "no message has this id, or not any more: read the newest page instead",
            )]),
            Err(error) => self.failed(&error),
        }
    }

    /// The answer, if there is room for it among what else is under way.
    fn within_memory(&self, body: Bytes, link: Option<String>) -> Answer {
        match self.memory.guard(body) {
            Ok(body) => ok(body, link),
            Err(OverBudget) => overloaded(),
        }
    }

    fn failed(&self, error: &StoreError) -> Answer {
        self.gate.failed(error);
        unavailable()
    }
}

#[async_trait]
impl Worker for History {
    fn most(&self) -> usize {
        1
    }

    async fn is_able(&self) -> bool {
        self.store.get(&Uuid::nil()).await.is_ok()
    }

    async fn work(&self, jobs: &[Job]) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(jobs.len());
        for job in jobs {
            let left = job.left();
            if left.is_some_and(|left| left.is_zero()) {
                verdicts.push(Verdict::Expired);
                continue;
            }
            if !self.gate.is_open() {
                verdicts.push(Verdict::Answered(unavailable()));
                continue;
            }
            // A store that is slow is told in time, while somebody still waits.
            let within = left.map_or(LONGEST, |left| left.mul_f64(0.8).min(LONGEST));
            let answer = tokio::time::timeout(within, self.answer(&job.body)).await.unwrap_or_else(|_| {
                self.gate.was_slow(&StoreError::Away(format!("no answer within {within:?}")));
                unavailable()
            });
            verdicts.push(Verdict::Answered(answer));
        }
        verdicts
    }
}

/// Reads the query of a page; what is wrong is told all at once.
fn read(query: &Map<String, Value>) -> Result<PageQuery, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let text = |name: &str| query.get(name).and_then(Value::as_str);
    let limit = match query.get("limit") {
        None => 50,
        Some(limit) => match limit.as_u64().filter(|limit| (1..=1000).contains(limit)) {
            Some(limit) => usize::try_from(limit).unwrap_or(50),
            None => {
                wrong.push(Wrong::query("limit", "maximum", "this must be an integer from 1 to 1000"));
                50
            }
        },
    };
    let mut from = From::Newest;
    if let Some(before) = text("before") {
        match Cursor::decode(before) {
            Ok(cursor) => from = From::Before(cursor),
            Err(error) => wrong.push(Wrong::query("before", "cursor", error.to_string())),
        }
    }
    if let Some(after) = text("after") {
        if query.contains_key("before") {
            wrong.push(Wrong::query("after", "not-allowed", "give either `before` or `after`, not both"));
        }
        match uuid(after) {
            Some(id) => from = From::After(id),
            None => wrong.push(Wrong::query("after", "format", "an id is a UUID")),
        }
    }
    let topic = text("topic").and_then(|topic| match topic.parse::<Filter>() {
        Ok(filter) => Some(filter),
        Err(error) => {
            wrong.push(Wrong::query("topic", "filter", error.to_string()));
            None
        }
    });
    let mut time = |name: &'static str| {
        let at = query.get(name).and_then(Value::as_str)?;
        let parsed = micros(at);
        if parsed.is_none() {
            wrong.push(Wrong::query(name, "format", "this must be a time as in 2026-11-23T18:27:58Z (RFC 3339)"));
        }
        parsed
    };
    let (since, until) = (time("since"), time("until"));
    let count = query.get("count").and_then(Value::as_bool).unwrap_or(false);
    if wrong.is_empty() { Ok(PageQuery { limit, max_bytes: 0, from, topic, since, until, count }) } else { Err(wrong) }
}

/// `{"items":[…],"next":…,"total":…}`, the documents as they were kept.
fn body(page: &Page, next: Option<&str>) -> Bytes {
    let size = page.items.iter().map(|item| item.len() + 1).sum::<usize>();
    let mut out = Vec::with_capacity(size + MAX_ENVELOPE_BYTES);
    out.extend_from_slice(b"{\"items\":[");
    for (index, item) in page.items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
    let next = next.map_or("null".to_owned(), |next| format!("\"{next}\""));
    out.extend_from_slice(format!("],\"next\":{next}").as_bytes());
    if let Some(total) = page.total {
        out.extend_from_slice(format!(",\"total\":{total}").as_bytes());
    }
    out.push(b'}');
    out.into()
}

/// The following page, relative to the request (RFC 8288): the same query with the new cursor.
fn link(query: &Map<String, Value>, name: &str, next: &str, limit: usize) -> String {
    let mut pairs = url::form_urlencoded::Serializer::new(String::new());
    pairs.append_pair(name, next);
    pairs.append_pair("limit", &limit.to_string());
    for (name, value) in query {
        match (name.as_str(), value) {
            ("before" | "after" | "limit", _) => {}
            ("count", value) if value == false => {}
            (name, Value::String(text)) => {
                pairs.append_pair(name, text);
            }
            (name, value) => {
                pairs.append_pair(name, &value.to_string());
            }
        }
    }
    format!("<?{}>; rel=\"next\"", pairs.finish())
}

fn ok(body: Bytes, link: Option<String>) -> Answer {
    Answer {
        status: 200,
        content_type: "application/json".into(),
        headers: link.into_iter().map(|link| ("link".to_owned(), link)).collect(),
        body,
    }
}

fn invalid(wrong: &[Wrong]) -> Answer {
    let errors: Vec<Value> =
        wrong.iter().map(|w| json!({"in": w.part, "name": w.name, "keyword": w.keyword, "detail": w.detail})).collect();
    let mut detail = String::from("The request does not fit: ");
    for (index, w) in wrong.iter().enumerate() {
        let _ = write!(detail, "{}{}: {}", if index > 0 { "; " } else { "" }, w.name, w.detail);
    }
    problem(422, "validation-failed", "Validation failed", &detail, Some(("errors", errors.into())))
}

fn unavailable() -> Answer {
    let mut answer =
        problem(503, "store-unavailable", "Store unavailable", "the history can't be read just now: try again", None);
    answer.headers.push(("retry-after".into(), "1".into()));
    answer
}

fn overloaded() -> Answer {
    let detail = "too many large answers are under way: try again, or ask for a smaller page";
    let mut answer = problem(503, "overloaded", "Overloaded", detail, None);
    answer.headers.push(("retry-after".into(), "1".into()));
    answer
}

/// A problem (RFC 9457).
fn problem(status: u16, kind: &str, title: &str, detail: &str, member: Option<(&str, Value)>) -> Answer {
    let mut body = json!({
        "type": format!("https://fpesa.dev/problems/{kind}"), "title": title, "status": status, "detail": detail,
    });
    if let (Some((name, value)), Some(object)) = (member, body.as_object_mut()) {
        object.insert(name.to_owned(), value);
    }
    Answer {
        status,
        content_type: "application/problem+json".into(),
        headers: Vec::new(),
        body: body.to_string().into(),
    }
}
