//! fpesa: a YAML table turns REST endpoints into RabbitMQ publishes and RPC calls.
//!
//! Reading order: [`message`] and [`topology`] are the nouns; [`route`] turns the table and a request into them;
//! [`bus`] is the port they travel through.

pub mod bus;
pub mod files;
pub mod message;
pub mod route;
pub mod topology;
pub mod units;
