//! The main job for a moment: the agent's program is loaded, checked, attached both ways, and shown a packet.
//!
//! In a network namespace of a thread's own, which is gone with it: no interface of the host is touched.

use std::{net::UdpSocket, thread, time::Duration};

use agent_common::parse::Link;
use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, unshare};

use super::{
    ASK_AS_ROOT,
    check::{Check, Status},
};
use crate::{
    bpf::{Kernel, LoadOptions, Program, probe, random_secrets},
    interface::Interface,
    netlink::LinkSocket,
    settings::{AttachMode, Direction, HookChoice, Settings},
};

/// What became of it.
pub(super) struct Trial {
    program: Outcome<Loaded>,
    tcx: Outcome<Found>,
    clsact: Outcome<Found>,
}

/// What can be said of a way that works.
type Found = &'static str;

/// How an attempt came out.
enum Outcome<T> {
    Works(T),
    /// What the kernel said.
    Fails(String),
    /// Why it was not tried.
    NotTried(String),
}

/// The program, once it is loaded and has counted as it should.
struct Loaded {
    instructions: Option<u32>,
    compiled: Option<bool>,
}

impl Outcome<Found> {
    fn new(result: Result<Found>) -> Self {
        match result {
            Ok(found) => Self::Works(found),
            Err(error) => Self::Fails(format!("{error:#}")),
        }
    }
}

/// Tries, unless that is bound to fail.
pub(super) fn run(worth_it: bool, settings: Settings) -> Trial {
    let not_tried = |why: &str| Trial {
        program: Outcome::NotTried(why.to_owned()),
        tcx: match probe::tcx() {
            Ok(false) => Outcome::Fails(NO_TCX.to_owned()),
            _ => Outcome::NotTried(why.to_owned()),
        },
        clsact: Outcome::NotTried(why.to_owned()),
    };
    if !worth_it {
        return not_tried("not tried: what is missing above comes first");
    }
    // A thread, for it is the thread that goes into another namespace.
    thread::spawn(move || in_thread(&settings))
        .join()
        .unwrap_or_else(|_| not_tried("not tried: the trial broke off"))
}

const NO_TCX: &str = "this kernel has none";

fn in_thread(settings: &Settings) -> Trial {
    let alone = unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace");
    let loaded = Kernel::load(&LoadOptions {
        config: settings.config,
        filter: settings.filter,
        hook: HookChoice::Tc,
        max_flows: settings.max_flows,
        ring_bytes: settings.ring_bytes,
        kernel_log: false,
        secrets: random_secrets(),
    })
    .and_then(|mut kernel| kernel.self_check(&[Link::Ethernet, Link::Ip]).map(|()| kernel));
    let mut kernel = match loaded {
        Ok(kernel) => kernel,
        Err(error) => {
            let why = || "not tried: there is no program to attach".to_owned();
            return Trial {
                program: Outcome::Fails(format!("{error:#}")),
                tcx: Outcome::NotTried(why()),
                clsact: Outcome::NotTried(why()),
            };
        }
    };
    let program = Program::Packet(Link::Ethernet);
    let loaded = Loaded {
        instructions: kernel.verified_instructions(program).ok().flatten(),
        compiled: kernel.is_compiled(program),
    };
    let (tcx, clsact) = match alone {
        Ok(()) => (
            Outcome::new(attached(&mut kernel, AttachMode::Tcx)),
            Outcome::new(attached(&mut kernel, AttachMode::Clsact)),
        ),
        Err(error) => {
            let why = format!("not tried: {error:#}, which takes CAP_SYS_ADMIN");
            let tcx = match probe::tcx() {
                Ok(true) => Outcome::Works("this kernel has it"),
                Ok(false) => Outcome::Fails(NO_TCX.to_owned()),
                Err(error) => Outcome::NotTried(format!("{error:#}")),
            };
            (tcx, Outcome::NotTried(why))
        }
    };
    Trial { program: Outcome::Works(loaded), tcx, clsact }
}

/// Attaches to the namespace's loopback interface, sends it a packet, and wants to find it counted.
fn attached(kernel: &mut Kernel, mode: AttachMode) -> Result<Found> {
    let loopback = Interface::find("lo")?;
    LinkSocket::new()?.set_up(loopback.index)?;
    let _attachment = kernel.attach(&loopback, Direction::Both, mode)?;
    let before = kernel.counters()?.seen;
    let what = "cannot send a packet over the loopback interface";
    let socket = UdpSocket::bind("127.0.0.1:0").context(what)?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).context(what)?;
    socket.send_to(b"doctor", socket.local_addr().context(what)?).context(what)?;
    socket.recv(&mut [0; 16]).context(what)?;
    match kernel.counters()?.seen - before {
        0 => bail!("attached, but a packet came by without being seen"),
        1 => Ok("attached to a loopback interface of its own, and saw the packet sent there"),
        seen => bail!("attached, but counted one packet {seen} times"),
    }
}

impl Trial {
    /// Program, its compilation, and both ways to attach it: of these one is enough.
    pub(super) fn checks(&self) -> [Check; 4] {
        let mut tcx = tcx_check(&self.tcx);
        let mut clsact = clsact_check(&self.clsact);
        if tcx.status == Status::Missing {
            clsact = clsact.required();
        }
        if clsact.status == Status::Missing {
            tcx = tcx.required();
        }
        [program_check(&self.program), jit_check(&self.program), tcx, clsact]
    }
}

fn program_check(program: &Outcome<Loaded>) -> Check {
    let check = match program {
        Outcome::Works(Loaded { instructions, .. }) => {
            let walked = instructions
                .map(|count| format!(" ({count} instructions walked by the verifier)"))
                .unwrap_or_default();
            Check::ok("program", format!("loads, and counts as it should{walked}"))
        }
        Outcome::Fails(error) => Check::missing("program", error.clone()),
        Outcome::NotTried(why) => Check::unknown("program", why.clone()),
    };
    check.required().or_else("the main job", "").seen_by(ASK_AS_ROOT)
}

fn jit_check(program: &Outcome<Loaded>) -> Check {
    let check = match program {
        Outcome::Works(Loaded { compiled: Some(true), .. }) => {
            Check::ok("jit", "the program is compiled for this processor")
        }
        Outcome::Works(Loaded { compiled: Some(false), .. }) => {
            Check::missing("jit", "the program is interpreted")
        }
        Outcome::Works(Loaded { compiled: None, .. }) => {
            Check::unknown("jit", "the kernel does not tell of the loaded program")
        }
        Outcome::Fails(_) | Outcome::NotTried(_) => Check::unknown("jit", "no program is loaded"),
    };
    check
        .or_else(
            "speed: each packet costs several times as much",
            "sudo sysctl net.core.bpf_jit_enable=1, or a kernel with CONFIG_BPF_JIT",
        )
        .seen_by(ASK_AS_ROOT)
}

fn tcx_check(tried: &Outcome<Found>) -> Check {
    way("tcx", tried).or_else(
        "--attach tcx; programs are attached by clsact, whose filters outlive a kill -9",
        "Linux 6.6 or later with CONFIG_NET_XGRESS",
    )
}

fn clsact_check(tried: &Outcome<Found>) -> Check {
    way("clsact", tried).or_else(
        "--attach clsact",
        "a kernel with CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF, or their modules sch_ingress and \
         cls_bpf",
    )
}

fn way(name: &'static str, tried: &Outcome<Found>) -> Check {
    match tried {
        Outcome::Works(found) => Check::ok(name, *found),
        Outcome::Fails(error) => Check::missing(name, error.clone()),
        Outcome::NotTried(why) => Check::unknown(name, why.clone()).seen_by(ASK_AS_ROOT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn required(tcx: Outcome<Found>, clsact: Outcome<Found>) -> [bool; 2] {
        let program = Outcome::NotTried(String::new());
        let [_, _, tcx, clsact] = Trial { program, tcx, clsact }.checks();
        [tcx, clsact].map(|check| check.required && check.status == Status::Missing)
    }

    #[test]
    fn one_way_to_attach_is_enough() {
        let works = || Outcome::Works("");
        let fails = || Outcome::Fails(String::new());
        assert_eq!(required(works(), fails()), [false, false]);
        assert_eq!(required(fails(), works()), [false, false]);
        assert_eq!(required(fails(), Outcome::NotTried(String::new())), [false, false]);
        assert_eq!(required(fails(), fails()), [true, true]);
    }
}
