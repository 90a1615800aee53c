//! Control groups: from a number to a path, and from a path to a container.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Control groups remembered. Of more, all are forgotten and looked up anew.
const MOST: usize = 65_536;
/// Length of a container's id in hexadecimal digits (OCI runtimes: Docker, containerd, CRI-O, Podman).
const ID: usize = 64;

/// The unified hierarchy, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Hierarchy {
    /// `None` is a group that was not found: numbers are not used again, so it never will be.
    paths: HashMap<u64, Option<Arc<str>>>,
}

impl Hierarchy {
    /// The path of a control group below the hierarchy's root; `None` if it is gone, or out of this process's sight.
    pub(super) fn path(&mut self, number: u64) -> Option<Arc<str>> {
        if number == 0 {
            return None;
        }
        if let Some(path) = self.paths.get(&number) {
            return path.clone();
        }
        if self.paths.len() >= MOST {
            self.paths.clear();
        }
        if let Some(root) = root() {
            self.walk(&root, &root);
        }
        self.paths.entry(number).or_insert(None).clone()
    }

    /// Learns a folder and all below it: its number is its inode's (`cgroup_id`, include/linux/cgroup.h).
    fn walk(&mut self, root: &Path, folder: &Path) {
        let Ok(metadata) = folder.metadata() else { return };
        let below = folder.strip_prefix(root).unwrap_or(folder);
        let path = Path::new("/").join(below).to_string_lossy().into();
        self.paths.insert(metadata.ino(), Some(path));
        // A group that goes meanwhile is not there.
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.walk(root, &entry.path());
            }
        }
    }
}

/// Where the unified hierarchy is mounted, if it is.
pub(crate) fn root() -> Option<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts(&mountinfo).1.map(PathBuf::from)
}

/// Where control groups are mounted, of the first version and of the second, in the text of /proc/self/mountinfo.
pub(crate) fn mounts(mountinfo: &str) -> (Option<&str>, Option<&str>) {
    let (mut first, mut second) = (None, None);
    for line in mountinfo.lines() {
        // … mount-point options [optional …] - type source options (proc(5))
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let place = before.split(' ').nth(4);
        match after.split(' ').next() {
            Some("cgroup") => first = first.or(place),
            Some("cgroup2") => second = second.or(place),
            _ => {}
        }
    }
    (first, second)
}

/// The container that a control group's path names: the innermost id, bare or as in `docker-ID.scope`.
pub(super) fn container_id(path: &str) -> Option<&str> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let words = path.rsplit(|letter: char| !letter.is_ascii_alphanumeric());
    words.into_iter().find(|word| word.len() == ID && word.bytes().all(is_hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_known_by_their_runtimes_paths() {
        let id = "0123456789abcdef".repeat(4);
        let inner = "f".repeat(ID);
        for path in [
            format!("/system.slice/docker-{id}.scope"),
            format!("/docker/{id}"),
            format!("/kubepods.slice/kubepods-pod1f_2.slice/cri-containerd-{id}.scope"),
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!("/kubepods/besteffort/pod1/crio-{id}"),
            format!("/docker/{inner}/docker/{id}"),
        ] {
            assert_eq!(container_id(&path), Some(id.as_str()), "{path}");
        }
        for path in ["/", "/user.slice/user-0.slice", &format!("/docker/{id}0"), &id[1..]] {
            assert_eq!(container_id(path), None, "{path}");
        }
    }

    #[test]
    fn a_group_is_found_by_its_number() {
        let mut hierarchy = Hierarchy::default();
        assert_eq!(hierarchy.path(0), None);
        assert_eq!(hierarchy.path(u64::MAX), None);
        let Some(root) = root() else { return };
        let number = root.metadata().expect("the root").ino();
        assert_eq!(hierarchy.path(number).as_deref(), Some("/"));
    }
}
