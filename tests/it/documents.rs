//! `/openapi.json` and `/asyncapi.json`: those of the table in force, valid by others' validators, and kept by what the
//! gateway answers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use serde_json::Value;

use crate::support::{
    app::{App, Start},
    eventually, root,
};

/// Tables whose documents are checked: the shipped one, one that uses the whole grammar, and the examples.
fn tables() -> Vec<PathBuf> {
    let mut tables = vec![root().join("routes.yaml"), root().join("tests/tables/rich/routes.yaml")];
    for example in fs::read_dir(root().join("examples")).into_iter().flatten() {
        tables.push(example.unwrap().path().join("routes.yaml"));
    }
    tables.retain(|table| table.exists());
    tables
}

async fn printed(command: &str, table: &Path, args: &[&str]) -> String {
    let table = table.to_str().unwrap();
    let (status, stdout, stderr) = Start::up().command(&[&[command, "--routes", table], args].concat()).run().await;
    assert_eq!(status, 0, "{table}: {stderr}");
    stdout
}

/// Prints the documents of all tables into files.
async fn files(command: &str, folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (index, table) in tables().iter().enumerate() {
        let bus = if index == 0 { "embedded:" } else { "amqp://me:s3cret@one:5672,two/v%20h" };
        let text = printed(command, table, &["--bus", bus]).await;
        assert!(!text.contains("s3cret"));
        let file = folder.join(format!("{index}.json"));
        fs::write(&file, text).unwrap();
        files.push(file);
    }
    assert!(files.len() >= 2);
    files
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: run scripts/setup"));
    // A line may be a body of a megabyte.
    let short = |line: &str| line.chars().take(1000).chain(['\n']).collect::<String>();
    let said = |bytes| String::from_utf8_lossy(bytes).lines().map(short).collect::<String>();
    assert!(output.status.success(), "{}\n{}", said(&output.stdout), said(&output.stderr));
}

#[tokio::test]
async fn openapi_documents_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    let files = files("openapi", folder.path()).await;
    let script = root().join("tests/it/python/check_openapi.py");
    succeeds(Command::new(root().join(".tools/venv/bin/python")).arg(script).args(&files));
}

#[tokio::test]
async fn asyncapi_documents_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    let files = files("asyncapi", folder.path()).await;
    succeeds(Command::new("node").arg(root().join("tests/asyncapi/check.js")).args(&files));
}

/// Calls `visit` on every value below one.
fn walk(value: &Value, visit: &mut dyn FnMut(&Value)) {
    visit(value);
    match value {
        Value::Object(members) => members.values().for_each(|value| walk(value, visit)),
        Value::Array(items) => items.iter().for_each(|value| walk(value, visit)),
        _ => {}
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere_in_the_document() {
    for command in ["openapi", "asyncapi"] {
        for table in tables() {
            let document: Value = serde_json::from_str(&printed(command, &table, &[]).await).unwrap();
            let mut seen = 0;
            walk(&document, &mut |value| {
                let Some(target) = value.get("$ref").and_then(Value::as_str) else { return };
                seen += 1;
                let pointer = target.strip_prefix('#').unwrap_or_else(|| panic!("{target} leads out"));
                let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8().unwrap();
                assert!(document.pointer(&pointer).is_some(), "{command} of {}: {target}", table.display());
            });
            assert!(seen > 5, "{command} of {}", table.display());
        }
    }
}

#[tokio::test]
async fn a_rich_table_is_told_whole() {
    let table = root().join("tests/tables/rich/routes.yaml");
    let document: Value = serde_json::from_str(&printed("openapi", &table, &[]).await).unwrap();
    let at = |pointer: &str| document.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not there"));

    // One path has one name for its parameter, and a catch-all gives way to what is more specific.
    let order = at("/paths/~1api~1orders~1{id}");
    assert_eq!(order["put"]["parameters"][0]["name"], "id");
    assert_eq!(order["delete"]["deprecated"], true);
    assert!(order["delete"]["responses"]["204"].get("content").is_none());
    assert_eq!(at("/paths/~1api~1files~1{name}/get")["operationId"], "file");
    assert_eq!(at("/paths/~1api~1files~1{path_1}~1{path}/get")["operationId"], "any-file");
    assert_eq!(at("/paths/~1api~1files~1{name}/put")["operationId"], "upload");

    // What each becomes on the bus.
    let marked = |pointer: &str| at(&format!("{pointer}/x-fpesa")).clone();
    assert_eq!(
        marked("/paths/~1api~1orders/post"),
        serde_json::json!({ "action": "publish", "exchange": "shop", "key": "orders.{header.x-tenant}.{body.kind}", "queue": null })
    );
    assert_eq!(marked("/paths/~1api~1orders~1{id}/get")["queue"], "orders.ask");
    assert_eq!(marked("/paths/~1api~1orders/get")["queue"], Value::Null);

    // References by anchor, pointer, file and address are all pointers now.
    let schemas = at("/components/schemas");
    let order = &schemas["order"];
    assert_eq!(order["properties"]["lines"]["items"]["$ref"], "#/components/schemas/order/$defs/line");
    assert_eq!(order["properties"]["parent"]["$ref"], "#/components/schemas/order");
    assert!(order.get("$id").is_none() && order["$defs"]["line"].get("$anchor").is_none());
    let tree = &schemas["shared.tree"];
    assert_eq!(tree["properties"]["children"]["items"]["$ref"], "#/components/schemas/shared.tree");
    assert_eq!(tree["properties"]["name"]["$ref"], "#/components/schemas/shared.names/$defs/name");
    assert_eq!(
        schemas["old"]["properties"]["pair"]["prefixItems"][1]["$ref"],
        "#/components/schemas/old/definitions/word"
    );
    assert_eq!(schemas["live.body"]["properties"]["point"]["$ref"], "#/components/schemas/live.body/$defs/point");

    // Examples are requests that the route takes: what its templates need is there.
    let body = &at("/paths/~1api~1orders/post/requestBody/content/application~1json")["example"];
    assert_eq!(body["kind"], "book");
    assert_eq!(body["lines"][0]["sku"], "AA-1111");
    let live = &at("/paths/~1api~1live~1{topic}/post/requestBody/content/application~1json")["example"];
    assert_eq!(live["point"], serde_json::json!([0, 0]));

    // A live-only route is never unroutable; another may be.
    let types = |pointer: &str| {
        at(&format!("/components/responses/{pointer}/content/application~1problem+json/examples")).clone()
    };
    assert!(types("publish.503").get("unroutable").is_some() && types("live.503").get("unroutable").is_some());
    for flavour in ["publish", "live", "call"] {
        assert!(types(&format!("{flavour}.502")).get("broker-refused").is_some(), "{flavour}");
    }
    assert!(types("call.503").get("no-worker").is_some() && types("publish.503").get("no-worker").is_none());
    assert_eq!(at("/paths/~1api~1live~1{topic}/post/responses/503")["$ref"], "#/components/responses/live.503");

    let document: Value = serde_json::from_str(&printed("asyncapi", &table, &[]).await).unwrap();
    let at = |pointer: &str| document.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not there"));
    let channel = at("/channels/route.place-order");
    assert_eq!(channel["address"], "orders.{header_x-tenant}.{body_kind}");
    assert_eq!(channel["parameters"]["body_kind"]["location"], "$message.payload#/data/kind");
    assert_eq!(channel["bindings"]["amqp"]["exchange"]["type"], "topic");
    assert_eq!(at("/operations/call.get-order/reply/channel/$ref"), "#/channels/replies");
    assert_eq!(at("/operations/publish.place-order/bindings/amqp")["expiration"], 60_000);
    let example = &at("/components/messages/publish.place-order/examples/0");
    assert_eq!(example["payload"]["type"], "com.example.order");
    assert_eq!(example["headers"]["tenant"], "aaa");
    assert_eq!(at("/channels/queue.orders.all/messages").as_object().unwrap().len(), 4);
    assert_eq!(at("/channels/feed.live__/messages").as_object().unwrap().len(), 1);
    // Draft 07's words for what the schemas say in newer ones.
    assert!(at("/components/schemas/order/dependencies/parent").is_array());
    assert!(at("/components/schemas/live.body/$defs/point/items").is_array());
}

#[tokio::test]
async fn served_as_printed_cached_and_renewed_by_a_reload() {
    let app = App::up().await;
    for (path, command) in [("/openapi.json", "openapi"), ("/asyncapi.json", "asyncapi")] {
        let response = app.get(path).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        let served: Value = response.json().await.unwrap();
        if command == "openapi" {
            let printed: Value =
                serde_json::from_str(&printed(command, &app.folder.path().join("routes.yaml"), &[]).await).unwrap();
            assert_eq!(served, printed);
        }
        let again = app.client.get(app.url(path)).header("if-none-match", format!("W/{tag}")).send().await.unwrap();
        assert_eq!(again.status(), 304);
        assert_eq!(again.text().await.unwrap(), "");
        let head = app.client.head(app.url(&format!("{path}/"))).send().await.unwrap();
        assert_eq!((head.status().as_u16(), head.headers()["etag"].to_str().unwrap()), (200, tag.as_str()));
        let post = app.post(path, "{}").await;
        assert_eq!((post.status().as_u16(), post.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD"));

        let route = format!(
            "  - {{ id: new-{command}, method: POST, path: /new-{command}, publish: {{ exchange: amq.topic, key: messages.new }} }}\n"
        );
        let table = app.read("routes.yaml").replacen("routes:\n", &format!("routes:\n{route}"), 1);
        app.edit("routes.yaml", &table);
        eventually("the new table's document", || async {
            let response = app.get(path).await;
            let other = response.headers()["etag"].to_str().unwrap() != tag;
            let text = response.text().await.unwrap();
            (other && text.contains(&format!("new-{command}"))).then_some(())
        })
        .await;
    }
    let (status, stdout, stderr) =
        Start::up().table("version: 1\nroutes: nonsense\n").command(&["openapi"]).run().await;
    assert_eq!((status, stdout.as_str()), (1, ""));
    assert!(stderr.contains("routes.yaml:2"), "{stderr}");
}

#[tokio::test]
async fn what_is_answered_is_what_is_documented() {
    let app = Start::up().env("FPESA_LIMITS__BODY_TIMEOUT", "2s").start().await;
    for text in ["one", "two", "three"] {
        app.keep(&format!("{{\"text\":\"{text}\"}}")).await;
    }
    app.kept(3).await;
    schemathesis(&app);

    let folder = Arc::new(tempfile::tempdir().unwrap());
    copy(&root().join("tests/tables/answering"), folder.path());
    schemathesis(&Start::up().folder(folder).start().await);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Sends what the document allows and what it does not, and compares every answer with it.
fn schemathesis(app: &App) {
    succeeds(
        Command::new(root().join(".tools/venv/bin/schemathesis"))
            .current_dir(app.folder.path())
            .arg("--config-file")
            .arg(root().join("tests/it/python/schemathesis.toml"))
            .args(["run", &app.url("/openapi.json")])
            .args(["--max-examples", "15", "--seed", "1", "--no-color", "--request-timeout", "30"]),
    );
}
