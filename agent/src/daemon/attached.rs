//! The interfaces that programs are attached to now.

use anyhow::{Context as _, Result};
use tracing::debug;

use super::{bpf, pump::Pump};
use crate::{
    interface::Interface,
    settings::{AttachMode, Direction},
};

/// Attachments by interface index and name; dropping one detaches it.
pub(super) struct Attached {
    direction: Direction,
    mode: AttachMode,
    attachments: Vec<(u32, String, bpf::Attachment)>,
}

impl Attached {
    pub(super) fn new(direction: Direction, mode: AttachMode) -> Self {
        Self { direction, mode, attachments: Vec::new() }
    }

    /// Attaches the programs to an interface, whose name lines carry from now on.
    pub(super) fn attach(
        &mut self,
        pump: &mut Pump<bpf::Kernel>,
        interface: &Interface,
    ) -> Result<()> {
        pump.names.insert(interface.index, &interface.name);
        let attachment = pump
            .source
            .attach(interface, self.direction, self.mode)
            .with_context(|| format!("cannot watch interface `{}`", interface.name))?;
        self.attachments.push((interface.index, interface.name.clone(), attachment));
        debug!(name = interface.name, index = interface.index, mtu = interface.mtu, "attached");
        Ok(())
    }

    /// Detaches from an interface, which may be gone.
    pub(super) fn detach(&mut self, index: u32) {
        self.attachments.retain(|(attached, ..)| *attached != index);
    }

    /// Detaches from all.
    pub(super) fn detach_all(&mut self) {
        self.attachments.clear();
    }

    /// Whether programs are attached to an interface.
    pub(super) fn has(&self, name: &str) -> bool {
        self.attachments.iter().any(|(_, attached, _)| attached == name)
    }

    /// Whether any is attached by filters on a clsact qdisc.
    pub(super) fn has_filters(&self) -> bool {
        self.attachments.iter().any(|(.., attachment)| attachment.is_by_filters())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.attachments.is_empty()
    }
}
