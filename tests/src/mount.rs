//! A small file system of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A file system in memory, gone with its files when dropped.
#[derive(Debug)]
pub struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// Mounts one of `size` bytes in a new folder.
    pub fn new(size: usize) -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("feature-agent-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder to mount on");
        let options = format!("size={size}");
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .expect("mount a tmpfs");
        Self { path }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let gone =
            umount2(&self.path, MntFlags::MNT_DETACH).is_ok() && fs::remove_dir(&self.path).is_ok();
        if !gone {
            eprintln!("{} could not be removed", self.path.display());
        }
    }
}
