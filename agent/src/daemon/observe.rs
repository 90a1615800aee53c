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
    board: Board,
    server: Option<Server>,
    /// Those that are loaded.
    pub(super) programs: RunStats,
}

impl Observer {
    /// Listens for those who ask for metrics.
    pub(super) fn start(address: Option<SocketAddr>) -> Result<Self> {
        let mut observer =
            Self { board: Board::new(), server: None, programs: RunStats::default() };
        observer.serve_at(address)?;
        Ok(observer)
    }

    /// Serves there from now on, or nowhere; after an error where it did before.
    pub(super) fn serve_at(&mut self, address: Option<SocketAddr>) -> Result<()> {
        let server = address.map(|address| Server::start(address, self.board.clone()));
        self.server = server.transpose()?;
        if let Some(server) = &self.server {
            info!("metrics are at http://{}/metrics", server.address());
        }
        Ok(())
    }

    /// A sweep that began then is over.
    pub(super) fn swept<S: Source>(
        &mut self,
        begin: Instant,
        pump: &Pump<S>,
        attached: &Attached,
        settings: &Settings,
    ) -> Result<()> {
        if self.server.is_none() {
            return Ok(());
        }
        let swept = Instant::now();
        self.board.swept(swept - begin);
        let (counters, calls) = (pump.source.counters()?, pump.source.calls()?);
        let vectors = counters.vectors + calls.map_or(0, |calls| calls.vectors);
        let watched = |name: &String| (name.clone(), attached.has(name));
        self.board.put(Snapshot {
            swept,
            swept_at: SystemTime::now(),
            poll: settings.poll,
            counters,
            calls,
            flows: pump.flows,
            max_flows: u64::from(settings.max_flows) * pump.tables(),
            ring_used: pump
                .reads_ring()
                .then(|| vectors.saturating_sub(pump.outputs.taken()) * IN_RING),
            ring_size: settings.ring_bytes.into(),
            interfaces: settings.interfaces.iter().map(watched).collect(),
            outputs: pump.output_stats(),
            programs: self.programs.read(),
        });
        Ok(())
    }
}
