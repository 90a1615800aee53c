//! Takes the DWARF out of a compiled kernel program.
//!
//! What stays is what a loader reads: the programs and their relocations, map definitions, globals,
//! symbols, `.BTF` and `.BTF.ext`.

use anyhow::{Context as _, Result};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

/// Returns the object without its debug sections.
pub(crate) fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("it is no ELF object")?;
    for section in &mut builder.sections {
        section.delete = is_debug(&section.name);
    }
    builder.delete_orphans();
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
