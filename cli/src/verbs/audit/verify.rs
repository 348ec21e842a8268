use std::path::{Path, PathBuf};
use std::process::ExitCode;

use audit::{
    self, AuditPublicKey, CheckpointFileError, ExportFile, FileStatement, PublicKeys, Report, StoreSource,
    read_statements,
};

use crate::output::{self, Format, plain};
use crate::verbs::error::VerbError;
use client::Client;

#[derive(Debug, Clone, clap::Args)]
pub struct VerifyArgs {
    /// An export (ndjson) to verify, offline.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The data directory of a server, offline: its SQLite database, its public key and its checkpoint file.
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    pub data_dir: Option<PathBuf>,
    /// A database, offline: sqlite:PATH or postgres://...
    #[arg(long, value_name = "URL", conflicts_with_all = ["file", "data_dir"])]
    pub database: Option<String>,
    /// A public key in hexadecimal, or a file of public keys. May be repeated. Best one that was kept elsewhere.
    #[arg(long, value_name = "FILE|HEX")]
    pub public_key: Vec<String>,
    /// A checkpoint file. Best one that was kept elsewhere.
    #[arg(long, value_name = "FILE")]
    pub checkpoints: Option<PathBuf>,
    /// Whose chain, for operators; all by default. Of a server only.
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Leaves out whether what lists and queries show is what the events say: that takes about as long again.
    #[arg(long)]
    pub quick: bool,
}

/// The exit code for a log that is whole and of which no signature was checked.
const UNSIGNED: u8 = 3;

type Line = Result<(u64, FileStatement), CheckpointFileError>;
type Lines = Box<dyn Iterator<Item = Line> + Send>;

pub async fn verify(api: &Client, format: Format, args: VerifyArgs) -> Result<ExitCode, VerbError> {
    let offline = args.file.is_some() || args.data_dir.is_some() || args.database.is_some();
    let report = if offline { offline_report(&args).await? } else { server_report(api, &args).await? };
    match format {
        Format::Json => output::print_json(&report),
        Format::Table => output::print(&text(&report)),
    }
    .map_err(VerbError::output)?;
    Ok(match (report.ok, report.is_signed()) {
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(UNSIGNED),
        (false, _) => ExitCode::FAILURE,
    })
}

async fn server_report(api: &Client, args: &VerifyArgs) -> Result<Report, VerbError> {
    if !args.public_key.is_empty() || args.checkpoints.is_some() {
        return Err(VerbError::Usage(
            "a server verifies with its own key and checkpoints: to use yours, verify an export or a database"
                .to_owned(),
        ));
    }
    Ok(api.verify(args.tenant.as_deref(), args.quick).await?)
}

async fn offline_report(args: &VerifyArgs) -> Result<Report, VerbError> {
    let beside = |name: &str| args.data_dir.as_ref().map(|dir| dir.join(name)).filter(|path| path.exists());
    let keys = public_keys(&args.public_key, beside("audit.pub"))?;
    let lines: Lines = match args.checkpoints.clone().or_else(|| beside("checkpoints.ndjson")) {
        Some(path) => Box::new(read_statements(&path).map_err(failed)?),
        None => Box::new(std::iter::empty()),
    };
    if let Some(path) = &args.file {
        let mut export = ExportFile::open(path).map_err(failed)?;
        let report = audit::verify(&mut export, &keys, lines).await.map_err(failed)?;
        if keys.is_empty() && !export.named_keys().is_empty() {
            output::note(&format!(
                "no --public-key was given; the export names {}: compare it with what you know",
                export.named_keys().join(", ")
            ));
        }
        return Ok(report);
    }
    let url = match (&args.database, &args.data_dir) {
        (Some(url), _) => url.clone(),
        (None, Some(dir)) => format!("sqlite:{}", dir.join("events.db").display()),
        (None, None) => return Err(VerbError::Usage("nothing to verify is named".to_owned())),
    };
    // Opening makes a database where there is none: an empty one verifies too well.
    if let Some(path) = url.strip_prefix("sqlite:")
        && !Path::new(path.strip_prefix("//").unwrap_or(path)).is_file()
    {
        return Err(VerbError::Failed(format!("there is no database {path}")));
    }
    let record = store::open_store(&url).await.map_err(failed)?;
    let report = async {
        let mut source = StoreSource::open(&record, None).await?.quick(args.quick);
        audit::verify(&mut source, &keys, lines).await
    };
    let report = report.await.map_err(failed);
    record.close().await;
    report
}

fn public_keys(named: &[String], beside: Option<PathBuf>) -> Result<PublicKeys, VerbError> {
    let mut keys = PublicKeys::default();
    for name in named {
        keys.extend(match name.parse::<AuditPublicKey>() {
            Ok(key) => PublicKeys::new(vec![key]),
            Err(_) => PublicKeys::read(Path::new(name)).map_err(|error| {
                VerbError::Usage(format!("--public-key {name:?}: {}", events::ErrorChain(&error)))
            })?,
        });
    }
    if let (true, Some(path)) = (named.is_empty(), beside) {
        keys = PublicKeys::read(&path).map_err(failed)?;
    }
    Ok(keys)
}

fn failed(error: impl std::error::Error) -> VerbError {
    VerbError::Failed(format!("cannot verify: {}", events::ErrorChain(&error)))
}

fn text(report: &Report) -> String {
    let mut out = match &report.finding {
        None if report.is_signed() => "the log verifies\n".to_owned(),
        None => "UNSIGNED: the log is whole in itself, and no signature was checked\n".to_owned(),
        Some(finding) => {
            format!("NOT OK at position {}: {}\n", finding.position, plain(&finding.explanation))
        }
    };
    let counts = &report.checkpoints;
    let mut row = |name: &str, value: String| out.push_str(&format!("  {name:<12} {value}\n"));
    row("events", format!("{} (positions {} to {})", report.events, report.first, report.last));
    row("chains", report.tenants.to_string());
    row("bodies", format!("{} checked, {} not there", report.bodies, report.bodies_absent));
    row(
        "checkpoints",
        format!(
            "{} in the log, {} in the file, {} signatures checked",
            counts.recorded, counts.in_file, counts.signatures_checked
        ),
    );
    if let (Some(up_to), Some(at)) = (counts.newest_up_to, counts.newest_at) {
        let at = at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        row("newest", format!("up to position {up_to}, made {at}"));
    }
    for restored in &report.restored {
        let at = restored.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        let (up_to, lost_to) = (restored.up_to, restored.lost_to);
        row("restored", format!("at {at}, to position {up_to}; up to {lost_to} was there before"));
    }
    for (heading, lines) in [("proves", &report.proves), ("does not prove", &report.does_not_prove)] {
        if !lines.is_empty() {
            out.push_str(&format!("{heading}:\n"));
        }
        for line in lines {
            out.push_str(&format!("  - {}\n", plain(line)));
        }
    }
    out
}
