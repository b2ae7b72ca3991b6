//! `fpesa import`: a table from an OpenAPI document.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::show;
use crate::{
    import::{Imported, import as import_document},
    output::say,
    route::problem::Source,
};

/// Largest document that is read, in bytes.
const MOST: u64 = 32 * 1024 * 1024;

/// `fpesa import`: writes `routes.yaml` and `schemas/` into a folder; nothing that is there is touched.
pub fn import(file: &Path, out: &Path) -> anyhow::Result<bool> {
    let name = file.display().to_string();
    let size = fs::metadata(file).with_context(|| format!("{name} can't be read"))?.len();
    if size > MOST {
        bail!("{name} is larger than {} MiB", MOST / 1024 / 1024);
    }
    let text = fs::read_to_string(file).with_context(|| format!("{name} can't be read"))?;
    let imported = match import_document(Source { name: name.into(), text: text.into() }) {
        Ok(imported) => imported,
        Err(problems) => {
            show(&problems);
            return Ok(false);
        }
    };
    show(&imported.warnings);
    let table = out.join("routes.yaml");
    write(&imported, &table, &out.join("schemas"))?;
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let (routes, schemas) = (count(imported.routes, "route"), count(imported.schemas.len(), "schema"));
    say(&format!("{}: {routes}, {schemas}, {}", table.display(), count(imported.warnings.len(), "warning")))?;
    Ok(true)
}

/// All files or none: what is there already is told before anything is written.
fn write(imported: &Imported, table: &Path, schemas: &Path) -> anyhow::Result<()> {
    let mut files: Vec<(PathBuf, &str)> =
        imported.schemas.iter().map(|(name, text)| (schemas.join(name), text.as_str())).collect();
    files.push((table.to_owned(), &imported.table));
    let there: Vec<String> = files
        .iter()
        .filter(|(path, _)| path.symlink_metadata().is_ok())
        .map(|(path, _)| path.display().to_string())
        .collect();
    if !there.is_empty() {
        bail!(
            "nothing is overwritten, and this is there already: {} (name another folder with --out)",
            there.join(", ")
        );
    }
    let folder = if imported.schemas.is_empty() { table.parent().unwrap_or(schemas) } else { schemas };
    fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
    for (at, (path, text)) in files.iter().enumerate() {
        if let Err(error) = create(path, text) {
            // What was made so far goes again, but not what somebody else made in the meantime.
            let mine = if error.kind() == io::ErrorKind::AlreadyExists { at } else { at + 1 };
            files[..mine].iter().for_each(|(path, _)| drop(fs::remove_file(path)));
            return Err(error).with_context(|| format!("{} can't be written", path.display()));
        }
    }
    Ok(())
}

fn create(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}
