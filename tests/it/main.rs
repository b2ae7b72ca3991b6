//! The one integration-test binary: black box first, real executables and real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod architecture;
mod book;
mod broken;
mod bus_contract;
mod bus_embedded;
mod cases;
mod cli;
mod cluster;
mod copying;
mod documents;
mod examples;
mod explain;
mod exporting;
mod faults;
mod feed;
mod fuzz;
mod gateway;
mod grammar;
mod history;
mod import;
mod keeping;
mod links;
mod outages;
mod page;
mod rabbitmq;
mod reload;
mod replaying;
mod replica_set;
mod store_contract;
mod store_moving;
mod stores;
mod support;
mod swap;
mod table;
mod table_schema;
