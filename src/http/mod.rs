//! The HTTP side: one generic handler for the table's routes, the system endpoints, the page. Statuses are decided in
//! [`problem`] alone.

pub mod assets;
mod body;
pub mod connection;
mod connection_io;
pub mod connections;
mod degraded;
pub mod documents;
pub mod explain;
pub mod feed;
pub mod gateway;
pub mod head;
pub mod intake;
pub mod metrics;
pub mod origin;
pub mod problem;
pub mod pulse;
pub mod reply;
pub mod server;
pub mod state;
pub mod system;
pub mod table;
mod validation;
pub mod vitals;
