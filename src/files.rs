//! The files of a table on disk. What it hands out stays within the table's folder, links followed.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::route::{
    problem::Source,
    schema::SchemaCache,
    source::{Files, MAX_FILE, Refused, Unreadable},
};

/// A table's files on disk.
#[derive(Debug, Clone)]
pub struct Disk {
    table: PathBuf,
    folder: PathBuf,
    /// What was made of the schemas, for all clones.
    schemas: Arc<SchemaCache>,
}

impl Disk {
    /// The table at `path`; its schemas stand in `schemas/` beside it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let table = path.into();
        let folder = match table.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Self { table, folder, schemas: Arc::default() }
    }

    /// The folder that the table, its schemas and its includes stand in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What an earlier compilation made of the schemas.
    pub fn schema_cache(&self) -> &SchemaCache {
        &self.schemas
    }

    /// The table's own path, as it was given.
    pub fn path(&self) -> &Path {
        &self.table
    }

    /// A folder below the table's, and every folder in it whose files may be the table's.
    pub fn folders(&self, below: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        folders(&self.folder.join(below), 0, &mut found);
        found
    }

    /// One file within `folder`, known to the user as `name`.
    fn within(&self, folder: &Path, relative: &str, name: &str) -> Result<Source, Refused> {
        let refused = |why| Refused { name: name.to_owned(), why };
        let path = folder.join(relative);
        let real = fs::canonicalize(&path).map_err(|error| refused(why(&error)))?;
        let home = fs::canonicalize(&self.folder).map_err(|error| refused(why(&error)))?;
        if !real.starts_with(&home) {
            return Err(refused(Unreadable::Outside));
        }
        read(&real, name)
    }
}

impl Files for Disk {
    fn table(&self) -> Result<Source, Refused> {
        read(&self.table, &self.table.display().to_string())
    }

    fn include(&self, glob: &str) -> Result<Vec<Source>, Refused> {
        let refused = |why| Refused { name: glob.to_owned(), why };
        if glob.starts_with('/') || glob.split('/').any(|part| part == "..") {
            return Err(refused(Unreadable::Outside));
        }
        let Ok(pattern) = glob::Pattern::new(glob) else {
            return Err(refused(Unreadable::Failed("this is no glob".into())));
        };
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let mut names = Vec::new();
        list(&self.folder, "", &mut names);
        names.retain(|name| pattern.matches_with(name, options));
        // `*.yaml` names the table too, which does not include itself.
        if let Ok(own) = fs::canonicalize(&self.table) {
            names.retain(|name| !fs::canonicalize(self.folder.join(name)).is_ok_and(|path| path == own));
        }
        names.sort();
        names.iter().map(|name| self.within(&self.folder, name, name)).collect()
    }

    fn schema(&self, name: &str) -> Result<Source, Refused> {
        self.within(&self.folder.join("schemas"), name, &format!("schemas/{name}"))
    }

    fn schemas(&self) -> Vec<String> {
        let mut names = Vec::new();
        list(&self.folder.join("schemas"), "", &mut names);
        names.retain(|name| Path::new(name).extension().is_some_and(|extension| extension == "json"));
        names.sort();
        names
    }
}

/// Deepest level that files are looked for in.
const DEEPEST: usize = 4;

/// Folders that hold other things, whatever a glob says.
fn is_skipped(name: &str) -> bool {
    name.starts_with('.') || matches!(name, "data" | "target" | "node_modules")
}

fn folders(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    const MOST: usize = 1_000;
    let Ok(entries) = fs::read_dir(folder) else { return };
    if found.len() >= MOST {
        return;
    }
    found.push(folder.to_owned());
    for entry in entries.flatten() {
        let below = entry.path();
        if depth < DEEPEST && !is_skipped(&entry.file_name().to_string_lossy()) && below.is_dir() {
            folders(&below, depth + 1, found);
        }
    }
}

/// Names of the files below a folder, at most a few levels deep, hidden ones left out.
fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    const MOST: usize = 10_000;
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if name.starts_with('.') || names.len() >= MOST {
            continue;
        }
        let path = entry.path();
        let skipped = is_skipped(&name);
        let name = format!("{prefix}{name}");
        if path.is_file() {
            names.push(name);
        } else if path.is_dir() && name.matches('/').count() < DEEPEST && !skipped {
            list(&path, &format!("{name}/"), names);
        }
    }
}

/// The text of any file, known to the user as `name`; at most [`MAX_FILE`] bytes of UTF-8.
pub fn read(path: &Path, name: &str) -> Result<Source, Refused> {
    let refused = |why| Refused { name: name.to_owned(), why };
    let file = fs::File::open(path).map_err(|error| refused(why(&error)))?;
    let mut bytes = Vec::new();
    // A device or a pipe has no size that could be asked for.
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| refused(why(&error)))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(refused(Unreadable::TooLarge));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|byte| *byte == b'\n');
        let line = before.count();
        refused(Unreadable::Failed(format!("it is not UTF-8 (line {line})")))
    })?;
    Ok(Source { name: name.into(), text: text.into() })
}

fn why(error: &io::Error) -> Unreadable {
    match error.kind() {
        io::ErrorKind::NotFound => Unreadable::Missing,
        io::ErrorKind::IsADirectory => Unreadable::Failed("it is a folder".into()),
        io::ErrorKind::PermissionDenied => Unreadable::Failed("it may not be read (permissions)".into()),
        _ => Unreadable::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::compile::compile;

    #[test]
    fn the_shipped_table_compiles_without_a_warning() {
        let compiled = compile(&Disk::new(concat!(env!("CARGO_MANIFEST_DIR"), "/routes.yaml")));
        let told: Vec<String> = compiled.problems.iter().map(|problem| problem.render(false)).collect();
        assert!(told.is_empty(), "{}", told.join("\n"));
        assert!(compiled.table.is_some());
    }
}
