//! `fpesa import`: what comes out of a document passes `check`, means what the document says, and overwrites nothing.

use std::{collections::BTreeSet, fs, path::Path};

use fpesa::route::{problem::Source, yaml};
use serde_json::{Value, json};

use crate::support::{app::Start, root};

/// What came of an import: the folder it went to, and what was said.
struct Made {
    start: Start,
    stdout: String,
    stderr: String,
}

/// Imports a document of `tests/openapi/` into `out/`, and lets `check` judge it.
async fn import(document: &str) -> Made {
    let path = root().join("tests/openapi").join(document).display().to_string();
    let start = Start::up().command(&["import", &path, "--out", "out"]);
    let folder = start.shared();
    let (status, stdout, stderr) = start.run().await;
    assert_eq!(status, 0, "{stdout}{stderr}");
    let start = || Start::up().folder(folder.clone());
    let check = start().command(&["check", "out/routes.yaml", "--format", "json"]);
    let (status, problems, _) = check.run().await;
    let table = fs::read_to_string(folder.path().join("out/routes.yaml")).unwrap();
    assert_eq!(status, 0, "{problems}\n{table}");
    Made { start: start(), stdout, stderr }
}

impl Made {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.start.path().join("out").join(name)
    }

    fn table(&self) -> String {
        fs::read_to_string(self.path("routes.yaml")).unwrap()
    }

    fn schema(&self, name: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path("schemas").join(name)).unwrap()).unwrap()
    }

    fn schemas(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.path("schemas")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// What `explain` says of a request to the new table.
    async fn explain(&self, args: &[&str]) -> Value {
        let start = Start::up().folder(self.start.shared());
        let start = start.command(&["explain", "--routes", "out/routes.yaml", "--format", "json"]).args(args);
        let (_, stdout, stderr) = start.run().await;
        serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{args:?}: {stdout}{stderr}"))
    }
}

#[tokio::test]
async fn petstore() {
    let made = import("petstore.yaml").await;
    assert_eq!(made.stdout.trim(), "out/routes.yaml: 8 routes, 5 schemas, 5 warnings", "{}", made.stderr);
    let expected =
        ["Category.json", "Pet.json", "Status.json", "findPetsByStatus.reply.json", "getInventory.reply.json"];
    assert_eq!(made.schemas(), expected.map(str::to_owned).into());

    let pet = made.schema("Pet.json");
    assert_eq!(pet["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(pet["required"], json!(["name", "photoUrls"]), "what only answers have is not required of requests");
    let properties = &pet["properties"];
    assert_eq!(properties["nickname"], json!({ "type": ["string", "null"] }));
    assert_eq!(properties["size"]["enum"], json!(["small", "large", null]));
    assert_eq!(properties["weight"], json!({ "type": "number", "exclusiveMinimum": 0 }));
    assert_eq!(properties["parent"]["anyOf"], json!([{ "allOf": [{ "$ref": "Pet.json" }] }, { "type": "null" }]));
    assert_eq!(properties["name"]["examples"], json!(["doggie"]));
    assert!(made.schema("Category.json")["properties"]["name"].get("pattern").is_none());
    assert!(made.stderr.contains("petstore.yaml:143:40: warning[left-out]: this pattern"), "{}", made.stderr);

    let shown = made.explain(&["PUT", "/api/v3/pet", "--data", r#"{"name":"Rex","photoUrls":[],"parent":null}"#]).await;
    assert_eq!((&shown["route"], &shown["key"]), (&json!("updatePet"), &json!("swagger-petstore.pet.updatePet")));
    let shown =
        made.explain(&["PUT", "/api/v3/pet", "--data", r#"{"name":"Rex","photoUrls":["no uri"],"weight":0}"#]).await;
    assert_eq!(shown["problem"]["errors"].as_array().map(Vec::len), Some(2), "{shown}");
    let shown = made.explain(&["GET", "/api/v3/pet/findByStatus?status=sold,pending"]).await;
    assert_eq!(shown["params"]["query"], json!({ "limit": 10, "status": ["sold", "pending"] }));
    assert_eq!(shown["queue"], "swagger-petstore.query.pet");
    for wrong in ["status=lost", "limit=0", "limit=101"] {
        let shown = made.explain(&["GET", &format!("/api/v3/pet/findByStatus?{wrong}")]).await;
        assert_eq!(shown["problem"]["status"], 422, "{wrong}");
    }
    let shown = made.explain(&["GET", "/api/v3/pet/7"]).await;
    assert_eq!(shown["params"]["path"]["petId"], 7);
    let upload =
        ["POST", "/api/v3/pet/7/uploadImage", "--header", "Content-Type: application/octet-stream", "--data", "x"];
    let shown = made.explain(&upload).await;
    assert_eq!((&shown["payload"], &shown["action"]), (&json!("x"), &json!("publish")));
    let table = made.table();
    assert!(
        table.contains("status: 204") && table.contains("status: 201") && table.contains("deprecated: true"),
        "{table}"
    );
    assert!(table.contains("# the body is taken as application/json alone, and not as application/xml"), "{table}");
}

#[tokio::test]
async fn combinations_of_3_1() {
    let made = import("events-3.1.json").await;
    let table = made.table();
    assert!(table.contains("base_path: /live/v2"), "{table}");
    let event = made.schema("Event.json");
    assert_eq!(event["oneOf"], json!([{ "$ref": "Meeting.json" }, { "$ref": "Call.json" }]));
    assert!(event.get("discriminator").is_none());
    assert_eq!(made.schema("Tree.json")["patternProperties"], json!({ "^x-": true }));
    assert_eq!(made.schema("Leaf.json")["anyOf"], json!([{ "$ref": "Tree.json" }, { "type": "null" }]));

    let base = [
        "GET",
        "/live/v2/events?page=2&since=2026-01-01T00:00:00Z&ratio=1.5&flags=%7B%7D&ids=1%7C2",
        "--header",
        "X-Trace: a",
    ];
    let shown = made.explain(&base).await;
    let query = json!({ "since": "2026-01-01T00:00:00Z", "page": 2, "sort": "newest", "ratio": 1.5, "ids": "1|2", "flags": "{}" });
    assert_eq!(shown["params"]["query"], query, "{shown}");
    let shown = made.explain(&["GET", "/live/v2/events?page=0&sort=nope&since=x"]).await;
    assert_eq!(shown["problem"]["errors"].as_array().map(Vec::len), Some(4), "{shown}");
    for what in ["`filter`", "`session`"] {
        assert!(
            table.contains(&format!("# the parameter {what}")) || table.contains(&format!("# the cookie {what}")),
            "{table}"
        );
        assert!(made.stderr.contains(what), "{}", made.stderr);
    }
    let kind = ["--header", "Content-Type: application/vnd.events+json", "--data"];
    let post = |data| [&["POST", "/live/v2/events"][..], &kind, &[data]].concat();
    let good = made.explain(&post(r#"{"kind":"call","number":"+49"}"#)).await;
    assert_eq!(good["route"], "create");
    assert_eq!(good["action"], "publish");
    let deep = made.explain(&post(r#"{"kind":"call","number":"1","tags":{"left":{"right":{"left":1}}}}"#)).await;
    assert_eq!(deep["problem"]["errors"][0]["pointer"], "/tags/left/right", "{deep}");
    let wrong = made.explain(&["PATCH", "/live/v2/events", "--data", "[1]"]).await;
    assert_eq!(
        (&wrong["route"], &wrong["problem"]["errors"][0]["pointer"]),
        (&json!("create-2"), &json!("/0")),
        "{wrong}"
    );
    assert!(made.stderr.contains("webhooks"), "{}", made.stderr);
}

#[tokio::test]
async fn odd_documents() {
    let made = import("odd.yaml").await;
    let table = made.table();
    assert!(table.contains("base_path: /api"), "reserved paths move aside: {table}");
    for left_out in [
        "# left out: GET /files/{name}.{ext}:",
        "# left out: GET /with space:",
        "# left out: GET relative:",
        "# left out: HEAD /no/id:",
        "# left out: OPTIONS /no/id:",
    ] {
        assert!(table.contains(left_out), "{left_out}\n{table}");
    }
    // The second of two routes that match alike is a comment.
    assert!(table.contains("#- id: same-path") && table.contains("matched already"), "{table}");
    for (told, times) in [("other.yaml", 1), ("Missing", 1), ("multipart/form-data", 1), ("round and round", 1)] {
        assert!(made.stderr.matches(told).count() >= times, "{told}: {}", made.stderr);
    }
    assert!(!made.stderr.contains("error"), "{}", made.stderr);
    for (method, path, route) in [
        ("GET", "/api", "get"),
        ("GET", "/api/docs", "get-docs"),
        ("GET", "/api/no/id", "get-no-id"),
        ("GET", "/api/users/x", "get-users-user_id"),
        ("DELETE", "/api/broken/1/2?size=2", "delete-all-of-it"),
    ] {
        let shown = made.explain(&[method, path]).await;
        assert_eq!(shown["route"], route, "{method} {path}: {shown}");
        assert!(shown.get("problem").is_none(), "{shown}");
    }
    let form = ["--header", "Content-Type: multipart/form-data; boundary=x", "--data", "--x--"];
    let shown = made.explain(&[&["POST", "/api/no/id"][..], &form].concat()).await;
    assert_eq!((&shown["payload"], &shown["route"]), (&json!("--x--"), &json!("post-no-id")));
    let names: BTreeSet<String> = made.schemas().iter().map(|name| name.to_lowercase()).collect();
    assert_eq!(names.len(), made.schemas().len(), "names differ in more than their capitals");
    assert!(!names.contains("routes.schema.json"), "{names:?}");
}

#[tokio::test]
async fn nothing_is_overwritten() {
    let document = root().join("tests/openapi/petstore.yaml").display().to_string();
    let start = Start::up().command(&["import", &document]);
    let folder = start.shared();
    let before = fs::read_to_string(folder.path().join("routes.yaml")).unwrap();
    let (status, stdout, stderr) = start.run().await;
    assert_eq!((status, stdout.as_str()), (1, ""));
    assert!(stderr.contains("routes.yaml") && stderr.contains("--out"), "{stderr}");
    assert_eq!(fs::read_to_string(folder.path().join("routes.yaml")).unwrap(), before);
    assert!(!folder.path().join("schemas/Pet.json").exists());
    // One schema in the way is enough, and nothing else is written either.
    fs::create_dir_all(folder.path().join("out/schemas")).unwrap();
    fs::write(folder.path().join("out/schemas/Pet.json"), "{}").unwrap();
    let again = Start::up().folder(folder.clone()).command(&["import", &document, "--out", "out"]);
    let (status, _, stderr) = again.run().await;
    assert!(status == 1 && stderr.contains("out/schemas/Pet.json"), "{stderr}");
    assert!(!folder.path().join("out/routes.yaml").exists());
}

#[tokio::test]
async fn what_is_no_openapi_is_told_and_leaves_nothing() {
    let bomb = format!(
        "openapi: 3.0.0\na: &a [x,x,x,x,x,x,x,x,x]\n{}",
        (0..8).map(|n| format!("a{n}: &a{n} [*a,*a,*a]\n")).collect::<String>()
    );
    for (text, place, told) in [
        ("", "1:1", "no OpenAPI document"),
        ("- a\n", "1:1", "no OpenAPI document"),
        ("hello", "1:1", "no OpenAPI document"),
        ("{\"a\":", "", "no YAML"),
        ("info: {}\npaths: { /a: {} }\n", "1:1", "no OpenAPI document"),
        ("swagger: '2.0'\npaths: { /a: {} }\n", "1:10", "Swagger 2.0"),
        ("asyncapi: 3.0.0\n", "1:11", "AsyncAPI"),
        ("openapi: 3.2.0\npaths: { /a: {} }\n", "1:10", "OpenAPI 3.2.0"),
        ("openapi: 2\npaths: { /a: {} }\n", "1:10", "OpenAPI 2"),
        ("openapi: 3.0.3\ninfo: {}\n", "1:1", "no `paths`"),
        ("openapi: 3.0.3\npaths: {}\n", "2:1", "no `paths`"),
        ("openapi: 3.0.3\npaths: [a]\n", "2:1", "no `paths`"),
        (&bomb, "1:1", "no `paths`"),
    ] {
        let start = Start::up().command(&["import", "doc.yaml", "--out", "out"]);
        let folder = start.shared();
        start.write("doc.yaml", text);
        let (status, stdout, stderr) = start.run().await;
        assert_eq!((status, stdout.as_str()), (1, ""), "{text:.60}: {stderr}");
        assert!(stderr.contains(told) && stderr.contains(&format!("doc.yaml:{place}")), "{text:.60}: {stderr}");
        assert!(!Path::new(&folder.path().join("out")).exists());
    }
    let (status, _, stderr) = Start::up().command(&["import", "missing.yaml", "--out", "out"]).run().await;
    assert!(status == 1 && stderr.contains("missing.yaml"), "{stderr}");
}

#[tokio::test]
async fn a_document_of_which_nothing_is_left_is_a_table_without_routes() {
    for text in [
        "openapi: 3.0.3\npaths: { '/{a}-{b}': { get: {} } }\n",
        "openapi: 3.1.0\npaths: { /a: { trace: {} }, /b: nope, /c: { get: nope, parameters: nope } }\n",
    ] {
        let start = Start::up().command(&["import", "doc.yaml", "--out", "out"]);
        let folder = start.shared();
        start.write("doc.yaml", text);
        let (status, stdout, stderr) = start.run().await;
        assert_eq!(status, 0, "{stderr}");
        assert!(stdout.contains("0 routes"), "{stdout}");
        let (status, _, stderr) = Start::up().folder(folder).command(&["check", "out/routes.yaml"]).run().await;
        assert_eq!(status, 0, "{stderr}");
    }
}

/// Places all over a document, with the value there replaced by something else: whatever it is, there is a table that compiles, or
/// a reason why the document is none.
#[test]
fn no_document_is_too_odd() {
    fn places(value: &Value, here: &str, found: &mut Vec<String>) {
        let mut inner = |token: &str, value: &Value| {
            places(value, &format!("{here}/{}", token.replace('~', "~0").replace('/', "~1")), found);
        };
        match value {
            Value::Object(members) => members.iter().for_each(|(name, value)| inner(name, value)),
            Value::Array(items) => items.iter().enumerate().for_each(|(at, value)| inner(&at.to_string(), value)),
            _ => {}
        }
        found.push(here.to_owned());
    }
    let others = [
        json!(null),
        json!("x"),
        json!(-7.5),
        json!([]),
        json!({}),
        json!([{}]),
        json!({ "$ref": "#/paths" }),
        json!(true),
    ];
    let (mut made, mut refused) = (0, 0);
    for name in ["petstore.yaml", "events-3.1.json", "odd.yaml"] {
        let text = fs::read_to_string(root().join("tests/openapi").join(name)).unwrap();
        let source = |text: &str| Source { name: name.into(), text: text.into() };
        let document = yaml::parse(&source(&text)).unwrap().to_json();
        let mut all = Vec::new();
        places(&document, "", &mut all);
        // Some of them, each time with another value: all take a minute.
        for (index, place) in all.iter().enumerate().step_by(13) {
            let mut changed = document.clone();
            changed.pointer_mut(place).unwrap().clone_from(&others[index % others.len()]);
            match fpesa::import::import(source(&changed.to_string())) {
                Ok(imported) => made += usize::from(imported.table.starts_with("# Made by")),
                Err(problems) => {
                    refused += 1;
                    assert!(
                        !problems.is_empty() && problems.iter().all(|p| p.code == "not-openapi"),
                        "{place}: {problems:#?}"
                    );
                }
            }
        }
    }
    assert!(made > 40 && refused < 10, "{made} {refused}");
}

#[tokio::test]
async fn a_table_that_would_be_too_large_does_without_descriptions() {
    let operation =
        |n: usize| format!("  /a{n}:\n    get: {{ description: '{}', responses: {{}} }}\n", "long ".repeat(300));
    let paths: String = (0..1_000).map(operation).collect();
    let start = Start::up().command(&["import", "doc.yaml", "--out", "out"]);
    let folder = start.shared();
    start.write("doc.yaml", &format!("openapi: 3.0.3\npaths:\n{paths}"));
    let (status, stdout, stderr) = start.run().await;
    assert!(status == 0 && stdout.contains("1000 routes"), "{stdout}{stderr}");
    assert!(stderr.contains("doc.yaml:2:1: warning[left-out]: the table would be larger"), "{stderr}");
    let (status, _, stderr) = Start::up().folder(folder).command(&["check", "out/routes.yaml"]).run().await;
    assert_eq!(status, 0, "{stderr}");
}
