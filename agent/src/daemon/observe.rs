//! What the main loop tells about itself after each sweep.

use std::{
    net::SocketAddr,
    time::{Instant, SystemTime},
};

use agent_common::record::Record;
use anyhow::Result;
use tracing::info;

use super::{
    attached::Attached,
    pump::{Pump, Source},
};
use crate::{
    bpf::RunStats,
    metrics::{Board, Server, Snapshot},
    settings::Settings,
};

/// Bytes that a record takes in the ring: itself, and the kernel's header (`BPF_RINGBUF_HDR_SZ`).
const IN_RING: u64 = size_of::<Record>() as u64 + 8;

/// The agent's own metrics, if anyone is to have them.
#[derive(Debug)]
pub(super) struct Observer {
    served: Option<(Board, Server)>,
    /// Once they are loaded.
    pub(super) programs: Option<RunStats>,
}

impl Observer {
    /// Listens for those who ask for metrics.
    pub(super) fn start(address: Option<SocketAddr>) -> Result<Self> {
        let serve = |address| -> Result<_> {
            let board = Board::new();
            let server = Server::start(address, board.clone())?;
            info!("metrics are at http://{}/metrics", server.address());
            Ok((board, server))
        };
        Ok(Self { served: address.map(serve).transpose()?, programs: None })
    }

    /// A sweep that began then is over.
    pub(super) fn swept<S: Source>(
        &mut self,
        begin: Instant,
        pump: &Pump<S>,
        attached: &Attached,
        settings: &Settings,
    ) -> Result<()> {
        let Some((board, _)) = &self.served else { return Ok(()) };
        let swept = Instant::now();
        board.swept(swept - begin);
        let counters = pump.source.counters()?;
        let watched = |name: &String| (name.clone(), attached.has(name));
        board.put(Snapshot {
            swept,
            swept_at: SystemTime::now(),
            poll: settings.poll,
            counters,
            flows: pump.flows,
            max_flows: settings.max_flows.into(),
            ring_used: counters.vectors.saturating_sub(pump.drained) * IN_RING,
            ring_size: settings.ring_bytes.into(),
            interfaces: settings.interfaces.iter().map(watched).collect(),
            outputs: pump.outputs(settings.output.to_string()),
            programs: self.programs.as_ref().map(RunStats::read).unwrap_or_default(),
        });
        Ok(())
    }
}
