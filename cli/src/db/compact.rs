use serde::Serialize;

use crate::config::Config;
use crate::installation::Installation;
use crate::output::{Format, bytes, print, print_json};

#[derive(Serialize)]
struct Compacted {
    bytes_before: u64,
    bytes_after: u64,
}

pub(super) async fn run(config: &Config, url: &str, format: Format) -> anyhow::Result<()> {
    store::upkeep::sqlite_path(url, "VACUUM FULL")?;
    // The lock of the data directory: a server would have to wait, and its recorder would call it a fault.
    let _installation = Installation::open(config)?;
    let (bytes_before, bytes_after) = store::upkeep::compact(url).await?;
    match format {
        Format::Json => print_json(&Compacted { bytes_before, bytes_after })?,
        Format::Table => print(&format!("{} before, {} now\n", bytes(bytes_before), bytes(bytes_after)))?,
    }
    Ok(())
}
