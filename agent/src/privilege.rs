//! Whether this process may do its work, and whether this kernel can, asked before anything is loaded.

use anyhow::{Context as _, Result, bail};
use rustix::{
    system::uname,
    thread::{CapabilitySet, capabilities},
};

/// Oldest kernel, major and minor.
const KERNEL: (u32, u32) = (5, 15);

/// What is needed; the kernel takes CAP_SYS_ADMIN for the first two (include/linux/capability.h,
/// `bpf_capable`, `perfmon_capable`), but for the third nothing else.
const NEEDED: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
];

/// Fails with a sentence that says what is missing and how to get it.
pub fn check() -> Result<()> {
    let release = uname();
    check_kernel(&release.release().to_string_lossy())?;
    let held = capabilities(None).context("cannot read this process's capabilities")?.effective;
    check_capabilities(held)
}

fn check_kernel(release: &str) -> Result<()> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        // A name of the distribution's own: the loader will find out.
        return Ok(());
    };
    if (major, minor) < KERNEL {
        bail!(
            "this kernel is {release}; the agent needs {}.{} or later. Boot a newer kernel: on Debian 11 \
             the one in bullseye-backports, on Ubuntu 20.04 linux-generic-hwe-20.04",
            KERNEL.0,
            KERNEL.1
        );
    }
    Ok(())
}

fn check_capabilities(held: CapabilitySet) -> Result<()> {
    let admin = held.contains(CapabilitySet::SYS_ADMIN);
    let missing: Vec<&str> = NEEDED
        .into_iter()
        .filter(|(needed, _)| !held.contains(*needed))
        .filter(|(needed, _)| !admin || *needed == CapabilitySet::NET_ADMIN)
        .map(|(_, name)| name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let program = std::env::current_exe()
        .map_or_else(|_| "feature-agent".to_owned(), |path| path.to_string_lossy().into_owned());
    bail!(
        "this process lacks {}. Run it by `sudo`, or grant the program what it needs by \
         `sudo setcap cap_bpf,cap_net_admin,cap_perfmon+ep {program}`, or in a systemd unit by \
         `AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON`",
        missing.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_told_what_to_do() {
        for old in ["5.14.99", "5.4.0-216-generic", "4.18.0-553.el8"] {
            let error = check_kernel(old).expect_err(old).to_string();
            assert!(error.contains("needs 5.15 or later"), "{error}");
        }
        for new in ["5.15.0", "5.15.0-91-generic", "6.1.0-18-amd64", "6.18.44", "10.0", "strange"] {
            assert!(check_kernel(new).is_ok(), "{new}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let all = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::NET_ADMIN;
        assert!(check_capabilities(all).is_ok());
        assert!(check_capabilities(CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN).is_ok());
        let said = |held| check_capabilities(held).expect_err("something is missing").to_string();
        let none = said(CapabilitySet::empty());
        assert!(
            none.starts_with("this process lacks CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN."),
            "{none}"
        );
        assert!(none.contains("setcap cap_bpf,cap_net_admin,cap_perfmon+ep /"), "{none}");
        let admin = said(CapabilitySet::SYS_ADMIN);
        assert!(admin.starts_with("this process lacks CAP_NET_ADMIN."), "{admin}");
        let partly = said(CapabilitySet::BPF | CapabilitySet::NET_ADMIN);
        assert!(partly.starts_with("this process lacks CAP_PERFMON."), "{partly}");
    }
}
