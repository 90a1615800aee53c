//! Fuzz targets: what each does with any bytes, and what it starts from.
//!
//! The bodies here are run by libFuzzer (`fuzz/`, `cargo xtask fuzz`) and, over seeds, their mutants and the
//! committed findings, by `cargo test`. A body panics if something does not hold that holds for all bytes.

mod capture;
mod filter;
mod input;
mod mutate;
mod parse;
mod record;
mod replay;
mod seeds;
mod window;

pub use mutate::Mutator;

/// Something that takes any bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder of findings.
    pub name: &'static str,
    /// Panics over bytes that show a fault.
    pub body: fn(&[u8]),
    /// Inputs that reach far, made by the generators.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target { name: "capture", body: capture::body, seeds: seeds::captures },
    Target { name: "filter", body: filter::body, seeds: filter::seeds },
    Target { name: "parse", body: parse::body, seeds: parse::seeds },
    Target { name: "record", body: record::body, seeds: record::seeds },
    Target { name: "replay", body: replay::body, seeds: replay::seeds },
    Target { name: "window", body: window::body, seeds: window::seeds },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Runs the body of the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    let target = target(name).unwrap_or_else(|| panic!("there is no target {name}"));
    (target.body)(bytes);
}
