//! The options in force as a configuration file, each line with its origin.

use std::{fmt::Write as _, path::Path};

use super::{Failure, Given, Kind, Setting, read_with};
use crate::sink::without_login;

impl Given {
    /// The options in force as TOML that a file may hold.
    pub fn to_toml(&self) -> String {
        let mut text = match &self.file {
            Some(file) => format!("# The options in force, with {}.\n", file.display()),
            None => "# The options in force, without a configuration file.\n".to_owned(),
        };
        section(&mut text, &self.options, Setting::line);
        if let Ok(settings) = self.settings() {
            let bytes = bytesize::ByteSize(settings.kernel_bytes()).display().iec();
            // Writing to a string does not fail.
            let _ = write!(text, "\n# Flow table and ring take {bytes} of kernel memory.\n");
        }
        text
    }
}

/// A file of every option at its default, commented out, for people to begin with.
pub fn template() -> Result<String, Failure> {
    let given = read_with(&["feature-agent".into()], Path::new(""))?;
    let mut text = "# Options of feature-agent; a flag wins over this file. `feature-agent config` prints what is\n\
                    # in force, and where it comes from; `systemctl reload feature-agent` has it read again.\n"
        .to_owned();
    section(&mut text, &given.options, |setting| {
        let Setting { name, help, hint, values, .. } = setting;
        let help = help.replace('\n', " ");
        let value = if values.is_empty() { quoted(hint) } else { setting.shown() };
        format!("\n# {help}\n#{name} = {value}")
    });
    Ok(text)
}

/// The settings under the headings of the help.
fn section(text: &mut String, settings: &[Setting], line: impl Fn(&Setting) -> String) {
    let mut heading = None;
    for setting in settings {
        if heading != Some(&setting.heading) {
            heading = Some(&setting.heading);
            let name = setting.heading.as_deref().unwrap_or("Messages");
            // Writing to a string does not fail.
            let _ = write!(text, "\n# {name}\n");
        }
        let _ = writeln!(text, "{}", line(setting));
    }
}

impl Setting {
    fn line(&self) -> String {
        let Self { name, values, origin, .. } = self;
        if values.is_empty() {
            return format!("#{name} is not set");
        }
        format!("{name} = {}  # {origin}", self.shown())
    }

    /// Its value, or an array of them.
    fn shown(&self) -> String {
        match &self.values[..] {
            [value] => self.value(value),
            values => {
                let values: Vec<String> = values.iter().map(|value| self.value(value)).collect();
                format!("[{}]", values.join(", "))
            }
        }
    }

    fn value(&self, value: &str) -> String {
        match self.kind {
            Kind::Text => quoted(&without_login(value)),
            Kind::Switch | Kind::Count | Kind::Integer | Kind::Real => value.to_owned(),
        }
    }
}

/// A basic string (TOML 1.0).
fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04X}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text + "\""
}
