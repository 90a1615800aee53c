//! What a guest is made of: a shell, `ip` and `tc` with their libraries, the kernel's modules, the agent and the tests.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{cpio::Archive, kernel::Kernel, qemu::Qemu};
use crate::{root, shell};

/// The first process.
const INIT: &str = include_str!("init");
/// Programs of this machine that tests start.
const PROGRAMS: [&str; 2] = ["ip", "tc"];
/// Those of the shell's commands that the first process needs; the tests get none by accident.
const COMMANDS: [&str; 9] =
    ["sh", "mkdir", "mount", "stty", "insmod", "setsid", "poweroff", "sleep", "cat"];

/// The initial RAM file system, with files of the host by their paths in it, and the script that it is for.
pub(super) fn initramfs(
    qemu: &Qemu,
    kernel: &Kernel,
    files: &[(String, &Path)],
    script: &str,
) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.file("init", 0o755, INIT.as_bytes());
    archive.copy("bin/busybox", &qemu.busybox())?;
    for command in COMMANDS {
        archive.link(&format!("bin/{command}"), "busybox");
    }
    for program in PROGRAMS {
        root::need(program, "iproute2")?;
        let place = shell::which(program).with_context(|| format!("there is no {program}"))?;
        with_libraries(&mut archive, program, &place)?;
    }
    for (index, (name, bytes)) in kernel.modules()?.iter().enumerate() {
        archive.file(&format!("modules/{index:02}-{name}.ko"), 0o644, bytes);
    }
    for (path, file) in files {
        archive.copy(path, file)?;
    }
    archive.file("run-script", 0o755, script.as_bytes());
    archive.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    );
    archive.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n");
    Ok(archive.finish())
}

/// Adds a program, and the libraries and the loader that it asks for, at the paths where it looks for them.
fn with_libraries(archive: &mut Archive, name: &str, program: &Path) -> Result<()> {
    archive.copy(&format!("bin/{name}"), program)?;
    // name => /path (address), or /path (address)
    let list = shell::read(Command::new("ldd").arg(program))?;
    let paths = list.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths {
        archive.copy(path.trim_start_matches('/'), Path::new(path))?;
    }
    Ok(())
}
