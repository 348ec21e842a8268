//! `stacyvm stats`

use std::io::stdout;
use std::process::ExitCode;

use serde_json::Value;

use super::error::VerbError;
use crate::output::{self, Format, Style, Table, bytes};
use client::{Client, ClientError};

/// Show what sandboxes use of their CPU and memory.
#[derive(Debug, Clone, clap::Args)]
pub struct StatsArgs {
    /// Sandboxes.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// One after the other; one that fails does not hide the rest.
pub async fn stats(api: &Client, format: Format, args: StatsArgs) -> Result<ExitCode, VerbError> {
    let mut failed = false;
    let mut shown = Vec::new();
    for id in &args.ids {
        match api.get::<Value>(&["sandboxes", id, "stats"]).await {
            Ok(stats) => shown.push((id, stats)),
            Err(error @ ClientError::Unreachable { .. }) => return Err(error.into()),
            Err(error) => {
                output::error(&anyhow::Error::new(error).context(id.clone()));
                failed = true;
            }
        }
    }
    match format {
        Format::Json => shown.iter().try_for_each(|(id, stats)| {
            output::print_json_line(&serde_json::json!({ "id": id, "stats": stats }))
        }),
        Format::Table => output::print(&table(&shown).render(Style::of(&stdout()))),
    }
    .map_err(VerbError::output)?;
    if failed { Err(VerbError::Told) } else { Ok(ExitCode::SUCCESS) }
}

fn table(stats: &[(&String, Value)]) -> Table {
    let mut table = Table::new(&["ID", "CPU", "MEMORY", "LIMIT"]);
    for (id, stats) in stats {
        let size = |name: &str| stats.get(name).and_then(Value::as_u64).map(bytes).unwrap_or_default();
        let cpu = stats.get("cpu_pct").and_then(Value::as_f64).map(|cpu| format!("{cpu:.1}%"));
        table.row([id, &cpu.unwrap_or_default(), &size("mem_bytes"), &size("mem_limit_bytes")]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_is_a_dash() {
        let (known, unknown) = ("sb-1".to_owned(), "sb-2".to_owned());
        let stats = [
            (
                &known,
                json!({"supported": true, "cpu_pct": 12.34, "mem_bytes": 2048, "mem_limit_bytes": 1 << 20}),
            ),
            (&unknown, json!({"supported": false})),
        ];
        let expected = "\
ID    CPU    MEMORY    LIMIT
sb-1  12.3%  2.00 KiB  1.00 MiB
sb-2  -      -         -
";
        assert_eq!(table(&stats).render(Style::PLAIN), expected);
    }
}
