use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub const USAGE: &str =
    "usage: stacyvm-agent --socket PATH --run-dir DIR [--deadline-seconds N] [--workspace DIR]
                     [--default-user USER] [--give DIR] [--keep-environment]
                     [--spool-memory-bytes N] [--spool-file-bytes N] [--spool-total-bytes N]
                     [--any-peer]";

pub struct Options {
    pub socket: PathBuf,
    /// Where output overflows to.
    pub run_dir: PathBuf,
    /// Where execs run that name no directory of their own, and what relative paths start at.
    pub workspace: PathBuf,
    /// A directory to make and to give to the default user, whatever the workspace is.
    pub give: Option<PathBuf>,
    /// Whom execs run as that name no user: the agent's own user when absent.
    pub default_user: Option<String>,
    /// Whether execs get the environment that the agent was started with, beneath all others. It is the image's.
    pub keep_environment: bool,
    pub deadline: Option<Duration>,
    /// Unacked output kept in memory, per stream.
    pub spool_memory_bytes: usize,
    /// Unacked output kept in a file beyond that, per stream.
    pub spool_file_bytes: u64,
    /// What all such files may take together.
    pub spool_total_bytes: u64,
    /// Serve processes of the agent's own pid namespace too.
    pub any_peer: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("unknown option {0:?}")]
    Unknown(OsString),
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("{0} needs a whole number")]
    NotANumber(&'static str),
    #[error("{0} is required")]
    Missing(&'static str),
}

impl Options {
    pub fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, OptionsError> {
        let (mut socket, mut run_dir) = (None, None);
        let mut options = Self {
            socket: PathBuf::new(),
            run_dir: PathBuf::new(),
            workspace: PathBuf::from("/workspace"),
            give: None,
            default_user: None,
            keep_environment: false,
            deadline: None,
            spool_memory_bytes: 256 * 1024,
            spool_file_bytes: 64 * 1024 * 1024,
            spool_total_bytes: 256 * 1024 * 1024,
            any_peer: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = |name| arguments.next().ok_or(OptionsError::NoValue(name));
            match argument.to_str() {
                Some("--socket") => socket = Some(PathBuf::from(value("--socket")?)),
                Some("--run-dir") => run_dir = Some(PathBuf::from(value("--run-dir")?)),
                Some("--workspace") => options.workspace = PathBuf::from(value("--workspace")?),
                Some("--give") => options.give = Some(PathBuf::from(value("--give")?)),
                Some("--default-user") => {
                    let user = value("--default-user")?;
                    options.default_user = Some(user.into_string().map_err(OptionsError::Unknown)?);
                }
                Some("--keep-environment") => options.keep_environment = true,
                Some("--deadline-seconds") => {
                    let seconds = number("--deadline-seconds", &value("--deadline-seconds")?)?;
                    options.deadline = Some(Duration::from_secs(seconds));
                }
                Some("--spool-memory-bytes") => {
                    let bytes = number("--spool-memory-bytes", &value("--spool-memory-bytes")?)?;
                    options.spool_memory_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                }
                Some("--spool-file-bytes") => {
                    options.spool_file_bytes = number("--spool-file-bytes", &value("--spool-file-bytes")?)?;
                }
                Some("--spool-total-bytes") => {
                    options.spool_total_bytes =
                        number("--spool-total-bytes", &value("--spool-total-bytes")?)?;
                }
                Some("--any-peer") => options.any_peer = true,
                _ => return Err(OptionsError::Unknown(argument)),
            }
        }
        options.socket = socket.ok_or(OptionsError::Missing("--socket"))?;
        options.run_dir = run_dir.ok_or(OptionsError::Missing("--run-dir"))?;
        Ok(options)
    }
}

fn number(name: &'static str, value: &OsString) -> Result<u64, OptionsError> {
    value.to_str().and_then(|value| value.parse().ok()).ok_or(OptionsError::NotANumber(name))
}
