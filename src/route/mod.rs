//! The pure core: from the text of `routes.yaml` to a table, and from a request to what goes to the bus.
//! No runtime, no HTTP, no bus and no file may enter here.
//!
//! Reading order: [`source`] and [`problem`], [`yaml`] and [`decode`], [`grammar`] and [`structure`] (what may be written),
//! [`file`] and [`read`] (what is), [`compile`] (checked), [`table`] (in force), then [`map`] with [`params`], [`escapes`], [`json`], [`template`] and [`invalid`] for each request.

pub mod compile;
pub mod decode;
pub mod escapes;
pub mod file;
pub mod grammar;
pub mod invalid;
pub mod json;
pub mod json_tree;
pub mod map;
pub mod matcher;
pub mod params;
pub mod problem;
pub mod read;
pub mod schema;
pub mod source;
pub mod structure;
pub mod table;
pub mod table_schema;
pub mod template;
pub mod validator;
pub mod why;
pub mod yaml;
