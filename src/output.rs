//! What a command says: results on stdout, all else on stderr. A reader that goes away, as `head` does, is no failure: it
//! has enough, and what is left to do is done all the same.

use std::io::{self, ErrorKind, Write};

/// Whether there is still somebody who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// It was written.
    There,
    /// Nothing that is written is read any more.
    Gone,
}

/// A line on stdout.
pub fn say(line: &str) -> anyhow::Result<()> {
    print(&format!("{line}\n"))
}

/// Text on stdout, as it is.
pub fn print(text: &str) -> anyhow::Result<()> {
    write_out(text.as_bytes()).map(drop)
}

/// Bytes on stdout, as they are.
pub fn write_out(bytes: &[u8]) -> anyhow::Result<Reader> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(anyhow::Error::from(error).context("stdout can't be written")),
    }
}

/// A line on stderr, for people. One that can't be written is lost. Text of others, such as a library's error, goes through
/// [`mask_text`](crate::settings::mask_text) first.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
