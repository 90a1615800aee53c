//! Programs out of Debian packages that are not installed: that would start their services.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{project, root, shell};

/// Where the program is, if need be from a Debian package that is unpacked in `target/tools`.
pub(crate) fn need(program: &str, package: &str) -> Result<PathBuf> {
    if let Some(path) = shell::which(program) {
        return Ok(path);
    }
    let folder = project::target()?.join("tools").join(package);
    let found = || {
        ["usr/sbin", "usr/bin"]
            .map(|bin| folder.join(bin).join(program))
            .into_iter()
            .find(|p| p.is_file())
    };
    if let Some(path) = found() {
        return Ok(path);
    }
    if shell::which("apt-get").is_none() {
        bail!("`{program}` is missing: install it (on Debian it is in the package {package})");
    }
    shell::say(&format!("`{program}` is missing: unpacking {package} in {}", folder.display()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let download = || {
        shell::run(Command::new("apt-get").current_dir(&folder).args(["download", "-q", package]))
    };
    if download().is_err() {
        root::update(&format!("finding {package}"))?;
        download()?;
    }
    shell::run(Command::new("dpkg").arg("--extract").arg(downloaded(&folder)?).arg(&folder))?;
    found().with_context(|| format!("the package {package} holds no `{program}`"))
}

/// The package in a folder that holds one.
fn downloaded(folder: &Path) -> Result<PathBuf> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut packages = entries.filter_map(|entry| Some(entry.ok()?.path()));
    packages
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .with_context(|| format!("no package in {}", folder.display()))
}
