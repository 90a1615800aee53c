//! The programs that note which process uses which socket, attached to the root of the control groups.

use std::{fs::File, path::Path};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr},
};
use tracing::debug;

use super::{Kernel, cannot_load, named};
use crate::process;

/// Whoever makes a socket.
const MADE: &str = "owner_made";
/// Whoever uses one.
const USES: [&str; 8] = [
    "owner_connect4",
    "owner_connect6",
    "owner_sendmsg4",
    "owner_sendmsg6",
    "owner_recvmsg4",
    "owner_recvmsg6",
    "owner_accept4",
    "owner_accept6",
];

/// A link takes no mode, since it always leaves room for others (`cgroup_bpf_link_attach`, kernel/bpf/cgroup.c): this is
/// aya's word for none.
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

impl Kernel {
    /// From now on sockets know their processes. The programs go with this process, however it ends.
    pub fn watch_processes(&mut self) -> Result<()> {
        let root = process::hierarchy().ok_or_else(|| {
            anyhow!(
                "--process needs the unified control groups (cgroup2), and none are mounted: \
                 sudo mount -t cgroup2 none /sys/fs/cgroup, or a kernel with CONFIG_CGROUPS"
            )
        })?;
        attach(&mut self.ebpf, &root).with_context(|| {
            format!("--process: cannot attach to the control groups at {}", root.display())
        })?;
        debug!(cgroup = %root.display(), "sockets are watched for their processes");
        Ok(())
    }
}

fn attach(ebpf: &mut Ebpf, root: &Path) -> Result<()> {
    let root = File::open(root)?;
    let program: &mut CgroupSock = named(ebpf, MADE)?;
    program.load().map_err(|error| cannot_load(MADE, error))?;
    program.attach(&root, MODE)?;
    for name in USES {
        let program: &mut CgroupSockAddr = named(ebpf, name)?;
        program.load().map_err(|error| cannot_load(name, error))?;
        program.attach(&root, MODE)?;
    }
    Ok(())
}
