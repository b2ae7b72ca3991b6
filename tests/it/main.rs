//! The one integration-test binary: black box first, real executables and real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bus_contract;
mod bus_embedded;

mod feed;

mod rabbitmq;

mod support;
