//! What single stores promise beside the contract: their mirrors, what they can never keep, being read-only, and that a
//! page costs the same wherever it is.

use std::time::Duration;

use fpesa_workers::{
    event::Event,
    store::{self, Access, Appended, From, PageQuery, StoreError},
};
use mongodb::bson::{Bson, Document, doc};
use uuid::Uuid;

use crate::{
    store_contract::{at, embedded, event, ids, newest},
    support::{eventually, mongodb::Mongodb, postgres::Postgres, release::Release},
};

crate::on_each_postgres!(
    postgres_keeps_the_others_of_a_batch_with_one_that_it_refuses,
    postgres_that_is_read_only_is_away_for_writing_and_there_for_reading,
    postgres_reads_no_more_for_a_late_page_than_for_the_first
);

/// Twenty events, one of which is poison.
fn with_poison(at: u128) -> Vec<Event> {
    (1..=20).map(|n| event(n, 0, "m/a", if n == at { "\"poison\"" } else { "1" })).collect()
}

/// The poison is refused with a reason that names it; the others are kept.
fn judge(appended: &[Appended], at: usize, told: &str) {
    for (index, appended) in appended.iter().enumerate() {
        match appended {
            Appended::Refused(why) if index + 1 == at => assert!(why.contains(told), "{why}"),
            Appended::Kept if index + 1 != at => {}
            other => panic!("{}: {other:?}", index + 1),
        }
    }
}

#[tokio::test]
async fn embedded_keeps_the_others_of_a_batch_with_one_that_it_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let store = store::open(embedded(folder.path())).await.unwrap();
    let file = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    file.execute_batch(
        "CREATE TRIGGER own BEFORE INSERT ON event WHEN instr(CAST(NEW.text AS TEXT), 'poison') > 0
         BEGIN SELECT RAISE(ABORT, 'no poison here'); END",
    )
    .unwrap();
    judge(&store.append(&with_poison(7)).await.unwrap(), 7, "no poison here");
    assert_eq!(store.page(&newest(50)).await.unwrap().items.len(), 19);
}

async fn postgres_keeps_the_others_of_a_batch_with_one_that_it_refuses(on: Release) {
    let server = Postgres::on(on);
    let url = server.database();
    let store = store::open(at(&url)).await.unwrap();
    Postgres::sql(
        &url,
        "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF convert_from(NEW.text, 'UTF8') LIKE '%poison%' THEN RAISE EXCEPTION 'no poison here'; END IF;
           RETURN NEW; END $$;
         CREATE TRIGGER own BEFORE INSERT ON fpesa_event FOR EACH ROW EXECUTE FUNCTION own()",
    );
    judge(&store.append(&with_poison(7)).await.unwrap(), 7, "no poison here");
    assert_eq!(store.page(&newest(50)).await.unwrap().items.len(), 19);
    // A mirror that is refused costs the mirror, and only the one: another's constraint stands for a limit of jsonb.
    Postgres::sql(&url, "DROP TRIGGER own ON fpesa_event; TRUNCATE fpesa_event");
    Postgres::sql(&url, "ALTER TABLE fpesa_event ADD CHECK (doc->>'data' IS DISTINCT FROM 'poison')");
    assert!(store.append(&with_poison(9)).await.unwrap().iter().all(|appended| *appended == Appended::Kept));
    let without = Postgres::sql(&url, "SELECT id FROM fpesa_event WHERE doc IS NULL");
    assert_eq!(without.trim(), Uuid::from_u128(9).to_string());
}

async fn postgres_that_is_read_only_is_away_for_writing_and_there_for_reading(on: Release) {
    let server = Postgres::on(on);
    let url = server.database();
    let store = store::open(at(&url)).await.unwrap();
    store.append(&[event(1, 0, "m/a", "1")]).await.unwrap();
    store.check().await.unwrap();
    let read_only = |on: &str| {
        Postgres::sql(&url, &format!("ALTER SYSTEM SET default_transaction_read_only = {on}"));
        Postgres::sql(&url, "SELECT pg_reload_conf()");
    };
    read_only("on");
    eventually("it to be read-only", || async { store.check().await.is_err().then_some(()) }).await;
    let error = store.append(&[event(2, 0, "m/a", "1")]).await.unwrap_err();
    assert!(matches!(&error, StoreError::Away(why) if why.contains("25006")), "{error}");
    assert_eq!(store.page(&newest(5)).await.unwrap().items.len(), 1);
    // Started then, it reads all the same.
    let later = store::open(at(&url)).await.unwrap();
    assert_eq!(later.page(&newest(5)).await.unwrap().items.len(), 1);
    read_only("off");
    eventually("it to be writable", || async { store.check().await.is_ok().then_some(()) }).await;
    assert_eq!(later.append(&[event(2, 0, "m/a", "1")]).await.unwrap(), [Appended::Kept]);
}

/// As many entries of an index are read as a page has, wherever it is: what the server itself counts.
async fn postgres_reads_no_more_for_a_late_page_than_for_the_first(on: Release) {
    const EVENTS: i64 = 20_000;
    let server = Postgres::on(on);
    let url = server.database();
    let store = store::open(at(&url)).await.unwrap();
    for start in (0..EVENTS).step_by(5_000) {
        let batch: Vec<Event> =
            (start..start + 5_000).map(|n| event(n.unsigned_abs().into(), n, &format!("m/{}", n % 50), "0")).collect();
        store.append(&batch).await.unwrap();
    }
    Postgres::sql(&url, "VACUUM ANALYZE");
    // A connection tells its counts before it is gone.
    let gone = || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'fpesa'";
        (Postgres::sql(&url, sql).trim() == "0").then_some(())
    };
    drop(store);
    eventually("the connections to end", gone).await;
    let counted = |what: &str| {
        let sql = format!("SELECT pg_stat_force_next_flush(), {what}");
        Postgres::sql(&url, &sql).trim().trim_start_matches('|').parse::<i64>().unwrap()
    };
    let scans = "(SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'fpesa_event')";
    let read =
        "(SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE indexrelname = 'fpesa_event_by_time')";
    let before = (counted(scans), counted(read));
    let store = store::open(at(&url)).await.unwrap();
    let mut query = newest(1_000);
    // To the end by big steps, then small pages there.
    for _ in 0..EVENTS / 1_000 - 1 {
        query.from = From::Before(store.page(&query).await.unwrap().next.unwrap());
    }
    query.limit = 50;
    for _ in 0..15 {
        let page = store.page(&query).await.unwrap();
        assert_eq!(page.items.len(), 50);
        query.from = From::Before(page.next.unwrap());
    }
    let topics = PageQuery { topic: Some("m/+".parse().unwrap()), ..newest(50) };
    assert_eq!(store.page(&topics).await.unwrap().items.len(), 50);
    drop(store);
    eventually("the connections to end", gone).await;
    let pages = (EVENTS / 1_000 - 1) * 1_001 + 15 * 51;
    assert_eq!((counted(scans) - before.0, counted(read) - before.1), (0, pages));
}

#[tokio::test]
async fn mongodb_newer_than_we_and_many_at_the_first_start() {
    let server = Mongodb::start();
    let url = server.database();
    let opening = (0..8).map(|_| store::open(at(&url)));
    for opened in futures::future::join_all(opening).await {
        opened.unwrap();
    }
    let database = Mongodb::open(&url).await;
    let indexes = database.collection::<Document>("fpesa_event").list_index_names().await.unwrap();
    assert_eq!(indexes, ["_id_", "fpesa_by_place", "fpesa_by_topic"]);
    let schema = database.collection::<Document>("fpesa_schema");
    assert_eq!(schema.count_documents(doc! {}).await.unwrap(), 1);
    schema.update_one(doc! {}, doc! { "$set": { "version": 99 } }).await.unwrap();
    let error = store::open(at(&url)).await.err().unwrap().to_string();
    assert!(error.contains("newer fpesa") && error.contains("99"), "{error}");
}

/// What is exact is there for ad-hoc queries, as the types that one asks with; what is not has no mirror.
#[tokio::test]
async fn mongodb_keeps_a_mirror_where_it_is_exact() {
    let server = Mongodb::start();
    let url = server.database();
    let store = store::open(at(&url)).await.unwrap();
    let data = [
        r#"{"n":0.1,"whole":9007199254740993,"long":123456789012345678901234567890,"s":"\u0000"}"#,
        r#"{"$oid":"5f43a2b1c3d4e5f601234567"}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a.b":1}"#,
        "1e7000",
    ];
    for (n, data) in data.iter().enumerate() {
        assert_eq!(store.append(&[event(n as u128 + 1, 0, "m/a", data)]).await.unwrap(), [Appended::Kept]);
    }
    let events = Mongodb::open(&url).await.collection::<Document>("fpesa_event");
    let long: mongodb::bson::Decimal128 = "123456789012345678901234567890".parse().unwrap();
    for condition in [
        doc! { "doc.data.n": 0.1 },
        doc! { "doc.data.whole": 9_007_199_254_740_993_i64 },
        doc! { "doc.data.long": long },
        doc! { "doc.data.s": "\0" },
    ] {
        assert_eq!(events.count_documents(condition.clone()).await.unwrap(), 1, "{condition}");
    }
    assert_eq!(events.count_documents(doc! { "doc": Bson::Null }).await.unwrap(), 4);
}

#[tokio::test]
async fn mongodb_keeps_the_others_of_a_batch_with_one_that_it_refuses() {
    let server = Mongodb::start();
    let url = server.database();
    let store = store::open(at(&url)).await.unwrap();
    // Larger than a document may be.
    let large = format!("\"{}\"", "x".repeat(16 << 20));
    let batch = [event(30, 0, "m/a", "1"), event(31, 0, "m/a", &large), event(32, 0, "m/a", "1")];
    judge(&store.append(&batch).await.unwrap(), 2, "16 MiB");
    assert_eq!(ids(&store.page(&newest(50)).await.unwrap().items), [32, 30].map(Uuid::from_u128));
    let database = Mongodb::open(&url).await;
    let refuse = |condition: Document| {
        let database = database.clone();
        async move {
            let events = database.collection::<Document>("fpesa_event");
            events.delete_many(doc! {}).await.unwrap();
            let command = doc! { "collMod": "fpesa_event", "validator": condition };
            database.run_command(command).await.unwrap();
        }
    };
    // An operator's validator: what it refuses for its mirror is kept without, what it refuses anyway is refused.
    refuse(doc! { "doc.data": { "$ne": "poison" } }).await;
    assert!(store.append(&with_poison(9)).await.unwrap().iter().all(|appended| *appended == Appended::Kept));
    refuse(doc! { "_id": { "$ne": mongodb::bson::Uuid::from_bytes(*Uuid::from_u128(7).as_bytes()) } }).await;
    judge(&store.append(&with_poison(7)).await.unwrap(), 7, "121");
    assert_eq!(store.page(&newest(50)).await.unwrap().items.len(), 19);
}

/// A majority that does not have it in time: not success, and once it has, a duplicate.
#[tokio::test]
async fn mongodb_write_concern_errors_are_not_success() {
    let server = Mongodb::own(&["--setParameter", "enableTestCommands=1"]);
    let url = server.database();
    let store = store::open(at(&url)).await.unwrap();
    let admin = Mongodb::open(&url).await.client().database("admin");
    let fail = doc! {
        "configureFailPoint": "failCommand", "mode": { "times": 1 },
        "data": { "failCommands": ["insert"], "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" } },
    };
    // The topic is there already, so that the next insert is that of events.
    store.append(&[event(1, 0, "m/a", "1")]).await.unwrap();
    admin.run_command(fail).await.unwrap();
    let error = store.append(&[event(2, 0, "m/a", "1")]).await.unwrap_err();
    assert!(matches!(&error, StoreError::Away(why) if why.contains("majority") && why.contains("64")), "{error}");
    assert_eq!(store.append(&[event(2, 0, "m/a", "1")]).await.unwrap(), [Appended::Duplicate]);
}

#[tokio::test]
async fn mongodb_away_and_back() {
    let mut server = Mongodb::own(&[]);
    let url = server.database();
    let store = store::open(at(&url)).await.unwrap();
    store.append(&[event(1, 0, "m/a", "1")]).await.unwrap();
    server.kill9();
    assert!(matches!(store.append(&[event(2, 0, "m/a", "1")]).await, Err(StoreError::Away(_))));
    assert!(matches!(store.page(&newest(1)).await, Err(StoreError::Away(_))));
    // A store that is away is opened all the same.
    let later = store::open(at(&url)).await.unwrap();
    server.restart();
    for store in [store, later] {
        eventually("it to be back", || async { store.append(&[event(2, 0, "m/a", "1")]).await.ok() }).await;
        assert_eq!(store.page(&newest(10)).await.unwrap().items.len(), 2);
    }
}

/// A name that is not resolved yet is a store that is away, not a wrong setting.
#[tokio::test]
async fn mongodb_srv_without_its_name() {
    let opening = store::open(at("mongodb+srv://u@cluster.invalid/d"));
    let store = tokio::time::timeout(Duration::from_secs(30), opening).await.unwrap().unwrap();
    assert!(matches!(store.get(&Uuid::nil()).await, Err(StoreError::Away(_))));
}

#[tokio::test]
async fn mongodb_with_a_password_beside_the_url() {
    let mut server = Mongodb::own(&[]);
    let url = server.database();
    let create = doc! {
        "createUser": "worker", "pwd": "s3cret@:/", "roles": [{ "role": "root", "db": "admin" }],
        "writeConcern": { "w": "majority", "j": true },
    };
    Mongodb::open(&url).await.client().database("admin").run_command(create).await.unwrap();
    server.kill9();
    server.restart_with(&["--auth"]);
    let url = format!("{}authSource=admin", url.replace("mongodb://", "mongodb://worker@"));
    let with = |password| Access { url: &url, password: Some(password), data_dir: std::path::Path::new(".") };
    let store = store::open(with("s3cret@:/")).await.unwrap();
    assert_eq!(store.append(&[event(1, 0, "m/a", "1")]).await.unwrap(), [Appended::Kept]);
    let error = store::open(with("wr0ng")).await.err().unwrap();
    assert!(matches!(&error, StoreError::Settings(why) if !why.contains("wr0ng")), "{error}");
}
