//! The proof, at every start, that the program in this kernel counts packets as it should.

use agent_common::{
    counters::Counters,
    filter::selects,
    flow::{Arrival, Flow, Standing},
    parse::{Frame, Link, parse},
    record::{Reason, Record},
    sweep::SweepRequest,
};
use anyhow::{Context as _, Result, bail, ensure};
use bytemuck::Zeroable as _;

use super::{Kernel, PacketContext, Program};

/// Interface index of loopback in every network namespace.
const LOOPBACK: u32 = 1;

/// The conversation: a handshake, a super-packet of three segments, its answer. No FIN, so that it is over
/// only when a sweep says so.
const FLAGS: [(u8, bool, u16, u32); 5] = [
    (0x02, false, 0, 0),
    (0x12, true, 0, 0),
    (0x10, false, 0, 0),
    (0x18, false, 250, 100),
    (0x10, true, 1, 0),
];

impl Kernel {
    /// Runs known packets through the programs for what begins with these, before the first real one, and compares what
    /// the kernel makes of them with what this process makes of them.
    pub fn self_check(&mut self, links: &[Link]) -> Result<()> {
        self.prepare(links)?;
        for link in links {
            self.check_program(*link).context(
                "the self-check failed: the kernel program does not count as it should on this kernel. \
                 Please report it",
            )?;
        }
        self.clear_counters()
    }

    /// Shows that the programs still run, now that they are attached: each is given a packet that is none
    /// of any flow, and must have counted it.
    pub fn prove_running(&mut self) -> Result<()> {
        for link in self.attached() {
            let before = self.raw_counters()?;
            // An EtherType for local experiments (IEEE 802), or an IP version that there is not.
            let packet = [[0; 12].as_slice(), &[0x88, 0xb5], &[0; 50]].concat();
            self.run(Program::Packet(link), &packet, &PacketContext::default(), 1)?;
            let after = self.raw_counters()?;
            let mut probe = Counters { seen: 1, ..Counters::default() };
            let moved = if link == Link::Ethernet {
                probe.not_ip = 1;
                after.not_ip > before.not_ip
            } else {
                probe.malformed[agent_common::parse::Malformed::BadIpVersion as usize] = 1;
                after.malformed() > before.malformed()
            };
            self.probes.add(&probe);
            ensure!(
                moved && after.seen > before.seen,
                "the kernel program `{}` is attached but does not run",
                Program::Packet(link).name()
            );
        }
        Ok(())
    }

    fn check_program(&mut self, link: Link) -> Result<()> {
        let mut flow = Flow::zeroed();
        let mut expected = Record::zeroed();
        let (mut accounted, mut filtered) = (0, 0);
        let before = self.raw_counters()?;
        for (index, (packet, gso_size)) in conversation(link).into_iter().enumerate() {
            let context = PacketContext { ifindex: LOOPBACK, gso_size, ..PacketContext::default() };
            self.run(Program::Packet(link), &packet, &context, 1)?;

            let wire_len = packet.len() as u32;
            let frame = Frame { link, ifindex: LOOPBACK, wire_len, gso_size, vlan_tci: 0 };
            let Ok((headers, measures)) = parse(&packet[..], &frame, self.config.decap != 0) else {
                bail!("the self-check's packet {index} is no packet");
            };
            let (key, from_b) = headers.key();
            let packets = u64::from(measures.segments.count);
            // The user's filter or sample may leave it out: that, too, is to be counted.
            if !selects(&self.filter, self.config.sample, &headers, &key) {
                filtered += packets;
                continue;
            }
            let standing = if accounted == 0 { Standing::New } else { Standing::Known };
            expected.key = key;
            accounted += packets;
            flow.on_packet(&Arrival::new(&headers, &measures, from_b, 1), standing, &self.config);
        }
        flow.prepare(&self.config, &mut expected);
        flow.emit(Reason::Stop, 1, &mut expected);

        let mut counters = self.raw_counters()?;
        counters.subtract(&before);
        ensure!(
            (counters.accounted, counters.filtered, counters.unaccounted())
                == (accounted, filtered, 0),
            "of {accounted} packets run through `{}`, {} were accounted, and {} filtered, not {filtered}",
            Program::Packet(link).name(),
            counters.accounted,
            counters.filtered
        );
        self.sweep(&SweepRequest::stop())?;
        let mut last = None;
        self.drain(usize::MAX, &mut |record| last = Some(*record))?;
        if accounted == 0 && last.is_none() {
            return Ok(());
        }
        let Some(mut found) = last else {
            bail!("`{}` made no vector", Program::Packet(link).name());
        };
        without_times(&mut found);
        without_times(&mut expected);
        ensure!(
            found == expected,
            "`{}` made another vector than this process: {found:?}, not {expected:?}",
            Program::Packet(link).name()
        );
        Ok(())
    }
}

/// The two sides run at other times, and a small stride makes vectors between.
fn without_times(record: &mut Record) {
    record.summary.first_us = 0;
    record.summary.last_us = 0;
    record.summary.seq = 0;
    record.sums.iat_sum = 0;
    record.sums.iat_sq_sum = 0;
    record.sums.iat_entropy = 0;
    record.extrema.iat_min = 0;
    record.extrema.iat_max = 0;
}

/// The packets, with their `gso_size`: between two addresses of documentation (RFC 5737).
fn conversation(link: Link) -> Vec<(Vec<u8>, u32)> {
    let packet = |&(flags, answer, payload, gso_size): &(u8, bool, u16, u32)| {
        let (a, b) = ([192, 0, 2, 1], [198, 51, 100, 1]);
        let (src, dst) = if answer { (b, a) } else { (a, b) };
        let (sport, dport): (u16, u16) = if answer { (443, 50_000) } else { (50_000, 443) };
        let mut bytes = Vec::new();
        if link == Link::Ethernet {
            bytes.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        }
        bytes.extend([0x45, 0]);
        bytes.extend((40 + payload).to_be_bytes());
        bytes.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        bytes.extend(src);
        bytes.extend(dst);
        bytes.extend(sport.to_be_bytes());
        bytes.extend(dport.to_be_bytes());
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x10, 0, 0, 0, 0, 0]);
        bytes.resize(bytes.len() + usize::from(payload), 0xfa);
        (bytes, gso_size)
    };
    FLAGS.iter().map(packet).collect()
}
