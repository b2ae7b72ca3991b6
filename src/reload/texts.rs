//! What a table was compiled from, kept as the questions that the compiler asked of its files and a digest of the answers:
//! asked again, the same answers mean the same table.

use std::{cell::RefCell, fmt::Write as _};

use sha2::{Digest as _, Sha256};

use crate::{
    files::Disk,
    route::{
        compile::{Compiled, compile_again},
        problem::Source,
        source::{Files, Refused},
    },
};

/// A question that the compiler asked.
#[derive(Debug, Clone)]
enum Asked {
    Table,
    Include(String),
    Schema(String),
    Schemas,
}

/// The texts of one compilation.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    asked: Vec<Asked>,
    /// SHA-256 of all answers, in hexadecimal. The name that the table was given by is no part of it.
    pub digest: String,
    /// SHA-256 of the schemas alone: one that others refer to changes what they mean.
    pub schemas: String,
    /// The table's own text, when there was one.
    pub table: Option<Source>,
    /// Names of the files that were read beside the table, relative to its folder; those that were not there too.
    pub names: Vec<String>,
}

/// Compiles, and tells from what.
pub fn compile_noting(files: &Disk) -> (Compiled, Texts) {
    let noting = Noting::new(files);
    let compiled = compile_again(&noting, files.schema_cache());
    (compiled, noting.texts())
}

impl Texts {
    /// Whether the files still say the same. Reads, and compiles nothing.
    pub fn still(&self, files: &Disk) -> bool {
        let noting = Noting::new(files);
        for asked in &self.asked {
            match asked {
                Asked::Table => drop(noting.table()),
                Asked::Include(glob) => drop(noting.include(glob)),
                Asked::Schema(name) => drop(noting.schema(name)),
                Asked::Schemas => drop(noting.schemas()),
            }
        }
        noting.texts().digest == self.digest
    }

    /// The `include` globs.
    pub fn globs(&self) -> impl Iterator<Item = &str> {
        self.asked.iter().filter_map(|asked| match asked {
            Asked::Include(glob) => Some(glob.as_str()),
            _ => None,
        })
    }
}

#[derive(Default)]
struct Noted {
    texts: Texts,
    all: Sha256,
    schemas: Sha256,
}

fn hexadecimal(sum: Sha256) -> String {
    let mut text = String::new();
    for byte in sum.finalize() {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Hands on what `files` has, and notes it.
struct Noting<'a> {
    files: &'a Disk,
    noted: RefCell<Noted>,
}

impl<'a> Noting<'a> {
    fn new(files: &'a Disk) -> Self {
        Self { files, noted: RefCell::default() }
    }

    fn texts(self) -> Texts {
        let Noted { texts, all, schemas } = self.noted.into_inner();
        Texts { digest: hexadecimal(all), schemas: hexadecimal(schemas), ..texts }
    }

    fn note<'s>(&self, asked: Asked, answer: impl IntoIterator<Item = (&'s str, &'s str)>) {
        let Noted { texts, all, schemas } = &mut *self.noted.borrow_mut();
        let mut add = |text: &str| {
            let length = u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes();
            let schemas = matches!(asked, Asked::Schema(_)).then_some(&mut *schemas);
            for sum in [Some(&mut *all), schemas].into_iter().flatten() {
                sum.update(length);
                sum.update(text);
            }
        };
        for (name, text) in answer {
            add(name);
            add(text);
            if !name.is_empty() {
                texts.names.push(name.to_owned());
            }
        }
        add("");
        texts.asked.push(asked);
    }
}

impl Files for Noting<'_> {
    fn table(&self) -> Result<Source, Refused> {
        let source = self.files.table();
        match &source {
            Ok(table) => {
                self.note(Asked::Table, [("", &*table.text)]);
                self.noted.borrow_mut().texts.table = Some(table.clone());
            }
            // What can't be read is noted too: that it can be, later, is a change.
            Err(refused) => self.note(Asked::Table, [("", &*refused.why.to_string())]),
        }
        source
    }

    fn include(&self, glob: &str) -> Result<Vec<Source>, Refused> {
        let included = self.files.include(glob);
        let asked = Asked::Include(glob.to_owned());
        match &included {
            Ok(sources) => self.note(asked, sources.iter().map(|source| (&*source.name, &*source.text))),
            Err(refused) => self.note(asked, [(refused.name.as_str(), &*refused.why.to_string())]),
        }
        included
    }

    fn schema(&self, name: &str) -> Result<Source, Refused> {
        let source = self.files.schema(name);
        let asked = Asked::Schema(name.to_owned());
        match &source {
            Ok(schema) => self.note(asked, [(&*schema.name, &*schema.text)]),
            Err(refused) => self.note(asked, [(refused.name.as_str(), &*refused.why.to_string())]),
        }
        source
    }

    fn schemas(&self) -> Vec<String> {
        let names = self.files.schemas();
        self.note(Asked::Schemas, names.iter().map(|name| ("", name.as_str())));
        names
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_digest_is_of_the_texts_and_of_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        fs::create_dir(folder.path().join("schemas")).unwrap();
        write(
            "routes.yaml",
            "version: 1\ninclude: [\"more/*.yaml\"]\nroutes:\n  - { id: a, method: POST, path: /a, body: { schema: a.json }, \
             publish: { exchange: amq.topic, key: a } }\n",
        );
        let files = Disk::new(folder.path().join("routes.yaml"));
        let mut seen = compile_noting(&files).1;
        assert!(seen.still(&files));
        assert_eq!(seen.globs().collect::<Vec<_>>(), ["more/*.yaml"]);
        let mut differs = |what: &str| {
            assert!(!seen.still(&files), "{what}");
            let again = compile_noting(&files).1;
            assert_ne!(again.digest, seen.digest, "{what}");
            assert!(again.still(&files), "{what}");
            seen = again;
        };
        write("schemas/a.json", "{}");
        differs("a schema that was missing");
        write("schemas/b.json", "{}");
        differs("a schema that nobody names");
        fs::create_dir(folder.path().join("more")).unwrap();
        write("more/b.yaml", "routes: []");
        differs("an include");
        fs::rename(folder.path().join("more/b.yaml"), folder.path().join("more/c.yaml")).unwrap();
        differs("an include's name");
        fs::remove_file(folder.path().join("more/c.yaml")).unwrap();
        differs("no include");
        // Where it stands is no part of it.
        let elsewhere = Disk::new(folder.path().join("./routes.yaml"));
        assert_eq!(compile_noting(&elsewhere).1.digest, seen.digest);
    }
}
