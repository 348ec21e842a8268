//! `stacyvm job artifacts`

use std::io::stdout;
use std::path::PathBuf;
use std::process::ExitCode;

use client::{Client, JobArtifact, ReadOptions};

use crate::output::{self, Format, Style, Table};
use crate::verbs::error::VerbError;
use crate::verbs::transfer::{Target, save};

/// List the files that a job left, or fetch one of them, or all.
#[derive(Debug, Clone, clap::Args)]
pub struct ArtifactsArgs {
    /// Job, also one whose sandbox is gone.
    pub id: String,
    /// Fetch the file of this path.
    pub path: Option<String>,
    /// Where it goes; `-` for stdout [default: a file of its name, here].
    #[arg(long, short, value_name = "FILE", requires = "path")]
    pub to: Option<PathBuf>,
    /// Fetch all of them as one archive; `-` for stdout.
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    pub tar: Option<PathBuf>,
}

pub async fn artifacts(api: &Client, format: Format, args: ArtifactsArgs) -> Result<ExitCode, VerbError> {
    if let Some(file) = args.tar {
        save(api.archive_artifacts(&args.id).await?, &args.id, None, 0o644, target(file)).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let found = api.artifacts(&args.id).await?;
    let Some(path) = args.path else {
        match format {
            Format::Json => output::print_json(&found),
            Format::Table => output::print(&table(&found.artifacts).render(Style::of(&stdout()))),
        }
        .map_err(VerbError::output)?;
        return Ok(ExitCode::SUCCESS);
    };
    // What it is listed as says how it may be used, and how much is to come.
    let known = found.artifacts.iter().find(|artifact| artifact.path == path);
    let mode = known.and_then(|artifact| u32::from_str_radix(&artifact.mode, 8).ok()).unwrap_or(0o644);
    let name = path.rsplit('/').next().unwrap_or(&path);
    let target = target(args.to.unwrap_or_else(|| PathBuf::from(name)));
    let contents = api.read_artifact(&args.id, &path, &ReadOptions::default()).await?;
    save(contents, &path, known.map(|artifact| artifact.size), mode & 0o777, target).await?;
    Ok(ExitCode::SUCCESS)
}

fn target(file: PathBuf) -> Target {
    if file.as_os_str() == "-" { Target::Stdout } else { Target::File(file) }
}

fn table(artifacts: &[JobArtifact]) -> Table {
    let mut table = Table::new(&["PATH", "SIZE", "MODE", "SHA256"]);
    for artifact in artifacts {
        let size = output::bytes(artifact.size);
        table.row([artifact.path.as_str(), &size, &artifact.mode, &artifact.sha256]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_table() {
        let artifact = JobArtifact {
            path: "out/a b".to_owned(),
            size: 2048,
            sha256: "ab".repeat(32),
            mode: "0755".to_owned(),
        };
        let expected =
            format!("PATH     SIZE      MODE  SHA256\nout/a b  2.00 KiB  0755  {}\n", "ab".repeat(32));
        assert_eq!(table(&[artifact]).render(Style::PLAIN), expected);
    }
}
