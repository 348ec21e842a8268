use std::path::PathBuf;
use std::process::ExitCode;

use tokio::io::AsyncWriteExt as _;

use super::filter::Filter;
use crate::output::{self, Target};
use crate::verbs::error::VerbError;
use crate::verbs::terminal::output_of_sandboxes;
use client::{Client, Method};

#[derive(Debug, Clone, clap::Args)]
pub struct ExportArgs {
    /// ndjson can be verified; csv and cloudevents are for other programs.
    #[arg(long, default_value = "ndjson", value_parser = ["ndjson", "csv", "cloudevents"])]
    pub format: String,
    /// Where to [default: stdout].
    #[arg(long, short = 'f', value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Leave the bytes of output and input out; their hashes stay.
    #[arg(long)]
    pub no_bodies: bool,
    #[command(flatten)]
    pub filter: Filter,
}

pub async fn export(api: &Client, args: ExportArgs) -> Result<ExitCode, VerbError> {
    let mut url = api.url(&["audit", "export"]);
    url.query_pairs_mut().append_pair("format", &args.format);
    if args.no_bodies {
        url.query_pairs_mut().append_pair("bodies", "false");
    }
    args.filter.put(&mut url);
    let mut response = api.send(api.request(Method::GET, url)).await?;
    let mut part = async || response.chunk().await.map_err(|error| api.lost(error));
    let Some(path) = &args.file else {
        let out = output_of_sandboxes(false).map_err(VerbError::output)?;
        while let Some(bytes) = part().await? {
            out.write(Target::Stdout, bytes).await.map_err(VerbError::output)?;
        }
        out.flush().await.map_err(VerbError::output)?;
        return Ok(ExitCode::SUCCESS);
    };
    let failed = || VerbError::local(format!("cannot write {}", path.display()));
    let mut file = tokio::fs::File::create(path).await.map_err(failed())?;
    let mut written = 0;
    while let Some(bytes) = part().await? {
        file.write_all(&bytes).await.map_err(failed())?;
        written += bytes.len() as u64;
    }
    // What it says it has written is to be there after a crash.
    file.sync_all().await.map_err(failed())?;
    output::note(&format!("{}: {}", path.display(), output::bytes(written)));
    Ok(ExitCode::SUCCESS)
}
