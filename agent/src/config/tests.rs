//! The command line and the file, together.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;
use crate::settings::Direction;

/// A file of its own, gone with the test.
struct Conf(PathBuf);

impl Conf {
    fn new(text: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("feature-agent-config-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).expect("written");
        Self(path)
    }

    /// What a command line and this file, as the default one, come to.
    fn with(&self, flags: &[&str]) -> Result<Given, Failure> {
        let arguments: Vec<OsString> =
            ["feature-agent"].iter().chain(flags).map(OsString::from).collect();
        read_with(&arguments, &self.0)
    }

    /// The faults, each without the file's name.
    fn faults(&self) -> Vec<String> {
        let Err(Failure::File(faults)) = self.with(&[]) else { panic!("it was taken") };
        let prefix = format!("{}:", self.0.display());
        faults
            .iter()
            .map(|fault| fault.strip_prefix(&prefix).expect("a place").to_owned())
            .collect()
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        // A leftover in the temporary folder hurts nobody.
        let _ = fs::remove_file(&self.0);
    }
}

fn option<'a>(given: &'a Given, name: &str) -> &'a Setting {
    given.options.iter().find(|option| option.name == name).expect(name)
}

const NO_FILE: &str = "/no/such/file.toml";

#[test]
fn flags_win_over_the_file_and_the_file_over_the_defaults() {
    let conf = Conf::new("iface = [\"a\", \"b\"]\nwindow = 32\n\npoll = \"1s\"\nverbose = 1\n");
    let given = conf.with(&["--window", "16", "--stride=8"]).expect("good");
    let settings = given.settings().expect("good");
    assert_eq!(settings.interfaces, ["a", "b"]);
    assert_eq!((settings.config.window, settings.config.stride), (16, 8));
    assert_eq!(settings.poll, std::time::Duration::from_secs(1));
    assert_eq!(settings.direction, Direction::Both);
    assert_eq!(given.cli.verbosity.verbose, 1);
    let origin = |name| option(&given, name).origin.clone();
    assert_eq!(origin("iface"), Origin::File(conf.0.clone(), 1));
    assert_eq!(origin("window"), Origin::Flag);
    assert_eq!(origin("poll"), Origin::File(conf.0.clone(), 4));
    assert_eq!(origin("direction"), Origin::Default);
    assert_eq!(given.file.as_deref(), Some(conf.0.as_path()));
}

#[test]
fn a_flag_replaces_all_values_of_an_option() {
    let conf = Conf::new("iface = [\"a\", \"b\"]\n");
    let given = conf.with(&["--iface", "c"]).expect("good");
    assert_eq!(given.settings().expect("good").interfaces, ["c"]);
}

#[test]
fn a_flag_silences_what_cannot_stand_beside_it() {
    let conf = Conf::new("iface = \"a\"\nquiet = true\n");
    assert!(conf.with(&[]).expect("good").cli.verbosity.quiet);
    let loud = conf.with(&["-v"]).expect("good").cli.verbosity;
    assert_eq!((loud.verbose, loud.quiet), (1, false));
}

#[test]
fn a_services_default_output_gives_way_to_the_file_and_to_flags() {
    let service = ["--default-output", "unix:/run/x.sock"];
    let outputs = |text: &str, flags: &[&str]| {
        let given = Conf::new(text).with(&[&service, flags].concat()).expect("good");
        option(&given, "output").values.clone()
    };
    assert_eq!(outputs("iface = \"a\"\n", &[]), ["unix:/run/x.sock"]);
    assert_eq!(outputs("output = [\"-\", \"x\"]\n", &[]), ["-", "x"]);
    assert_eq!(outputs("output = \"x\"\n", &["--output", "y"]), ["y"]);
    let faults = Conf::new("default-output = \"x\"\n").faults();
    assert!(faults[0].starts_with("1: there is no option `default-output`"), "{faults:?}");
}

#[test]
fn the_file_may_be_missing_unless_it_is_named() {
    let arguments: Vec<OsString> = ["feature-agent", "--iface", "a"].map(OsString::from).into();
    let given = read_with(&arguments, Path::new(NO_FILE)).expect("good");
    assert_eq!(given.file, None);
    assert_eq!(given.settings().expect("good").interfaces, ["a"]);
    let named: Vec<OsString> = ["feature-agent", "--config", NO_FILE].map(OsString::from).into();
    let error = read_with(&named, Path::new(NO_FILE)).expect_err("named").to_string();
    assert!(error.starts_with("cannot read /no/such/file.toml: No such file"), "{error}");
}

#[test]
fn other_jobs_do_not_look_at_the_file() {
    let conf = Conf::new("this is no TOML");
    let given = conf.with(&["schema", "--format", "json"]).expect("good");
    assert!(given.options.is_empty());
}

#[test]
fn an_unknown_key_is_answered_by_the_nearest() {
    let faults = Conf::new("iface = \"a\"\nidle_timeout = \"1s\"\nstrid = 8\nxyzzy = 1\n").faults();
    assert_eq!(
        faults,
        [
            "2: there is no option `idle_timeout`; did you mean `idle-timeout`?",
            "3: there is no option `strid`; did you mean `stride`?",
            "4: there is no option `xyzzy`; `feature-agent config` prints all there are",
        ]
    );
    let faults = Conf::new("config = \"x\"\nhelp = true\n").faults();
    assert!(faults[0].starts_with("1: there is no option `config`"), "{faults:?}");
    assert!(faults[1].starts_with("2: there is no option `help`"), "{faults:?}");
}

#[test]
fn wrong_types_and_values_are_told_with_their_line() {
    let faults = Conf::new(
        "window = \"many\"\nquiet = 1\niface = [1]\npoll = [\"1s\"]\nverbose = 300\nshape = true\n\
         interval = \"soon\"\ndirection = \"up\"\nstride = -1\n[table]\n",
    )
    .faults();
    let begins = [
        "1: `window` must be a whole number, not the string \"many\"",
        "2: `quiet` must be true or false, not the number 1",
        "3: `iface` must be a string, or an array of them, not an array",
        "4: `poll` must be a string, not an array",
        "5: `verbose` must be a whole number from 0 to 255",
        "6: `shape` must be a string, not true",
        "7: invalid value 'soon' for '--interval <DURATION>': ",
        "8: invalid value 'up' for '--direction <DIRECTION>' [possible values: both, ingress, egress]",
        "9: invalid value '-1' for '--stride <PACKETS>': ",
        "10: there is no option `table`",
    ];
    assert_eq!(faults.len(), begins.len(), "{faults:#?}");
    for (fault, begin) in faults.iter().zip(begins) {
        assert!(fault.starts_with(begin), "{fault}\n{begin}");
    }
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    let faults = Conf::new("window = 3\nstride = = 4\n").faults();
    assert!(faults[0].starts_with("2: this is no TOML: "), "{faults:?}");
    let faults = Conf::new("window = 3\nwindow = 4\n").faults();
    assert!(faults[0].starts_with("2: this is no TOML: "), "{faults:?}");
}

#[test]
fn what_is_printed_is_a_file_that_comes_to_the_same() {
    let conf = Conf::new(
        "iface = [\"a\", \"q\\\"\\\\\\u00e9\\n\"]\nwindow = 0x10\nquiet = true\nmetrics = \"[::1]:1\"\n\
         ring-size = \"1MiB\"\n",
    );
    let first = conf.with(&["config", "--poll", "2s"]).expect("good");
    let text = first.to_toml();
    assert!(text.contains("poll = \"2s\"  # command line\n"), "{text}");
    assert!(text.contains(&format!("window = 16  # {}:2\n", conf.0.display())), "{text}");
    assert!(text.contains("\n# Traffic\n") && text.contains("\n#user is not set\n"), "{text}");
    let second = Conf::new(&text).with(&["config"]).expect("good");
    assert_eq!(first.options.len(), second.options.len());
    for (one, two) in first.options.iter().zip(&second.options) {
        assert_eq!((&one.name, &one.values), (&two.name, &two.values));
    }
}

#[test]
fn every_option_but_the_files_own_is_in_the_file() {
    let template = template().expect("made");
    let apart = ["config", "default-output", "help", "version"];
    for arg in Cli::command().get_arguments() {
        let Some(name) = arg.get_long() else { continue };
        let there = template.contains(&format!("\n#{name} = "));
        assert_eq!(there, !apart.contains(&name), "{name}:\n{template}");
    }
    let built_in = read_with(&["feature-agent".into()], Path::new(NO_FILE)).expect("good");
    let unset: Vec<&str> = built_in
        .options
        .iter()
        .filter(|option| option.values.is_empty())
        .map(|option| option.name.as_str())
        .collect();
    // Each line of it may have its mark taken away: what it says is then what holds by default.
    let live: String = template
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(|line| line.strip_prefix('#').unwrap_or(line).to_owned() + "\n")
        .filter(|line| !unset.iter().any(|name| line.starts_with(&format!("{name} = "))))
        .collect();
    let given = Conf::new(&live).with(&[]).expect("good");
    for (option, built_in) in given.options.iter().zip(&built_in.options) {
        assert_eq!((&option.name, &option.values), (&built_in.name, &built_in.values));
    }
}
