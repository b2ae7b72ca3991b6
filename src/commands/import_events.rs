//! `fpesa import-events`: the reverse of `export`. What is wrong with a line is told, and nothing after it is lost.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;
use fpesa_workers::{
    event::Event,
    lines,
    store::{Appended, Store, patiently},
};

use super::{
    patience::Limit,
    stores::{Use, open},
};
use crate::{
    app::Usage,
    cli::Common,
    output::{note, say},
    settings::Settings,
};

/// Most events, and about the most bytes, of one batch.
const BATCH: usize = 1_000;
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Longest line that is taken: no store keeps a larger document.
const LONGEST: u64 = 1024 * 1024 * 1024;

/// Flags of `import-events`.
#[derive(Debug, Args)]
pub struct ImportEventsArgs {
    /// The file; - is the standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// Keep trying while a server is away, instead of giving up after 10 s
    #[arg(long)]
    pub wait: bool,
    /// Settings
    #[command(flatten)]
    pub common: Common,
}

/// Examples of `import-events`.
pub const EXAMPLES: &str = "Examples:
  fpesa import-events history.ndjson --store postgres://fpesa@db/fpesa
  zcat history.ndjson.gz | fpesa import-events - --store embedded:
One CloudEvent in JSON a line, as `fpesa export` prints them; what is there already is skipped.";

/// `fpesa import-events`: `false` when a line was not taken.
pub async fn import_events(args: &ImportEventsArgs, settings: &Settings) -> anyhow::Result<bool> {
    let mut input: Box<dyn BufRead> = if args.file.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let shown = args.file.display();
        Box::new(BufReader::new(File::open(&args.file).map_err(|error| Usage(format!("{shown}: {error}")))?))
    };
    let store = open("store", settings.store_access(), Use::Write, Limit::of(args.wait)).await?;
    let mut import = Import { store, batch: Vec::new(), bytes: 0, imported: 0, present: 0, refused: 0 };
    let mut number = 0_u64;
    loop {
        number += 1;
        match read_line(&mut input).with_context(|| format!("line {number} can't be read"))? {
            Line::End => break,
            Line::TooLong => import.refuse(number, &format!("it is longer than {LONGEST} bytes")),
            Line::Read(line) => import.take(number, &line).await?,
        }
    }
    import.write().await?;
    let Import { imported, present, refused, .. } = import;
    say(&format!("imported {imported}, present {present}, refused {refused}"))?;
    Ok(refused == 0)
}

enum Line {
    Read(Vec<u8>),
    TooLong,
    End,
}

/// The next line with its end; one that is too long is read to its end and forgotten.
fn read_line(input: &mut dyn BufRead) -> io::Result<Line> {
    let mut line = Vec::new();
    input.take(LONGEST).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(Line::End);
    }
    if line.ends_with(b"\n") || (line.len() as u64) < LONGEST {
        return Ok(Line::Read(line));
    }
    drop(line);
    input.skip_until(b'\n')?;
    Ok(Line::TooLong)
}

struct Import {
    store: Arc<dyn Store>,
    /// Events with their lines, not written yet.
    batch: Vec<(u64, Event)>,
    bytes: usize,
    imported: u64,
    present: u64,
    refused: u64,
}

impl Import {
    async fn take(&mut self, number: u64, line: &[u8]) -> anyhow::Result<()> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        match Event::parse(lines::read(line).into()) {
            Ok(event) => {
                self.bytes += event.text.len();
                self.batch.push((number, event));
            }
            Err(why) => {
                let why = why.0.replace("the body is", "it is").replace(" at line 1 column", " at column");
                self.refuse(number, &why);
            }
        }
        if self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES { self.write().await } else { Ok(()) }
    }

    fn refuse(&mut self, number: u64, why: &str) {
        self.refused += 1;
        note(&format!("fpesa: line {number}: {why}"));
    }

    async fn write(&mut self) -> anyhow::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        let Some((first, _)) = batch.first() else { return Ok(()) };
        let first = *first;
        let (numbers, events): (Vec<u64>, Vec<Event>) = batch.into_iter().unzip();
        let appended = patiently(|| self.store.append(&events)).await.with_context(|| {
            format!("what is before line {first} is imported; run it again for the rest: what is there is skipped")
        })?;
        for ((number, event), appended) in numbers.into_iter().zip(&events).zip(appended) {
            match appended {
                Appended::Kept => self.imported += 1,
                Appended::Duplicate => self.present += 1,
                Appended::Conflict => {
                    let why = format!(
                        "the id {} is another event's (of another type, subject or data) in the store",
                        event.id
                    );
                    self.refuse(number, &why);
                }
                Appended::Refused(why) => self.refuse(number, &why),
            }
        }
        Ok(())
    }
}
