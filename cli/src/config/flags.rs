//! The flags of a server process: the topmost layer.

use std::path::PathBuf;

/// What a server process is told on the command line, over everything else.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServerArgs {
    /// Address and port to listen on [default: 127.0.0.1:7423].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where state lives [default: /var/lib/stacyvm for root, else ~/.stacyvm].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Configuration file [default: stacyvm.yaml, ~/.stacyvm/config.yaml, ~/.stacyvm/stacyvm.yaml, /etc/stacyvm/stacyvm.yaml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Box-maker of sandboxes that name none: docker or bubblewrap.
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// NATS to use instead of an own one.
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// Database to use: sqlite:PATH or postgres://...
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// Least important log lines to show: error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}
