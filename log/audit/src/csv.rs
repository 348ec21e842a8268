//! The log as a table, for a spreadsheet. It cannot be verified.

use events::Event;
use record::AuditRow;

/// The first line.
pub const CSV_HEADING: &str =
    "position,time,tenant,type,sandbox,exec,actor,request_id,cause,body_length,data\r\n";

/// The line of an event. What a spreadsheet would take for a formula gets an apostrophe in front.
pub fn csv_row(row: &AuditRow, event: &Event) -> String {
    let cells = [
        row.position.to_string(),
        event.time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        event.tenant.to_string(),
        event.data.type_name().to_owned(),
        event.sandbox.map(|id| id.to_string()).unwrap_or_default(),
        event.data.exec().map(|id| id.to_string()).unwrap_or_default(),
        event.actor.to_string(),
        event.request_id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
        event.cause.map(|id| id.to_string()).unwrap_or_default(),
        row.body_length.map(|length| length.to_string()).unwrap_or_default(),
        super::cloud_events::data_of(&row.header).unwrap_or("{}").to_owned(),
    ];
    let mut line = cells.map(|cell: String| safe(&cell)).join(",");
    line.push_str("\r\n");
    line
}

/// RFC 4180, and nothing that a spreadsheet runs.
fn safe(cell: &str) -> String {
    let formula = cell.trim_start_matches(|c: char| c.is_whitespace() || c.is_control());
    let formula = formula.starts_with(['=', '+', '-', '@', '|', '%', '＝', '＋', '－', '＠'])
        || cell.starts_with(['\t', '\r', '\n']);
    let quoted = cell.replace('"', "\"\"");
    match (formula, cell.contains([',', '"', '\r', '\n', ';'])) {
        (true, _) => format!("\"'{quoted}\""),
        (false, true) => format!("\"{quoted}\""),
        (false, false) => cell.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_cannot_break_out_or_be_run() {
        for (cell, written) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=1+1", "\"'=1+1\""),
            ("  =cmd|'/c calc'!A1", "\"'  =cmd|'/c calc'!A1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("-1", "\"'-1\""),
            ("\t=1", "\"'\t=1\""),
            ("a\nb", "\"a\nb\""),
        ] {
            assert_eq!(safe(cell), written);
        }
    }
}
