//! File systems of a test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A file system mounted in a folder of its own, gone with the folder when dropped.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
}

impl Mounted {
    /// Mounts a file system of this kind.
    pub fn new(kind: &str, options: Option<&str>) -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("feature-agent-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder to mount on");
        mount(Some(kind), &path, Some(kind), MsFlags::empty(), options)
            .unwrap_or_else(|e| panic!("mount a {kind}: {e}"));
        Self { path }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// One in memory.
#[derive(Debug)]
pub struct Tmpfs(Mounted);

impl Tmpfs {
    /// Of `size` bytes.
    pub fn new(size: usize) -> Self {
        Self(Mounted::new("tmpfs", Some(&format!("size={size}"))))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let gone =
            umount2(&self.path, MntFlags::MNT_DETACH).is_ok() && fs::remove_dir(&self.path).is_ok();
        if !gone {
            eprintln!("{} could not be removed", self.path.display());
        }
    }
}
