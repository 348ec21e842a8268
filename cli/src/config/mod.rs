//! Configuration: compiled-in defaults, under `stacyvm.yaml`, under `STACYVM_*`, under flags.
//!
//! A key or value that is wrong is an error that names it and where it stands.

mod environment;
mod schema;
mod values;

use std::path::Path;

use anyhow::{Context, bail};
use figment::Figment;
use figment::providers::{Format, Serialized, Yaml};

pub use schema::{AuthConfig, Config};

use crate::args::ServerArgs;

/// The file that is read when none is named, if it is there.
const DEFAULT_FILE: &str = "stacyvm.yaml";

/// Puts the layers together and checks the result.
pub fn load(args: &ServerArgs) -> anyhow::Result<Config> {
    let file = match &args.config {
        Some(path) if !path.is_file() => bail!("the configuration file {} does not exist", path.display()),
        Some(path) => Some(path.as_path()),
        None => Some(Path::new(DEFAULT_FILE)).filter(|path| path.is_file()),
    };
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    if let Some(path) = file {
        figment = figment.merge(Yaml::file_exact(path));
    }
    figment = environment::merge(figment, |name| std::env::var(name).ok())?;
    figment = flags(figment, args);
    let config: Config =
        figment.extract().map_err(|error| anyhow::anyhow!("{error}")).with_context(|| {
            file.map_or("wrong configuration".to_owned(), |path| {
                format!("wrong configuration (file {})", path.display())
            })
        })?;
    config.check()?;
    Ok(config)
}

fn flags(mut figment: Figment, args: &ServerArgs) -> Figment {
    let pairs = [
        ("listen", args.listen.clone()),
        ("data_dir", args.data_dir.as_ref().map(|dir| dir.display().to_string())),
        ("providers.default", args.provider.clone()),
        ("nats.url", args.nats.clone()),
        ("database.url", args.database.clone()),
        ("logging.level", args.log_level.clone()),
    ];
    for (key, value) in pairs {
        if let Some(value) = value {
            figment = figment.merge((key, value));
        }
    }
    figment
}

#[cfg(test)]
mod tests;
