//! `config check` and `config print`.

use comfy_table::{Table, presets};

use super::{
    args::ConfigTask,
    exit::{Failure, print},
    load_config,
};
use crate::config::Row;

pub(super) fn run(task: &ConfigTask) -> Result<(), Failure> {
    match task {
        ConfigTask::Check(args) => {
            let config = load_config(args)?;
            for warning in &config.warnings {
                eprintln!("warning: {warning}");
            }
            print("the configuration is valid\n")
        }
        ConfigTask::Print(args) => {
            let config = load_config(args)?;
            print(table(&config.table))
        }
    }
}

/// The settings that have a value, as a table.
fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["SETTING", "VALUE", "FROM"]);
    for row in rows {
        if let Some(value) = &row.value {
            table.add_row([row.key, value, &row.origin.to_string()]);
        }
    }
    super::terminal::finish(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    #[test]
    fn one_line_for_each_setting_with_a_value() {
        let row = |key, value: Option<&str>, origin| Row { key, value: value.map(str::to_owned), origin };
        let rows = [
            row("id", Some("2"), Origin::Flag),
            row("join", None, Origin::Default),
            row("heartbeat-ms", Some("50"), Origin::File { path: "node.toml".into(), line: 3 }),
        ];
        assert_eq!(
            table(&rows),
            "SETTING       VALUE  FROM\nid            2      flag\nheartbeat-ms  50     node.toml:3\n"
        );
    }
}
