//! What packages hold beside the program, made from the command line: the manual page, completions for shells,
//! and a configuration file to begin with.

use std::io::{self, Write};

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use crate::{cli::Cli, config};

/// What can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The manual page, for man(1)
    Man,
    /// Completions for bash
    Bash,
    /// Completions for zsh
    Zsh,
    /// Completions for fish
    Fish,
    /// A configuration file with every option at its default, commented out
    Config,
}

/// Writes it.
pub fn write(to: &mut dyn Write, kind: Kind) -> io::Result<()> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let shell = match kind {
        Kind::Man => return man(to, command),
        Kind::Config => {
            let text = config::template().map_err(io::Error::other)?;
            return to.write_all(text.as_bytes());
        }
        Kind::Bash => Shell::Bash,
        Kind::Zsh => Shell::Zsh,
        Kind::Fish => Shell::Fish,
    };
    // clap_complete panics where its writer fails.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    to.write_all(&text)
}

/// One page, the subcommands' options in sections of their own.
fn man(to: &mut dyn Write, mut command: clap::Command) -> io::Result<()> {
    command.build();
    clap_mangen::Man::new(command.clone()).render(to)?;
    for subcommand in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = subcommand.get_name().to_uppercase();
        writeln!(to, ".SH \"OPTIONS OF {name}\"")?;
        if let Some(about) = subcommand.get_long_about().or(subcommand.get_about()) {
            writeln!(to, "{}", roff(&about.to_string()))?;
        }
        clap_mangen::Man::new(subcommand.clone()).render_options_section(to)?;
    }
    Ok(())
}

/// Text that a page may hold: no line of it is an instruction.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace("\n.", "\n\\&.").replace("\n'", "\n\\&'")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn made(kind: Kind) -> String {
        let mut text = Vec::new();
        write(&mut text, kind).expect("made");
        String::from_utf8(text).expect("UTF-8")
    }

    #[test]
    fn every_option_is_in_all_that_is_made() {
        let command = Cli::command();
        let options: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        assert!(options.len() > 15);
        for kind in [Kind::Man, Kind::Bash, Kind::Zsh, Kind::Fish] {
            let text = made(kind);
            for option in &options {
                let there = match kind {
                    // A dash is `\-` in a page.
                    Kind::Man => text.contains(&option.replace('-', "\\-")),
                    _ => text.contains(option),
                };
                assert!(there, "{option} is not in {kind:?}");
            }
        }
    }

    #[test]
    fn the_page_has_a_section_for_each_subcommand() {
        let page = made(Kind::Man);
        for name in ["REPLAY", "SCHEMA", "CONFIG"] {
            assert!(page.contains(&format!(".SH \"OPTIONS OF {name}\"")), "{name}");
        }
        assert!(
            page.contains(".TH feature\\-agent 1") || page.contains(".TH feature-agent 1"),
            "{page}"
        );
    }

    /// What a shell prints that runs a script, whose `$1` (of fish, `$argv[2]`) is the file of its completions; `None`
    /// without that shell.
    fn shell(name: &str, kind: Kind, flags: &[&str], script: &str) -> Option<String> {
        let file =
            std::env::temp_dir().join(format!("feature-agent-{}.{name}", std::process::id()));
        std::fs::write(&file, made(kind)).expect("written");
        let output =
            Command::new(name).args(flags).args(["-c", script]).arg(name).arg(&file).output();
        std::fs::remove_file(&file).expect("removed");
        let output = match output {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("the completions for {name} were not tried: there is no {name}");
                return None;
            }
            output => output.expect("started"),
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
        Some(String::from_utf8(output.stdout).expect("UTF-8"))
    }

    #[test]
    fn shells_complete_an_option() {
        let bash = "set -e; source \"$1\"; COMP_WORDS=(feature-agent --ifa); COMP_CWORD=1; \
                    _feature__agent feature-agent --ifa; echo \"${COMPREPLY[*]}\"";
        let zsh =
            "autoload -U compinit && compinit -u -D && source \"$1\" && whence -w _feature-agent";
        let fish = "source $argv[2]; complete --do-complete 'feature-agent --ifa'";
        for (name, kind, flags, script, expected) in [
            ("bash", Kind::Bash, &["--norc"][..], bash, "--iface"),
            ("zsh", Kind::Zsh, &["-f"], zsh, "_feature-agent: function"),
            ("fish", Kind::Fish, &["--no-config"], fish, "--iface"),
        ] {
            if let Some(said) = shell(name, kind, flags, script) {
                assert!(said.starts_with(expected), "{name}: {said}");
            }
        }
    }
}
