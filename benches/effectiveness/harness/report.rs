//! Tables of results, and the goals they are held to.

use std::time::Duration;
use std::{fmt, iter};

use super::{Form, Plot};

/// What is compared: a protection, or a setting, with the name of its column.
pub(crate) type Variant<V> = (&'static str, V);

/// The latency below which this share of them is, in milliseconds. They are in order.
pub(crate) fn millis_at(rank: f64, latencies: &[Duration]) -> f64 {
    let place = (rank * latencies.len() as f64) as usize;
    let latency = latencies.get(place);
    latency.map_or(f64::NAN, |latency| 1e3 * latency.as_secs_f64())
}

/// What the runs of each variant gave, with one seed after the other.
pub(crate) struct Results<T>(Vec<Vec<T>>);

impl<T> Results<T> {
    pub(crate) fn new<V>(variants: &[Variant<V>], seeds: u64, run: impl Fn(&V, u64) -> T) -> Self {
        Self::with_seeds(variants, |_| seeds, run)
    }

    /// With as many seeds as `seeds` says for the name of the variant.
    pub(crate) fn with_seeds<V>(
        variants: &[Variant<V>],
        seeds: impl Fn(&str) -> u64,
        run: impl Fn(&V, u64) -> T,
    ) -> Self {
        let runs = |(name, variant): &Variant<V>| {
            let seeds = 1..=seeds(name);
            seeds.map(|seed| run(variant, seed)).collect()
        };
        Self(variants.iter().map(runs).collect())
    }

    /// The runs of each variant, in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Vec<T>> {
        self.0.iter()
    }

    /// The cells of a row that shows this number of each run.
    pub(crate) fn cells(&self, number: impl Fn(&T) -> f64) -> Vec<Sample> {
        let cell = |runs: &Vec<T>| Sample(runs.iter().map(&number).collect());
        self.0.iter().map(cell).collect()
    }

    /// The cells of a row that compares each run with that of the first variant with the same seed.
    pub(crate) fn compared(&self, compare: impl Fn(&T, &T) -> f64) -> Vec<Sample> {
        let cell = |runs: &Vec<T>| {
            let pairs = runs.iter().zip(&self.0[0]);
            Sample(pairs.map(|(run, first)| compare(run, first)).collect())
        };
        self.0.iter().map(cell).collect()
    }

    /// The cells of a row that shows the greatest of this number.
    pub(crate) fn greatest(&self, number: impl Fn(&T) -> f64) -> Vec<Sample> {
        let greatest = |runs: &Vec<T>| runs.iter().map(&number).fold(f64::NEG_INFINITY, f64::max);
        self.0.iter().map(greatest).map(Sample::from).collect()
    }

    /// The cells of a row that shows the least of this number.
    pub(crate) fn least(&self, number: impl Fn(&T) -> f64) -> Vec<Sample> {
        let least = |runs: &Vec<T>| runs.iter().map(&number).fold(f64::INFINITY, f64::min);
        self.0.iter().map(least).map(Sample::from).collect()
    }
}

/// One number from each of several runs.
#[derive(Debug)]
pub(crate) struct Sample(Vec<f64>);

impl From<f64> for Sample {
    fn from(value: f64) -> Self {
        Self(vec![value])
    }
}

impl Sample {
    pub(crate) fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// Three standard errors of the mean; none for a single number, or for what never happens.
    fn band(&self) -> f64 {
        let (mean, count) = (self.mean(), self.0.len() as f64);
        if count < 2.0 || mean.is_infinite() {
            return 0.0;
        }
        let squares: f64 = self.0.iter().map(|value| (value - mean).powi(2)).sum();
        3.0 * (squares / (count - 1.0) / count).sqrt()
    }

    fn text(&self, digits: usize) -> String {
        let (mean, band) = (self.mean(), self.band());
        if mean.is_infinite() {
            "never".into()
        } else if self.0.len() == 1 {
            format!("{mean:.digits$}")
        } else {
            format!("{mean:.digits$} ± {band:.digits$}")
        }
    }
}

/// What the mean of a sample has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// This value, or off it by at most this share of it.
    Within(f64, f64),
    /// A time that is infinite.
    Never,
}

impl Goal {
    fn is_met_by(self, sample: &Sample, form: Form) -> bool {
        let mean = sample.mean();
        // The few runs of the short form only fail if a goal is missed by more than chance.
        let slack = form.pick(sample.band(), 0.0);
        match self {
            Self::AtMost(limit) => mean <= limit + slack,
            Self::AtLeast(limit) => mean >= limit - slack,
            Self::Within(value, share) => (mean - value).abs() <= share * value + slack,
            Self::Never => mean.is_infinite(),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "≤ {limit}"),
            Self::AtLeast(limit) => write!(f, "≥ {limit}"),
            Self::Within(value, share) => {
                let [value, percent] = [(*value, 1e6), (share * 100.0, 10.0)]
                    .map(|(number, unit)| (number * unit).round() / unit);
                write!(f, "{value} ± {percent} %")
            }
            Self::Never => write!(f, "never"),
        }
    }
}

/// The tables of one experiment.
#[derive(Debug)]
pub(crate) struct Report {
    title: &'static str,
    tables: Vec<Table>,
    plots: Vec<Plot>,
}

impl Report {
    pub(crate) fn new(title: &'static str, tables: Vec<Table>) -> Self {
        Self {
            title,
            tables,
            plots: Vec::new(),
        }
    }

    /// Adds a picture.
    pub(crate) fn plot(mut self, plot: Plot) -> Self {
        self.plots.push(plot);
        self
    }

    #[allow(dead_code, reason = "the bench draws them, the tests do not")]
    pub(crate) fn plots(&self) -> &[Plot] {
        &self.plots
    }

    /// The number of goals that were missed.
    pub(crate) fn missed(&self) -> usize {
        let rows = self.tables.iter().flat_map(|table| &table.rows);
        let checks = rows.flat_map(|row| &row.checks);
        checks.filter(|check| !check.is_met).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "== {} ==", self.title)?;
        let mut tables = self.tables.iter();
        tables.try_for_each(|table| writeln!(f, "{table}"))
    }
}

/// Results with a row for each thing that is measured, and a column for each variant.
#[derive(Debug)]
pub(crate) struct Table {
    form: Form,
    columns: Vec<&'static str>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    measure: String,
    digits: usize,
    cells: Vec<Sample>,
    references: Vec<String>,
    checks: Vec<Check>,
}

#[derive(Debug)]
struct Check {
    goal: String,
    is_met: bool,
}

impl Table {
    pub(crate) fn new<V>(form: Form, variants: &[Variant<V>]) -> Self {
        Self {
            form,
            columns: variants.iter().map(|(name, _)| *name).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, with a cell for each column.
    pub(crate) fn row(
        &mut self,
        measure: impl Into<String>,
        digits: usize,
        cells: Vec<Sample>,
    ) -> &mut Self {
        self.rows.push(Row {
            measure: measure.into(),
            digits,
            cells,
            references: Vec::new(),
            checks: Vec::new(),
        });
        self
    }

    /// Adds what somebody else got, or what theory says, to the last row.
    pub(crate) fn reference(&mut self, reference: impl Into<String>) -> &mut Self {
        self.last().references.push(reference.into());
        self
    }

    /// Holds a column of the last row to a goal.
    pub(crate) fn goal(&mut self, column: &str, goal: Goal) -> &mut Self {
        let index = self.columns.iter().position(|name| *name == column);
        let index = index.expect("a goal names a column");
        let form = self.form;
        let row = self.last();
        row.checks.push(Check {
            goal: format!("{column}: {goal}"),
            is_met: goal.is_met_by(&row.cells[index], form),
        });
        self
    }

    /// Adds a row that says whether `run`, which returns the hash of its event log, repeats with
    /// its seed.
    pub(crate) fn repeats(&mut self, run: impl Fn(u64) -> u64) {
        let log = run(1);
        let is_met = log == run(1) && log != run(2);
        self.row("event log", 0, Vec::new());
        self.last().checks.push(Check {
            goal: "repeats with its seed only".into(),
            is_met,
        });
    }

    fn last(&mut self) -> &mut Row {
        self.rows.last_mut().expect("a row comes first")
    }

    /// The text of every line, cell by cell.
    fn lines(&self) -> Vec<Vec<String>> {
        let columns = self.columns.iter().copied();
        let headings = iter::once("").chain(columns);
        let headings = headings.chain(["reference", "goal", "verdict"]);
        let mut lines = vec![headings.map(String::from).collect()];
        for row in &self.rows {
            for n in 0..row.references.len().max(row.checks.len()).max(1) {
                let mut line = vec![String::new(); self.columns.len() + 4];
                if n == 0 {
                    line[0].clone_from(&row.measure);
                    for (text, cell) in line[1..].iter_mut().zip(&row.cells) {
                        *text = cell.text(row.digits);
                    }
                }
                let [.., reference, goal, verdict] = &mut line[..] else {
                    unreachable!("a line ends with three texts");
                };
                if let Some(text) = row.references.get(n) {
                    reference.clone_from(text);
                }
                if let Some(check) = row.checks.get(n) {
                    goal.clone_from(&check.goal);
                    *verdict = String::from(if check.is_met { "pass" } else { "FAIL" });
                }
                lines.push(line);
            }
        }
        lines
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        let width = |column: usize| {
            let widths = lines.iter().map(|line| line[column].chars().count());
            widths.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
        for line in &lines {
            let cells = line.iter().zip(&widths).enumerate();
            let padded = cells.map(|(column, (cell, width))| {
                // Numbers stand to the right, words to the left.
                if (1..=self.columns.len()).contains(&column) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
            let text = padded.collect::<Vec<_>>().join("   ");
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}
