//! What a large table costs: `table [ROUTES]` prints as JSON how long compiling takes and how long matching takes, in a
//! table of that many routes and in one of ten.

use std::{
    fmt::Write as _,
    hint::black_box,
    time::{Duration, Instant},
};

use fpesa::route::{
    compile::compile,
    file::Method,
    source::Memory,
    table::{Match, Table},
};

/// Routes in one file: an included file of 1 MiB holds some more.
const A_FILE: usize = 1_000;
const SAMPLES: usize = 41;

/// A table as a large API has it: nested resources, parameters of several types, bodies with schemas, publishes and calls.
fn files(routes: usize) -> Memory {
    let head = "version: 1\nbase_path: /api/v1\ninclude: routes/*.yaml\nqueues:\n";
    let mut files = Memory { table: head.to_owned(), ..Memory::default() };
    for queue in 0..routes.div_ceil(100) {
        let _ = writeln!(
            files.table,
            "  q{queue}:\n    bind: [{{ exchange: amq.topic, key: \"area-{queue}.#\" }}]\n  q{queue}.calls: {{ type: rpc }}"
        );
    }
    for schema in 0..routes.div_ceil(20) {
        let text = format!(
            r#"{{"type":"object","required":["sku"],"properties":{{"sku":{{"type":"string","pattern":"^[A-Z]{{2,{}}}$"}}}}}}"#,
            schema % 50 + 3
        );
        files.schemas.insert(format!("body-{schema}.json"), text);
    }
    for first in (0..routes).step_by(A_FILE) {
        let mut text = String::from("routes:\n");
        for n in first..routes.min(first + A_FILE) {
            route(&mut text, n);
        }
        files.included.insert(format!("routes/{first:06}.yaml"), text);
    }
    files
}

fn route(text: &mut String, n: usize) {
    let (area, schema) = (n / 100, n / 20);
    let _ = if n.is_multiple_of(2) {
        write!(
            text,
            "  - id: add-{n}\n    method: POST\n    path: /area-{area}/things-{n}\n    body: {{ schema: body-{schema}.json }}\n    \
             publish:\n      exchange: amq.topic\n      key: \"area-{area}.{{body.sku}}\"\n"
        )
    } else {
        write!(
            text,
            "  - id: get-{n}\n    method: GET\n    path: /area-{area}/things-{n}/{{id}}\n    params:\n      path: {{ id: {{ type: \
             string, format: uuid }} }}\n      query: {{ limit: {{ type: integer, minimum: 1, maximum: {} }} }}\n    call: {{ \
             queue: q{area}.calls }}\n",
            n + 100
        )
    };
}

/// A request of each route.
fn requests(routes: usize) -> Vec<(Method, String)> {
    (0..routes)
        .map(|n| {
            let area = n / 100;
            if n.is_multiple_of(2) {
                (Method::Post, format!("/api/v1/area-{area}/things-{n}"))
            } else {
                (Method::Get, format!("/api/v1/area-{area}/things-{n}/0193f1c2-7d3a-7c3e-9d4e-0123456789ab"))
            }
        })
        .collect()
}

fn compiled(routes: usize) -> (Table, Duration) {
    let files = files(routes);
    let start = Instant::now();
    let compiled = compile(&files);
    let took = start.elapsed();
    let errors: Vec<String> = compiled.problems.iter().take(3).map(|problem| problem.render(false)).collect();
    match compiled.table {
        Some(table) => (table, took),
        None => panic!("the table of the benchmark is wrong:\n{}", errors.join("\n")),
    }
}

/// Nanoseconds of finding a route, over `count` times in all.
fn matching(table: &Table, requests: &[(Method, String)], count: usize) -> f64 {
    let start = Instant::now();
    let mut done = 0;
    while done < count {
        for (method, path) in requests {
            let found = black_box(table.find(*method, black_box(path)));
            assert!(matches!(found, Match::Found(..)));
        }
        done += requests.len();
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(u32::try_from(done).unwrap_or(u32::MAX))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let routes: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let compiling: Vec<f64> = (0..5).map(|_| compiled(routes).1.as_secs_f64()).collect();
    let (many, _) = compiled(routes);
    let (few, _) = compiled(10);
    let all = requests(routes);
    // One route at a time, as hot as it gets, taken from all over the table; then every route in turn, cold.
    let (mut hot, mut hot_few, mut turn, mut turn_few) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for sample in 0..SAMPLES {
        let at = sample * (routes - 1) / (SAMPLES - 1);
        hot.push(matching(&many, &all[at..=at], 100_000));
        let at = at % 2;
        hot_few.push(matching(&few, &all[at..=at], 100_000));
        turn.push(matching(&many, &all, routes));
        turn_few.push(matching(&few, &all[..10], routes));
    }
    let ratios: Vec<f64> = hot.iter().zip(&hot_few).map(|(many, few)| many / few).collect();
    println!(
        "{{\"routes\":{routes},\"compile_s\":{:.3},\"match_ns\":{:.0},\"match_of_ten_ns\":{:.0},\"ratio\":{:.2},\"in_turn_ns\":{:.0},\
         \"in_turn_of_ten_ns\":{:.0}}}",
        median(compiling),
        median(hot),
        median(hot_few),
        median(ratios),
        median(turn),
        median(turn_few),
    );
}
