//! The machine: QEMU without acceleration, unpacked beside the kernels, never installed (on Debian 12 its package would take
//! the place of another).

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::apt::{Apt, Mirrors};
use crate::shell;

/// What is unpacked: the machine, and the guests' small programs.
const PACKAGES: [&str; 2] = ["qemu-system-x86", "busybox-static"];
/// Lines of the kernel's log that are shown when a guest dies.
const LAST_WORDS: usize = 30;

/// The kernel's command line: what it says of itself goes to the first serial port, a fault of its own ends it; and what guards
/// it against attackers, and would be emulated at length, is off.
const KERNEL_OPTIONS: &str =
    "console=ttyS0 quiet panic=-1 oops=panic mitigations=off init_on_alloc=0";

/// An unpacked QEMU.
#[derive(Debug)]
pub(super) struct Qemu(PathBuf);

/// What a guest's time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// That of its host.
    Real,
    /// A nanosecond for each instruction that its one processor executes, and none while that waits: what is measured by it
    /// does not depend on the host.
    Instructions,
}

impl Clock {
    /// QEMU's options for processors and their time.
    fn options(self) -> &'static [&'static str] {
        match self {
            // Two processors, for what only goes wrong with two; no accelerator, so that it works everywhere.
            Self::Real => &["-accel", "tcg,thread=multi", "-smp", "2"],
            Self::Instructions => {
                &["-accel", "tcg,thread=single", "-smp", "1", "-icount", "shift=0,sleep=off"]
            }
        }
    }
}

/// How a guest ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// The exit code of its tests.
    pub(super) code: i32,
    /// From power on to power off.
    pub(super) took: Duration,
}

impl Qemu {
    /// Fetches what is not there yet.
    pub(super) fn get(mirrors: &Mirrors, folder: &Path) -> Result<Self> {
        let place = folder.join("qemu");
        if !place.is_dir() {
            shell::say("fetching QEMU for virtual machines");
            let apt = Apt::new(&folder.join("own"), &mirrors.own())?;
            apt.unpack(&apt.missing(&PACKAGES)?, &place)?;
        }
        Ok(Self(place))
    }

    /// The static shell and all its commands.
    pub(super) fn busybox(&self) -> PathBuf {
        self.0.join("bin/busybox")
    }

    /// Boots a kernel with an initial RAM file system, hands over each line that its tests print and when it came, counted
    /// from power on, and waits until it has switched itself off. `folder` is the guest's own.
    pub(super) fn run(
        &self,
        clock: Clock,
        image: &Path,
        initramfs: &Path,
        folder: &Path,
        patience: Duration,
        mut each: impl FnMut(Duration, &str),
    ) -> Result<Ended> {
        let [console, exit] = ["console", "exit"].map(|name| folder.join(name));
        fs::write(&exit, "").with_context(|| format!("cannot write {}", exit.display()))?;
        let library = |inner: &str| self.0.join(inner).display().to_string();
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(library).join(":");
        let start = Instant::now();
        let mut machine = Machine(
            // Tests on this machine's own kernel, which may run beside it and wait less long, come first.
            Command::new("nice")
                .args(["-n", "10"])
                .arg(self.0.join("usr/bin/qemu-system-x86_64"))
                .env("LD_LIBRARY_PATH", libraries)
                .arg("-L")
                .arg(library("usr/share/seabios"))
                .arg("-L")
                .arg(library("usr/share/qemu"))
                // A plain processor: one that has everything takes half as long again to emulate, most of it for what
                // guards the kernel's memory.
                .args(["-M", "pc", "-cpu", "qemu64"])
                .args(clock.options())
                .args([
                    "-m",
                    "1024",
                    "-nodefaults",
                    "-no-user-config",
                    "-display",
                    "none",
                    "-no-reboot",
                ])
                .arg("-kernel")
                .arg(image)
                .arg("-initrd")
                .arg(initramfs)
                .arg("-append")
                .arg(KERNEL_OPTIONS)
                .arg("-serial")
                .arg(format!("file:{}", console.display()))
                .args(["-chardev", "stdio,id=out,signal=off", "-serial", "chardev:out", "-serial"])
                .arg(format!("file:{}", exit.display()))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(File::create(folder.join("errors")).context("cannot write QEMU's errors")?)
                .spawn()
                .context("cannot start QEMU")?,
        );
        let output = machine.0.stdout.take().context("QEMU has no output")?;
        let (sender, lines) = mpsc::channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        loop {
            let left = patience.saturating_sub(start.elapsed());
            match lines.recv_timeout(left) {
                Ok(line) => each(start.elapsed(), &line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!(
                        "not done after {patience:?}; the kernel's last words:\n{}",
                        tail(&console)
                    )
                }
            }
        }
        // Its output is closed: it is gone, or about to.
        let status = machine.0.wait().context("cannot wait for QEMU")?;
        let _read_all = reader.join();
        let said = fs::read_to_string(&exit).unwrap_or_default();
        let code = said.lines().find_map(|line| line.trim().strip_prefix("exit ")?.parse().ok());
        let Some(code) = code else {
            let errors = fs::read_to_string(folder.join("errors")).unwrap_or_default();
            bail!("it died ({status}); {errors}\nthe kernel's last words:\n{}", tail(&console));
        };
        Ok(Ended { code, took: start.elapsed() })
    }
}

/// A machine that does not outlive who started it.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail once it is gone, as it should be.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tail(console: &Path) -> String {
    let bytes = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
}
