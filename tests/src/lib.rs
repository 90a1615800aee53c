//! Tests of feature-agent on the real kernel.
//!
//! The library holds the harness: an independent oracle, network namespaces, a packet capture, frame
//! injection, real traffic, and a runner for the built binary. The test targets under `tests/` use it.

pub mod agent;
pub mod attached;
pub mod awkward;
pub mod capture;
#[cfg(feature = "arrow")]
pub mod columns;
pub mod compare;
pub mod consumers;
pub mod craft;
pub mod fixtures;
pub mod frame;
pub mod fuzz;
pub mod gate;
pub mod generate;
pub mod host;
pub mod in_kernel;
pub mod in_replay;
pub mod inject;
pub mod lines;
pub mod machine;
pub mod mount;
pub mod nats;
pub mod netns;
pub mod oracle;
pub mod parity;
pub mod pcap;
pub mod peers;
pub mod privileges;
pub mod random;
pub mod scenario;
pub mod scrape;
pub mod stories;
pub mod sys;
pub mod tcpdump;
pub mod totals;
pub mod trade;
pub mod traffic;
pub mod tshark;
pub mod tunnels;
pub mod vectors;
