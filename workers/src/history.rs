//! Answers one event, or one page of them.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    Answer, Job, Verdict, Worker,
    event::{micros, uuid},
    gate::Gate,
    store::{Cursor, From, Page, PageQuery, Store, StoreError},
    topic::Filter,
};

/// Most time that a store may take for one answer.
const LONGEST: Duration = Duration::from_secs(10);

/// The worker `history`.
pub struct History {
    store: Arc<dyn Store>,
    gate: Gate,
}

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
    /// A worker that reads from `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { gate: Gate::new(store.clone()), store }
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
        match self.store.get(&id).await {
            Ok(Some(text)) => ok(text, None),
            Ok(None) => problem(404, "message-not-found", "Message not found", "no message has this id", None),
            Err(error) => self.failed(&error),
        }
    }

    async fn page(&self, query: &Map<String, Value>) -> Answer {
        let asked = match read(query) {
            Ok(asked) => asked,
            Err(wrong) => return invalid(&wrong),
        };
        match self.store.page(&asked).await {
            Ok(page) => {
                let link = page.next.as_ref().map(|next| link(query, next, asked.limit));
                ok(body(&page), link)
            }
            Err(StoreError::UnknownAfter) => invalid(&[Wrong::query(
                "after",
                "unknown-id",
                "no message has this id, or not any more: read the newest page instead",
            )]),
            Err(error) => self.failed(&error),
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
    if wrong.is_empty() { Ok(PageQuery { limit, from, topic, since, until, count }) } else { Err(wrong) }
}

/// `{"items":[…],"next":…,"total":…}`, the documents as they were kept.
fn body(page: &Page) -> Bytes {
    let size = page.items.iter().map(|item| item.len() + 1).sum::<usize>();
    let mut out = Vec::with_capacity(size + 120);
    out.extend_from_slice(b"{\"items\":[");
    for (index, item) in page.items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
    let next = page.next.map_or("null".to_owned(), |next| format!("\"{}\"", next.encode()));
    out.extend_from_slice(format!("],\"next\":{next}").as_bytes());
    if let Some(total) = page.total {
        out.extend_from_slice(format!(",\"total\":{total}").as_bytes());
    }
    out.push(b'}');
    out.into()
}

/// The following page, relative to the request (RFC 8288): the same query with the new cursor.
fn link(query: &Map<String, Value>, next: &Cursor, limit: usize) -> String {
    let mut pairs = url::form_urlencoded::Serializer::new(String::new());
    pairs.append_pair("before", &next.encode());
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
