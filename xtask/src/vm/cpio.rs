//! An initial RAM file system: an archive in cpio's "newc" format, which the kernel unpacks (cpio(5); in the kernel's
//! documentation, driver-api/early-userspace/buffer-format).

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result};

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

/// An archive being written. Folders are added before what lies in them.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a file of these bytes.
    pub(super) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.folders_of(path);
        self.entry(path, FILE | permissions, content);
    }

    /// Adds a file of this machine, what it links to in its place.
    pub(super) fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let what = || format!("cannot read {}", from.display());
        let content = fs::read(from).with_context(what)?;
        let permissions = fs::metadata(from).with_context(what)?.permissions().mode() & 0o777;
        self.file(path, permissions, &content);
        Ok(())
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, to: &str) {
        self.folders_of(path);
        self.entry(path, LINK, to.as_bytes());
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn folders_of(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            if self.folders.insert(folder.to_owned()) {
                self.entry(folder, FOLDER, &[]);
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let name = path.len() as u32 + 1;
        // Magic; inode, mode, uid, gid, links, time, size, device (two), device it is (two), name's length, check.
        let size = content.len() as u32;
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_names_and_content_are_aligned() {
        let mut archive = Archive::default();
        archive.file("bin/a", 0o755, b"hello");
        archive.link("bin/b", "a");
        let bytes = archive.finish();
        let mut at = 0;
        let mut found = Vec::new();
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |index: usize| {
                let text = &bytes[at + 6 + 8 * index..][..8];
                usize::from_str_radix(str::from_utf8(text).expect("text"), 16).expect("hex")
            };
            let (mode, size, name) = (field(1), field(6), field(11));
            let start = at + 110;
            let path = str::from_utf8(&bytes[start..start + name - 1]).expect("text").to_owned();
            let content = (start + name).next_multiple_of(4);
            found.push((path, mode, bytes[content..content + size].to_vec()));
            at = (content + size).next_multiple_of(4);
        }
        let expected = [
            ("bin", 0o040_755, &b""[..]),
            ("bin/a", 0o100_755, b"hello"),
            ("bin/b", 0o120_777, b"a"),
            ("TRAILER!!!", 0, b""),
        ];
        let expected = expected.map(|(path, mode, bytes)| (path.to_owned(), mode, bytes.to_vec()));
        assert_eq!(found, expected);
    }
}
