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

/// An unpacked QEMU.
#[derive(Debug)]
pub(super) struct Qemu(PathBuf);

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

    /// Boots a kernel with an initial RAM file system, hands over each line that its tests print, and waits until
    /// it has switched itself off. `folder` is the guest's own.
    pub(super) fn run(
        &self,
        image: &Path,
        initramfs: &Path,
        folder: &Path,
        patience: Duration,
        mut each: impl FnMut(&str),
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
                // Two processors, for what only goes wrong with two; no accelerator, so that it works everywhere.
                .args(["-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"])
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
                .args(["-append", "console=ttyS0 quiet panic=-1 oops=panic"])
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
                Ok(line) => each(&line),
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
