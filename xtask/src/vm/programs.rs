//! What runs in guests: the agent and programs of the tests, linked statically.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result};

use crate::{package, project, shell};

/// Programs by their names.
#[derive(Debug)]
pub(super) struct Made(Vec<(String, PathBuf)>);

impl Made {
    /// Builds the agent, and of the tests' package what cargo is told by `targets`.
    pub(super) fn build(targets: &[&str]) -> Result<Self> {
        package::target()?;
        let mut cargo = project::cargo()?;
        cargo.args(["build", "--profile", "trial", "--target", package::TARGET]);
        // What writes files of columns is half of all there is to build, and none of it is tried here.
        cargo.args(["--no-default-features", "--message-format", "json"]);
        cargo.args(["--package", "feature-agent", "--bin", "feature-agent"]);
        cargo.args(["--package", "feature-agent-tests"]).args(targets);
        Ok(Self(executables(&shell::read(cargo.stderr(Stdio::inherit()))?)))
    }

    /// Where one is.
    pub(super) fn find(&self, name: &str) -> Result<PathBuf> {
        let mut found = self.0.iter().filter(|(made, _)| made == name);
        let (_, path) = found.next().with_context(|| format!("cargo made no {name}"))?;
        Ok(path.clone())
    }
}

/// Name and path of each program among cargo's messages.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    let value = |line: &str, key: &str| -> Option<String> {
        let (_, rest) = line.split_once(&format!("\"{key}\":\""))?;
        Some(rest.split('"').next()?.to_owned())
    };
    let lines = messages.lines().filter(|line| line.contains("\"reason\":\"compiler-artifact\""));
    lines
        .filter_map(|line| {
            let path = PathBuf::from(value(line, "executable")?);
            let (_, target) = line.split_once("\"target\":")?;
            Some((value(target, "name")?, path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_the_messages() {
        let messages = r#"{"reason":"compiler-artifact","package_id":"x","target":{"kind":["lib"],"name":"libc"},"executable":null}
{"reason":"compiler-artifact","package_id":"y","target":{"kind":["test"],"name":"doctor"},"executable":"/t/deps/doctor-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            executables(messages),
            [("doctor".to_owned(), PathBuf::from("/t/deps/doctor-1"))]
        );
    }
}
