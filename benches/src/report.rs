//! Tables, as text, as Markdown and as JSON.
//!
//! A row holds one sample per round. Its cells are the best sample, the median, the spread (median over
//! best), and for each baseline the ratio of the bests with that of the medians in brackets. The unit says
//! whether more is better; then a ratio above 1 is better than the baseline, else one below.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::plan::Plan;

/// Where the figures are published.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks.md");

/// What a figure is, and which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds for one operation: less is better.
    Nanos,
    /// Messages in a second: more is better.
    PerSecond,
    /// Bytes for one thing: less is better.
    Bytes,
    /// How often for one message: less is better.
    Count,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Nanos => "ns",
            Unit::PerSecond => "per second",
            Unit::Bytes => "bytes",
            Unit::Count => "per message",
        }
    }

    fn more_is_better(self) -> bool {
        self == Unit::PerSecond
    }

    fn format(self, value: f64) -> String {
        match self {
            Unit::Count if value < 20.0 => format!("{value:.2}"),
            Unit::Nanos if value < 1000.0 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        }
    }
}

/// What a figure is to reach.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// A ratio to the named baseline.
    Ratio(&'static str, f64),
    /// A value by itself.
    Value(f64),
}

/// One of those that are compared.
#[derive(Clone, Debug)]
pub struct Row {
    name: &'static str,
    samples: Vec<f64>,
    extra: Vec<f64>,
    target: Option<Target>,
}

impl Row {
    /// A row with one sample per round.
    #[must_use]
    pub fn new(name: &'static str, samples: Vec<f64>) -> Row {
        Row { name, samples, extra: Vec::new(), target: None }
    }

    /// The value of the table's extra column, one sample per round as well.
    #[must_use]
    pub fn with_extra(mut self, extra: Vec<f64>) -> Row {
        self.extra = extra;
        self
    }

    /// What it is to reach.
    #[must_use]
    pub fn with_target(mut self, target: Option<Target>) -> Row {
        self.target = target;
        self
    }
}

/// The best and the median of some samples.
fn best_and_median(samples: &[f64], more_is_better: bool) -> Option<(f64, f64)> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let best = if more_is_better { sorted.last() } else { sorted.first() };
    Some((*best?, sorted[sorted.len() / 2]))
}

/// A comparison.
#[derive(Clone, Debug)]
pub struct Table {
    title: String,
    unit: Unit,
    baselines: Vec<&'static str>,
    /// The name and the unit of a further column, and which row its ratios are to.
    extra: Option<(&'static str, Unit)>,
    rows: Vec<Row>,
}

impl Table {
    /// An empty table whose ratios are to the rows named in `baselines`.
    #[must_use]
    pub fn new(title: impl Into<String>, unit: Unit, baselines: &[&'static str]) -> Table {
        let (title, baselines) = (title.into(), baselines.to_vec());
        Table { title, unit, baselines, extra: None, rows: Vec::new() }
    }

    /// Adds a column beside the figures, whose median is shown with its ratio to the first baseline.
    #[must_use]
    pub fn with_extra(mut self, name: &'static str, unit: Unit) -> Table {
        self.extra = Some((name, unit));
        self
    }

    /// Adds a row, unless it has no samples.
    pub fn push(&mut self, row: Row) {
        if !row.samples.is_empty() {
            self.rows.push(row);
        }
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The ratios of the bests and of the medians.
    fn ratios(&self, row: &Row, baseline: &str) -> Option<(f64, f64)> {
        let more = self.unit.more_is_better();
        let (best, median) = best_and_median(&row.samples, more)?;
        let (base_best, base_median) = best_and_median(&self.row(baseline)?.samples, more)?;
        Some((best / base_best, median / base_median))
    }

    fn extra_cell(&self, row: &Row, unit: Unit) -> String {
        let Some((_, median)) = best_and_median(&row.extra, false) else { return String::new() };
        let base = self.baselines.first().and_then(|name| self.row(name));
        let base = base.and_then(|base| best_and_median(&base.extra, false));
        match base {
            Some((_, base)) => format!("{} ({:.2})", unit.format(median), median / base),
            None => unit.format(median),
        }
    }

    fn target_cell(&self, row: &Row) -> String {
        let more = self.unit.more_is_better();
        let sign = if more { '≥' } else { '≤' };
        let (wanted, reached) = match row.target {
            None => return String::new(),
            Some(Target::Value(value)) => {
                (value, best_and_median(&row.samples, more).map(|(_, median)| median))
            }
            Some(Target::Ratio(to, ratio)) => (ratio, self.ratios(row, to).map(|(best, _)| best)),
        };
        let of = match row.target {
            Some(Target::Ratio(to, _)) => format!(" of {to}"),
            _ => String::new(),
        };
        // As it is printed.
        let reached = reached.map(|reached| (reached * 100.0).round() / 100.0);
        let verdict = match reached {
            Some(reached) if (more && reached >= wanted) || (!more && reached <= wanted) => "met",
            Some(_) => "missed",
            None => "not measured",
        };
        format!("{sign} {wanted}{of}: {verdict}")
    }

    fn cells(&self) -> Vec<Vec<String>> {
        let mut head = vec![String::new(), format!("best, {}", self.unit.name())];
        head.extend(["median".to_owned(), "spread".to_owned()]);
        head.extend(self.baselines.iter().map(|name| format!("to {name}")));
        head.extend(self.extra.map(|(name, _)| name.to_owned()));
        let targets = self.rows.iter().any(|row| row.target.is_some());
        head.extend(targets.then(|| "target".to_owned()));
        let mut cells = vec![head];
        for row in &self.rows {
            let Some((best, median)) = best_and_median(&row.samples, self.unit.more_is_better())
            else {
                continue;
            };
            let mut line = vec![row.name.to_owned(), self.unit.format(best)];
            line.extend([self.unit.format(median), format!("{:.2}", median / best)]);
            for baseline in &self.baselines {
                let ratios = self.ratios(row, baseline);
                line.push(
                    ratios
                        .map_or(String::new(), |(best, median)| format!("{best:.2} ({median:.2})")),
                );
            }
            line.extend(self.extra.map(|(_, unit)| self.extra_cell(row, unit)));
            line.extend(targets.then(|| self.target_cell(row)));
            cells.push(line);
        }
        cells
    }

    fn json(&self) -> String {
        let mut rows = Vec::new();
        for row in &self.rows {
            let mut text = format!("{{\"name\":{},\"samples\":{:?}", quoted(row.name), row.samples);
            if let Some((name, _)) = self.extra {
                let _ = write!(text, ",{}:{:?}", quoted(name), row.extra);
            }
            for baseline in &self.baselines {
                if let Some((best, median)) = self.ratios(row, baseline) {
                    let name = quoted(&format!("ratio to {baseline}"));
                    let _ = write!(text, ",{name}:{{\"best\":{best},\"median\":{median}}}");
                }
            }
            if row.target.is_some() {
                let _ = write!(text, ",\"target\":{}", quoted(&self.target_cell(row)));
            }
            rows.push(text + "}");
        }
        let (title, unit, rows) =
            (quoted(&self.title), quoted(self.unit.name()), rows.join(",\n  "));
        format!("{{\"title\":{title},\"unit\":{unit},\"rows\":[\n  {rows}\n ]}}")
    }
}

/// How figures grow: one line for each size, one column for each of those that are compared.
#[derive(Clone, Debug)]
pub struct Growth {
    /// What it shows.
    pub title: String,
    /// What the sizes are sizes of.
    pub of: &'static str,
    /// What the figures are.
    pub unit: Unit,
    /// Who is compared.
    pub columns: Vec<&'static str>,
    /// A size, and a figure for each column; not a number where there is none.
    pub lines: Vec<(usize, Vec<f64>)>,
}

impl Growth {
    fn cells(&self) -> Vec<Vec<String>> {
        let mut head = vec![self.of.to_owned()];
        head.extend(self.columns.iter().map(|column| format!("{column}, {}", self.unit.name())));
        let mut cells = vec![head];
        for (size, figures) in &self.lines {
            let format =
                |figure: &f64| if figure.is_nan() { "-".into() } else { self.unit.format(*figure) };
            cells.push([size.to_string()].into_iter().chain(figures.iter().map(format)).collect());
        }
        cells
    }

    fn json(&self) -> String {
        let columns: Vec<_> = self.columns.iter().map(|column| quoted(column)).collect();
        let figure =
            |figure: &f64| if figure.is_nan() { "null".into() } else { figure.to_string() };
        let lines = self.lines.iter().map(|(size, figures)| {
            let figures: Vec<_> = figures.iter().map(figure).collect();
            format!("[{size},{}]", figures.join(","))
        });
        let (title, unit, lines) = (
            quoted(&self.title),
            quoted(self.unit.name()),
            lines.collect::<Vec<_>>().join(",\n  "),
        );
        let (of, columns) = (quoted(self.of), columns.join(","));
        format!(
            "{{\"title\":{title},\"unit\":{unit},\"columns\":[{of},{columns}],\"lines\":[\n  {lines}\n ]}}"
        )
    }
}

/// The names here have no control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// All tables of a run.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    json: Vec<String>,
    markdown: Vec<String>,
    remarks: Vec<String>,
    started: Instant,
}

impl Report {
    /// Prints what is measured, where and when.
    #[must_use]
    pub fn new(plan: &Plan) -> Report {
        let mut report = Report {
            plan: plan.clone(),
            json: Vec::new(),
            markdown: Vec::new(),
            remarks: Vec::new(),
            started: Instant::now(),
        };
        let args: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
        let command = format!("cargo bench -p tulipa-benches -- {}", args.join(" "));
        report.remark(format!("`{command}`, commit {}, {}", commit(), today()));
        report
    }

    /// Says something that is not a figure, such as what was left out.
    pub fn remark(&mut self, remark: impl Into<String>) {
        let remark = remark.into();
        println!("{remark}");
        self.markdown.push(remark.trim().to_owned());
        self.remarks.push(remark);
    }

    /// Prints a table.
    pub fn table(&mut self, table: &Table) {
        self.print(&table.title, &table.cells());
        self.json.push(table.json());
    }

    /// Prints how something grows.
    pub fn growth(&mut self, growth: &Growth) {
        self.print(&growth.title, &growth.cells());
        self.json.push(growth.json());
    }

    fn print(&mut self, title: &str, cells: &[Vec<String>]) {
        let markdown = as_markdown(title, cells);
        let text = if self.plan.markdown { markdown.clone() } else { as_text(title, cells) };
        println!("\n{text}");
        self.markdown.push(markdown);
    }

    /// Says how long it took, and writes the files that are wanted. `block` is the part of the document that
    /// is renewed.
    ///
    /// # Panics
    ///
    /// When one cannot be written.
    pub fn finish(mut self, block: &str) {
        let seconds = self.started.elapsed().as_secs();
        self.remark(format!("\nMeasured for {seconds} seconds."));
        if self.plan.update {
            let document = fs::read_to_string(DOCUMENT).expect("there is a document");
            let renewed = renewed(&document, block, &self.markdown.join("\n\n"));
            fs::write(DOCUMENT, renewed).expect("the document can be written");
        }
        let Some(path) = &self.plan.json else { return };
        let remarks: Vec<_> = self.remarks.iter().map(|remark| quoted(remark.trim())).collect();
        let (remarks, tables) = (remarks.join(",\n "), self.json.join(",\n "));
        let text = format!("{{\"remarks\":[\n {remarks}],\n\"tables\":[\n {tables}\n]}}\n");
        let written = fs::write(path, text);
        written.unwrap_or_else(|error| panic!("{} cannot be written: {error}", path.display()));
    }
}

fn as_markdown(title: &str, cells: &[Vec<String>]) -> String {
    let mut text = format!("**{title}**\n\n");
    for (number, line) in cells.iter().enumerate() {
        let _ = writeln!(text, "| {} |", line.join(" | "));
        if number == 0 {
            let _ = writeln!(text, "|{}", "---|".repeat(line.len()));
        }
    }
    text.trim_end().to_owned()
}

fn as_text(title: &str, cells: &[Vec<String>]) -> String {
    let width = |column: usize| cells.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<_> = (0..cells[0].len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut lines = vec![title.to_owned()];
    for line in cells {
        let mut text = format!("{:<width$}", line[0], width = widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        lines.push(text.trim_end().to_owned());
    }
    lines.join("\n")
}

/// The document with other text between the two marks of a block.
fn renewed(document: &str, block: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- begin {block} -->"), format!("<!-- end {block} -->"));
    let parts = document.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some((before, after))
    });
    let Some((before, after)) = parts else { panic!("the document has no {begin} and {end}") };
    format!("{before}{begin}\n{text}\n{end}{after}")
}

/// The commit that is measured, and whether there is more than it.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    let clean = git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
    if clean { commit } else { commit + " with changes" }
}

/// The date in UTC, by the civil calendar: days are counted from 1 March of the year 0.
fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}
