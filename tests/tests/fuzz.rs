//! The fuzz targets' bodies over their seeds, over mutants of those, and over what fuzzing has found before.

use std::{fs, path::Path};

use feature_agent_tests::fuzz::{Mutator, TARGETS, Target, target};
use nix::sys::resource::{Resource, setrlimit};

/// No input may need more memory than this program with it: a length that a file claims is not believed.
const ADDRESS_SPACE: u64 = 4 << 30;

/// `mutants`: as many as take a few seconds.
fn run(name: &str, mutants: usize) {
    setrlimit(Resource::RLIMIT_AS, ADDRESS_SPACE, ADDRESS_SPACE).expect("a limit");
    let target = target(name).expect("a target");
    let seeds = (target.seeds)();
    assert!(seeds.len() > 5, "{} seeds", seeds.len());
    for (at, seed) in seeds.iter().enumerate() {
        on(target, &format!("seed {at}"), seed);
    }
    for (name, input) in findings(name) {
        on(target, &name, &input);
    }
    let mut mutator = Mutator::new(1);
    for at in 0..mutants {
        on(target, &format!("mutant {at}"), &mutator.mutant(&seeds));
    }
}

/// Runs a body; if it panics, the input is left for a look, and named.
fn on(target: &Target, what: &str, input: &[u8]) {
    let result = std::panic::catch_unwind(|| (target.body)(input));
    if let Err(panic) = result {
        let file = std::env::temp_dir().join(format!("feature-agent-fuzz-{}", target.name));
        let kept = fs::write(&file, input);
        eprintln!(
            "{}, {what}, {} bytes, in {}: {kept:?}",
            target.name,
            input.len(),
            file.display()
        );
        std::panic::resume_unwind(panic);
    }
}

/// What `fuzz/corpus` holds for a target.
fn findings(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let Ok(entries) = fs::read_dir(&folder) else { return Vec::new() };
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        let content = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path.display().to_string(), content)
    };
    entries.map(read).collect()
}

#[test]
fn capture() {
    run("capture", 300);
}

#[test]
fn filter() {
    run("filter", 2000);
}

#[test]
fn parse() {
    run("parse", 20_000);
}

#[test]
fn record() {
    run("record", 2000);
}

#[test]
fn replay() {
    run("replay", 150);
}

#[test]
fn window() {
    run("window", 200);
}

#[test]
fn every_target_is_run_here_and_built_for_the_fuzzer() {
    let here = include_str!("fuzz.rs");
    let manifest = include_str!("../../fuzz/Cargo.toml");
    for Target { name, .. } in TARGETS {
        assert!(here.contains(&format!("run(\"{name}\",")), "{name} is not run here");
        assert!(
            manifest.contains(&format!("name = \"{name}\"\n")),
            "{name} is not in fuzz/Cargo.toml"
        );
    }
}
