//! `stacyvm get`

use std::io::stdout;
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::Value;

use super::error::VerbError;
use crate::output::{self, Format, Style, plain};
use client::Client;

/// Show one sandbox.
#[derive(Debug, Clone, clap::Args)]
pub struct GetArgs {
    /// Sandbox.
    pub id: String,
}

/// These first, in this order; whatever else a server tells comes after them.
pub const ORDER: [&str; 13] = [
    "id",
    "state",
    "message",
    "provider",
    "image",
    "template",
    "vcpus",
    "memory_mb",
    "created_at",
    "expires_at",
    "owner_id",
    "tenant_id",
    "worker_id",
];

pub async fn get(api: &Client, format: Format, args: GetArgs) -> Result<ExitCode, VerbError> {
    let value: Value = api.get(&["sandboxes", &args.id]).await?;
    match format {
        Format::Json => output::print_json(&value),
        Format::Table => output::print(&card(&value, &ORDER, Style::of(&stdout()))?),
    }
    .map_err(VerbError::output)?;
    Ok(ExitCode::SUCCESS)
}

/// A line for each field: those in `order` first, whatever else a server tells after them.
pub fn card(value: &Value, order: &[&str], style: Style) -> Result<String, VerbError> {
    let object = value.as_object().ok_or_else(|| VerbError::Unexpected("not an object".to_owned()))?;
    let known = order.iter().filter_map(|name| object.get_key_value(*name));
    let others = object.iter().filter(|(name, _)| !order.contains(&name.as_str()));
    let mut rows = Vec::new();
    for (name, value) in known.chain(others) {
        if let Some(map) = value.as_object() {
            rows.extend(map.iter().map(|(key, value)| (format!("{name}.{key}"), text(value))));
        } else {
            rows.push((name.clone(), text(value)));
        }
    }
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in &rows {
        let label = style.dim(&format!("{:width$}", plain(name)));
        let shown = if name == "state" { style.state(value) } else { value.clone() };
        out.push_str(&format!("{label}  {shown}\n"));
    }
    Ok(out)
}

/// Reads one thing, or one of several, from what a server said, which stays with the caller.
pub fn read<'a, T: Deserialize<'a>>(value: &'a Value, what: &str) -> Result<T, VerbError> {
    T::deserialize(value).map_err(|error| VerbError::Unexpected(format!("not {what}: {error}")))
}

fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => plain(text).into_owned(),
        None => plain(&value.to_string()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_card_has_a_line_for_each_field() {
        let value =
            json!({"zone": 5, "metadata": {"team": "a\nb"}, "id": "sb-1", "state": "running", "vcpus": 1});
        let expected = "\
id             sb-1
state          running
vcpus          1
metadata.team  a\\nb
zone           5
";
        assert_eq!(card(&value, &ORDER, Style::PLAIN).unwrap(), expected);
        assert!(card(&json!([]), &ORDER, Style::PLAIN).is_err());
    }
}
