//! The one integration-test binary: black box first, real executables and real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod architecture;
mod book;
mod bus_contract;
mod bus_embedded;
mod cases;
mod cli;
mod cluster;
mod documents;
mod examples;
mod explain;
mod faults;
mod feed;
mod gateway;
mod history;
mod import;
mod links;
mod rabbitmq;
mod reload;
mod store_contract;
mod support;
mod swap;
mod table;
