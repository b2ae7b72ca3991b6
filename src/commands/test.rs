//! `fpesa test`: cases of a table, run without a bus.

use std::path::{Path, PathBuf};

use super::{paint::Paint, show};
use crate::{
    cases::{self, Case, Difference},
    files::{self, Disk},
    http::explain::explain,
    output::say,
    route::{
        compile::{Compiled, compile},
        problem::{Place, Problem, Source},
    },
};

/// What the files of cases that belong to a table are called.
const CASES: &str = ".cases.yaml";

/// `fpesa test`: whether the table does what the cases say. Without `files` those beside the table are run.
pub fn test(table: &Path, files: &[PathBuf]) -> anyhow::Result<bool> {
    let disk = Disk::new(table);
    let Compiled { table: compiled, problems } = compile(&disk);
    show(&problems);
    let Some(compiled) = compiled else { return Ok(false) };
    let beside = if files.is_empty() { beside(disk.folder()) } else { Vec::new() };
    let files = if files.is_empty() { &beside } else { files };
    if files.is_empty() {
        anyhow::bail!("there is no *{CASES} beside {}: write one, or name a file", table.display());
    }
    let paint = Paint::stdout();
    let (mut passed, mut failed, mut unread) = (0, 0, 0);
    for file in files {
        let name = file.display().to_string();
        let cases = match files::read(file, &name) {
            Ok(source) => {
                let (cases, problems) = cases::read(&source, file.parent().unwrap_or(Path::new("")));
                show(&problems);
                if problems.is_empty() { cases } else { Vec::new() }
            }
            Err(refused) => {
                let source = Source { name: name.as_str().into(), text: "".into() };
                let message = format!("the cases can't be read: {}", refused.why);
                show(&[Problem::at(&source, Place::default(), "unreadable", message)]);
                Vec::new()
            }
        };
        if cases.is_empty() {
            unread += 1;
        }
        for case in &cases {
            let differences = case.expect.differences(&explain(&compiled, &case.asked));
            if differences.is_empty() {
                passed += 1;
            } else {
                failed += 1;
            }
            report(&name, case, &differences, paint)?;
        }
    }
    let not_run = if unread > 0 { format!("; {unread} of {} files not run", files.len()) } else { String::new() };
    let cases = if passed + failed == 1 { "1 case".to_owned() } else { format!("{} cases", passed + failed) };
    say(&format!("{cases}: {passed} passed, {failed} failed{not_run}"))?;
    Ok(failed == 0 && unread == 0)
}

fn beside(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_one = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(CASES));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_one).collect();
    files.sort();
    // As the user would name it.
    files.into_iter().map(|file| file.strip_prefix("./").map(Path::to_owned).unwrap_or(file)).collect()
}

/// A line for the case, and below it what is not as expected.
fn report(file: &str, case: &Case, differences: &[Difference], paint: Paint) -> anyhow::Result<()> {
    let verdict = if differences.is_empty() { paint.good("ok  ") } else { paint.bad("FAIL") };
    let place = format!("{file}:{}", case.at.line);
    say(&format!("{verdict}  {}  {}", paint.dim(&place), case.name))?;
    for difference in differences {
        say(&format!("      {}", paint.bold(&difference.place)))?;
        say(&format!("        expected  {}", paint.good(&difference.expected)))?;
        say(&format!("        actual    {}", paint.bad(&difference.actual)))?;
    }
    Ok(())
}
