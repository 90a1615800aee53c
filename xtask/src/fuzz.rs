//! `fuzz`: the fuzz targets under libFuzzer and AddressSanitizer.
//!
//! `fuzz/` is a workspace of its own, whose dependencies are locked to the versions of this one.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{project, root, shell, tools::Tool};

const CARGO_FUZZ: Tool =
    Tool { name: "cargo-fuzz", version: "0.13.2", flags: &[], takes: "a minute" };

/// How long each target is run if none is named.
const TURN: &str = "-max_total_time=120";
/// What holds for all inputs, and what saves time: longer ones find nothing that these do not.
const LIMITS: [&str; 3] = ["-max_len=8192", "-timeout=10", "-rss_limit_mb=1024"];

/// Runs the target that is named until it is stopped, or each for two minutes.
pub(crate) fn fuzz(args: &[String]) -> Result<()> {
    let (names, flags) = match args.iter().position(|arg| arg == "--") {
        Some(at) => (&args[..at], &args[at + 1..]),
        None => (args, &args[..0]),
    };
    let known = seeds(&[])?;
    let known: Vec<&str> = known.lines().collect();
    let chosen = match names {
        [] => known,
        [name] if known.contains(&name.as_str()) => vec![name.as_str()],
        [name] => bail!("there is no fuzz target `{name}`; there are {}", known.join(", ")),
        _ => bail!("`fuzz` takes one target, and what follows `--` goes to libFuzzer"),
    };
    root::need("c++", "g++")?;
    let here = project::root()?;
    let lock = here.join("fuzz/Cargo.lock");
    fs::copy(here.join("Cargo.lock"), &lock)
        .with_context(|| format!("cannot write {}", lock.display()))?;
    let fuzzer = CARGO_FUZZ.ensure()?;
    let (flags, files): (Vec<&String>, _) = flags.iter().partition(|flag| flag.starts_with('-'));
    let mut flags: Vec<&str> = flags.into_iter().map(String::as_str).collect();
    if names.is_empty() && !flags.iter().any(|flag| flag.starts_with("-max_total_time")) {
        flags.push(TURN);
    }
    for name in &chosen {
        shell::say(&format!("fuzzing {name}"));
        run(&fuzzer, name, &flags, &files)?;
    }
    Ok(())
}

/// Builds a target and runs it: over these files, or over its seeds, what was found before, and what comes of these.
fn run(fuzzer: &Path, name: &str, flags: &[&str], files: &[&String]) -> Result<()> {
    let target = project::target()?.join("fuzz");
    let mut command = Command::new(fuzzer);
    command.current_dir(project::root()?).args(["run", "--fuzz-dir", "fuzz", "--target-dir"]);
    command.arg(&target).arg(name);
    if files.is_empty() {
        let corpus = target.join("corpus").join(name);
        shell::say(&seeds(&[OsStr::new(name), corpus.as_os_str()])?);
        command.arg(&corpus);
        let found = project::root()?.join("fuzz/corpus").join(name);
        if found.is_dir() {
            command.arg(found);
        }
    }
    // The fuzzer runs in another folder.
    let here = env::current_dir().context("cannot tell which folder this is")?;
    command.args(files.iter().map(|file| here.join(file)));
    command.arg("--").args(LIMITS).args(flags);
    // The sanitizer's flag is unstable; this compiler has it all the same.
    shell::run(command.env("RUSTC_BOOTSTRAP", "1").env("CARGO", cargo_program()?))
}

fn cargo_program() -> Result<OsString> {
    Ok(project::cargo()?.get_program().to_owned())
}

/// Has the tests' library write a target's seeds into a folder, or, without words, list the targets.
fn seeds(words: &[&OsStr]) -> Result<String> {
    let mut cargo = project::cargo()?;
    cargo.args(["run", "--quiet", "--package", "feature-agent-tests", "--example", "fuzz_seeds"]);
    shell::read(cargo.arg("--").args(words))
}
