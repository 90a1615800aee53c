//! `tidy`: rules that no compiler knows.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{project, root, shell};

/// Documents that a reader is promised.
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
];

/// The most lines a Rust file may have.
const MOST_LINES: usize = 500;

/// The most lines a Rust file of the kernel program may have.
const MOST_KERNEL_LINES: usize = 250;

/// The project's folders, as documents name them.
const FOLDERS: [&str; 11] = [
    "agent/",
    "agent-common/",
    "agent-ebpf/",
    "examples/",
    "fuzz/",
    "grafana/",
    "tests/",
    "xtask/",
    "systemd/",
    ".cargo/",
    ".ci/",
];

/// Rust files that may be longer, each with the reason.
const LONGER: [(&str, &str); 0] = [];

/// Checks every file that git knows or would take.
pub(crate) fn tidy() -> Result<()> {
    let place = project::root()?;
    let mut faults = Vec::new();
    for document in DOCUMENTS {
        if !place.join(document).is_file() {
            faults.push(format!("{document}: it is missing"));
        }
    }
    let files = files(&place)?;
    for file in &files {
        // A file that git still lists and that is gone from the disk has no faults.
        let Ok(bytes) = fs::read(place.join(file)) else { continue };
        if let Ok(text) = str::from_utf8(&bytes) {
            check(file, text, &mut faults);
        }
    }
    for (file, _) in LONGER {
        if !files.iter().any(|known| known == file) {
            faults
                .push(format!("{file}: it may be longer, and is not there: take it off the list"));
        }
    }
    for document in DOCUMENTS {
        let text = fs::read_to_string(place.join(document)).unwrap_or_default();
        dead_paths(document, &text, |path| place.join(path).exists(), &mut faults);
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    if !faults.is_empty() {
        bail!("{} faults in {} files and documents", faults.len(), files.len());
    }
    shell::say(&format!("{} files are tidy", files.len()));
    Ok(())
}

/// The project's files: git's, and those not yet added.
fn files(project: &Path) -> Result<Vec<String>> {
    root::need("git", "git")?;
    let mut git = Command::new("git");
    // A checkout may belong to another user than the one who checks it.
    git.current_dir(project).args(["-c", "safe.directory=*"]);
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = shell::read(&mut git).context("tidy reads git's list of files")?;
    Ok(list.split_terminator('\0').map(str::to_owned).collect())
}

/// Adds a text file's faults.
fn check(file: &str, text: &str, faults: &mut Vec<String>) {
    for (index, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            faults.push(format!("{file}:{}: white space at the end of the line", index + 1));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        faults.push(format!("{file}: no line end at the end"));
    }
    let rust = Path::new(file).extension().is_some_and(|extension| extension == "rs");
    let most = if file.starts_with("agent-ebpf/") { MOST_KERNEL_LINES } else { MOST_LINES };
    let lines = text.lines().count();
    if rust && lines > most && !LONGER.iter().any(|&(longer, _)| longer == file) {
        faults.push(format!(
            "{file}: {lines} lines, the most is {most}: split it, or list it with the reason"
        ));
    }
}

/// Adds the paths that a document names in code font, from the project's root, and that are not there.
fn dead_paths(document: &str, text: &str, there: impl Fn(&str) -> bool, faults: &mut Vec<String>) {
    for (index, line) in text.lines().enumerate() {
        // What stands between backticks is every other piece.
        for code in line.split('`').skip(1).step_by(2) {
            let in_project = FOLDERS.iter().any(|folder| code.starts_with(folder));
            if in_project && !code.contains(char::is_whitespace) && !there(code) {
                faults.push(format!("{document}:{}: there is no `{code}`", index + 1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{check, dead_paths};

    /// The faults of one file.
    fn faults(file: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        check(file, text, &mut faults);
        faults
    }

    #[test]
    fn names_the_line_of_trailing_space() {
        assert_eq!(faults("a.md", "a\nb \n"), ["a.md:2: white space at the end of the line"]);
        assert_eq!(faults("a.md", "a\nb"), ["a.md: no line end at the end"]);
        assert!(faults("a.md", "a\nb\n").is_empty());
        assert!(faults("a.md", "").is_empty());
    }

    #[test]
    fn names_paths_that_are_gone() {
        let mut faults = Vec::new();
        let text = "`agent/src/a.rs` `agent/src/b.rs`\n`target/x` agent/src/c.rs `tests/ d`\n";
        dead_paths("a.md", text, |path| path == "agent/src/a.rs", &mut faults);
        assert_eq!(faults, ["a.md:1: there is no `agent/src/b.rs`"]);
    }

    #[test]
    fn kernel_files_are_shorter() {
        let text = "//\n".repeat(300);
        assert!(faults("agent/src/a.rs", &text).is_empty());
        assert!(faults("agent-ebpf/a.txt", &text).is_empty());
        assert_eq!(faults("agent-ebpf/src/a.rs", &text).len(), 1);
        assert_eq!(faults("agent/src/a.rs", &"//\n".repeat(501)).len(), 1);
    }
}
