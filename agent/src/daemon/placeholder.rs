#![allow(
    missing_docs,
    dead_code,
    unused_qualifications,
    unused,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unreachable_pub
)]
use crate::{
    interface::Interface,
    settings::{AttachMode, Direction},
};
use agent_common::{config::Config, counters::Counters, record::Record, sweep::*};
use anyhow::Result;
use std::os::fd::BorrowedFd;
pub struct LoadOptions {
    pub config: Config,
    pub max_flows: u32,
    pub ring_bytes: u32,
    pub kernel_log: bool,
}
pub struct Kernel;
pub struct Attachment;
impl Kernel {
    pub fn load(options: &LoadOptions) -> Result<Kernel> {
        Ok(Kernel)
    }
    pub fn self_check(&mut self) -> Result<()> {
        Ok(())
    }
    pub fn attach(
        &mut self,
        interface: &Interface,
        direction: Direction,
        mode: AttachMode,
    ) -> Result<Attachment> {
        Ok(Attachment)
    }
    pub fn prove_running(&mut self) -> Result<()> {
        Ok(())
    }
    pub fn sweep(&mut self, request: &SweepRequest) -> Result<SweepReport> {
        Ok(bytemuck::Zeroable::zeroed())
    }
    pub fn drain(&mut self, budget: usize, each: &mut dyn FnMut(&Record)) -> Result<usize> {
        Ok(0)
    }
    pub fn counters(&self) -> Result<Counters> {
        Ok(Counters::default())
    }
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        rustix::stdio::stdin()
    }
}
