//! The configuration file beside the command line.
//!
//! There is one definition of the options: the command line's. A key of the file is the long name of an option,
//! and its value becomes that option's default for this run, so that a flag wins over the file and the file over
//! the built-in default. An option that is added to the command line is in the file, and in what
//! `feature-agent config` prints, without another word.

mod file;
mod print;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
};

use clap::{
    Arg, ArgAction, ArgMatches, Command, CommandFactory as _, FromArgMatches as _,
    parser::ValueSource,
};

pub use self::print::template;

use self::file::Entry;
use crate::{
    cli::{self, Cli},
    settings::{Invalid, Settings},
};

/// The file that is read if it is there and no other is named.
pub const DEFAULT_FILE: &str = "/etc/feature-agent/config.toml";
/// The option that names the file.
const FILE_OPTION: &str = "config";
/// The option that stands in for [`OUTPUT`] where neither flag nor file has it.
const FALLBACK_OPTION: &str = "default-output";
/// What is about the file and has no place in it.
const NOT_IN_FILE: [&str; 2] = [FILE_OPTION, FALLBACK_OPTION];
/// The option that says where vectors go.
const OUTPUT: &str = "output";
/// The subcommand that prints what is in force.
const PRINTING: &str = "config";

/// The options in force, and where each comes from.
#[derive(Debug)]
pub struct Given {
    /// The same, as the command line's types.
    pub cli: Cli,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Each option of the main job, in the order of the help; none if something else is to be done.
    pub options: Vec<Setting>,
}

/// One option in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its long name, which is its key in the file.
    pub name: String,
    /// The heading under which the help has it.
    pub heading: Option<String>,
    /// What it is for, in the words of the help.
    pub help: String,
    /// What it takes, in the words of the help.
    hint: String,
    /// What it takes.
    kind: Kind,
    /// Its values as text: none, one, or several for an option that may be repeated.
    pub values: Vec<String>,
    /// Who said so.
    pub origin: Origin,
}

/// Who gave an option its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody: it is built in, or there is none.
    Default,
    /// The file, in this line.
    File(PathBuf, usize),
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// What a value of an option is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `true` or `false`.
    Switch,
    /// How often a flag is given.
    Count,
    /// A whole number.
    Integer,
    /// A number.
    Real,
    /// Anything else, as text.
    Text,
}

/// Why the options cannot be had.
#[derive(Debug)]
pub enum Failure {
    /// The command line is at fault, or asks for help.
    CommandLine(clap::Error),
    /// The file is: each fault a sentence that begins with the place.
    File(Vec<String>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine(error) => error.fmt(f),
            Self::File(faults) => f.write_str(&faults.join("\n")),
        }
    }
}

impl std::error::Error for Failure {}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::CommandLine(error)
    }
}

/// Reads the command line, and the file that it names or that is there by default.
pub fn read(arguments: &[OsString]) -> Result<Given, Failure> {
    read_with(arguments, Path::new(DEFAULT_FILE))
}

fn read_with(arguments: &[OsString], default_file: &Path) -> Result<Given, Failure> {
    let command = Cli::command();
    let flags = command.clone().try_get_matches_from(arguments)?;
    let Some(flags_of_main) = of_main_job(&flags) else {
        let cli = Cli::from_arg_matches(&flags)?;
        return Ok(Given { cli, file: None, options: Vec::new() });
    };
    let named = flags_of_main.get_one::<PathBuf>(FILE_OPTION);
    let path = named.map_or(default_file, PathBuf::as_path);
    let entries = match file::read(path, &command) {
        Ok(entries) => Some(entries),
        Err(file::Fault::Unreadable(error))
            if named.is_none() && error.kind() == io::ErrorKind::NotFound =>
        {
            None
        }
        Err(file::Fault::Unreadable(error)) => {
            return Err(Failure::File(vec![format!("cannot read {}: {error}", path.display())]));
        }
        Err(file::Fault::Wrong(faults)) => return Err(Failure::File(faults)),
    };
    let file = entries.is_some().then(|| path.to_owned());
    let entries: Vec<Entry> = entries
        .into_iter()
        .flatten()
        .filter(|entry| !contradicted(&command, entry, flags_of_main))
        .collect();
    let fallback = flags_of_main.get_raw("default_output").into_iter().flatten();
    let fallback: Vec<OsString> = fallback.map(OsString::from).collect();
    let mut defaults = command.clone();
    if !fallback.is_empty() {
        defaults = with_default(defaults, OUTPUT, &fallback);
    }
    for Entry { name, values, .. } in &entries {
        let values: Vec<OsString> = values.iter().map(OsString::from).collect();
        defaults = with_default(defaults, name, &values);
    }
    let matches = defaults.try_get_matches_from(arguments)?;
    let of_main = of_main_job(&matches).unwrap_or(&matches);
    let options = options(&command)
        .filter_map(|option| Setting::new(option, of_main, &entries, path))
        .collect();
    Ok(Given { cli: Cli::from_arg_matches(&matches)?, file, options })
}

/// The options of the main job that a file may hold.
fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| {
        let asks = matches!(
            arg.get_action(),
            ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
        );
        !asks && arg.get_long().is_some_and(|name| !NOT_IN_FILE.contains(&name))
    })
}

/// The options of the main job, given to it or to who prints them; `None` if something else is to be done.
fn of_main_job(matches: &ArgMatches) -> Option<&ArgMatches> {
    match matches.subcommand() {
        None => Some(matches),
        Some((PRINTING, matches)) => Some(matches),
        Some(_) => None,
    }
}

/// Whether a flag was given that an entry of the file cannot stand beside: the flag wins.
fn contradicted(command: &Command, entry: &Entry, flags: &ArgMatches) -> bool {
    let Some(arg) = options(command).find(|arg| arg.get_long() == Some(&entry.name)) else {
        return false;
    };
    let given =
        |other: &Arg| flags.value_source(other.get_id().as_str()) == Some(ValueSource::CommandLine);
    // Conflicts are noted on one of the two.
    options(command).any(|other| {
        given(other)
            && (command.get_arg_conflicts_with(arg).iter().any(|a| a.get_id() == other.get_id())
                || command.get_arg_conflicts_with(other).iter().any(|a| a.get_id() == arg.get_id()))
    })
}

/// The command, in which an option of the main job has another default.
fn with_default(command: Command, name: &str, values: &[OsString]) -> Command {
    let set = |arg: Arg| match arg.get_long() {
        Some(long) if long == name => arg.default_values(values),
        _ => arg,
    };
    command.mut_args(set).mut_subcommand(PRINTING, |printing| printing.mut_args(set))
}

impl Given {
    /// The main job's options, checked.
    pub fn settings(&self) -> Result<Settings, Invalid> {
        let run = match &self.cli.command {
            Some(cli::Command::Config(run)) => run.as_ref(),
            _ => &self.cli.run,
        };
        let output_is_given =
            |option: &Setting| option.name == OUTPUT && option.origin != Origin::Default;
        if run.pin_ring && self.options.iter().any(output_is_given) {
            return Err(Invalid::new(
                "--pin-ring leaves all vectors to the reader of the ring: there are none for --output",
            ));
        }
        run.clone().options(self.cli.verbosity).check()
    }
}

impl Setting {
    fn new(option: &Arg, matches: &ArgMatches, entries: &[Entry], path: &Path) -> Option<Self> {
        let name = option.get_long()?;
        let id = option.get_id().as_str();
        let entry = entries.iter().find(|entry| entry.name == name);
        let origin = match (matches.value_source(id), entry) {
            (Some(ValueSource::DefaultValue), Some(entry)) => {
                Origin::File(path.to_owned(), entry.line)
            }
            (None | Some(ValueSource::DefaultValue), _) => Origin::Default,
            (Some(_), _) => Origin::Flag,
        };
        let kind = Kind::of(option);
        let values = match kind {
            Kind::Switch => vec![matches.get_flag(id).to_string()],
            Kind::Count => vec![matches.get_count(id).to_string()],
            Kind::Integer | Kind::Real | Kind::Text => {
                let raw = matches.get_raw(id).into_iter().flatten();
                raw.map(|value| value.to_string_lossy().into_owned()).collect()
            }
        };
        let heading = option.get_help_heading().map(str::to_owned);
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        let hint = option.get_value_names().and_then(|names| names.first());
        let hint = hint.map(ToString::to_string).unwrap_or_default();
        Some(Self { name: name.to_owned(), heading, help, hint, kind, values, origin })
    }
}

impl Kind {
    fn of(option: &Arg) -> Self {
        use std::any::TypeId;
        match option.get_action() {
            ArgAction::SetTrue | ArgAction::SetFalse => Self::Switch,
            ArgAction::Count => Self::Count,
            _ => {
                let parsed = option.get_value_parser().type_id();
                let integers = [
                    TypeId::of::<u8>(),
                    TypeId::of::<u16>(),
                    TypeId::of::<u32>(),
                    TypeId::of::<u64>(),
                    TypeId::of::<usize>(),
                    TypeId::of::<i32>(),
                    TypeId::of::<i64>(),
                ];
                let reals = [TypeId::of::<f32>(), TypeId::of::<f64>()];
                if integers.iter().any(|id| parsed == *id) {
                    Self::Integer
                } else if reals.iter().any(|id| parsed == *id) {
                    Self::Real
                } else {
                    Self::Text
                }
            }
        }
    }
}
