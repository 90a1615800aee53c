//! A machine with systemd and the package installed: a clean root, booted by systemd-nspawn into a network namespace
//! of a test's own. `cargo xtask package --test` makes the root and names it.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::Duration,
};

use crate::{inject::wait_until, netns::Netns};

/// The variable that names the root.
const ROOT: &str = "FEATURE_AGENT_ROOT";
/// How long it may take to start, and to stop.
const PATIENCE: Duration = Duration::from_mins(1);

/// The root with the package in it; says so if there is none.
pub fn root_or_say(test: &str) -> Option<PathBuf> {
    let root = env::var_os(ROOT).map(PathBuf::from);
    if root.is_none() {
        eprintln!("{test}: not run, `cargo xtask package --test` runs it in a root that it makes");
    }
    root
}

/// systemd-nspawn locks the root.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A machine that runs. What is written in it is gone with it.
#[derive(Debug)]
pub struct Machine {
    nspawn: Child,
    /// Its first process, as this machine numbers it.
    leader: u32,
    log: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    /// Starts one from the root, whose network is that of `ns`.
    pub fn boot(root: &Path, ns: &Netns) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let log = env::temp_dir().join(format!("feature-agent-machine-{}", std::process::id()));
        let console = File::create(&log).expect("a file for its console");
        let mut nspawn = Command::new("systemd-nspawn");
        nspawn
            .args(["--quiet", "--boot", "--register=no", "--keep-unit", "--volatile=overlay"])
            .args(["--console=pipe", "--capability=all", "--system-call-filter=bpf"])
            .arg(format!("--network-namespace-path=/run/netns/{}", ns.name()))
            .arg("--directory")
            .arg(root);
        nspawn.stdin(Stdio::null()).stderr(console.try_clone().expect("a file")).stdout(console);
        let nspawn = nspawn.spawn().expect("start systemd-nspawn");
        let mut machine = Self { nspawn, leader: 0, log, _alone: alone };
        let children = format!("/proc/{0}/task/{0}/children", machine.nspawn.id());
        let up = wait_until(PATIENCE, || {
            let first = fs::read_to_string(&children).unwrap_or_default();
            machine.leader =
                first.split_whitespace().next().map_or(0, |pid| pid.parse().expect("pid"));
            // The first answers come before the machine has a root of its own.
            machine.leader != 0
                && machine.said("systemctl", &["is-system-running"]).trim() == "running"
        });
        assert!(up, "it does not start:\n{}", fs::read_to_string(&machine.log).unwrap_or_default());
        machine
    }

    /// What a program says on standard output.
    pub fn said(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program, args).output().expect("nsenter (util-linux)");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a program that must succeed.
    pub fn run(&self, program: &str, args: &[&str]) {
        let output = self.command(program, args).output().expect("nsenter (util-linux)");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{program} {args:?}: {said}\n{}", self.journal(&[]));
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.said("systemctl", &["show", "--value", "--property", name, unit]).trim().to_owned()
    }

    /// What was logged, as journalctl's arguments select it.
    pub fn journal(&self, select: &[&str]) -> String {
        self.said("journalctl", &[&["--no-pager", "--output=cat"], select].concat())
    }

    /// A file of it, as this machine sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.leader))
    }

    /// Writes a file, with the folder around it.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.leader)).args(["--all", program]).args(args);
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.leader != 0 {
            self.said("systemctl", &["poweroff"]);
        }
        for _ in 0..100 {
            if self.nspawn.try_wait().is_ok_and(|ended| ended.is_some()) {
                break;
            }
            sleep(Duration::from_millis(100));
        }
        let _already_gone = self.nspawn.kill();
        let _reaped = self.nspawn.wait();
        let _gone = fs::remove_file(&self.log);
    }
}
