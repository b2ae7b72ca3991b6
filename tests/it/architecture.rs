//! The arrows between the rooms: what must not depend on what.

use std::{fs, path::Path, process::Command};

use crate::support::root;

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn the_core_is_pure() {
    let mut files = Vec::new();
    sources(&root().join("src/route"), &mut files);
    for name in ["message.rs", "topology.rs", "units.rs"] {
        files.push((name.into(), fs::read_to_string(root().join("src").join(name)).unwrap()));
    }
    assert!(files.len() > 15);
    for (name, text) in files {
        for banned in [
            "tokio",
            "axum",
            "hyper",
            "lapin",
            "amq_protocol",
            "rusqlite",
            "reqwest",
            "std::fs",
            "std::net",
            "std::env",
            "SystemTime::now",
            "now_utc",
        ] {
            assert!(!text.contains(banned), "{name} is of the pure core and names {banned}");
        }
    }
}

#[test]
fn the_workers_know_no_bus_and_no_http() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "-p",
            "fpesa-workers",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("rusqlite"), "{tree}");
    for line in tree.lines() {
        let name = line.split(' ').next().unwrap_or("");
        let banned =
            ["axum", "hyper", "http", "reqwest", "lapin", "amq-protocol", "rmqtt-codec", "tokio-tungstenite", "fpesa"];
        assert!(!banned.contains(&name), "fpesa-workers must not depend on {name}");
    }
}
