//! The daemon: loads the kernel program, attaches it to interfaces, and turns its records into lines.
//!
//! ```text
//! cli → settings → daemon ─┬─ bpf        load, attach, sweep, ring: the only user of aya
//!                          ├─ watch      links that come and go
//!                          ├─ line       record → JSON
//!                          ├─ sink       lines → a file, by a thread of its own
//!                          └─ metrics    what the agent says about itself
//! ```

pub mod bpf;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod filter;
pub mod generate;
pub mod interface;
pub mod layout;
pub mod line;
pub mod logging;
pub mod manager;
pub mod metrics;
mod netlink;
mod prefetch;
pub mod privilege;
pub mod process;
pub mod readable;
pub mod replay;
pub mod report;
pub mod schema;
pub mod settings;
pub mod sink;
pub mod status;
pub mod watch;
