//! The pure core: from the text of `routes.yaml` to a table, and from a request to what goes to the bus.
//! No runtime, no HTTP, no bus and no file may enter here.
//!
//! Reading order: [`source`] and [`problem`], [`yaml`] and [`decode`], [`file`] (as written), [`compile`] (checked),
//! [`table`] (in force), then [`map`] with [`params`], [`json`], [`template`] and [`invalid`] for each request.

pub mod compile;
pub mod decode;
pub mod file;
pub mod invalid;
pub mod json;
pub mod map;
pub mod params;
pub mod problem;
pub mod schema;
pub mod source;
pub mod table;
pub mod template;
pub mod why;
pub mod yaml;
