//! `package`: a static program, and the .deb and the tarball that bring it to a machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{clean_root, deny, project, sbom, shell, tools::Tool};

/// The target whose programs need no library of the machine they run on.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-musl";
/// The maker of the .deb.
const CARGO_DEB: Tool = Tool {
    name: "cargo-deb",
    version: "3.8.0",
    flags: &["--no-default-features"],
    takes: "a minute",
};

/// What the program generates: its own name for it, and the file in the package.
const GENERATED: [(&str, &str); 5] = [
    ("man", "feature-agent.1"),
    ("bash", "feature-agent.bash"),
    ("zsh", "_feature-agent"),
    ("fish", "feature-agent.fish"),
    ("config", "config.toml"),
];
/// What a tarball holds besides, from the project's root.
const INCLUDED: [&str; 10] = [
    "README.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "examples/pinned/layout.json",
    "examples/pinned/windows.py",
    "grafana/feature-agent.json",
    "systemd/feature-agent.service",
    "systemd/feature-agent@.service",
    "systemd/feature-agent.sysusers",
];

/// Whether what was made is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    /// It is not.
    No,
    /// It is, and what stands in the way of that is an error.
    Must,
    /// It is, where the machine lets it.
    IfPossible,
}

impl Trial {
    /// By which profile the program is built, and what cargo is told besides. What is made for a trial alone is what the tests'
    /// guests run: it need not be worth six minutes of optimisation.
    fn build(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::No | Self::Must => ("release", &[]),
            Self::IfPossible => ("trial", &["--no-default-features"]),
        }
    }

    /// Where what was made goes, below `target/package`. What is for a trial alone is not to be taken for the product.
    fn products(self) -> &'static str {
        match self {
            Self::No | Self::Must => "",
            Self::IfPossible => "trial",
        }
    }

    /// Whether to go on after a step that takes more than some machines have: in place of an error, a sentence may
    /// say that the trial ends there.
    pub(crate) fn goes_on_after(self, step: Result<()>) -> Result<bool> {
        match step {
            Err(error) if self == Self::IfPossible => {
                shell::say(&format!(
                    "the package is not tried any further on this machine: {error:#}"
                ));
                Ok(false)
            }
            step => step.map(|()| true),
        }
    }
}

/// Makes everything; with `--test`, installs the .deb in a clean root, and runs program and units there.
pub(crate) fn package(args: &[String]) -> Result<()> {
    let trial = match args {
        [] => Trial::No,
        [flag] if flag == "--test" => Trial::Must,
        [flag] if flag == "--test-if-possible" => Trial::IfPossible,
        _ => bail!("`package` takes nothing, `--test` or `--test-if-possible`"),
    };
    if !trial.goes_on_after(target())? {
        return Ok(());
    }
    // A trial alone is not worth the five minutes in which cargo-deny is built.
    let unchecked = if trial == Trial::IfPossible { None } else { Some(deny::deny()?) };
    let program = static_program(trial)?;
    let folder = project::target()?.join("package");
    let products = folder.join(trial.products());
    fs::create_dir_all(&products).with_context(|| format!("cannot make {}", products.display()))?;
    for (kind, file) in GENERATED {
        let text = shell::read(Command::new(&program).args(["generate", kind]))?;
        write(&folder.join(file), &(text + "\n"))?;
    }
    write(&folder.join("sbom.cdx.json"), &sbom::cyclonedx(TARGET)?)?;
    let deb = deb(&products, trial)?;
    let tarball = tarball(&folder, &products, &program)?;
    for made in [&deb, &tarball] {
        let bytes = fs::metadata(made).with_context(|| format!("no {}", made.display()))?.len();
        shell::say(&format!("{}: {bytes} bytes", made.display()));
    }
    // What was said before the build's output is not seen.
    if let Some(unchecked) = unchecked {
        unchecked.say();
    }
    if trial == Trial::No { Ok(()) } else { clean_root::try_package(&folder, &deb, trial) }
}

/// Has rustup install what a static program is linked with. The C compiler of the host does for what is C, zstd and a part
/// of the cryptography behind TLS: they ask the C library for nothing that musl has not.
pub(crate) fn target() -> Result<()> {
    shell::run(Command::new("rustup").current_dir(project::root()?).args(["target", "add", TARGET]))
        .with_context(|| {
            format!("a static program takes the target {TARGET}, which rustup installs")
        })
}

/// Builds the program without anything dynamic, and looks whether that is so.
fn static_program(trial: Trial) -> Result<PathBuf> {
    let (profile, flags) = trial.build();
    let mut cargo = project::cargo()?;
    cargo.args(["build", "--profile", profile, "--locked", "--target", TARGET]);
    shell::run(cargo.args(["--package", "feature-agent"]).args(flags))?;
    let program = project::target()?.join(TARGET).join(profile).join("feature-agent");
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
fn deb(products: &Path, trial: Trial) -> Result<PathBuf> {
    let (profile, _) = trial.build();
    let maker = CARGO_DEB.ensure()?;
    let place = products.join("feature-agent_amd64.deb");
    shell::run(
        Command::new(maker)
            .current_dir(project::root()?)
            .env("CARGO_TARGET_DIR", project::target()?)
            .args(["deb", "--package", "feature-agent", "--no-build", "--target", TARGET])
            .args(["--profile", profile])
            .arg("--output")
            .arg(&place),
    )?;
    Ok(place)
}

/// The same without a package manager.
fn tarball(folder: &Path, products: &Path, program: &Path) -> Result<PathBuf> {
    let name = "feature-agent-x86_64";
    let content = products.join(name);
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
    let tarball = products.join(format!("{name}.tar.gz"));
    // Without owner and order of this machine.
    shell::run(
        Command::new("tar")
            .args(["--create", "--gzip", "--owner=0", "--group=0", "--numeric-owner"])
            .args(["--sort=name", "--file"])
            .arg(&tarball)
            .arg("--directory")
            .arg(products)
            .arg(name),
    )?;
    Ok(tarball)
}
