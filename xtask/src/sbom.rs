//! What the program is made of, as CycloneDX 1.5: from cargo's own knowledge, no tool of its own.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{project, shell};

/// The crates that end up in the program for a target: name, version, licence, source.
pub(crate) fn cyclonedx(target: &str) -> Result<String> {
    let listed = shell::read(project::cargo()?.args([
        "tree",
        "--locked",
        "--package",
        "feature-agent",
        "--edges",
        "normal",
        "--target",
        target,
        "--prefix",
        "none",
        "--format",
        "{p}\t{l}",
    ]))?;
    Ok(document(&crates(&listed)))
}

/// Name and version of each crate, with its licence. A line is `name vX (path or *)<tab>licence`.
fn crates(listed: &str) -> BTreeMap<(String, String), String> {
    let one = |line: &str| {
        let (package, licence) = line.split_once('\t')?;
        let mut words = package.split_whitespace();
        let name = words.next()?.to_owned();
        let version = words.next()?.strip_prefix('v')?.to_owned();
        // `(*)` marks one that was listed before, `(/path)` one of this project.
        let licence = licence.trim_end_matches(" (*)").trim().to_owned();
        Some(((name, version), licence))
    };
    listed.lines().filter_map(one).collect()
}

fn document(crates: &BTreeMap<(String, String), String>) -> String {
    let component = |((name, version), licence): (&(String, String), &String)| {
        format!(
            "    {{\"type\": \"library\", \"name\": \"{name}\", \"version\": \"{version}\", \
             \"purl\": \"pkg:cargo/{name}@{}\", \
             \"licenses\": [{{\"expression\": \"{}\"}}]}}",
            // A plus would be read as a blank.
            version.replace('+', "%2B"),
            licence.replace('/', " OR ")
        )
    };
    let components: Vec<String> = crates.iter().map(component).collect();
    format!(
        "{{\n  \"bomFormat\": \"CycloneDX\",\n  \"specVersion\": \"1.5\",\n  \"version\": 1,\n  \
         \"metadata\": {{\"component\": {{\"type\": \"application\", \"name\": \"feature-agent\"}}}},\n  \
         \"components\": [\n{}\n  ]\n}}\n",
        components.join(",\n")
    )
}

#[cfg(test)]
mod tests {
    use super::{crates, document};

    #[test]
    fn each_crate_is_named_once_with_its_licence() {
        let listed = "feature-agent v0.1.0 (/x/agent)\tMIT OR Apache-2.0\nanyhow v1.0.1\tMIT/Apache-2.0\n\
                      anyhow v1.0.1 (*)\tMIT/Apache-2.0\nzstd-sys v2.1.3+zstd.1.5.7\tMIT/Apache-2.0\n";
        let crates = crates(listed);
        assert_eq!(crates.len(), 3);
        let text = document(&crates);
        assert!(text.contains("\"purl\": \"pkg:cargo/anyhow@1.0.1\""), "{text}");
        assert!(text.contains("\"pkg:cargo/zstd-sys@2.1.3%2Bzstd.1.5.7\""), "{text}");
        assert!(text.contains("{\"expression\": \"MIT OR Apache-2.0\"}"), "{text}");
    }
}
