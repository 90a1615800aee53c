//! `feature-agent`: see the library.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use feature_agent::{
    cli::{Cli, Command, SchemaArgs},
    daemon, logging, replay, schema, status,
};

fn main() -> ExitCode {
    let Cli { command, run, verbosity } = Cli::parse();
    logging::init(verbosity);
    let result = match command {
        Some(Command::Schema(arguments)) => print_schema(&arguments),
        Some(Command::Replay(arguments)) => match arguments.options().check() {
            Ok(settings) => replay::run(&settings, verbosity.quiet),
            Err(invalid) => Cli::command().error(ErrorKind::ValueValidation, invalid).exit(),
        },
        None => match run.options(verbosity).check() {
            Ok(settings) => daemon::run(&settings, verbosity.quiet),
            Err(invalid) => Cli::command().error(ErrorKind::ValueValidation, invalid).exit(),
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

fn print_schema(arguments: &SchemaArgs) -> Result<()> {
    match schema::print(&mut io::stdout().lock(), arguments.format) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("cannot write to standard output"),
    }
}
