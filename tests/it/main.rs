//! The one integration-test binary: black box first, real executables and real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod architecture;
mod broken;
mod bus_contract;
mod bus_embedded;
mod cli;
mod cluster;
mod faults;
mod feed;
mod fuzz;
mod gateway;
mod grammar;
mod history;
mod links;
mod rabbitmq;
mod reload;
mod store_contract;
mod support;
mod swap;
mod table;
mod table_schema;
