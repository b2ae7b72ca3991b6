//! fpesa: a YAML table turns REST endpoints into RabbitMQ publishes and RPC calls.
//!
//! Reading order: [`message`] and [`topology`] are the nouns; [`bus`] is the port they travel through.

pub mod bus;
pub mod message;
pub mod topology;
