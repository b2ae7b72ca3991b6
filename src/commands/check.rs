//! `fpesa check`: every problem of a table.

use std::path::Path;

use super::show;
use crate::{
    cli::Format,
    files::Disk,
    output::{note, say},
    route::{
        compile::{Compiled, MOST_PROBLEMS, compile},
        problem::Severity,
    },
};

/// `fpesa check`: whether the table can take effect.
pub fn check(file: &Path, format: Format, deny_warnings: bool) -> anyhow::Result<bool> {
    let Compiled { mut problems, .. } = compile(&Disk::new(file));
    if deny_warnings {
        for problem in &mut problems {
            problem.severity = Severity::Error;
        }
    }
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = problems.len() - errors;
    match format {
        Format::Json => say(&serde_json::to_string(&problems)?)?,
        Format::Text => {
            show(&problems);
            let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
            note(&format!("{}: {}, {}", file.display(), count(errors, "error"), count(warnings, "warning")));
            if problems.len() == MOST_PROBLEMS {
                note(&format!("there are more: these {MOST_PROBLEMS} come first"));
            }
        }
    }
    Ok(errors == 0)
}
