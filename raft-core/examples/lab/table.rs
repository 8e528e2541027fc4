//! The table: medians of many runs beside the seed's figures and the goals.

use raft_core::sim::lab::{Figures, Outcome, Scenario};

/// One row of the table.
pub(crate) struct Row {
    scenario: Scenario,
    micros: Vec<u64>,
    waited: Vec<u64>,
    even: Vec<u64>,
    rpcs: Vec<u64>,
    bytes: Vec<u64>,
    commands: Vec<u64>,
    pub(crate) failures: Vec<String>,
}

pub(crate) const HEAD: &str = "\
| test                        | peers | seeds | time s | beyond sleeps s |  RPCs |    bytes | commands | RPCs/command | seed s | seed RPCs | goal s | goal RPCs | goal | passed |
|-----------------------------|------:|------:|-------:|----------------:|------:|---------:|---------:|-------------:|-------:|----------:|-------:|----------:|------|--------|";

impl Row {
    pub(crate) fn new(scenario: &Scenario) -> Row {
        Row {
            scenario: *scenario,
            micros: Vec::new(),
            waited: Vec::new(),
            even: Vec::new(),
            rpcs: Vec::new(),
            bytes: Vec::new(),
            commands: Vec::new(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, outcome: &Outcome) {
        self.micros.push(outcome.micros);
        self.waited.push(outcome.micros - outcome.slept_micros);
        self.even.push(outcome.even_micros);
        self.rpcs.push(outcome.rpcs);
        self.bytes.push(outcome.bytes);
        self.commands.push(outcome.commands);
    }

    /// One line of the table.
    pub(crate) fn line(&self) -> String {
        let Scenario { name, peers, seed, goal, .. } = self.scenario;
        let rpcs = |figures: Figures| figures.rpcs.map_or("-".to_owned(), |rpcs| rpcs.to_string());
        format!(
            "| {name:<27} | {peers:>5} | {:>5} | {:>6.2} | {:>15.2} | {:>5.0} | {:>8.0} | {:>8.0} | {:>12.2} | {:>6.1} | {:>9} | {:>6.2} | {:>9} | {:<4} | {:<6} |",
            self.micros.len(),
            self.seconds(),
            median(&self.waited) / 1e6,
            median(&self.rpcs),
            median(&self.bytes),
            median(&self.commands),
            self.rpcs_per_command(),
            seed.time_s,
            rpcs(seed),
            goal.time_s,
            rpcs(goal),
            if self.reaches(goal) { "yes" } else { "no" },
            if self.failures.is_empty() { "yes" } else { "NO" },
        )
    }

    /// One object of a line.
    pub(crate) fn json(&self) -> String {
        format!(
            r#"{{"test":"{}","peers":{},"seeds":{},"time_s":{:.3},"rpcs":{:.1},"bytes":{:.1},"commands":{:.1},"passed":{}}}"#,
            self.scenario.name,
            self.scenario.peers,
            self.micros.len(),
            self.seconds(),
            median(&self.rpcs),
            median(&self.bytes),
            median(&self.commands),
            self.failures.is_empty()
        )
    }

    /// Whether the medians are no worse than these figures, as far as they go and as exactly as they are printed. The
    /// scenarios' random sleeps count as long as they are on average.
    fn reaches(&self, figures: Figures) -> bool {
        let time = median(&self.even) / 1e6 <= figures.time_s + 0.005;
        time && figures.rpcs.is_none_or(|rpcs| median(&self.rpcs) <= rpcs_f64(rpcs))
    }

    fn seconds(&self) -> f64 {
        median(&self.micros) / 1e6
    }

    fn rpcs_per_command(&self) -> f64 {
        median(&self.rpcs) / median(&self.commands).max(1.0)
    }
}

/// How many rows are where.
pub(crate) fn summary(rows: &[Row]) -> String {
    let passed = rows.iter().filter(|row| row.failures.is_empty()).count();
    let goal = rows.iter().filter(|row| row.reaches(row.scenario.goal)).count();
    let fewer = |row: &&Row| row.scenario.seed.rpcs.is_some_and(|rpcs| median(&row.rpcs) <= rpcs_f64(rpcs));
    let fewer = rows.iter().filter(fewer).count();
    let time: f64 = rows.iter().map(Row::seconds).sum();
    format!(
        "{passed} of {} rows passed; {goal} at their goals; {fewer} with no more RPCs than the seed; {time:.0} s in all",
        rows.len()
    )
}

#[expect(clippy::cast_precision_loss, reason = "far below what a float holds exactly")]
fn median(values: &[u64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let middle = sorted.len() / 2;
    match sorted.get(middle) {
        Some(upper) if sorted.len().is_multiple_of(2) => (sorted[middle - 1] as f64 + *upper as f64) / 2.0,
        Some(only) => *only as f64,
        None => 0.0,
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below what a float holds exactly")]
fn rpcs_f64(rpcs: u64) -> f64 {
    rpcs as f64
}
