//! Where packets meet the program: TCX links, or filters on a clsact qdisc.

use agent_common::parse::Link;
use anyhow::{Context as _, Error, Result};
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use tracing::debug;

use super::{
    Kernel, Program, classifier,
    clsact::{self, Owner},
};
use crate::{
    interface::Interface,
    settings::{AttachMode, Direction},
};

/// A program attached to an interface; detached when dropped.
#[derive(Debug)]
pub struct Attachment {
    links: Vec<SchedClassifierLink>,
    /// Says that this process lives, for those who find its filters.
    owner: Option<Owner>,
}

impl Attachment {
    /// Whether it is by filters on a clsact qdisc, not by TCX links.
    pub fn is_by_filters(&self) -> bool {
        self.owner.is_some()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // The filters go before the sign that they are owned.
        self.links.clear();
        self.owner.take();
    }
}

impl Kernel {
    /// Attaches the program for an interface's link type.
    ///
    /// A loopback interface is attached on ingress only: each of its packets passes both ways.
    pub fn attach(
        &mut self,
        interface: &Interface,
        direction: Direction,
        mode: AttachMode,
    ) -> Result<Attachment> {
        let sides: &[TcAttachType] = match direction {
            _ if interface.loopback => &[TcAttachType::Ingress],
            Direction::Both => &[TcAttachType::Ingress, TcAttachType::Egress],
            Direction::Ingress => &[TcAttachType::Ingress],
            Direction::Egress => &[TcAttachType::Egress],
        };
        // What an agent before left behind counts every packet for nobody.
        clsact::clean(interface)?;
        let program = classifier(&mut self.ebpf, Program::Packet(interface.link))?;
        let attachment = match mode {
            AttachMode::Tcx => tcx(program, interface, sides).map_err(no_tcx)?,
            AttachMode::Clsact => filters(program, interface, sides)?,
            AttachMode::Auto => match tcx(program, interface, sides) {
                Ok(attachment) => attachment,
                Err(error) if is_unsupported(&error) => {
                    debug!(interface = interface.name, "no TCX here, clsact instead");
                    filters(program, interface, sides)?
                }
                Err(error) => return Err(no_tcx(error)),
            },
        };
        if !self.attached.contains(&interface.link) {
            self.attached.push(interface.link);
        }
        Ok(attachment)
    }

    /// The link types that something was attached to.
    pub(super) fn attached(&self) -> Vec<Link> {
        self.attached.clone()
    }
}

fn tcx(
    program: &mut SchedClassifier,
    interface: &Interface,
    sides: &[TcAttachType],
) -> Result<Attachment, ProgramError> {
    let mut links = Vec::new();
    for &side in sides {
        // Before the others: a program that drops or redirects would hide its packets from those behind.
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(&interface.name, side, options)?;
        links.push(program.take_link(id)?);
    }
    Ok(Attachment { links, owner: None })
}

fn filters(
    program: &mut SchedClassifier,
    interface: &Interface,
    sides: &[TcAttachType],
) -> Result<Attachment> {
    let name = &interface.name;
    match qdisc_add_clsact(name) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(EXISTS) => {}
        result => result.with_context(|| format!("cannot add a clsact qdisc to `{name}`"))?,
    }
    let owner = Owner::new()?;
    let mut links = Vec::new();
    for &side in sides {
        let handle = TcHandle::from(owner.handle());
        let options = TcAttachOptions::Netlink(NlOptions { priority: 0, handle, classid: None });
        let id = program
            .attach_with_options(name, side, options)
            .with_context(|| format!("cannot add a tc filter to `{name}`"))?;
        links.push(program.take_link(id)?);
    }
    let attachment = Attachment { links, owner: Some(owner) };
    Ok(attachment)
}

/// Whether the kernel has no TCX (before 6.6, or built without).
pub(super) fn is_unsupported(error: &ProgramError) -> bool {
    let ProgramError::SyscallError(error) = error else {
        return false;
    };
    matches!(error.io_error.raw_os_error(), Some(INVALID | NOT_SUPPORTED))
}

fn no_tcx(error: ProgramError) -> Error {
    let unsupported = is_unsupported(&error);
    let error = Error::new(error).context("cannot attach by TCX");
    if unsupported {
        error.context("this kernel has no TCX (Linux 6.6 and later have): try --attach clsact")
    } else {
        error
    }
}

const EXISTS: i32 = 17;
const INVALID: i32 = 22;
const NOT_SUPPORTED: i32 = 95;
