//! What this process may do: enough, asked before anything is loaded; and no more than it goes on to need, once
//! everything is open and attached.

use std::ffi::CString;

use anyhow::{Context as _, Result, bail};
use nix::unistd::{User, geteuid, initgroups, setresgid, setresuid};
use rustix::{
    system::uname,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
        set_capabilities, set_keep_capabilities,
    },
};
use tracing::debug;

/// Oldest kernel, major and minor.
const KERNEL: (u32, u32) = (5, 15);

/// What is needed; the kernel takes CAP_SYS_ADMIN for the first two (include/linux/capability.h,
/// `bpf_capable`, `perfmon_capable`), but for the third nothing else.
const NEEDED: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
];

/// From this kernel on, what is loaded is used without CAP_BPF. Before, `kernel.unprivileged_bpf_disabled`, which
/// Debian and Ubuntu set, forbids it every use of bpf(2), sweeps among them (commit c8644cd0efe7).
const USE_IS_FREE: (u32, u32) = (5, 19);

/// Where a newer kernel is, for those whose kernel is too old.
pub(crate) const NEWER_KERNEL: &str = "Boot a newer kernel: on Debian 11 the one in bullseye-backports, on Ubuntu \
                                       20.04 linux-generic-hwe-20.04";

/// Fails with a sentence that says what is missing and how to get it.
pub fn check() -> Result<()> {
    check_kernel(&kernel())?;
    let missing = missing(held()?);
    if missing.is_empty() {
        return Ok(());
    }
    bail!("this process lacks {}. {}", missing.join(", "), how_to_get_capabilities())
}

/// The running kernel's release.
pub(crate) fn kernel() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// Fails with a sentence if a kernel of this release is too old.
pub(crate) fn check_kernel(release: &str) -> Result<()> {
    // A name of the distribution's own: the loader will find out.
    if version(release).is_some_and(|version| version < KERNEL) {
        let (major, minor) = KERNEL;
        bail!("this kernel is {release}; the agent needs {major}.{minor} or later. {NEWER_KERNEL}");
    }
    Ok(())
}

/// This process's effective capabilities.
pub(crate) fn held() -> Result<CapabilitySet> {
    let sets = capabilities(None).context("cannot read this process's capabilities")?;
    Ok(sets.effective)
}

/// Major and minor.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// The capabilities that the main job takes and these do not hold.
pub(crate) fn missing(held: CapabilitySet) -> Vec<&'static str> {
    let admin = held.contains(CapabilitySet::SYS_ADMIN);
    NEEDED
        .into_iter()
        .filter(|(needed, _)| !held.contains(*needed))
        .filter(|(needed, _)| !admin || *needed == CapabilitySet::NET_ADMIN)
        .map(|(_, name)| name)
        .collect()
}

/// In a sentence.
pub(crate) fn how_to_get_capabilities() -> String {
    let program = std::env::current_exe()
        .map_or_else(|_| "feature-agent".to_owned(), |path| path.to_string_lossy().into_owned());
    format!(
        "Run it by `sudo`, or grant the program what it needs by \
         `sudo setcap cap_bpf,cap_net_admin,cap_perfmon+ep {program}`, or in a systemd unit by \
         `AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON`"
    )
}

/// An account to go on as.
#[derive(Debug)]
pub struct Account(User);

impl Account {
    /// The account of this name; only root can become it.
    pub fn find(name: &str) -> Result<Self> {
        let user =
            User::from_name(name).with_context(|| format!("cannot look up the user `{name}`"))?;
        let user = user.with_context(|| {
            format!(
                "--user: there is no user `{name}`. Make one: sudo useradd --system --no-create-home \
                 --shell /usr/sbin/nologin {name}"
            )
        })?;
        if !geteuid().is_root() {
            bail!(
                "--user {name}: only root can become another user, and this process runs as uid {}. Leave \
                 --user out, or run it by sudo",
                geteuid()
            );
        }
        Ok(Self(user))
    }

    /// Its user and its group.
    pub fn ids(&self) -> (u32, u32) {
        (self.0.uid.as_raw(), self.0.gid.as_raw())
    }

    /// Becomes this account for good, in every thread.
    fn become_it(&self) -> Result<()> {
        let User { name, uid, gid, .. } = &self.0;
        let what = || format!("cannot go on as the user `{name}`");
        // Otherwise the change of user takes them all. Threads that are there already have none after it.
        set_keep_capabilities(true).with_context(what)?;
        let groups = CString::new(name.as_str()).with_context(what)?;
        initgroups(&groups, *gid).with_context(what)?;
        setresgid(*gid, *gid, *gid).with_context(what)?;
        setresuid(*uid, *uid, *uid).with_context(what)?;
        Ok(())
    }
}

/// Whether [`reduce`] will take anything away: then what takes permissions must be done before.
pub fn reduces(account: Option<&Account>) -> bool {
    account.is_some() || !geteuid().is_root()
}

/// Everything is open and attached: goes on as `account`, if there is one, and keeps no capability but what
/// `needed_on` says. Root that is to stay root stays what it is.
pub fn reduce(account: Option<&Account>, by_filters: bool) -> Result<()> {
    if !reduces(account) {
        return Ok(());
    }
    if let Some(account) = account {
        account.become_it()?;
    }
    let kept = needed_on(&kernel(), by_filters);
    keep(kept).context("cannot give up the capabilities that are no longer needed")?;
    debug!(?kept, "gave up all other capabilities");
    Ok(())
}

/// What sweeps, and attaching to an interface that comes back, go on to take: TCX nothing once the program is
/// loaded, filters on a clsact qdisc CAP_NET_ADMIN.
fn needed_on(release: &str, by_filters: bool) -> CapabilitySet {
    let mut needed = CapabilitySet::empty();
    if version(release).is_none_or(|version| version < USE_IS_FREE) {
        needed |= CapabilitySet::BPF;
    }
    if by_filters {
        needed |= CapabilitySet::NET_ADMIN;
    }
    needed
}

/// A thread that does nothing in the kernel gives up every capability that it was born with.
pub fn renounce() {
    if geteuid().is_root() {
        // Capabilities go with the user, or are to stay with it.
        return;
    }
    if let Err(error) = keep(CapabilitySet::empty()) {
        debug!("a thread keeps its capabilities: {error}");
    }
}

/// This thread keeps what it holds of a set, and no more.
fn keep(set: CapabilitySet) -> rustix::io::Result<()> {
    clear_ambient_capability_set()?;
    let permitted = capabilities(None)?.permitted & set;
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: permitted, permitted, inheritable })
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
    fn only_what_goes_on_to_be_needed_is_kept() {
        let (bpf, net_admin) = (CapabilitySet::BPF, CapabilitySet::NET_ADMIN);
        assert_eq!(needed_on("6.18.44", false), CapabilitySet::empty());
        assert_eq!(needed_on("6.1.0-18-amd64", true), net_admin);
        assert_eq!(needed_on("5.15.0-91-generic", true), bpf | net_admin);
        assert_eq!(needed_on("strange", false), bpf);
    }

    #[test]
    fn an_account_must_be_there() {
        let error = Account::find("no-such-user").expect_err("no such user").to_string();
        assert!(
            error.starts_with("--user: there is no user `no-such-user`. Make one: "),
            "{error}"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let all = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::NET_ADMIN;
        assert!(missing(all).is_empty());
        assert!(missing(CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN).is_empty());
        assert_eq!(missing(CapabilitySet::empty()), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]);
        assert_eq!(missing(CapabilitySet::SYS_ADMIN), ["CAP_NET_ADMIN"]);
        assert_eq!(missing(CapabilitySet::BPF | CapabilitySet::NET_ADMIN), ["CAP_PERFMON"]);
        let sentence = how_to_get_capabilities();
        assert!(sentence.contains("setcap cap_bpf,cap_net_admin,cap_perfmon+ep /"), "{sentence}");
    }
}
