//! `stacyvm logs`

use std::process::ExitCode;

use reqwest::Method;

use super::api::Api;
use super::error::ClientError;
use super::kill::is_exec;
use super::session;
use crate::output::{self, Format, plain};

/// Show what happened to a sandbox, or what a command has written so far.
///
/// `attach --ro` also shows what comes.
#[derive(Debug, Clone, clap::Args)]
pub struct LogsArgs {
    /// Sandbox or exec.
    pub id: String,
    /// The last so many lines, of a sandbox.
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub lines: Option<u32>,
}

pub async fn logs(api: &Api, format: Format, args: LogsArgs) -> Result<ExitCode, ClientError> {
    if is_exec(&args.id) {
        if args.lines.is_some() {
            return Err(ClientError::Usage("--lines is for sandboxes".to_owned()));
        }
        session::recorded(api, &args.id, format).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut request = api.request(Method::GET, api.url(&["sandboxes", &args.id, "logs"]));
    if let Some(lines) = args.lines {
        request = request.query(&[("lines", lines)]);
    }
    let lines: Vec<String> = api.fetch(request).await?;
    match format {
        Format::Json => output::print_json(&lines),
        Format::Table => {
            output::print(&lines.iter().map(|line| format!("{}\n", plain(line))).collect::<String>())
        }
    }
    .map_err(ClientError::output)?;
    Ok(ExitCode::SUCCESS)
}
