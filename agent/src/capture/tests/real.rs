//! Captures of others, in the folder that `FEATURE_AGENT_PCAPS` names.

use std::{collections::VecDeque, fs, path::Path};

use super::*;

#[test]
fn real_captures_are_read() {
    let Some(folder) = std::env::var_os("FEATURE_AGENT_PCAPS") else {
        eprintln!("FEATURE_AGENT_PCAPS names no folder of captures: nothing is read");
        return;
    };
    let files = files(Path::new(&folder));
    assert!(!files.is_empty(), "no capture below {}", folder.display());
    let mut packets = 0;
    for path in &files {
        match Captures::open(slice::from_ref(path), NAMELESS) {
            Ok(mut captures) => packets += drain(&mut captures, 100).packets.len(),
            Err(error) => eprintln!("{error:#}"),
        }
    }
    assert!(packets > files.len(), "{packets} packets in {} files", files.len());
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = VecDeque::from([folder.to_owned()]);
    while let Some(folder) = folders.pop_front() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push_back(path);
            } else if path.to_string_lossy().contains(".pcap") {
                found.push(path);
            }
        }
    }
    found
}
