//! What processes are called: the kernel program tells their numbers, the rest is looked up here, once for each.

mod cgroup;
mod proc;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use agent_common::{
    features,
    owner::{NOBODY, Owner},
};

use self::cgroup::Hierarchy;
pub(crate) use self::cgroup::{mounts, root as hierarchy};

/// A process behind flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    comm: String,
    exe: Option<String>,
    cgroup: Option<Arc<str>>,
}

impl Process {
    /// One whose every name is this.
    #[cfg(test)]
    pub(crate) fn called(name: &str) -> Self {
        Self { comm: name.into(), exe: Some(name.into()), cgroup: Some(name.into()) }
    }

    /// As a vector has it.
    pub fn names(&self) -> features::Process<'_> {
        let Self { comm, exe, cgroup } = self;
        let cgroup = cgroup.as_deref();
        let container_id = cgroup.and_then(cgroup::container_id);
        features::Process { comm, exe: exe.as_deref(), cgroup, container_id }
    }
}

/// Processes remembered. Of more, all are forgotten and looked up anew, which is seldom.
const MOST: usize = 16_384;

/// The processes that vectors have named.
#[derive(Debug, Default)]
pub struct Processes {
    known: HashMap<Owner, Arc<Process>>,
    hierarchy: Hierarchy,
}

impl Processes {
    /// The process behind a record; `None` if the record names none.
    ///
    /// A process is looked up when it is first met, at most one `--interval` after it was seen by the kernel program:
    /// one that has ended by then has no [`features::Process::exe`].
    pub fn of(&mut self, owner: &Owner) -> Option<&Arc<Process>> {
        if !owner.is_known() {
            return None;
        }
        // By which call it was met does not make it another.
        let key = Owner { claim: NOBODY, ..*owner };
        if self.known.len() >= MOST && !self.known.contains_key(&key) {
            self.known.clear();
        }
        let Self { known, hierarchy } = self;
        Some(match known.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Arc::new(Process {
                comm: String::from_utf8_lossy(owner.comm()).into_owned(),
                exe: proc::exe(owner),
                cgroup: hierarchy.path(owner.cgroup),
            })),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;

    #[test]
    fn a_record_without_a_process_has_no_names() {
        assert!(Processes::default().of(&Owner::zeroed()).is_none());
    }

    #[test]
    fn what_is_not_text_is_replaced_and_what_is_gone_is_unknown() {
        let mut processes = Processes::default();
        let mut owner = Owner { claim: 2, pid: u32::MAX, cgroup: u64::MAX, ..Owner::zeroed() };
        owner.comm[..3].copy_from_slice(b"a\xffb");
        let process = processes.of(&owner).expect("a process");
        let names = process.names();
        assert_eq!(names.comm, "a\u{fffd}b");
        assert_eq!((names.exe, names.cgroup, names.container_id), (None, None, None));
    }
}
