//! Reading pages: keyset walks along the index of `(time, id)`, or along those of a few topics at once.

use std::fmt::Write as _;

use bytes::Bytes;
use deadpool_postgres::{Client, GenericClient, Transaction};
use tokio_postgres::{Error, IsolationLevel, types::ToSql};
use uuid::Uuid;

use super::told;
use crate::{
    store::{Cursor, From, MERGED_TOPICS, Page, PageQuery, StoreError},
    topic::Filter,
};

/// A condition's value.
type Value = Box<dyn ToSql + Send + Sync>;

/// A statement that grows with its values.
#[derive(Default)]
struct Statement {
    sql: String,
    values: Vec<Value>,
}

impl Statement {
    /// Keeps a value and gives its place, such as `$3`.
    fn bind(&mut self, value: impl ToSql + Send + Sync + 'static) -> String {
        self.values.push(Box::new(value));
        format!("${}", self.values.len())
    }

    fn add(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }

    async fn query(&self, client: &impl GenericClient) -> Result<Vec<tokio_postgres::Row>, Error> {
        let statement = client.prepare_cached(&self.sql).await?;
        let values: Vec<&(dyn ToSql + Sync)> =
            self.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
        client.query(&statement, &values).await
    }
}

/// Whose events are read.
enum Topics {
    All,
    /// Few: their walks are merged.
    These(Vec<i64>),
    /// Many: a walk of everything, filtered.
    Filtered(Vec<i64>),
}

/// Which part of the order is read, and which way.
struct Range {
    forward: bool,
    from: Option<Cursor>,
    since: Option<i64>,
    until: Option<i64>,
}

impl Range {
    /// Conditions beside others.
    fn conditions(&self, statement: &mut Statement) -> String {
        let mut sql = String::new();
        if let Some(from) = &self.from {
            let (time, id) = (statement.bind(from.time), statement.bind(from.id));
            let _ = write!(sql, " AND (time, id) {} ({time}, {id})", if self.forward { ">" } else { "<" });
        }
        for (operator, time) in [(">=", self.since), ("<", self.until)] {
            if let Some(time) = time {
                let _ = write!(sql, " AND time {operator} {}", statement.bind(time));
            }
        }
        sql
    }

    fn order(&self) -> &'static str {
        if self.forward { "ORDER BY time, id" } else { "ORDER BY time DESC, id DESC" }
    }
}

pub(super) async fn get(client: &Client, id: &Uuid) -> Result<Option<Bytes>, Error> {
    let select = client.prepare_cached("SELECT text FROM fpesa_event WHERE id = $1").await?;
    let row = client.query_opt(&select, &[id]).await?;
    Ok(row.map(|row| Bytes::from(row.get::<_, Vec<u8>>(0))))
}

/// Whether the database takes no writes now.
pub(super) async fn is_read_only(client: &Client) -> Result<bool, Error> {
    let select = client.prepare_cached("SELECT current_setting('transaction_read_only') = 'on'").await?;
    Ok(client.query_one(&select, &[]).await?.get(0))
}

pub(super) async fn page(client: &mut Client, query: &PageQuery) -> Result<Page, StoreError> {
    if !query.count {
        return read(&*client, query).await;
    }
    // A page and its count are of the same moment.
    let failed = |error: Error| told(&error);
    let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction: Transaction<'_> = snapshot.start().await.map_err(failed)?;
    let mut page = read(&transaction, query).await?;
    page.total = Some(count(&transaction, query).await.map_err(failed)?);
    transaction.commit().await.map_err(failed)?;
    Ok(page)
}

async fn read(client: &impl GenericClient, query: &PageQuery) -> Result<Page, StoreError> {
    let failed = |error: Error| told(&error);
    let mut range = Range { forward: false, from: None, since: query.since, until: query.until };
    match &query.from {
        From::Newest => {}
        From::Before(cursor) => range.from = Some(*cursor),
        From::After(id) => {
            range.forward = true;
            range.from = Some(place_of(client, id).await.map_err(failed)?.ok_or(StoreError::UnknownAfter)?);
        }
        From::Following(place) => {
            range.forward = true;
            range.from = Some(*place);
        }
    }
    let topics = topics(client, query.topic.as_ref()).await.map_err(failed)?;
    if matches!(&topics, Topics::These(none) if none.is_empty()) {
        return Ok(Page::default());
    }
    let rows = walk(topics, &range, query).query(client).await.map_err(failed)?;
    let found = rows.first().map_or(0, |row| row.get::<_, i64>(3));
    let more = i64::try_from(rows.len()).unwrap_or(i64::MAX) < found;
    let next = rows.last().filter(|_| more).map(cursor);
    let items = rows.iter().map(|row| Bytes::from(row.get::<_, Vec<u8>>(2))).collect();
    Ok(Page { items, next, total: None })
}

fn cursor(row: &tokio_postgres::Row) -> Cursor {
    Cursor { time: row.get(0), id: row.get(1) }
}

/// The place of the event that so many newer ones follow.
pub(super) async fn nth_newest(client: &Client, newer: u64) -> Result<Option<Cursor>, Error> {
    let select =
        client.prepare_cached("SELECT time, id FROM fpesa_event ORDER BY time DESC, id DESC LIMIT 1 OFFSET $1").await?;
    let row = client.query_opt(&select, &[&i64::try_from(newer).unwrap_or(i64::MAX)]).await?;
    Ok(row.as_ref().map(cursor))
}

async fn place_of(client: &impl GenericClient, id: &Uuid) -> Result<Option<Cursor>, Error> {
    let select = client.prepare_cached("SELECT time FROM fpesa_event WHERE id = $1").await?;
    Ok(client.query_opt(&select, &[id]).await?.map(|row| Cursor { time: row.get(0), id: *id }))
}

async fn topics(client: &impl GenericClient, filter: Option<&Filter>) -> Result<Topics, Error> {
    let Some(filter) = filter else { return Ok(Topics::All) };
    if !filter.as_str().contains(['+', '#']) {
        let select = client.prepare_cached("SELECT id FROM fpesa_topic WHERE sha256(name) = sha256($1::bytea)").await?;
        let rows = client.query(&select, &[&filter.as_str().as_bytes()]).await?;
        return Ok(Topics::These(rows.iter().map(|row| row.get(0)).collect()));
    }
    let select = client.prepare_cached("SELECT id, name FROM fpesa_topic").await?;
    let matches = |row: &tokio_postgres::Row| {
        let name: &[u8] = row.get(1);
        std::str::from_utf8(name).is_ok_and(|name| filter.matches(name))
    };
    let rows = client.query(&select, &[]).await?;
    let ids: Vec<i64> = rows.iter().filter(|row| matches(row)).map(|row| row.get(0)).collect();
    Ok(if ids.len() <= MERGED_TOPICS { Topics::These(ids) } else { Topics::Filtered(ids) })
}

/// The statement of one page. Several topics are walked one by one, each along its own index: asked for all at once, the
/// planner would rather sort them.
fn walk(topics: Topics, range: &Range, query: &PageQuery) -> Statement {
    let mut statement = Statement::default();
    let order = range.order();
    let (limit, most) = (query.limit, query.limit + 1);
    let sql = match topics {
        Topics::All => {
            let conditions = range.conditions(&mut statement);
            format!("SELECT time, id, text FROM fpesa_event event WHERE true{conditions} {order} LIMIT {most}")
        }
        Topics::Filtered(ids) => {
            let ids = statement.bind(ids);
            let conditions = range.conditions(&mut statement);
            format!(
                "SELECT time, id, text FROM fpesa_event event WHERE topic = ANY({ids}){conditions} {order} LIMIT {most}"
            )
        }
        Topics::These(ids) => {
            let ids = statement.bind(ids);
            let conditions = range.conditions(&mut statement);
            format!(
                "SELECT place.time, place.id, event.text FROM (
                   SELECT walked.time, walked.id FROM unnest({ids}::bigint[]) AS given (topic), LATERAL (
                     SELECT time, id FROM fpesa_event WHERE fpesa_event.topic = given.topic{conditions} {order} LIMIT {most}
                   ) walked {order} LIMIT {most}
                 ) place JOIN fpesa_event event ON event.id = place.id {}",
                order.replace("time", "place.time").replace("id", "place.id")
            )
        }
    };
    // What the page has no room for is left out by its length, which is known without reading the text.
    let max_bytes = statement.bind(i64::try_from(query.max_bytes).unwrap_or(i64::MAX));
    statement.add(&format!(
        "SELECT time, id, text, found FROM (
           SELECT time, id, text, count(*) OVER () AS found, row_number() OVER walked AS number,
             sum(octet_length(text)) OVER walked AS bytes
           FROM ({sql}) found WINDOW walked AS ({order} ROWS UNBOUNDED PRECEDING)
         ) page WHERE number <= {limit} AND (number = 1 OR bytes <= {max_bytes}) {order}"
    ));
    statement
}

/// Counts what passes topic and times; `before` and `after` say where a page begins, not what there is.
async fn count(client: &impl GenericClient, query: &PageQuery) -> Result<u64, Error> {
    let range = Range { forward: false, from: None, since: query.since, until: query.until };
    let mut statement = Statement::default();
    let whose = match topics(client, query.topic.as_ref()).await? {
        Topics::All => "true".to_owned(),
        Topics::These(ids) | Topics::Filtered(ids) => format!("topic = ANY({})", statement.bind(ids)),
    };
    let conditions = range.conditions(&mut statement);
    statement.add(&format!("SELECT count(*) FROM fpesa_event WHERE {whose}{conditions}"));
    let rows = statement.query(client).await?;
    Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
}
