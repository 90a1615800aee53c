//! The package in a Debian that has nothing of this machine: installed, run, and its units under a systemd of their own.

use std::path::Path;

use anyhow::Result;

use crate::{package::Trial, project, root, shell};

/// What the tests of the units look for.
const ROOT: &str = "FEATURE_AGENT_ROOT";

/// Installs the .deb in a clean root, runs the program and the units there, and removes it.
pub(crate) fn try_package(folder: &Path, deb: &Path, trial: Trial) -> Result<()> {
    let clean = folder.join("root");
    if !trial.goes_on_after(make(&clean))? {
        return Ok(());
    }
    let inside = |program: &str, args: &[&str]| -> Result<()> {
        let mut chroot = root::command("chroot", "running in a clean root")?;
        shell::run(chroot.arg(&clean).arg(program).args(args))
    };
    shell::run(
        root::command("cp", "filling a clean root")?.arg(deb).arg(clean.join("feature-agent.deb")),
    )?;
    inside("dpkg", &["--install", "/feature-agent.deb"])?;
    inside("feature-agent", &["--version"])?;
    inside("feature-agent", &["schema", "--format", "json"])?;
    inside("feature-agent", &["config", "--iface", "lo"])?;
    inside("test", &["-s", "/usr/share/man/man1/feature-agent.1.gz"])?;
    inside("id", &["feature-agent"])?;
    // Live, in a network namespace of its own: it must get ready, see a packet, and end well.
    shell::run(
        root::command("unshare", "running the agent in a clean root")?
            .args(["--net", "--mount", "--pid", "--fork"])
            .args(["sh", "-c"])
            .arg(LIVE)
            .arg("sh")
            .arg(&clean),
    )?;
    if trial.goes_on_after(containers_start(&clean))? {
        under_systemd(&clean)?;
    }
    inside("dpkg", &["--purge", "feature-agent"])?;
    shell::say("the package is installed, runs live and is removed in a clean root");
    Ok(())
}

/// Makes a Debian with systemd, if it is not there.
fn make(clean: &Path) -> Result<()> {
    // debootstrap keeps what it needs in a folder of this name until it is done.
    if clean.join("usr/lib/systemd/systemd").is_file() && !clean.join("debootstrap").exists() {
        return Ok(());
    }
    shell::say("making a clean Debian, once");
    let why = "making a clean root";
    root::need("debootstrap", "debootstrap")?;
    // What is there was not finished.
    shell::run(root::command("rm", why)?.args(["--recursive", "--force"]).arg(clean))?;
    shell::run(
        root::command("debootstrap", why)?
            .args(["--variant=minbase", "--include=iproute2,systemd-sysv", "bookworm"])
            .arg(clean),
    )
}

/// Whether this machine lets a container be started.
fn containers_start(clean: &Path) -> Result<()> {
    root::need("systemd-nspawn", "systemd-container")?;
    let mut probe = root::command("systemd-nspawn", "starting a container")?;
    probe.args(["--quiet", "--register=no", "--keep-unit", "--volatile=overlay", "--directory"]);
    shell::run(probe.arg(clean).arg("true"))
}

/// Runs the tests of the units, each in a machine that systemd-nspawn boots from the root.
fn under_systemd(clean: &Path) -> Result<()> {
    let mut tests = project::cargo()?;
    tests.args(["test", "--package", "feature-agent-tests", "--test", "systemd"]);
    root::run_programs_of(&mut tests, "testing units")?;
    shell::run(tests.env(ROOT, clean))
}

/// Watches loopback for two seconds, as the package's own user from attaching on.
const LIVE: &str = "set -e
mount -t proc proc \"$1/proc\"; mount -t sysfs sysfs \"$1/sys\"
ip link set lo up
chroot \"$1\" timeout --preserve-status 2 feature-agent --iface lo --user feature-agent --output /tmp/v.jsonl &
sleep 1; (echo hello >/dev/udp/127.0.0.1/9) 2>/dev/null || bash -c 'echo hello >/dev/udp/127.0.0.1/9'
wait $!
test -s \"$1/tmp/v.jsonl\"; rm \"$1/tmp/v.jsonl\"";
