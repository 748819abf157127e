//! Results: tables of medians, ratios beside their targets, and the same as JSON.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    thread,
};

use serde_json::{Value, json};

/// All that was measured in one run.
pub(super) struct Report {
    cores: usize,
    sections: Vec<Section>,
}

/// One table, and what follows from it.
pub(super) struct Section {
    /// Names the section in JSON.
    pub(super) id: &'static str,
    /// What was measured and how.
    pub(super) title: String,
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<Row>,
    pub(super) ratios: Vec<Ratio>,
}

/// A line of a table: one number a column.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) values: Vec<f64>,
}

/// A number without a unit that a target speaks of.
pub(super) struct Ratio {
    pub(super) name: String,
    pub(super) found: f64,
    pub(super) wanted: Wanted,
}

/// A target.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
    /// None: the number is told for comparison.
    Nothing,
}

/// What one round of calls took.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// Events.
    pub(super) per_second: f64,
    /// Milliseconds from call to answer.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Microseconds of processor time that an event takes, of client and server together: a rate
    /// that neighbours on the machine disturb less. 0: not measured.
    pub(super) cpu_us: f64,
    /// The same with what comes after the answer: the index. 0: not measured.
    pub(super) whole_cpu_us: f64,
    /// That of the custodian which follows. 0: none does.
    pub(super) custodian_cpu_us: f64,
}

impl Sample {
    /// From the seconds that each call took, in any order.
    pub(super) fn of(events: f64, seconds: f64, mut latencies: Vec<f64>) -> Self {
        latencies.sort_by(f64::total_cmp);
        let ms = |permille| 1_000.0 * quantile(&latencies, permille);
        let (p50_ms, p99_ms) = (ms(500), ms(990));
        Self { per_second: events / seconds, p50_ms, p99_ms, ..Self::default() }
    }

    /// With the processor time that all its events took.
    pub(super) fn with_cpu(self, events: f64, seconds: f64) -> Self {
        Self { cpu_us: 1e6 * seconds / events, ..self }
    }

    /// With the processor time that all its events took until they were indexed.
    pub(super) fn with_whole_cpu(self, events: f64, seconds: f64) -> Self {
        Self { whole_cpu_us: 1e6 * seconds / events, ..self }
    }

    /// With the processor time that its custodian took for all its events.
    pub(super) fn with_custodian_cpu(self, events: f64, seconds: f64) -> Self {
        Self { custodian_cpu_us: 1e6 * seconds / events, ..self }
    }

    /// The median of each number over the rounds.
    pub(super) fn median(rounds: &[Self]) -> Self {
        let of = |number: fn(&Self) -> f64| median(rounds.iter().map(number));
        Self {
            per_second: of(|sample| sample.per_second),
            p50_ms: of(|sample| sample.p50_ms),
            p99_ms: of(|sample| sample.p99_ms),
            cpu_us: of(|sample| sample.cpu_us),
            whole_cpu_us: of(|sample| sample.whole_cpu_us),
            custodian_cpu_us: of(|sample| sample.custodian_cpu_us),
        }
    }

    /// The columns of [`Sample::row`].
    pub(super) fn columns() -> Vec<&'static str> {
        vec!["events/s", "p50 ms", "p99 ms", "cpu us/event"]
    }

    pub(super) fn row(&self, name: impl Into<String>) -> Row {
        Row {
            name: name.into(),
            values: vec![self.per_second, self.p50_ms, self.p99_ms, self.cpu_us],
        }
    }
}

/// The middle one; 0 of nothing.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    quantile(&values, 500)
}

fn quantile(sorted: &[f64], permille: usize) -> f64 {
    let place = sorted.len().saturating_sub(1) * permille / 1_000;
    sorted.get(place).copied().unwrap_or_default()
}

impl Ratio {
    pub(super) fn new(name: impl Into<String>, found: f64, wanted: Wanted) -> Self {
        Self { name: name.into(), found, wanted }
    }

    /// The rate of the ledger against that of the echo, and the same as their processor time has
    /// it.
    pub(super) fn rates(
        name: &str,
        recorded: &Sample,
        echoed: &Sample,
        wanted: Wanted,
    ) -> [Self; 2] {
        [
            Self::new(name, recorded.per_second / echoed.per_second, wanted),
            Self::new(
                format!("{name}, by processor time"),
                echoed.cpu_us / recorded.cpu_us,
                Wanted::Nothing,
            ),
        ]
    }

    fn verdict(&self) -> String {
        let told = |is_met, word, wanted| {
            format!("wanted {word} {wanted:.2}: {}", if is_met { "met" } else { "MISSED" })
        };
        match self.wanted {
            Wanted::AtLeast(wanted) => told(self.found >= wanted, "at least", wanted),
            Wanted::AtMost(wanted) => told(self.found <= wanted, "at most", wanted),
            Wanted::Nothing => "for comparison".to_owned(),
        }
    }
}

impl Report {
    /// Says where it runs.
    pub(super) fn begin() -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        writeln!(io::stdout().lock(), "{cores} cores; medians; ratios count, not absolutes")?;
        Ok(Self { cores, sections: Vec::new() })
    }

    /// Prints a section and keeps it.
    pub(super) fn add(&mut self, section: Section) -> io::Result<()> {
        section.print(&mut io::stdout().lock())?;
        self.sections.push(section);
        Ok(())
    }

    /// Writes everything to a file.
    pub(super) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let sections: Vec<_> = self.sections.iter().map(Section::json).collect();
        let report = json!({ "cores": self.cores, "sections": sections });
        serde_json::to_writer_pretty(File::create(path)?, &report)?;
        Ok(())
    }
}

impl Section {
    fn print(&self, out: &mut impl io::Write) -> io::Result<()> {
        let names = self.rows.iter().map(|row| row.name.len());
        let ratio_names = self.ratios.iter().map(|ratio| ratio.name.len());
        let width = names.chain(ratio_names).max().unwrap_or_default();
        write!(out, "\n{}\n{:width$}", self.title, "")?;
        self.columns.iter().try_for_each(|column| write!(out, "  {column:>12}"))?;
        writeln!(out)?;
        for row in &self.rows {
            write!(out, "{:width$}", row.name)?;
            row.values.iter().try_for_each(|value| write!(out, "  {:>12}", number(*value)))?;
            writeln!(out)?;
        }
        for ratio in &self.ratios {
            let (name, found) = (&ratio.name, number(ratio.found));
            writeln!(out, "{name:width$}  {found:>12}  {}", ratio.verdict())?;
        }
        out.flush()
    }

    fn json(&self) -> Value {
        let row = |row: &Row| {
            let values = self.columns.iter().zip(&row.values);
            let values: serde_json::Map<_, _> =
                values.map(|(column, value)| ((*column).to_owned(), json!(value))).collect();
            json!({ "name": row.name, "values": values })
        };
        let ratio = |ratio: &Ratio| {
            let (at_least, at_most) = match ratio.wanted {
                Wanted::AtLeast(wanted) => (Some(wanted), None),
                Wanted::AtMost(wanted) => (None, Some(wanted)),
                Wanted::Nothing => (None, None),
            };
            json!({
                "name": ratio.name, "found": ratio.found, "at_least": at_least, "at_most": at_most,
            })
        };
        json!({
            "id": self.id,
            "title": self.title,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "ratios": self.ratios.iter().map(ratio).collect::<Vec<_>>(),
        })
    }
}

/// Three digits, or all of those before the point, in groups.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let plain = format!("{value:.digits$}");
    let whole = plain.find('.').unwrap_or(plain.len());
    let mut out = String::new();
    for (place, digit) in plain.char_indices() {
        if place > 0 && place < whole && (whole - place).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_grouped() {
        assert_eq!(number(1_234_567.8), "1 234 568");
        assert_eq!(number(123.4), "123");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(0.1234), "0.123");
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median([9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median([]).abs() < f64::EPSILON);
        let sample = Sample::of(10.0, 2.0, vec![0.003, 0.001, 0.002]);
        assert!((sample.per_second - 5.0).abs() < 1e-9 && (sample.p50_ms - 2.0).abs() < 1e-9);
    }
}
