//! Results: a table for people, JSON for machines.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::machine::Machine;

/// What the project promises of a result.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn text(self, value: f64) -> String {
        let (sign, limit) = match self {
            Self::AtMost(limit) => ('≤', limit),
            Self::AtLeast(limit) => ('≥', limit),
        };
        let verdict = if self.is_met(value) { "met" } else { "MISSED" };
        format!("{sign} {} {verdict}", number(limit))
    }
}

/// One result.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The result.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// First and third quartile over the rounds.
    pub(crate) quartiles: Option<[f64; 2]>,
    /// The program's whole time, in times of the empty program in the same rounds.
    pub(crate) times_empty: Option<f64>,
    /// What is promised.
    pub(crate) target: Option<Target>,
    /// What one must know to read it.
    pub(crate) remark: String,
    /// What it was computed from, round by round.
    pub(crate) samples: Vec<(&'static str, Vec<f64>)>,
}

impl Row {
    /// A result that was measured once.
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, ..Self::default() }
    }

    /// The median of these samples.
    pub(crate) fn of(what: impl Into<String>, samples: Vec<f64>, unit: &'static str) -> Self {
        let (value, quartiles) = (median(&samples), spread(&samples));
        Self { quartiles, samples: vec![("samples", samples)], ..Self::new(what, value, unit) }
    }

    /// With a target.
    pub(crate) fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// With a remark.
    pub(crate) fn remark(mut self, remark: impl Into<String>) -> Self {
        self.remark = remark.into();
        self
    }
}

/// Samples of something and of what is to be subtracted from it, taken in turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paired {
    /// Everything.
    pub(crate) whole: Vec<f64>,
    /// What it would have cost without.
    pub(crate) base: Vec<f64>,
}

impl Paired {
    /// The difference of the medians, `share` of it being one unit's.
    pub(crate) fn row(self, what: impl Into<String>, unit: &'static str, share: f64) -> Row {
        let base = median(&self.base);
        let net: Vec<f64> = self.whole.iter().map(|whole| (whole - base) / share).collect();
        Row {
            quartiles: spread(&net),
            times_empty: Some(median(&self.whole) / base),
            samples: vec![("whole", self.whole), ("base", self.base)],
            ..Row::new(what, median(&net), unit)
        }
    }
}

/// The middle one.
pub(crate) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// First and third quartile, if there are enough samples to speak of any.
fn spread(samples: &[f64]) -> Option<[f64; 2]> {
    (samples.len() >= 3).then(|| [quantile(samples, 0.25), quantile(samples, 0.75)])
}

/// Interpolated between the two samples nearest to it.
fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = part * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Rows that were measured in one way.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) method: &'static str,
    pub(crate) rows: Vec<Row>,
}

const HEAD: [&str; 6] = ["measured", "result", "quartiles", "× empty", "target", "remark"];

/// One table of all sections, in Markdown that reads well as it is; the methods below it.
pub(crate) fn markdown(machine: &Machine, sections: &[Section]) -> String {
    let mut cells = vec![HEAD.map(str::to_owned)];
    for section in sections {
        let title = format!("**{}**", section.title);
        cells.push([
            title,
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ]);
        cells.extend(section.rows.iter().map(line));
    }
    let width = |column: usize| {
        cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();

    let mut out = format!("{machine}\n\n");
    for (index, row) in cells.iter().enumerate() {
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count());
            // Numbers end where the numbers above them end.
            let numeric = (1..4).contains(&column);
            let text =
                if numeric { format!("{padding}{cell}") } else { format!("{cell}{padding}") };
            let _infallible = write!(out, "| {text} ");
        }
        out.push_str("|\n");
        if index == 0 {
            for (column, &width) in widths.iter().enumerate() {
                let end = if (1..4).contains(&column) { ':' } else { '-' };
                let _infallible = write!(out, "|{}{end}", "-".repeat(width + 1));
            }
            out.push_str("|\n");
        }
    }
    for section in sections {
        let _infallible = write!(out, "\n{}: {}\n", section.title, section.method);
    }
    out
}

fn line(row: &Row) -> [String; 6] {
    let Row { what, value, unit, quartiles, times_empty, target, remark, samples: _ } = row;
    [
        what.clone(),
        format!("{} {unit}", number(*value)).trim_end().to_owned(),
        quartiles
            .map_or_else(String::new, |[low, high]| format!("{} … {}", number(low), number(high))),
        times_empty.map_or_else(String::new, |times| format!("{times:.2}")),
        target.map_or_else(String::new, |target| target.text(*value)),
        remark.clone(),
    ]
}

/// Three or more digits that count, thousands apart.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 || size >= 1000.0 {
        let digits = format!("{size:.0}");
        let mut out = String::from(if value <= -0.5 { "-" } else { "" });
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        return out;
    }
    if size >= 10.0 { format!("{value:.1}") } else { format!("{value:.2}") }
}

/// All of it.
pub(crate) fn json(machine: &Machine, quick: bool, sections: &[Section]) -> String {
    let rows: Vec<Value> = sections
        .iter()
        .flat_map(|section| section.rows.iter().map(move |row| row_json(section.title, row)))
        .collect();
    let methods: serde_json::Map<String, Value> =
        sections.iter().map(|section| (section.title.into(), section.method.into())).collect();
    let all = json!({
        "machine": machine.json(),
        "quick": quick,
        "methods": methods,
        "rows": rows,
    });
    format!("{all:#}\n")
}

fn row_json(section: &str, row: &Row) -> Value {
    let Row { what, value, unit, quartiles, times_empty, target, remark, samples } = row;
    let target = target.map(|target| {
        let (rule, limit) = match target {
            Target::AtMost(limit) => ("at most", limit),
            Target::AtLeast(limit) => ("at least", limit),
        };
        json!({ "rule": rule, "limit": limit, "met": target.is_met(*value) })
    });
    let samples: serde_json::Map<String, Value> =
        samples.iter().map(|(name, values)| ((*name).to_owned(), json!(values))).collect();
    json!({
        "section": section,
        "what": what,
        "value": value,
        "unit": unit,
        "quartiles": quartiles,
        "times_empty": times_empty,
        "target": target,
        "remark": remark,
        "samples": samples,
    })
}
