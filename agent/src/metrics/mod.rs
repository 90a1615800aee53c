//! What the agent says about itself: Prometheus' text at `/metrics`, and `/healthz`.
//!
//! The main loop makes a [`Snapshot`] after a sweep and puts it up; a thread of its own serves the latest.
//! Neither ever waits for the other: whoever scrapes, however slowly, takes no time from the packets.

mod classic;
mod definitions;
mod health;
mod page;
mod server;
mod snapshot;
#[cfg(test)]
mod tests;

pub use self::{
    definitions::{METRICS, Metric},
    server::Server,
    snapshot::{Board, OutputStats, ProgramStats, Snapshot},
};
