//! What a run found: goals, tables and one picture.

use std::fmt::Write as _;

/// A table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) note: String,
    pub(crate) head: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// A goal and what was measured.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) id: &'static str,
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) met: bool,
}

/// Bars that belong together.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) bars: Vec<(&'static str, f64)>,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) goals: Vec<Goal>,
    pub(crate) tables: Vec<Table>,
    pub(crate) groups: Vec<Group>,
}

impl Report {
    pub(crate) fn goal(&mut self, id: &'static str, what: impl Into<String>, measured: String, met: bool) {
        self.goals.push(Goal { id, what: what.into(), measured, met });
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("## Goals\n\n| | goal | measured | |\n|---|---|---|---|\n");
        for Goal { id, what, measured, met } in &self.goals {
            let met = if *met { "met" } else { "**missed**" };
            let _ = writeln!(text, "| {id} | {what} | {measured} | {met} |");
        }
        for Table { title, note, head, rows } in &self.tables {
            let _ = writeln!(text, "\n## {title}\n\n{note}\n\n| {} |", head.join(" | "));
            let _ = writeln!(text, "|{}", "---|".repeat(head.len()));
            for row in rows {
                let _ = writeln!(text, "| {} |", row.join(" | "));
            }
        }
        text
    }

    /// Throughput over that of the baseline, drawn from left to right.
    pub(crate) fn svg(&self) -> String {
        const COLOURS: [(&str, &str); 7] = [
            ("physlog", "#9e9e9e"),
            ("raft-wal", "#1b5e20"),
            ("raft-wal, its thread", "#66bb6a"),
            ("raft-engine", "#ef6c00"),
            ("raft-engine, as it comes", "#ffcc80"),
            ("okaywal", "#5e35b1"),
            ("okaywal, as it comes", "#b39ddb"),
        ];
        const BAR: f64 = 15.0;
        const SCALE: f64 = 330.0;
        let most = self.groups.iter().flat_map(|group| &group.bars).map(|bar| bar.1).fold(1.0, f64::max);
        let mut body = String::new();
        let mut y = 64.0;
        for Group { name, bars } in &self.groups {
            let middle = y + BAR * bars.len() as f64 / 2.0 + 4.0;
            let _ = writeln!(body, "<text x=\"160\" y=\"{middle}\" text-anchor=\"end\">{name}</text>");
            for (contender, value) in bars {
                let colour =
                    COLOURS.iter().find(|known| known.0 == *contender).map_or("#000", |known| known.1);
                let width = (value / most * SCALE).max(1.0);
                let (label_x, label_y) = (176.0 + width, y + 11.0);
                let _ = writeln!(
                    body,
                    "<rect x=\"170\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"><title>{contender}</title></rect>\
                     <text x=\"{label_x:.1}\" y=\"{label_y}\" font-size=\"11\">{value:.2}x</text>",
                    BAR - 2.0,
                );
                y += BAR;
            }
            y += 12.0;
        }
        let mut legend = String::new();
        let mut x = 20.0;
        for (contender, colour) in COLOURS {
            let _ = writeln!(
                legend,
                "<rect x=\"{x}\" y=\"34\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"45\">{contender}</text>",
                x + 17.0
            );
            x += 40.0 + 7.0 * contender.len() as f64;
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"860\" height=\"{y}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"20\" y=\"22\" font-weight=\"bold\">Durable appends a second; physlog = 1, with (*) batches of 64 by one caller = 1</text>\n{legend}{body}</svg>\n"
        )
    }
}
