//! The table, for a terminal and as Markdown.

use std::fmt::Write as _;

/// What a ratio has to be.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// The floor takes at least this many times as long.
    Faster(f64),
    /// Takes at most this many times as long as the floor.
    AtMost(f64),
    /// Gets through at least this many times as much as the floor.
    Rate(f64),
    /// No target: the ratio of times, for information.
    NoneOfTime,
    /// No target: the ratio of rates, for information.
    NoneOfRate,
}

/// One line.
#[derive(Debug, Default)]
pub struct Row {
    what: String,
    ours: String,
    floor: String,
    ratio: String,
    target: String,
    met: &'static str,
    note: String,
}

impl Row {
    /// Two numbers that are compared, with how they are written.
    pub fn compared(
        what: &str,
        target: Target,
        (ours, ours_text): (f64, String),
        (floor, floor_text): (f64, String),
    ) -> Self {
        let over = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        let met = |yes: bool| if yes { "yes" } else { "NO" };
        let (ratio, target, met) = match target {
            Target::Faster(least) => {
                let ratio = over(floor, ours);
                (format!("{ratio:.1}x faster"), format!("at least {least}x faster"), met(ratio >= least))
            }
            Target::AtMost(most) => {
                let ratio = over(ours, floor);
                (format!("{ratio:.2}x the time"), format!("at most {most}x"), met(ratio <= most))
            }
            Target::Rate(least) => {
                let ratio = over(ours, floor);
                (format!("{ratio:.2}x the rate"), format!("at least {least}x"), met(ratio >= least))
            }
            Target::NoneOfTime => (format!("{:.2}x the time", over(ours, floor)), String::new(), ""),
            Target::NoneOfRate => (format!("{:.2}x the rate", over(ours, floor)), String::new(), ""),
        };
        Self {
            what: what.to_owned(),
            ours: ours_text,
            floor: floor_text,
            ratio,
            target,
            met,
            note: String::new(),
        }
    }

    /// A number with a limit of its own and no floor.
    pub fn limited(what: &str, value: f64, text: String, limit: Option<(f64, &str)>) -> Self {
        let met = match limit {
            Some((most, _)) if value <= most => "yes",
            Some(_) => "NO",
            None => "",
        };
        let target = limit.map(|(_, text)| text.to_owned()).unwrap_or_default();
        Self {
            what: what.to_owned(),
            ours: text,
            floor: "-".to_owned(),
            ratio: "-".to_owned(),
            target,
            met,
            ..Self::default()
        }
    }

    /// How it was measured, or what to know about it.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn cells(&self) -> [&str; 6] {
        [&self.what, &self.ours, &self.floor, &self.ratio, &self.target, self.met]
    }
}

/// All lines.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of measuring.
    pub rows: Vec<Row>,
}

const HEAD: [&str; 6] = ["measurement", "ours", "floor", "ratio", "target", "met?"];

impl Report {
    /// A measurement that did not come about.
    pub fn not_measured(&mut self, what: &str, error: &anyhow::Error) {
        let row = Row { what: what.to_owned(), ours: "not measured".to_owned(), ..Row::default() };
        self.rows.push(row.note(format!("{error:#}")));
    }

    /// Prints the table, its notes, and the Markdown of both.
    pub fn print(&self, quick: bool) {
        let warning =
            if quick { "\nA quick run: too few rounds for numbers that mean anything.\n" } else { "" };
        line(&format!("\n{}\n{}{warning}\nMarkdown:\n\n{}", self.table(), self.notes("  "), self.markdown()));
    }

    fn table(&self) -> String {
        let mut widths = HEAD.map(str::len);
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row.cells()) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        let rule = widths.map(|width| "-".repeat(width));
        let lines =
            [HEAD, rule.each_ref().map(String::as_str)].into_iter().chain(self.rows.iter().map(Row::cells));
        for cells in lines {
            let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            let _ = writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end());
        }
        out
    }

    fn notes(&self, indent: &str) -> String {
        let noted = self.rows.iter().filter(|row| !row.note.is_empty());
        noted.map(|row| format!("{indent}{}: {}\n", row.what, row.note)).collect()
    }

    fn markdown(&self) -> String {
        let row =
            |cells: [&str; 6]| format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        let body: String = self.rows.iter().map(|line| row(line.cells())).collect();
        format!("{}|{}\n{body}\n{}", row(HEAD), "---|".repeat(HEAD.len()), self.notes("- "))
    }
}

/// A time, from milliseconds.
pub fn ms(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{:.2} s", v / 1000.0),
        v if v >= 10.0 => format!("{v:.1} ms"),
        v => format!("{v:.2} ms"),
    }
}

/// A rate a second.
pub fn per_second(value: f64) -> String {
    match value {
        v if v >= 10_000.0 => format!("{:.0}k/s", v / 1000.0),
        v if v >= 100.0 => format!("{v:.0}/s"),
        v => format!("{v:.1}/s"),
    }
}

/// Bytes a second.
pub fn mb_per_second(value: f64) -> String {
    format!("{:.0} MB/s", value / 1e6)
}

/// Says how it gets on.
#[allow(clippy::print_stderr, reason = "the one place that talks while measuring")]
pub fn progress(text: &str) {
    eprintln!("bench: {text}");
}

#[allow(clippy::print_stdout, reason = "the report is what this program is for")]
fn line(text: &str) {
    println!("{text}");
}
