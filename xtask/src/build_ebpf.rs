//! `build-ebpf`: the kernel program, compiled to the object that the agent embeds.
//!
//! The object is committed, so that building the agent needs neither rust-src nor bpf-linker. What
//! is committed must be what the sources give, on any machine: nothing of the checkout's, cargo's
//! or the toolchain's place on this disk may reach it.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{project, shell, strip, tools::Tool};

/// The package of the kernel program.
pub(crate) const PACKAGE: &str = "agent-ebpf";

/// The object's place in the project.
const OBJECT: &str = "agent/bpf/feature-agent.bpf.o";

/// It loads rustc's own LLVM 22: later ones need an LLVM of the system's.
const LINKER: Tool =
    Tool { name: "bpf-linker", version: "0.10.4", flags: &[], takes: "half a minute" };

/// The target of the kernel program.
const TARGET: &str = "bpfel-unknown-none";

/// Compiles the kernel program and writes the object to its place in the project.
pub(crate) fn build() -> Result<()> {
    let object = compile(&[])?;
    let place = project::root()?.join(OBJECT);
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let same = fs::read(&place).is_ok_and(|old| old == object);
    if !same {
        fs::write(&place, &object).with_context(|| format!("cannot write {}", place.display()))?;
    }
    let news = if same { "unchanged" } else { "written" };
    shell::say(&format!("{OBJECT}: {} bytes, {news}", object.len()));
    Ok(())
}

/// Compiles the kernel program and compares it with the committed object.
pub(crate) fn check() -> Result<()> {
    let object = compile(&["--locked"])?;
    let place = project::root()?.join(OBJECT);
    let committed = fs::read(&place).with_context(|| format!("cannot read {}", place.display()))?;
    if committed != object {
        bail!(
            "{OBJECT} is not what the sources give ({} bytes committed, {} built): \
             run `cargo xtask build-ebpf` and commit the result",
            committed.len(),
            object.len()
        );
    }
    shell::say(&format!("{OBJECT}: {} bytes, byte for byte what the sources give", object.len()));
    Ok(())
}

/// A cargo that compiles for the kernel: `cargo SUBCOMMAND` with all that this takes.
pub(crate) fn cargo(subcommand: &str) -> Result<Command> {
    let target = project::target()?;
    let linker = LINKER.ensure()?;
    let sysroot = ensure_rust_src()?;
    let mut cargo = project::cargo()?;
    cargo
        .args([subcommand, "--package", PACKAGE, "--target", TARGET, "--profile", "bpf"])
        .arg("-Zbuild-std=core")
        .arg("--target-dir")
        .arg(target.join("bpf"))
        // Unstable features of a stable compiler, in this build alone: set for all, it would make
        // crates whose build scripts probe it compile anew, and differently.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&target, &sysroot)?);
    Ok(cargo)
}

/// Compiles the kernel program and returns the object, without its DWARF.
fn compile(flags: &[&str]) -> Result<Vec<u8>> {
    shell::run(cargo("build")?.arg("--bins").args(flags))?;
    let built = project::target()?.join("bpf").join(TARGET).join("bpf").join(PACKAGE);
    let object = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    strip::strip(&object).with_context(|| format!("cannot strip {}", built.display()))
}

/// The compiler's flags, separated as cargo wants them.
fn rustflags(target: &Path, sysroot: &Path) -> Result<OsString> {
    let mut flags = OsString::new();
    for flag in [
        // aya-ebpf's name for the machine whose registers a kprobe would read.
        "--cfg=bpf_target_arch=\"x86_64\"",
        // BTF and line info are made from debug info.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        // The lines themselves, so that a verifier's log quotes the source: 6 % more object.
        "-Zembed-source=yes",
        "-Zdwarf-version=5",
        // 32-bit registers and jumps, atomics that return a value: any kernel since 5.12.
        "-Ctarget-cpu=v3",
    ] {
        flags.push(flag);
        flags.push("\x1f");
    }
    // The last that fits wins: the target folder may lie in the project. A toolchain may be a link.
    let real_sysroot = fs::canonicalize(sysroot)
        .with_context(|| format!("cannot find the toolchain at {}", sysroot.display()))?;
    let places = [
        (project::root()?, "/feature-agent"),
        (cargo_home()?, "/cargo"),
        (sysroot.to_path_buf(), "/rust"),
        (real_sysroot, "/rust"),
        (target.to_path_buf(), "/target"),
    ];
    for (index, (place, name)) in places.iter().enumerate() {
        if index > 0 {
            flags.push("\x1f");
        }
        flags.push("--remap-path-prefix=");
        flags.push(place);
        flags.push("=");
        flags.push(name);
    }
    Ok(flags)
}

/// Cargo's home, where the sources of dependencies are.
fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(home));
    }
    let home = env::home_dir().context("no home folder: set HOME or CARGO_HOME")?;
    Ok(home.join(".cargo"))
}

/// Gets the sources of `core`, and returns the toolchain's folder.
fn ensure_rust_src() -> Result<PathBuf> {
    let rustc = || -> Result<PathBuf> {
        let mut rustc = Command::new("rustc");
        rustc.current_dir(project::root()?).args(["--print", "sysroot"]);
        Ok(PathBuf::from(shell::read(&mut rustc)?))
    };
    let sysroot = rustc()?;
    if !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file() {
        shell::say("the sources of `core` are missing: getting rust-src");
        let mut rustup = Command::new("rustup");
        rustup.current_dir(project::root()?).args(["component", "add", "rust-src"]);
        shell::run(&mut rustup).context(
            "the kernel program needs the component rust-src of the toolchain in \
             rust-toolchain.toml",
        )?;
    }
    Ok(sysroot)
}
