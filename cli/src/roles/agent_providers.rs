//! The box-makers of this node.

use std::collections::BTreeSet;

use anyhow::{anyhow, bail};
use events::{ErrorChain, PoolName, ProviderName};
use executor::provider::Pooled;
use executor::providers::registry::{SetupError, Site};

use super::agent_program;
use crate::config::Config;
use crate::installation::{self, Installation};

/// The box-makers that are on, the preferred first.
pub struct Providers {
    pub all: Vec<Pooled>,
}

impl Providers {
    /// Those that the configuration turns on, or that are found.
    pub async fn find(config: &Config, installation: &Installation) -> anyhow::Result<Self> {
        let agent_path = agent_program::find(config).await?;
        let mut all: Vec<Pooled> = Vec::new();
        for (name, settings) in config.providers.all() {
            if !settings.enabled().unwrap_or_else(|| settings.is_here()) {
                continue;
            }
            let site = Site {
                node: installation::node_id(config)?,
                deployment: installation.name.clone(),
                data_dir: installation.path(name),
                agent_path: agent_path.clone(),
                images: super::images::image_policy(config)?,
            };
            let provider = settings.make(site).map_err(|error| match error {
                SetupError::Setting { .. } => anyhow!("providers.{name}.{error}"),
                SetupError::Failed(source) => anyhow!("cannot use {name}: {}", ErrorChain(&*source)),
            })?;
            let pool = settings.pool().cloned().unwrap_or_else(|| PoolName::from(provider.name()));
            if let Some(other) = all.iter().find(|other| other.pool == pool) {
                // Its commands would be carried out with whichever comes first.
                bail!("providers.{name}.pool: {pool} is that of {} too", other.provider.name());
            }
            all.push(Pooled { pool, provider });
        }
        if all.is_empty() {
            bail!("no provider is on: start a Docker engine, or install bubblewrap and run scripts/setup");
        }
        if let Some(name) = &config.providers.default
            && let Some(index) = all.iter().position(|it| it.provider.name().as_str() == name)
        {
            all.swap(0, index);
        }
        Ok(Self { all })
    }

    /// Their names.
    pub fn names(&self) -> BTreeSet<ProviderName> {
        self.all.iter().map(|it| it.provider.name().clone()).collect()
    }

    /// Their names, for the log.
    pub fn list(&self) -> String {
        self.all.iter().map(|it| it.provider.name().as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The preferred one.
    pub fn first(&self) -> Option<ProviderName> {
        self.all.first().map(|it| it.provider.name().clone())
    }
}
