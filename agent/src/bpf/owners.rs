//! The programs that note which process uses which socket, attached to the root of the control groups.

use std::{fs::File, io, path::Path};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Btf, Ebpf,
    programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, Iter},
};
use tracing::{debug, info};

use super::{Kernel, cannot_load, named};
use crate::process;

/// Whoever makes a socket.
const MADE: &str = "owner_made";
/// What was open before.
const OPEN: &str = "owner_open";
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
        match take_inventory(&mut self.ebpf) {
            Ok(()) => debug!("sockets that were open know their processes"),
            Err(error) => info!(
                "this kernel does not show which sockets are open: those from before this start name \
                 their process once it uses them ({error:#})"
            ),
        }
        Ok(())
    }
}

/// Walks over the open files of all tasks, for the sockets that were there before.
fn take_inventory(ebpf: &mut Ebpf) -> Result<()> {
    let program: &mut Iter = named(ebpf, OPEN)?;
    program.load("task_file", &Btf::from_sys_fs()?)?;
    let link = program.attach()?;
    let mut walk = program.take_link(link)?.into_file()?;
    // It has nothing to say: reading is what makes it walk.
    io::copy(&mut walk, &mut io::sink()).context("the walk over the open files broke off")?;
    Ok(())
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
