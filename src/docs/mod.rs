//! The documents of a table: OpenAPI for its HTTP side, AsyncAPI for its messages. Pure functions of the table and the
//! settings; the same table gives the same bytes.
//!
//! Reading order: `schemas` and `sample` (with `example`) prepare what both need; `openapi` with `paths`,
//! `parts`, `problems` and `system`; `asyncapi` with `messages` and `servers`. `dialect` is for both.

mod asyncapi;
mod dialect;
mod example;
mod messages;
mod openapi;
mod parts;
mod paths;
mod problems;
mod sample;
mod schemas;
mod servers;
mod system;

pub use asyncapi::asyncapi;
pub use openapi::openapi;
