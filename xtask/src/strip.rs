//! Takes out of a compiled kernel program what no loader reads, and what changes without reason.
//!
//! What stays: the programs and their relocations, map definitions, globals, symbols, `.BTF` and
//! `.BTF.ext`. The DWARF goes, and so do the hashes in mangled names: they are made of the versions
//! of all that cargo compiled on the way, build tools too, and of the machine it ran on. With them,
//! an update of a crate that is not in the object would change the object.

use anyhow::{Context as _, Result};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};
use rustc_demangle::try_demangle;

/// Returns the object without its debug sections, its items named by their plain paths.
pub(crate) fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("it is no ELF object")?;
    for section in &mut builder.sections {
        section.delete = is_debug(&section.name);
        if section.name.as_slice() == b".BTF"
            && let SectionData::Data(data) = &mut section.data
        {
            shorten_names(data.to_mut()).context("its .BTF is broken")?;
        }
    }
    builder.delete_orphans();
    for symbol in &mut builder.symbols {
        let name = String::from_utf8_lossy(&symbol.name);
        if let Ok(path) = try_demangle(&name) {
            symbol.name = format!("{path:#}").into_bytes().into();
        }
    }
    // LLVM keeps the names of symbols and of sections in one table; the builder wants two.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("cannot write it again")?;
    Ok(stripped)
}

/// Whether a section is debug info, or relocates it.
///
/// The relocations of `.BTF` and `.BTF.ext` only repeat offsets that are there already; no loader
/// reads them.
fn is_debug(name: &[u8]) -> bool {
    let section = name.strip_prefix(b".rel").unwrap_or(name);
    section.starts_with(b".debug_") || (section != name && section.starts_with(b".BTF"))
}

/// Replaces each mangled name in BTF by its path, in place: the rest of its room becomes zeros.
///
/// Only private statics have such names there, and nothing refers to those by name.
fn shorten_names(btf: &mut [u8]) -> Option<()> {
    // struct btf_header: magic, version, flags; then lengths and offsets of four bytes each.
    let field = |at: usize| Some(u32::from_le_bytes(*btf.get(at..)?.first_chunk()?) as usize);
    let (header, offset, length) = (field(4)?, field(16)?, field(20)?);
    let strings = btf.get_mut(header + offset..)?.get_mut(..length)?;
    for string in strings.split_mut(|&byte| byte == 0) {
        let Ok(path) =
            str::from_utf8(string).map_or(Err(()), |name| try_demangle(name).map_err(drop))
        else {
            continue;
        };
        // The kernel takes letters, digits, dots and underscores.
        let path = format!("{path:#}").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        if path.len() <= string.len() {
            string.fill(0);
            string[..path.len()].copy_from_slice(path.as_bytes());
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::{is_debug, shorten_names};

    #[test]
    fn debug_sections_and_relocations_no_loader_reads() {
        for name in [".debug_info", ".rel.debug_info", ".rel.BTF", ".rel.BTF.ext"] {
            assert!(is_debug(name.as_bytes()), "{name}");
        }
        for name in [".BTF", ".BTF.ext", ".relclassifier", ".rel.text", ".maps", ".symtab"] {
            assert!(!is_debug(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn mangled_names_lose_their_hash_and_nothing_moves() {
        let mut strings = *b"\0int\0_RNvCsiaIgrb0ZjSG_10agent_ebpf5TABLE\0WINDOW\0";
        let mut btf = vec![0; 24];
        btf[4] = 24;
        btf[20] = strings.len() as u8;
        btf.extend(strings);
        shorten_names(&mut btf).expect("a header and its strings");
        strings[5..41].fill(0);
        strings[5..22].copy_from_slice(b"agent_ebpf__TABLE");
        assert_eq!(btf[24..], strings);
        assert!(shorten_names(&mut btf[..30]).is_none(), "strings beyond the section");
    }
}
