//! `vm`: the tests on the real kernel, on other kernels than this machine's.
//!
//! Each kernel is Debian's, booted by an emulator with an initial RAM file system that holds the tests. All of it is
//! fetched, unpacked and kept below `target/guests`; to have it anew, remove that folder.

mod apt;
mod cpio;
mod guest;
mod kernel;
mod measure;
mod programs;
mod qemu;
mod suite;

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};

pub(crate) use self::measure::measure;
use self::{
    apt::{Apt, Mirrors},
    kernel::{Kernel, Wanted},
    qemu::{Clock, Ended, Qemu},
    suite::{Suite, Tally},
};
use crate::{project, shell};

/// The series that every change is tested on: the oldest that Debian supports with filters on clsact, one with TCX.
const DEFAULT: [&str; 2] = ["6.1", "6.12"];
/// What else `--all` boots.
const OTHERS: [&str; 3] = ["6.18", "newest", "5.10"];
/// Why there are no guests.
const NO_DEBIAN: &str = "the virtual machines' kernels are those of Debian on x86-64, and this machine's apt knows no mirror \
                         of it";
/// After so long a guest is taken to hang.
const PATIENCE: Duration = Duration::from_mins(25);

/// Boots the kernels that are asked for, one for each processor at a time, and runs the tests in them.
pub(crate) fn vm(args: &[String]) -> Result<()> {
    let (kernels, filter) = match args.iter().position(|arg| arg == "--") {
        Some(dashes) => (&args[..dashes], &args[dashes + 1..]),
        None => (args, &[][..]),
    };
    let mut wanted: Vec<String> = Vec::new();
    for arg in kernels {
        match arg.as_str() {
            "--all" => wanted.extend(DEFAULT.iter().chain(&OTHERS).map(|&name| name.to_owned())),
            flag if flag.starts_with('-') => {
                bail!("`vm` takes kernels as in 6.1, or --all, not {flag}")
            }
            kernel => wanted.push(kernel.to_owned()),
        }
    }
    if wanted.is_empty() {
        wanted.extend(DEFAULT.map(str::to_owned));
    }
    let lab = Lab::prepare(&wanted)?;
    lab.run(&Suite::build()?, filter, &|kernel, line| println!("[{kernel}] {line}"))
}

/// The tests on the default kernels, beside all others. What they print is kept, and shown if they fail.
pub(crate) struct Background {
    thread: thread::JoinHandle<Result<()>>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Background {
    /// Starts them, where they can be.
    pub(crate) fn start() -> Option<Self> {
        if Mirrors::of_this_machine().is_none() {
            shell::say(&format!("no other kernels are tested: {NO_DEBIAN}"));
            return None;
        }
        let lines = Arc::default();
        let kept: Arc<Mutex<Vec<String>>> = Arc::clone(&lines);
        let thread = thread::spawn(move || {
            let lab = Lab::prepare(&DEFAULT.map(str::to_owned))?;
            lab.run(&Suite::build()?, &[], &|kernel, line| {
                let line = format!("[{kernel}] {line}");
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            })
        });
        Some(Self { thread, lines })
    }

    /// Waits for their end.
    pub(crate) fn finish(self) -> Result<()> {
        let result = self.thread.join().unwrap_or_else(|_| Err(anyhow!("their thread panicked")));
        if result.is_err() {
            for line in self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                eprintln!("{line}");
            }
        }
        result.context("in virtual machines")
    }
}

/// Everything that guests need, once for all of them.
#[derive(Debug)]
struct Lab {
    qemu: Qemu,
    kernels: Vec<Kernel>,
}

impl Lab {
    fn prepare(wanted: &[String]) -> Result<Self> {
        let wanted: Vec<Wanted> =
            wanted.iter().map(|text| Wanted::parse(text)).collect::<Result<_>>()?;
        let folder = project::target()?.join("guests");
        let mirrors = Mirrors::of_this_machine().context(NO_DEBIAN)?;
        let qemu = Qemu::get(&mirrors, &folder)?;
        let apt = Apt::new(&folder.join("kernels"), &mirrors.kernels())?;
        let kernels = wanted.iter().map(|wanted| Kernel::get(&apt, wanted, &folder.join("linux")));
        let kernels = kernels.collect::<Result<_>>()?;
        Ok(Self { qemu, kernels })
    }

    /// Runs the tests on every kernel; an error says on which they fail.
    fn run(
        &self,
        suite: &Suite,
        filter: &[String],
        say: &(dyn Fn(&str, &str) + Sync),
    ) -> Result<()> {
        let at_once = thread::available_parallelism().map_or(1, usize::from);
        let mut failed = Vec::new();
        for group in self.kernels.chunks(at_once) {
            let results: Vec<Result<()>> = thread::scope(|scope| {
                let threads: Vec<_> = group
                    .iter()
                    .map(|kernel| scope.spawn(|| self.test(kernel, suite, filter, say)))
                    .collect();
                let ended = threads.into_iter().map(|thread| {
                    thread.join().unwrap_or_else(|_| Err(anyhow!("its thread panicked")))
                });
                ended.collect()
            });
            for (kernel, result) in group.iter().zip(results) {
                if let Err(error) = result {
                    shell::say(&format!("Linux {}: {error:#}", kernel.version));
                    failed.push(kernel.version.as_str());
                }
            }
        }
        if !failed.is_empty() {
            bail!("the tests fail on Linux {}", failed.join(", "));
        }
        Ok(())
    }

    fn test(
        &self,
        kernel: &Kernel,
        suite: &Suite,
        filter: &[String],
        say: &dyn Fn(&str, &str),
    ) -> Result<()> {
        let version = kernel.version.as_str();
        let mut tally = Tally::new(version);
        let script = Suite::script(version, filter);
        let ended = self.boot(kernel, Clock::Real, &suite.files(), &script, |at, line| {
            tally.line(at, line);
            say(version, &format!("{:>3} s {line}", at.as_secs()));
        })?;
        let passed = tally.check(ended.code, !filter.is_empty())?;
        shell::say(&format!(
            "Linux {version}: {passed} tests passed in {} s, {} skipped; seconds: {}",
            ended.took.as_secs(),
            tally.skipped.len(),
            tally.times(ended.took)
        ));
        Ok(())
    }

    /// Runs a script on a kernel, with files of this machine by their paths there; hands over each line that it prints, and
    /// when.
    fn boot(
        &self,
        kernel: &Kernel,
        clock: Clock,
        files: &[(String, &Path)],
        script: &str,
        each: impl FnMut(Duration, &str),
    ) -> Result<Ended> {
        let folder = project::target()?.join("guests/run").join(&kernel.version);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let initramfs = folder.join("initramfs");
        let archive = guest::initramfs(&self.qemu, kernel, files, script)?;
        fs::write(&initramfs, archive)
            .with_context(|| format!("cannot write {}", initramfs.display()))?;
        self.qemu.run(clock, &kernel.image, &initramfs, &folder, PATIENCE, each)
    }
}
