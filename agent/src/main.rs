//! `feature-agent`: see the library.

use std::{
    env,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, error::ErrorKind};
use feature_agent::{
    cli::{Cli, Command, SchemaArgs},
    config::{self, Failure},
    daemon, doctor, generate, layout, logging, replay, schema,
    settings::Invalid,
    status,
};

/// The exit code of bad arguments, clap's too.
const BAD_ARGUMENTS: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().collect();
    let given = match config::read(&arguments) {
        Ok(given) => given,
        Err(Failure::CommandLine(error)) => error.exit(),
        Err(faults @ Failure::File(_)) => {
            let _ = writeln!(io::stderr(), "feature-agent: {faults}");
            return ExitCode::from(BAD_ARGUMENTS);
        }
    };
    let verbosity = given.cli.verbosity;
    logging::init(verbosity);
    let result = match &given.cli.command {
        Some(Command::Doctor(arguments)) => match doctor::run(arguments) {
            // It has said what is missing.
            Ok(false) => return ExitCode::FAILURE,
            looked => looked.map(drop),
        },
        Some(Command::Schema(arguments)) => print_schema(arguments),
        Some(Command::Replay(arguments)) => match arguments.clone().options().check() {
            Ok(settings) => replay::run(&settings, verbosity.quiet),
            Err(invalid) => refuse(&invalid),
        },
        Some(Command::Generate(arguments)) => {
            let mut text = Vec::new();
            generate::write(&mut text, arguments.kind)
                .context("cannot make it")
                .and_then(|()| print(&text))
        }
        Some(Command::Config(_)) => {
            // First what is in force: it shows where a bad value comes from.
            let printed = print(given.to_toml().as_bytes());
            printed
                .and_then(|()| given.settings().map_or_else(|invalid| refuse(&invalid), |_| Ok(())))
        }
        None => match given.settings() {
            Ok(settings) => daemon::run(settings, &given, &|| Ok(config::read(&arguments)?)),
            Err(invalid) => refuse(&invalid),
        },
    };
    status::clear();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With standard error closed, the exit code says it.
            let _ = writeln!(io::stderr(), "feature-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ends with the exit code of bad arguments.
fn refuse(invalid: &Invalid) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, invalid).exit()
}

fn print(text: &[u8]) -> Result<()> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("cannot write to standard output"),
    }
}

fn print_schema(arguments: &SchemaArgs) -> Result<()> {
    let mut out = io::stdout().lock();
    let printed = if arguments.layout {
        layout::print(&mut out)
    } else {
        schema::print(&mut out, arguments.format)
    };
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("cannot write to standard output"),
    }
}
