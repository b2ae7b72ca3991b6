//! `tests/broken/`: tables with mistakes, each with what `fpesa check` says of it in `expected.txt`. After a change on
//! purpose, `FPESA_BLESS=1 cargo nextest run -E 'test(/^broken::/)'` writes them anew: read the difference as a user would.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::support::root;

fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        fs::read_dir(root().join("tests/broken")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn check(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fpesa"));
    command.arg("check").args(args).current_dir(folder).output().unwrap()
}

#[test]
fn each_is_told_as_expected() {
    let bless = std::env::var_os("FPESA_BLESS").is_some();
    let (mut count, mut different) = (0, Vec::new());
    for folder in folders() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let output = check(&folder, &["routes.yaml"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.stdout.is_empty(), "{name}");
        let warned = name.starts_with("warning-");
        assert_eq!(output.status.code(), Some(i32::from(!warned)), "{name}\n{said}");
        let expected = folder.join("expected.txt");
        if bless {
            fs::write(&expected, &said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            different.push(format!("--- {name}\n{said}"));
        }
        count += 1;
    }
    assert!(count > 60, "{count} tables");
    assert!(different.is_empty(), "these differ from their expected.txt:\n{}", different.join("\n"));
}

/// What programs read says the same, with the fields that they count on.
#[test]
fn each_is_told_to_programs_alike() {
    for folder in folders() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let output = check(&folder, &["--format", "json"]);
        assert!(output.stderr.is_empty(), "{name}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(stdout.lines().count(), 1, "{name}");
        let problems: Vec<Value> = serde_json::from_str(&stdout).unwrap();
        let text = fs::read_to_string(folder.join("expected.txt")).unwrap();
        let mut places = Vec::new();
        for problem in &problems {
            let mut fields: Vec<&str> = problem.as_object().unwrap().keys().map(String::as_str).collect();
            fields.sort_unstable();
            assert_eq!(fields, ["code", "column", "file", "hint", "line", "message", "severity"], "{name}");
            let part = |field: &str| problem[field].as_str().unwrap_or_default().to_owned();
            let (file, line, column) = (part("file"), problem["line"].as_u64(), problem["column"].as_u64());
            let (line, column) = (line.unwrap(), column.unwrap());
            let told = format!("{file}:{line}:{column}: {}[{}]: {}", part("severity"), part("code"), part("message"));
            assert!(text.lines().any(|line| line == told), "{name}: {told}\n{text}");
            // A sentence that says what to do, and never the inside of a library.
            assert!(!part("hint").is_empty(), "{name}: {told} has no hint");
            assert!(!part("message").contains("Error("), "{name}: {told}");
            // The place is there, but for a file that is missing or empty.
            let source = fs::read_to_string(folder.join(&file)).unwrap_or_default();
            if let Some(shown) = source.lines().nth(usize::try_from(line).unwrap() - 1) {
                assert!(column <= shown.chars().count() as u64 + 1, "{name}: {told}");
            } else {
                assert!(line == 1 || source.lines().count() as u64 + 1 == line, "{name}: {told}");
            }
            places.push((file, line, column));
        }
        assert!(!places.is_empty() && places.is_sorted(), "{name}: {places:?}");
        let errors = problems.iter().any(|problem| problem["severity"] == "error");
        assert_eq!(output.status.code(), Some(i32::from(errors)), "{name}");
    }
}

#[test]
fn denied_warnings_are_errors() {
    let folder = root().join("tests/broken/warning-unreceived");
    let output = check(&folder, &["--format", "json", "--deny-warnings"]);
    assert_eq!(output.status.code(), Some(1));
    let problems: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(problems.iter().all(|problem| problem["severity"] == "error"), "{problems:?}");
    // A table without a mistake has an empty array.
    let output = check(&root(), &["--format", "json", "--deny-warnings"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"[]\n".as_slice()));
}

/// Colour is for terminals, and for those who want it.
#[test]
fn colour_on_a_terminal_alone() {
    let folder = root().join("tests/broken/unknown-queue");
    let on_a_terminal = |wish: Option<&str>| {
        let mut command = Command::new("script");
        command.args(["-qec", &format!("{} check routes.yaml", env!("CARGO_BIN_EXE_fpesa")), "/dev/null"]);
        command.env("TERM", "xterm").env_remove("NO_COLOR").envs(wish.map(|wish| ("NO_COLOR", wish)));
        String::from_utf8(command.current_dir(&folder).output().unwrap().stdout).unwrap()
    };
    let painted = on_a_terminal(None);
    assert!(painted.contains("\x1b[1;31merror[unknown-queue]:\x1b[0m"), "{painted:?}");
    assert!(on_a_terminal(Some("")).contains('\x1b'));
    let plain = on_a_terminal(Some("1"));
    assert!(plain.contains("error[unknown-queue]:") && !plain.contains('\x1b'), "{plain:?}");
    assert!(!String::from_utf8(check(&folder, &[]).stderr).unwrap().contains('\x1b'));
}
