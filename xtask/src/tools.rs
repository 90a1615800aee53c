//! Tools from crates.io, in the target folder: never in the user's own cargo home.

use std::{fs, path::PathBuf};

use anyhow::Result;

use crate::{project, shell};

/// A tool that cargo can build.
#[derive(Debug)]
pub(crate) struct Tool {
    /// Its package, and its program.
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// What to build it with besides.
    pub(crate) flags: &'static [&'static str],
    /// How long that takes.
    pub(crate) takes: &'static str,
}

impl Tool {
    /// The program, built first if it is not there in this version.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        let Self { name, version, flags, takes } = self;
        let tools = project::target()?.join("tools");
        let program = tools.join("bin").join(name);
        // Where cargo keeps account of what it installed.
        let installed = fs::read_to_string(tools.join(".crates.toml")).unwrap_or_default();
        if program.is_file() && lists(&installed, name, version) {
            return Ok(program);
        }
        shell::say(&format!("installing {name} {version} into {} ({takes})", tools.display()));
        shell::run(
            project::cargo()?
                .args(["install", name, "--version", version, "--locked", "--force"])
                .args(*flags)
                .arg("--root")
                .arg(&tools)
                .arg("--target-dir")
                .arg(tools.join("build"))
                // It runs for seconds: to make it faster would take longer than that.
                .envs([
                    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
                    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
                ]),
        )?;
        Ok(program)
    }
}

/// Whether cargo's account has this version.
fn lists(installed: &str, name: &str, version: &str) -> bool {
    installed.lines().any(|line| line.starts_with(&format!("\"{name} {version} (")))
}

#[cfg(test)]
mod tests {
    use super::lists;

    #[test]
    fn another_version_is_another_tool() {
        let installed = "[v1]\n\"cargo-deb 3.8.0 (registry+https://x)\" = [\"cargo-deb\"]\n";
        assert!(lists(installed, "cargo-deb", "3.8.0"));
        assert!(!lists(installed, "cargo-deb", "3.8"));
        assert!(!lists(installed, "deb", "3.8.0"));
    }
}
