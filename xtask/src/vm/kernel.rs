//! Kernels: which one a version means, its image, and the modules that the guests need.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _, read::elf::ElfFile64};

use super::apt::{Apt, Package, numbers};
use crate::{root, shell};

/// What the tests use and Debian's kernels have as modules; what these need comes along.
const MODULES: [&str; 5] = ["veth", "ifb", "sch_ingress", "cls_bpf", "act_bpf"];

/// A kernel that is there, unpacked.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Its upstream version: `6.1.192`.
    pub(super) version: String,
    /// What a boot loader starts.
    pub(super) image: PathBuf,
    /// `lib/modules/RELEASE`
    modules: PathBuf,
}

impl Kernel {
    /// The latest of Debian's kernels whose version begins with these numbers, or the newest of all.
    pub(super) fn get(apt: &Apt, wanted: &Wanted, folder: &Path) -> Result<Self> {
        let images = apt.find("^linux-image-[0-9].*-cloud-amd64$")?;
        let Some(image) = latest(&images, wanted) else {
            bail!("Debian has no kernel {wanted} any more, or not yet");
        };
        let upstream = image.version.split('-').next().unwrap_or_default();
        let place = folder.join(upstream);
        if !place.is_dir() {
            shell::say(&format!("fetching Linux {upstream}"));
            let mut packages = vec![image.exact()];
            // From 6.19 on an image is in parts. Before, it depends on one that Debian may not have kept, which holds
            // nothing that is wanted here.
            let parts: Vec<String> =
                apt.depends(image)?.into_iter().filter(|name| is_part(name)).collect();
            let parts = apt.versions(&parts)?;
            packages.extend(parts.iter().map(Package::exact));
            apt.unpack(&packages, &place)?;
        }
        Self::unpacked(upstream, &place)
    }

    fn unpacked(version: &str, place: &Path) -> Result<Self> {
        // From 6.18 on modules lie below usr.
        let modules = ["lib/modules", "usr/lib/modules"].map(|inner| place.join(inner));
        let modules = modules.iter().find_map(|folder| only_entry(folder));
        let Some(modules) = modules else {
            bail!("no modules in {}: remove that folder", place.display());
        };
        let release = modules.file_name().unwrap_or_default().to_string_lossy();
        let images = [place.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")];
        let Some(image) = images.into_iter().find(|image| image.is_file()) else {
            bail!("no image in {}: remove that folder", place.display());
        };
        Ok(Self { version: version.to_owned(), image, modules })
    }

    /// The modules that the guests load, in an order in which they can be, plain.
    pub(super) fn modules(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = BTreeMap::new();
        collect(&self.modules.join("kernel"), &mut files)?;
        let mut loaded = Vec::new();
        for module in MODULES {
            self.load(module, &files, &mut loaded)?;
        }
        Ok(loaded)
    }

    /// Adds a module behind those that it needs.
    fn load(
        &self,
        name: &str,
        files: &BTreeMap<String, PathBuf>,
        loaded: &mut Vec<(String, Vec<u8>)>,
    ) -> Result<()> {
        if loaded.iter().any(|(known, _)| known == name) {
            return Ok(());
        }
        let Some(file) = files.get(name) else {
            let builtin = fs::read_to_string(self.modules.join("modules.builtin"));
            let is_builtin =
                builtin.unwrap_or_default().lines().any(|path| module_name(path) == name);
            if is_builtin {
                return Ok(());
            }
            bail!("Linux {} has no module {name}", self.version);
        };
        let bytes = plain(file)?;
        for needed in needed(&bytes).with_context(|| format!("{} is broken", file.display()))? {
            self.load(&needed, files, loaded)?;
        }
        loaded.push((name.to_owned(), bytes));
        Ok(())
    }
}

/// Which kernel is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Of this series: `6.1`.
    Series(Vec<u32>),
    /// The newest that there is.
    Newest,
}

impl Wanted {
    /// Reads `6.1`, `newest`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let parts: Option<Vec<u32>> = text.split('.').map(|number| number.parse().ok()).collect();
        match parts {
            _ if text == "newest" => Ok(Self::Newest),
            Some(series) if series.len() >= 2 => Ok(Self::Series(series)),
            _ => bail!("`{text}` is no kernel: say a series as in 6.1, or `newest`"),
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Series(series) => {
                let numbers: Vec<String> = series.iter().map(u32::to_string).collect();
                f.write_str(&numbers.join("."))
            }
            Self::Newest => f.write_str("newest"),
        }
    }
}

fn latest<'a>(images: &'a [Package], wanted: &Wanted) -> Option<&'a Package> {
    let fits = |image: &&Package| match wanted {
        Wanted::Series(series) => numbers(&image.version).starts_with(series),
        Wanted::Newest => true,
    };
    images.iter().filter(fits).max_by_key(|image| numbers(&image.version))
}

fn is_part(name: &str) -> bool {
    let part = ["linux-base-", "linux-binary-", "linux-modules-"];
    part.iter().any(|part| {
        name.strip_prefix(part).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

fn only_entry(folder: &Path) -> Option<PathBuf> {
    Some(fs::read_dir(folder).ok()?.next()?.ok()?.path())
}

/// Every module below a folder, by its name.
fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let what = || format!("cannot list {}", folder.display());
    for entry in fs::read_dir(folder).with_context(what)? {
        let entry = entry.with_context(what)?;
        let path = entry.path();
        if entry.file_type().with_context(what)?.is_dir() {
            collect(&path, files)?;
        } else {
            files.insert(module_name(&path.to_string_lossy()).to_owned(), path);
        }
    }
    Ok(())
}

/// `veth` of `…/veth.ko.xz`; the kernel takes `-` in a file's name for `_`, and no module here has one.
fn module_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file)
}

/// A module's bytes, decompressed.
fn plain(file: &Path) -> Result<Vec<u8>> {
    let tool = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => ("xz", "xz-utils"),
        Some("zst") => ("zstd", "zstd"),
        _ => return fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    };
    root::need(tool.0, tool.1)?;
    let output = Command::new(tool.0).args(["-d", "-c"]).arg(file).output();
    let output = output.with_context(|| format!("cannot start {}", tool.0))?;
    if !output.status.success() {
        bail!("{} cannot read {}", tool.0, file.display());
    }
    Ok(output.stdout)
}

/// The modules that one needs, from what it says about itself (`depends=a,b` in .modinfo).
fn needed(module: &[u8]) -> Result<Vec<String>> {
    let file = ElfFile64::<object::Endianness>::parse(module)?;
    let info = file.section_by_name(".modinfo").context("it has no .modinfo")?.data()?;
    let words = info.split(|&byte| byte == 0).filter_map(|word| str::from_utf8(word).ok());
    let depends =
        words.filter_map(|word| word.strip_prefix("depends=")).flat_map(|list| list.split(','));
    Ok(depends.filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_a_series_is_taken_by_its_upstream_version() {
        let image =
            |name: &str, version: &str| Package { name: name.into(), version: version.into() };
        let images = [
            image("linux-image-6.1.0-56-cloud-amd64", "6.1.192-2"),
            image("linux-image-6.1.0-9-cloud-amd64", "6.1.27-1"),
            image("linux-image-6.12.9+deb12-cloud-amd64", "6.12.9-1~deb12u1"),
            image("linux-image-7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1"),
        ];
        let version = |wanted: &str| {
            let wanted = Wanted::parse(wanted).expect("a version");
            latest(&images, &wanted).map(|image| image.version.as_str())
        };
        assert_eq!(version("6.1"), Some("6.1.192-2"));
        assert_eq!(version("6.12"), Some("6.12.9-1~deb12u1"));
        assert_eq!(version("newest"), Some("7.3.4-1~bpo13+1"));
        assert_eq!(version("6.1.27"), Some("6.1.27-1"));
        assert_eq!(version("5.10"), None);
        assert!(Wanted::parse("6").is_err() && Wanted::parse("new").is_err());
    }

    #[test]
    fn parts_of_a_kernel_are_told_from_other_packages() {
        assert!(is_part("linux-modules-7.3.4+deb13-cloud-amd64"));
        assert!(!is_part("linux-base") && !is_part("initramfs-tools"));
    }

    #[test]
    fn modules_are_named_by_their_files() {
        assert_eq!(module_name("kernel/drivers/net/veth.ko.xz"), "veth");
        assert_eq!(module_name("kernel/net/sched/cls_bpf.ko"), "cls_bpf");
    }
}
