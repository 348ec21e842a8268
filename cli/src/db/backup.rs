use std::path::Path;

use crate::output::{Format, bytes, print, print_json};

pub(super) async fn run(url: &str, target: &Path, format: Format) -> anyhow::Result<()> {
    let checked = store::upkeep::backup(url, target).await?;
    match format {
        Format::Json => print_json(&checked)?,
        Format::Table => print(&format!(
            "{}: {} events up to position {}, {}, checked\n",
            target.display(),
            checked.events,
            checked.head,
            bytes(checked.bytes)
        ))?,
    }
    Ok(())
}
