//! `package`: a static program, and the .deb and the tarball that bring it to a machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{project, root, sbom, shell};

/// The target whose programs need no library of the machine they run on.
const TARGET: &str = "x86_64-unknown-linux-musl";
/// The maker of the .deb.
const CARGO_DEB: &str = "3.8.0";

/// What the program generates: its own name for it, and the file in the package.
const GENERATED: [(&str, &str); 5] = [
    ("man", "feature-agent.1"),
    ("bash", "feature-agent.bash"),
    ("zsh", "_feature-agent"),
    ("fish", "feature-agent.fish"),
    ("config", "config.toml"),
];
/// What a tarball holds besides, from the project's root.
const INCLUDED: [&str; 8] = [
    "README.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "grafana/feature-agent.json",
    "systemd/feature-agent.service",
    "systemd/feature-agent@.service",
    "systemd/feature-agent.sysusers",
];

/// Makes everything; with `--test`, installs the .deb in a clean root and runs the program there.
pub(crate) fn package(args: &[String]) -> Result<()> {
    let test = match args {
        [] => false,
        [flag] if flag == "--test" => true,
        _ => bail!("`package` takes nothing or `--test`"),
    };
    let program = static_program()?;
    let folder = project::target()?.join("package");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (kind, file) in GENERATED {
        let text = shell::read(Command::new(&program).args(["generate", kind]))?;
        write(&folder.join(file), &(text + "\n"))?;
    }
    write(&folder.join("sbom.cdx.json"), &sbom::cyclonedx(TARGET)?)?;
    let deb = deb(&folder)?;
    let tarball = tarball(&folder, &program)?;
    for made in [&deb, &tarball] {
        let bytes = fs::metadata(made).with_context(|| format!("no {}", made.display()))?.len();
        shell::say(&format!("{}: {bytes} bytes", made.display()));
    }
    if test { in_clean_root(&folder, &deb) } else { Ok(()) }
}

/// Builds the program without anything dynamic, and looks whether that is so.
fn static_program() -> Result<PathBuf> {
    // A part of the cryptography behind TLS is C.
    root::need("musl-gcc", "musl-tools")?;
    shell::run(
        Command::new("rustup").current_dir(project::root()?).args(["target", "add", TARGET]),
    )?;
    shell::run(project::cargo()?.args(["build", "--release", "--locked"]).args([
        "--package",
        "feature-agent",
        "--target",
        TARGET,
    ]))?;
    let program = project::target()?.join(TARGET).join("release/feature-agent");
    let bytes = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    if asks_for_a_loader(&bytes)? {
        bail!("{} asks for a dynamic loader: it is not static", program.display());
    }
    Ok(program)
}

/// Whether an ELF program has an interpreter (PT_INTERP, elf(5)).
fn asks_for_a_loader(bytes: &[u8]) -> Result<bool> {
    use object::read::elf::{FileHeader as _, ProgramHeader as _};
    let header = object::elf::FileHeader64::<object::Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, bytes)?;
    Ok(segments.iter().any(|segment| segment.p_type(endian) == object::elf::PT_INTERP))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Has cargo-deb make the package as agent/Cargo.toml describes it.
fn deb(folder: &Path) -> Result<PathBuf> {
    let tools = project::target()?.join("tools");
    let maker = tools.join("bin/cargo-deb");
    let version = |maker: &Path| shell::read(Command::new(maker).args(["deb", "--version"]));
    if !maker.is_file() || !version(&maker).is_ok_and(|found| found.contains(CARGO_DEB)) {
        shell::say(&format!("installing cargo-deb {CARGO_DEB} into {}", tools.display()));
        shell::run(
            project::cargo()?
                .args(["install", "cargo-deb", "--version", CARGO_DEB, "--locked", "--force"])
                .arg("--no-default-features")
                .arg("--root")
                .arg(&tools)
                .arg("--target-dir")
                .arg(tools.join("build")),
        )?;
    }
    let place = folder.join("feature-agent_amd64.deb");
    shell::run(
        Command::new(maker)
            .current_dir(project::root()?)
            .env("CARGO_TARGET_DIR", project::target()?)
            .args(["deb", "--package", "feature-agent", "--no-build", "--target", TARGET])
            .arg("--output")
            .arg(&place),
    )?;
    Ok(place)
}

/// The same without a package manager.
fn tarball(folder: &Path, program: &Path) -> Result<PathBuf> {
    let name = "feature-agent-x86_64";
    let content = folder.join(name);
    if content.exists() {
        fs::remove_dir_all(&content)
            .with_context(|| format!("cannot empty {}", content.display()))?;
    }
    fs::create_dir_all(&content).with_context(|| format!("cannot make {}", content.display()))?;
    let here = project::root()?;
    let files = INCLUDED.iter().map(|file| here.join(file));
    let generated = GENERATED.iter().map(|(_, file)| folder.join(file));
    let rest = [program.to_path_buf(), folder.join("sbom.cdx.json")];
    for file in files.chain(generated).chain(rest) {
        let name = file.file_name().with_context(|| format!("no name: {}", file.display()))?;
        fs::copy(&file, content.join(name))
            .with_context(|| format!("cannot copy {}", file.display()))?;
    }
    let tarball = folder.join(format!("{name}.tar.gz"));
    // Without owner and order of this machine.
    shell::run(
        Command::new("tar")
            .args(["--create", "--gzip", "--owner=0", "--group=0", "--numeric-owner"])
            .args(["--sort=name", "--file"])
            .arg(&tarball)
            .arg("--directory")
            .arg(folder)
            .arg(name),
    )?;
    Ok(tarball)
}

/// Installs the .deb in a Debian that has nothing of this machine, and runs the program there.
fn in_clean_root(folder: &Path, deb: &Path) -> Result<()> {
    root::need("debootstrap", "debootstrap")?;
    let clean = folder.join("root");
    if !clean.join("usr/bin/dpkg").is_file() {
        shell::say("making a clean Debian, once");
        let why = "making a clean root";
        shell::run(
            root::command("debootstrap", why)?
                .args(["--variant=minbase", "--include=iproute2", "bookworm"])
                .arg(&clean),
        )?;
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
    inside("dpkg", &["--purge", "feature-agent"])?;
    shell::say("the package is installed, runs live and is removed in a clean root");
    Ok(())
}

/// Watches loopback for two seconds, as the package's own user from attaching on.
const LIVE: &str = "set -e
mount -t proc proc \"$1/proc\"; mount -t sysfs sysfs \"$1/sys\"
ip link set lo up
chroot \"$1\" timeout --preserve-status 2 feature-agent --iface lo --user feature-agent --output /tmp/v.jsonl &
sleep 1; (echo hello >/dev/udp/127.0.0.1/9) 2>/dev/null || bash -c 'echo hello >/dev/udp/127.0.0.1/9'
wait $!
test -s \"$1/tmp/v.jsonl\"; rm \"$1/tmp/v.jsonl\"";
