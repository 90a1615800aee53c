//! Where things are, and the cargo that builds them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// The workspace's root folder.
pub(crate) fn root() -> Result<PathBuf> {
    // Set by `cargo run`; the constant serves a program that sudo started.
    let here = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let root = here.parent().unwrap_or(Path::new("/"));
    fs::canonicalize(root).with_context(|| format!("cannot find the project at {}", root.display()))
}

/// Cargo's target folder: the one that this program was built into.
pub(crate) fn target() -> Result<PathBuf> {
    let exe = env::current_exe().context("cannot find this program's own path")?;
    let target = exe.ancestors().nth(2).unwrap_or(Path::new("/"));
    Ok(target.to_path_buf())
}

/// The cargo that runs this program, in the project's root, free of what `cargo run` adds.
pub(crate) fn cargo() -> Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()?);
    // Build scripts that watch these would be run again whenever xtask starts cargo.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}
