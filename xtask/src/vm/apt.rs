//! Debian packages, fetched and unpacked below the target folder. Nothing is installed, and apt's own state of this
//! machine stays as it is.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};

use crate::shell;

/// What signs Debian's releases, of any suite.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How long a list of packages is good for: mirrors drop packages that a newer one replaces.
const FRESH: Duration = Duration::from_hours(24);

/// A package as a list of packages has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
}

/// Lists of packages of some suites, in a folder of our own.
#[derive(Debug)]
pub(super) struct Apt {
    config: PathBuf,
    folder: PathBuf,
}

/// Where this machine gets its packages.
#[derive(Debug)]
pub(super) struct Mirrors {
    main: String,
    security: String,
    /// This machine's release: `bookworm`.
    codename: String,
}

impl Mirrors {
    /// Reads apt's sources. `None` where they are not Debian's, or the processor is not that of its kernels here.
    pub(super) fn of_this_machine() -> Option<Self> {
        if env::consts::ARCH != "x86_64" {
            return None;
        }
        let release = fs::read_to_string("/etc/os-release").ok()?;
        let folder = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
        let files = folder.map(|entry| entry.path()).chain(["/etc/apt/sources.list".into()]);
        let sources: String = files.filter_map(|file| fs::read_to_string(file).ok()).collect();
        Path::new(KEYRING).exists().then(|| Self::of(&release, &sources))?
    }

    fn of(release: &str, sources: &str) -> Option<Self> {
        let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
        let places = |end: &str| {
            let words = sources.lines().filter(|line| !line.starts_with('#'));
            let mut words = words.flat_map(str::split_whitespace);
            words.find_map(|word| Some(word.trim_end_matches('/')).filter(|w| w.ends_with(end)))
        };
        Some(Self {
            main: places("/debian")?.to_owned(),
            security: places("/debian-security")?.to_owned(),
            codename: codename.trim_matches('"').to_owned(),
        })
    }

    /// Sources of this machine's own release: what is unpacked runs with its libraries.
    pub(super) fn own(&self) -> String {
        let codename = &self.codename;
        source(&self.main, codename) + &source(&self.security, &format!("{codename}-security"))
    }

    /// Sources with a kernel of every kind that Debian keeps.
    pub(super) fn kernels(&self) -> String {
        source(&self.main, "trixie-backports")
            + &source(&self.security, "bullseye-security bookworm-security trixie-security")
    }
}

fn source(place: &str, suites: &str) -> String {
    format!(
        "Types: deb\nURIs: {place}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n\n"
    )
}

impl Apt {
    /// The lists of these sources, kept in `folder`, and fetched anew if they are old.
    pub(super) fn new(folder: &Path, sources: &str) -> Result<Self> {
        for inner in ["lists/partial", "cache/archives/partial"] {
            let inner = folder.join(inner);
            fs::create_dir_all(&inner)
                .with_context(|| format!("cannot make {}", inner.display()))?;
        }
        let place = folder.display();
        let (list, config) = (folder.join("vm.sources"), folder.join("apt.conf"));
        write(&list, sources)?;
        write(
            &config,
            &format!(
                "Dir::Etc::SourceList \"{place}/vm.sources\";\nDir::Etc::SourceParts \"/dev/null\";\n\
                 Dir::State::Lists \"{place}/lists\";\nDir::Cache \"{place}/cache\";\n\
                 Acquire::Languages \"none\";\nAcquire::Retries \"3\";\nAPT::Sandbox::User \"root\";\n\
                 Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
            ),
        )?;
        let apt = Self { config, folder: folder.to_path_buf() };
        let updated = folder.join("updated");
        let age = fs::metadata(&updated).and_then(|meta| meta.modified()).ok();
        let age = age.and_then(|then| SystemTime::now().duration_since(then).ok());
        if age.is_none_or(|age| age > FRESH) {
            // Its words on standard output are of no interest; on failure it says why on the other.
            shell::read(apt.command("apt-get").args(["update", "-q"]))
                .context("cannot fetch Debian's lists of packages")?;
            write(&updated, "")?;
        }
        Ok(apt)
    }

    /// The packages whose names match a regular expression, each version that there is.
    pub(super) fn find(&self, names: &str) -> Result<Vec<Package>> {
        let found = shell::read(self.command("apt-cache").args(["search", "--names-only", names]))?;
        let names = found.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
        self.versions(&names.collect::<Vec<_>>())
    }

    /// The versions that there are of packages, perhaps none.
    pub(super) fn versions(&self, names: &[String]) -> Result<Vec<Package>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let table = shell::read(self.command("apt-cache").arg("madison").args(names))?;
        Ok(table.lines().filter_map(package).collect())
    }

    /// What a package depends on, by name, in the order of its description; alternatives only by their first.
    pub(super) fn depends(&self, package: &Package) -> Result<Vec<String>> {
        let text = shell::read(self.command("apt-cache").arg("show").arg(package.exact()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
        Ok(line.split(", ").filter_map(|one| Some(one.split(' ').next()?.to_owned())).collect())
    }

    /// What installing a package would bring to this machine.
    pub(super) fn missing(&self, packages: &[&str]) -> Result<Vec<String>> {
        let plan = shell::read(
            self.command("apt-get")
                .args(["install", "--print-uris", "-q", "-y", "--no-install-recommends"])
                .args(packages),
        )?;
        // 'address' name_version_architecture.deb size hash
        let rows = plan.lines().filter(|line| line.starts_with('\''));
        let files = rows.filter_map(|line| line.split(' ').nth(1));
        let mut names: Vec<String> =
            files.filter_map(|file| Some(file.split('_').next()?.to_owned())).collect();
        // Those that are installed are not planned, and are wanted all the same.
        names.extend(packages.iter().map(|&name| name.to_owned()));
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Downloads packages and unpacks all of them into a folder, which is whole once it is there.
    pub(super) fn unpack(&self, packages: &[String], to: &Path) -> Result<()> {
        let debs = self.folder.join("debs");
        let unfinished = to.with_extension("unfinished");
        for folder in [&debs, &unfinished] {
            if folder.exists() {
                fs::remove_dir_all(folder)
                    .with_context(|| format!("cannot empty {}", folder.display()))?;
            }
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut download = self.command("apt-get");
        shell::read(download.current_dir(&debs).args(["download", "-q"]).args(packages))
            .context("cannot fetch Debian packages")?;
        for file in fs::read_dir(&debs).context("cannot list what was fetched")? {
            let file = file.context("cannot list what was fetched")?.path();
            shell::run(Command::new("dpkg-deb").arg("-x").arg(file).arg(&unfinished))?;
        }
        fs::remove_dir_all(&debs).context("cannot remove what was fetched")?;
        fs::rename(&unfinished, to).with_context(|| format!("cannot make {}", to.display()))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        command
    }
}

impl Package {
    /// As apt takes it on a command line.
    pub(super) fn exact(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

/// A row of `apt-cache madison`: name | version | where from.
fn package(row: &str) -> Option<Package> {
    let mut columns = row.split('|').map(str::trim);
    let (name, version) = (columns.next()?, columns.next()?);
    Some(Package { name: name.to_owned(), version: version.to_owned() })
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The numbers of an upstream version, to be compared: `6.12.117-1~deb12u1` is 6, 12, 117.
pub(super) fn numbers(version: &str) -> Vec<u32> {
    let upstream = version.split(['-', '~', '+']).next().unwrap_or_default();
    upstream.split('.').map_while(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_in_both_forms_of_sources() {
        let release = "ID=debian\nVERSION_CODENAME=bookworm\n";
        let new = "Types: deb\nURIs: http://a/ubuntu\n# URIs: http://old/debian\nURIs: http://m/debian/\n\n\
                   URIs: http://s/debian-security\n";
        let old = "deb http://m/debian bookworm main\ndeb http://s/debian-security bookworm-security main\n";
        for sources in [new, old] {
            let mirrors = Mirrors::of(release, sources).expect("Debian");
            assert_eq!(
                (&*mirrors.main, &*mirrors.security),
                ("http://m/debian", "http://s/debian-security")
            );
            assert!(mirrors.own().contains("Suites: bookworm-security\n"), "{}", mirrors.own());
        }
        assert!(Mirrors::of(release, "deb http://a/ubuntu noble main\n").is_none());
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(numbers("6.12.117-1~deb12u1"), [6, 12, 117]);
        assert!(numbers("6.12.9-1") < numbers("6.12.117-1"));
        assert_eq!(numbers("7.3.4-1~bpo13+1"), [7, 3, 4]);
    }

    #[test]
    fn a_row_of_the_table() {
        let row = " linux-image-6.1.0-56-cloud-amd64 |  6.1.192-2 | http://m/debian bookworm/main amd64 Packages";
        let package = package(row).expect("a package");
        assert_eq!(package.exact(), "linux-image-6.1.0-56-cloud-amd64=6.1.192-2");
    }
}
