//! The one integration-test binary: black box first, real executables and real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
