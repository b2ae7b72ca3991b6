//! fpesa: a YAML table turns REST endpoints into RabbitMQ publishes and RPC calls.
//!
//! Reading order: [`message`] and [`topology`] are the nouns; [`route`] turns the table and a request into them;
//! [`bus`] is the port they travel through; [`http`] and [`feed`] face the clients; [`runner`] joins queues to workers;
//! [`app`] joins everything. [`docs`] describes a table to others. [`settings`] and [`cli`] are what a process is told;
//! [`commands`] are those that serve nothing; [`ask`] asks a running gateway.

pub mod app;
pub mod ask;
pub mod broker;
pub mod bus;
pub mod cases;
pub mod cli;
pub mod commands;
mod damper;
mod descriptors;
pub mod docs;
pub mod feed;
pub mod files;
pub mod http;
pub mod import;
pub mod json;
pub mod live;
pub mod logging;
pub mod message;
pub mod output;
pub mod reload;
pub mod route;
pub mod runner;
pub mod settings;
pub mod signal;
pub mod tail;
pub mod topology;
pub mod units;
