//! Prometheus' own text format, 0.0.4, for readers that do not know OpenMetrics.

use std::fmt::Write as _;

/// A page of OpenMetrics' text in that format.
///
/// It has a metric's type and meaning under the name of its samples, where OpenMetrics leaves an ending out; it has no type
/// `info`, whose samples are gauges of 1, and a reader may refuse a type that it does not know; it has no units. The end that
/// OpenMetrics marks is a comment there.
///
/// Source: "Exposition formats" of Prometheus' documentation.
pub(super) fn classic(page: &str) -> String {
    let mut classic = String::with_capacity(page.len() + page.len() / 8);
    let mut help = None;
    for line in page.lines() {
        // A String takes every write.
        let _ = match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            ["#", "HELP", _, text] => {
                help = Some(text);
                Ok(())
            }
            ["#", "TYPE", family, kind] => {
                let (ending, kind) = match kind {
                    "counter" => ("_total", kind),
                    "info" => ("_info", "gauge"),
                    _ => ("", kind),
                };
                let help = help.take().unwrap_or_default();
                let name = format_args!("{family}{ending}");
                write!(classic, "# HELP {name} {help}\n# TYPE {name} {kind}\n")
            }
            ["#", "UNIT", ..] | ["#", "EOF"] => Ok(()),
            _ => writeln!(classic, "{line}"),
        };
    }
    classic
}
