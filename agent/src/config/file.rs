//! TOML → values of options, each fault with its place.

use std::{fs, io, path::Path};

use clap::{Arg, ArgAction, Command, error::ErrorKind};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Kind, options};

/// One key of the file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The option's long name.
    pub(super) name: String,
    /// Its values, as they would stand on the command line.
    pub(super) values: Vec<String>,
    /// Where it stands.
    pub(super) line: usize,
}

/// Why a file cannot be had.
#[derive(Debug)]
pub(super) enum Fault {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It says what cannot be: each fault a sentence that begins with its place.
    Wrong(Vec<String>),
}

/// A name is taken for a misspelt one from this likeness on, as clap has it.
const LIKENESS: f64 = 0.7;

/// Reads the file, and holds each value against its option.
pub(super) fn read(path: &Path, command: &Command) -> Result<Vec<Entry>, Fault> {
    let text = fs::read_to_string(path).map_err(Fault::Unreadable)?;
    parse(&text, command).map_err(|faults| {
        let place = |(line, fault)| format!("{}:{line}: {fault}", path.display());
        Fault::Wrong(faults.into_iter().map(place).collect())
    })
}

/// The entries, or each fault with its line.
fn parse(text: &str, command: &Command) -> Result<Vec<Entry>, Vec<(usize, String)>> {
    let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        vec![(line(at), format!("this is no TOML: {}", error.message()))]
    })?;
    let mut entries = Vec::new();
    let mut faults = Vec::new();
    for (key, value) in table.into_inner() {
        let line = line(key.span().start);
        match entry(key.get_ref(), &value, line, command) {
            Ok(entry) => entries.push(entry),
            Err(fault) => faults.push((line, fault)),
        }
    }
    faults.sort();
    if faults.is_empty() { Ok(entries) } else { Err(faults) }
}

fn entry(
    key: &str,
    value: &Spanned<DeValue<'_>>,
    line: usize,
    command: &Command,
) -> Result<Entry, String> {
    let option = options(command)
        .find(|option| option.get_long() == Some(key))
        .ok_or_else(|| unknown(key, command))?;
    let values = values(option, value.get_ref()).map_err(|wanted| {
        format!("`{key}` must be {wanted}, not {}", described(value.get_ref()))
    })?;
    accepted(key, option, &values, command)?;
    Ok(Entry { name: key.to_owned(), values, line })
}

/// An error with the nearest name.
fn unknown(key: &str, command: &Command) -> String {
    let names = options(command).filter_map(Arg::get_long);
    let likeness = |name: &str| strsim::jaro_winkler(key, name);
    let nearest = names.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        Some(name) if likeness(name) >= LIKENESS => {
            format!("there is no option `{key}`; did you mean `{name}`?")
        }
        _ => format!("there is no option `{key}`; `feature-agent config` prints all there are"),
    }
}

/// The value as text, or what it must be.
fn values(option: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, &'static str> {
    let kind = Kind::of(option);
    if kind == Kind::Count {
        // Of a count that is 0 there is no more than of a flag that is not given.
        return Ok(vec![text(kind, value).ok_or("a whole number from 0 to 255")?]);
    }
    let repeated = matches!(option.get_action(), ArgAction::Append);
    let wanted = match (kind, repeated) {
        (Kind::Switch, _) => "true or false",
        (Kind::Integer | Kind::Count, false) => "a whole number",
        (Kind::Integer | Kind::Count, true) => "a whole number, or an array of them",
        (Kind::Real, false) => "a number",
        (Kind::Real, true) => "a number, or an array of them",
        (Kind::Text, false) => "a string",
        (Kind::Text, true) => "a string, or an array of them",
    };
    match value {
        DeValue::Array(values) if repeated => {
            values.iter().map(|value| text(kind, value.get_ref())).collect::<Option<_>>()
        }
        value => text(kind, value).map(|text| vec![text]),
    }
    .ok_or(wanted)
}

/// One value as it would stand on the command line; `None` if it is of another type.
fn text(kind: Kind, value: &DeValue<'_>) -> Option<String> {
    match (kind, value) {
        (Kind::Switch, DeValue::Boolean(value)) => Some(value.to_string()),
        (Kind::Integer | Kind::Count | Kind::Real, DeValue::Integer(value)) => {
            let value = i64::from_str_radix(value.as_str(), value.radix()).ok()?;
            Some(value.to_string())
        }
        (Kind::Real, DeValue::Float(value)) => Some(value.as_str().to_owned()),
        (Kind::Text, DeValue::String(value)) => Some(value.clone().into_owned()),
        _ => None,
    }
}

fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string \"{text}\""),
        DeValue::Integer(number) => format!("the number {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table: options stand at the top of the file".to_owned(),
    }
}

/// Whether the command line would take the values; what it says if not.
fn accepted(key: &str, option: &Arg, values: &[String], command: &Command) -> Result<(), String> {
    let count = |value: &String| value.parse::<u8>().map(drop);
    match Kind::of(option) {
        Kind::Switch => return Ok(()),
        Kind::Count => {
            let all = values.iter().try_for_each(count);
            return all.map_err(|_| format!("`{key}` must be a whole number from 0 to 255"));
        }
        Kind::Integer | Kind::Real | Kind::Text => {}
    }
    let program = command.get_name().to_owned();
    let arguments = values.iter().map(|value| format!("--{key}={value}"));
    let tried = command.clone().try_get_matches_from([program].into_iter().chain(arguments));
    match tried {
        // What else an option asks for is asked of the whole.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidValue
                    | ErrorKind::ValueValidation
                    | ErrorKind::WrongNumberOfValues
                    | ErrorKind::TooManyValues
                    | ErrorKind::TooFewValues
            ) =>
        {
            Err(sentence(&error))
        }
        _ => Ok(()),
    }
}

/// The first paragraph of what clap says, and its tip, in one line.
fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (first, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    let tip = rest.lines().find(|line| line.trim_start().starts_with("tip:"));
    let lines = first.lines().chain(tip).map(str::trim);
    lines.collect::<Vec<_>>().join(" ")
}
