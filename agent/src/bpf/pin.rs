//! The flow table, and if its records are left to another process the ring, under names in a bpf file system.
//!
//! Readers open them by `BPF_OBJ_GET`, as the files' owner or group. The folder is locked (flock(2)) for as long as
//! its agent lives, so that what an agent left that was killed is told from what another still uses.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown, lchown, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{MapData, MapInfo};
use rustix::fs::{AtFlags, FlockOperation, flock, statfs, unlinkat};
use std::os::fd::AsFd as _;
use tracing::{debug, info};

use super::{Kernel, not_in_object};

/// The file system's type (`BPF_FS_MAGIC`, include/uapi/linux/magic.h).
const BPF_FS: i64 = 0xcafe_4a11;

const FLOWS: Name = Name { file: "flows", map: "FLOWS", mode: 0o640 };
/// Its reader moves the position up to which it has read.
const RECORDS: Name = Name { file: "records", map: "RECORDS", mode: 0o660 };
/// A symbolic link whose target is the layout's identifier.
const LAYOUT: &str = "layout";
/// What such a target begins with.
const PRODUCT: &str = "feature-agent";

/// A map's name in the folder and in the kernel, and who may use it.
#[derive(Clone, Copy)]
struct Name {
    file: &'static str,
    map: &'static str,
    mode: u32,
}

/// A folder of pins; what this agent put there goes with it.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
    /// Locked. What is in it can be removed through it by a user who may not walk its path.
    folder: File,
    made: bool,
    pinned: Vec<&'static str>,
}

impl Pins {
    /// Takes a folder for this agent alone, and clears away what another that was killed has left.
    pub fn take(path: &Path) -> Result<Self> {
        let shown = path.display();
        // Of a folder that is still to be made, the one around it tells.
        let around = if path.exists() { path } else { path.parent().unwrap_or(path) };
        let kind = statfs(around)
            .with_context(|| format!("--pin {shown}: cannot look at {}", around.display()))?;
        #[expect(clippy::useless_conversion, reason = "its type is another on other machines")]
        let is_bpf = i64::from(kind.f_type) == BPF_FS;
        ensure!(
            is_bpf,
            "--pin {shown}: {} is not on a bpf file system. Name a folder below /sys/fs/bpf, which \
             `mount -t bpf bpf /sys/fs/bpf` mounts where it is not",
            around.display()
        );
        let made = match DirBuilder::new().mode(0o750).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => {
                return Err(error).with_context(|| format!("--pin {shown}: cannot make it"));
            }
        };
        let folder = File::open(path).with_context(|| format!("--pin {shown}: cannot open it"))?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                bail!(
                    "--pin {shown}: another agent pins there. Choose a folder of this agent's own"
                )
            }
            Err(error) => {
                return Err(error).with_context(|| format!("--pin {shown}: cannot lock it"));
            }
        }
        let pins = Self { path: path.to_owned(), folder, made, pinned: Vec::new() };
        pins.clear_leftovers()?;
        Ok(pins)
    }

    /// Removes what an agent left that did not end by itself, and nothing else.
    fn clear_leftovers(&self) -> Result<()> {
        let foreign = |file: &str| {
            let path = self.path.join(file);
            format!("--pin: {} is no agent's. Remove it, or choose another folder", path.display())
        };
        let mut leftovers = Vec::new();
        for Name { file, map, .. } in [FLOWS, RECORDS] {
            let path = self.path.join(file);
            if path.symlink_metadata().is_ok() {
                let ours = MapInfo::from_pin(&path).is_ok_and(|info| info.name() == map.as_bytes());
                ensure!(ours, foreign(file));
                leftovers.push(file);
            }
        }
        match fs::read_link(self.path.join(LAYOUT)) {
            Ok(target) => {
                let ours = target.as_os_str().as_encoded_bytes().starts_with(PRODUCT.as_bytes());
                ensure!(ours, foreign(LAYOUT));
                leftovers.push(LAYOUT);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => bail!(foreign(LAYOUT)),
        }
        for file in &leftovers {
            self.remove(file).with_context(|| format!("--pin: cannot remove the stale {file}"))?;
        }
        if !leftovers.is_empty() {
            let (names, path) = (leftovers.join(", "), self.path.display());
            info!("removed {names} in {path}, which an agent left that did not end by itself");
        }
        Ok(())
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        Ok(unlinkat(&self.folder, file, AtFlags::empty())?)
    }

    /// Lets an account use the folder, and clear it away at the end.
    fn give(&self, owner: Option<(u32, u32)>) -> io::Result<()> {
        let Some((user, group)) = owner else { return Ok(()) };
        chown(&self.path, Some(user), Some(group))?;
        self.pinned
            .iter()
            .try_for_each(|file| lchown(self.path.join(file), Some(user), Some(group)))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for file in &self.pinned {
            if let Err(error) = self.remove(file) {
                debug!("cannot remove {file} in {}: {error}", self.path.display());
            }
        }
        // Another's things in it, or a user that may not: it stays.
        if self.made && fs::remove_dir(&self.path).is_err() {
            debug!("{} is left", self.path.display());
        }
    }
}

impl Kernel {
    /// Pins the flow table, and the ring if its records are left to another process; last the layout, so that a
    /// reader who finds that finds all. All are `owner`'s, if there is one: a user and a group.
    pub fn pin(
        &self,
        pins: &mut Pins,
        ring: bool,
        layout: &str,
        owner: Option<(u32, u32)>,
    ) -> Result<()> {
        let flows = self.ebpf.map(FLOWS.map).with_context(|| not_in_object(FLOWS.map))?;
        pins.add(FLOWS, |path| Ok(flows.pin(path)?))?;
        if ring {
            let fd = self.ring.as_fd().try_clone_to_owned().context("cannot pin the ring")?;
            let records = MapData::from_fd(fd).context("cannot pin the ring")?;
            pins.add(RECORDS, |path| Ok(records.pin(path)?))?;
        }
        let path = pins.path.join(LAYOUT);
        symlink(OsStr::new(layout), &path)
            .with_context(|| format!("--pin: cannot make {}", path.display()))?;
        pins.pinned.push(LAYOUT);
        pins.give(owner).with_context(|| format!("--pin: cannot give {} away", pins.path.display()))
    }
}

impl Pins {
    fn add(&mut self, name: Name, pin: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let Name { file, mode, .. } = name;
        let path = self.path.join(file);
        pin(&path).with_context(|| format!("--pin: cannot pin {}", path.display()))?;
        self.pinned.push(file);
        fs::set_permissions(&path, Permissions::from_mode(mode))
            .with_context(|| format!("--pin: cannot let a group use {}", path.display()))
    }
}
