//! What the compiler asks of the outside: the texts that a table names. The core reads no file itself.

use std::collections::BTreeMap;

use super::problem::Source;

/// The files of one table, looked up by names relative to the table's folder.
pub trait Files {
    /// The table itself.
    fn table(&self) -> Result<Source, Refused>;

    /// Files that an `include` glob names, in order of name. None is an empty list.
    fn include(&self, glob: &str) -> Result<Vec<Source>, Refused>;

    /// One file of `schemas/`, by its name in there (`message.json`, `common/money.json`).
    fn schema(&self, name: &str) -> Result<Source, Refused>;

    /// Names of all files of `schemas/`, sorted.
    fn schemas(&self) -> Vec<String>;
}

/// A file whose text is not to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// As the user knows it.
    pub name: String,
    /// Why.
    pub why: Unreadable,
}

/// Why a file's text is not to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// There is no such file.
    #[error("there is no such file")]
    Missing,
    /// The name leads out of the folder it must stay in (`..`, an absolute path, a link).
    #[error("the name leads out of its folder")]
    Outside,
    /// It is over [`MAX_FILE`].
    #[error("it is larger than 1 MiB")]
    TooLarge,
    /// It is there, and can't be read; the system's words.
    #[error("{0}")]
    Failed(String),
}

/// Largest file of a table, in bytes.
pub const MAX_FILE: u64 = 1024 * 1024;

/// A table that is nowhere but in memory, for tests and measurements.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The table's own text.
    pub table: String,
    /// Texts of included files by name; every `include` names them all.
    pub included: BTreeMap<String, String>,
    /// Texts of the files of `schemas/` by their names in there.
    pub schemas: BTreeMap<String, String>,
}

impl Files for Memory {
    fn table(&self) -> Result<Source, Refused> {
        text("routes.yaml", &self.table)
    }

    fn include(&self, _: &str) -> Result<Vec<Source>, Refused> {
        self.included.iter().map(|(name, content)| text(name, content)).collect()
    }

    fn schema(&self, name: &str) -> Result<Source, Refused> {
        let shown = format!("schemas/{name}");
        match self.schemas.get(name) {
            Some(content) => text(&shown, content),
            None => Err(Refused { name: shown, why: Unreadable::Missing }),
        }
    }

    fn schemas(&self) -> Vec<String> {
        self.schemas.keys().cloned().collect()
    }
}

fn text(name: &str, text: &str) -> Result<Source, Refused> {
    if text.len() as u64 > MAX_FILE {
        return Err(Refused { name: name.to_owned(), why: Unreadable::TooLarge });
    }
    Ok(Source { name: name.into(), text: text.into() })
}
