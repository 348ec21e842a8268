//! What measurements share: the engine, the server, and the cleaning up.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bollard::Docker;
use bollard::query_parameters::{ListContainersOptions, RemoveContainerOptions};
use tokio::sync::OnceCell;

use crate::serve::{Serve, env_path};

/// The label of containers that the bench itself makes.
pub const LABEL: &str = "stacyvm.bench";
/// The label that the server puts on its containers.
const DEPLOYMENT_LABEL: &str = "stacyvm.deployment";
/// How many sandboxes the crowded server has.
pub const CROWD: usize = 100;

/// Shared by all measurements of a run.
pub struct Rig {
    /// The image of all sandboxes.
    pub image: String,
    /// Marks containers of this run.
    pub run: String,
    quick: bool,
    binary: PathBuf,
    docker: OnceCell<Docker>,
    server: OnceCell<Serve>,
    crowd: OnceCell<Crowd>,
    deployments: Mutex<Vec<String>>,
}

/// A server with many idle sandboxes.
pub struct Crowd {
    /// The server.
    pub serve: Serve,
    /// Its sandboxes.
    pub sandboxes: Vec<String>,
}

impl Rig {
    /// Finds the server binary. Starts nothing yet.
    pub fn new(image: &str, quick: bool) -> anyhow::Result<Self> {
        Ok(Self {
            image: image.to_owned(),
            run: format!("{}", std::process::id()),
            quick,
            binary: crate::serve::binary()?,
            docker: OnceCell::new(),
            server: OnceCell::new(),
            crowd: OnceCell::new(),
            deployments: Mutex::default(),
        })
    }

    /// One of two numbers: for a full and for a quick run.
    pub fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The engine, with its API version agreed on.
    pub async fn docker(&self) -> anyhow::Result<&Docker> {
        self.docker
            .get_or_try_init(|| async {
                let docker = Docker::connect_with_unix_defaults()?.with_timeout(Duration::from_secs(300));
                docker.negotiate_version().await
            })
            .await
            .map_err(|error: bollard::errors::Error| {
                anyhow::Error::new(error).context("no Docker engine answers")
            })
    }

    /// The server, started at first use.
    pub async fn serve(&self) -> anyhow::Result<&Serve> {
        self.server.get_or_try_init(|| self.start()).await
    }

    /// Another server, with nothing in it.
    pub async fn start(&self) -> anyhow::Result<Serve> {
        self.start_with(&[]).await
    }

    /// The same, with these variables in its environment.
    pub async fn start_with(&self, environment: &[(&str, &str)]) -> anyhow::Result<Serve> {
        self.launch(environment, "").await
    }

    /// Another server, with this configuration file.
    pub async fn start_with_config(&self, yaml: &str) -> anyhow::Result<Serve> {
        self.launch(&[], yaml).await
    }

    async fn launch(&self, environment: &[(&str, &str)], yaml: &str) -> anyhow::Result<Serve> {
        let agent = env_path("STACYVM_AGENT");
        let serve = Serve::start(&self.binary, agent, &self.image, environment, yaml).await?;
        let mut deployments = self.deployments.lock().unwrap_or_else(PoisonError::into_inner);
        deployments.push(serve.deployment()?);
        Ok(serve)
    }

    /// A server with [`CROWD`] idle sandboxes, filled at first use.
    pub async fn crowd(&self) -> anyhow::Result<&Crowd> {
        let fill = || async {
            let serve = self.start().await?;
            let mut sandboxes = Vec::new();
            while sandboxes.len() < CROWD {
                let some = (0..4.min(CROWD - sandboxes.len())).map(|_| serve.spawn(serde_json::json!({})));
                sandboxes.extend(futures::future::try_join_all(some).await.context("filling the crowd")?);
            }
            Ok(Crowd { serve, sandboxes })
        };
        self.crowd.get_or_try_init(fill).await
    }

    /// Ends what runs and removes every container of this run.
    pub async fn clean_up(mut self) {
        for mut serve in self.server.take().into_iter().chain(self.crowd.take().map(|crowd| crowd.serve)) {
            serve.stop().await;
        }
        let deployments = std::mem::take(self.deployments.get_mut().unwrap_or_else(PoisonError::into_inner));
        let Some(docker) = self.docker.get() else { return };
        let labels = deployments.iter().map(|name| format!("{DEPLOYMENT_LABEL}={name}"));
        for label in labels.chain([format!("{LABEL}={}", self.run)]) {
            if let Err(error) = remove_all(docker, &label).await {
                crate::report::progress(&format!("containers with {label} may be left: {error:#}"));
            }
        }
    }
}

async fn remove_all(docker: &Docker, label: &str) -> anyhow::Result<()> {
    let options = ListContainersOptions {
        all: true,
        filters: Some([("label".to_owned(), vec![label.to_owned()])].into()),
        ..ListContainersOptions::default()
    };
    for container in docker.list_containers(Some(options)).await? {
        let force = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
        // Gone already is as good.
        let _ = docker.remove_container(&container.id.unwrap_or_default(), Some(force)).await;
    }
    Ok(())
}
