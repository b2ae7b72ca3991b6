//! What is done with the bytes: they are compiled as `fpesa check` does, and what is told is shown. Also replayed by a plain
//! test, over the corpus.

use fpesa::route::{
    compile::compile, file::Method, grammar, invalid::body_errors, source::Memory, structure, table::Match,
    validator::Budget, yaml,
};

/// Parts are separated by this line: the table, `schemas/message.json`, `schemas/other.json`, an included file.
const BETWEEN: &str = "\n=====\n";

/// Compiling ends, what it tells can be shown, and what it accepts can be used.
pub fn table(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split(BETWEEN);
    let mut files = Memory { table: parts.next().unwrap_or_default().to_owned(), ..Memory::default() };
    for name in ["message.json", "other.json"] {
        if let Some(part) = parts.next() {
            files.schemas.insert(name.to_owned(), part.to_owned());
        }
    }
    if let Some(part) = parts.next() {
        files.included.insert("more/routes.yaml".to_owned(), part.to_owned());
    }
    let compiled = compile(&files);
    let mut last = None;
    for problem in &compiled.problems {
        assert!(problem.line >= 1 && problem.column >= 1 && !problem.message.is_empty());
        assert!(!problem.render(false).is_empty() && !problem.render(true).is_empty());
        let place = (problem.file.clone(), problem.line, problem.column);
        assert!(last.is_none_or(|last| last <= place), "sorted by place");
        last = Some(place);
    }
    serde_json::to_string(&compiled.problems).expect("problems are JSON");
    let Some(table) = compiled.table else {
        assert!(!compiled.problems.is_empty(), "what is refused is told");
        return;
    };
    for route in &table.routes {
        let example: String = route.path.replace(['{', '}', '*'], "");
        if let Match::Found(found, _) = table.find(route.method, &example) {
            assert_eq!(found.method, route.method);
        }
        if let Some(schema) = route.body.as_ref().and_then(|body| body.schema.as_ref()) {
            for value in [serde_json::json!({}), serde_json::json!([{"text": "x", "a": [1]}]), serde_json::json!("x")] {
                let _ = body_errors(&schema.validator, &value, &mut Budget::steps(1_000_000));
            }
        }
    }
    let _ = table.find(Method::Get, "/a/b/c");
    // What compiles has the structure that the grammar asks for.
    let source = fpesa::route::problem::Source { name: "routes.yaml".into(), text: files.table.as_str().into() };
    let mut problems = Vec::new();
    let root = yaml::parse(&source).expect("a table that compiles is YAML");
    structure::check(&source, &root, &grammar::TABLE, "the table", &mut problems);
    assert!(problems.is_empty());
}
