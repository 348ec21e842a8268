use serde::Serialize;
use store::upkeep::StoreStats;

use crate::output::{Format, bytes, print, print_json};

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    stats: StoreStats,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_body_byte: Option<f64>,
}

pub(super) async fn run(url: &str, format: Format) -> anyhow::Result<()> {
    let stats = store::upkeep::stats(url).await?;
    let bytes_per_body_byte = stats.bytes_per_body_byte();
    if format == Format::Json {
        print_json(&Shown { stats, bytes_per_body_byte })?;
        return Ok(());
    }
    let mut text = String::new();
    for table in &stats.tables {
        text.push_str(&format!("{:<24} {:>12}\n", table.name, bytes(table.bytes)));
    }
    text.push_str(&format!("{:<24} {:>12}\n", "free", bytes(stats.free_bytes)));
    text.push_str(&format!("{:<24} {:>12}\n\n", "all", bytes(stats.bytes)));
    text.push_str(&format!(
        "{} events; {} pieces of output and input: {} kept as {}\n",
        stats.events,
        stats.bodies,
        bytes(stats.body_bytes),
        bytes(stats.stored_body_bytes)
    ));
    if let Some(ratio) = bytes_per_body_byte {
        text.push_str(&format!("{ratio:.2} bytes on the disk for each byte of output and input\n"));
    }
    print(&text)?;
    Ok(())
}
