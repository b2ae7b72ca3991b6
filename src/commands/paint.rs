//! Colour, on a terminal only.

use std::io::IsTerminal as _;

/// Paints text, or leaves it as it is.
#[derive(Debug, Clone, Copy)]
pub struct Paint(bool);

impl Paint {
    /// For stdout: on a terminal, unless `NO_COLOR` is set.
    pub fn stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !unwanted)
    }

    /// For what counts.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// For what is said beside.
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// For what is well.
    pub fn good(self, text: &str) -> String {
        self.with("1;32", text)
    }

    /// For what is not.
    pub fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
