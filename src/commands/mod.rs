//! Commands that are not servers, a file each: they say what was asked for on stdout, problems on stderr, and whether it
//! went well.

mod broker;
mod check;
pub mod copy;
mod documents;
mod explain;
pub mod export;
mod health;
mod import;
pub mod import_events;
mod paint;
pub mod patience;
mod reload;
pub mod replay;
mod routes;
mod schema;
mod stores;
mod test;

use std::io::IsTerminal as _;

pub use broker::{definitions, permissions};
pub use check::check;
pub use documents::{asyncapi, openapi};
pub use explain::{Request, explain};
pub use health::health;
pub use import::import;
pub use reload::reload;
pub use routes::routes;
pub use schema::schema;
pub use stores::PartFlags;
pub use test::test;

use crate::{output::note, route::problem::Problem};

/// Problems for people, on stderr.
pub(crate) fn show(problems: &[Problem]) {
    let colour = colour();
    for problem in problems {
        note(&problem.render(colour));
    }
}

/// Colour on a terminal, unless the user wants none (<https://no-color.org>).
fn colour() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    std::io::stderr().is_terminal() && !unwanted
}
