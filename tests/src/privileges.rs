//! What a process may do, and ways to start one that may less than root.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::{agent::Builder, netns::Netns};

/// A user and group without rights.
pub const NOBODY: u32 = 65_534;

/// The effective and permitted capabilities of each thread of a process.
pub fn capabilities(pid: u32) -> Vec<(u64, u64)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let of_thread = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("a thread").path().join("status");
        let status = fs::read_to_string(path).expect("its status");
        let mask = |field: &str| {
            let mask = status.lines().find_map(|line| line.strip_prefix(field)).expect(field);
            u64::from_str_radix(mask.trim(), 16).expect("a mask")
        };
        (mask("CapEff:"), mask("CapPrm:"))
    };
    threads.map(of_thread).collect()
}

/// A copy of the agent's binary where any user may read it, which the folder it was built in need not allow.
#[derive(Debug)]
pub struct Copy(PathBuf);

impl Copy {
    /// Copies it.
    pub fn new(binary: &Path, name: &str) -> Self {
        let name = format!("feature-agent-copy-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::copy(binary, &path).expect("copy the binary");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// An agent as the units have it: an ordinary user with the three capabilities that it takes, by setpriv(1).
    pub fn with_three_capabilities<'a>(&self, ns: &'a Netns, args: &[&str]) -> Builder<'a> {
        let program = self.0.to_str().expect("UTF-8");
        let caps = "+bpf,+net_admin,+perfmon";
        let (inherited, ambient) = (format!("--inh-caps={caps}"), format!("--ambient-caps={caps}"));
        let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        let setpriv = [&ids[0], &ids[1], "--clear-groups", &inherited, &ambient, program];
        Builder::new(ns, &[&setpriv, args].concat()).program(Path::new("/usr/bin/setpriv"))
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // A leftover in the temporary folder hurts nobody.
        let _ = fs::remove_file(&self.0);
    }
}
