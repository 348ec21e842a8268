use std::io;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{InspectContainerOptions, RemoveContainerOptionsBuilder};
use events::SandboxId;
use tokio::time::{Instant, sleep};

use super::DockerProvider;
use super::errors::{Meaning, destroy_error, meaning};
use crate::provider::DestroyError;
use crate::providers::run_dir;

/// How long a removal that somebody else began may take.
const PATIENCE: Duration = Duration::from_secs(30);

impl DockerProvider {
    pub(super) async fn remove_box(&self, id: SandboxId) -> Result<(), DestroyError> {
        let engine = self.engine().await.map_err(destroy_error)?;
        self.remove_container(engine, id).await.map_err(destroy_error)?;
        // Last: while it is there, the box is listed, and a destroy that was interrupted is taken up again.
        run_dir::release(&self.run_dir(id)).map_err(|error| DestroyError::Failed(Box::new(error)))?;
        match tokio::fs::remove_dir_all(self.run_dir(id)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DestroyError::Failed(Box::new(error)))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Returns when there is no container of that name.
    pub(super) async fn remove_container(&self, engine: &Docker, id: SandboxId) -> Result<(), Error> {
        let name = self.container_name(id);
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let error = match engine.remove_container(&name, Some(options)).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match meaning(&error) {
            Meaning::NoSuchContainer => Ok(()),
            // It is ending by itself at this moment: the engine removes it, and does not say when it is done.
            Meaning::Conflict => self.wait_until_gone(engine, &name, error).await,
            Meaning::Unreachable
            | Meaning::NoSuchImage
            | Meaning::NoSuchNetwork
            | Meaning::NoSuchRuntime
            | Meaning::InTheWay
            | Meaning::BadRequest
            | Meaning::Shortage
            | Meaning::Other => Err(error),
        }
    }

    async fn wait_until_gone(&self, engine: &Docker, name: &str, busy: Error) -> Result<(), Error> {
        let give_up_at = Instant::now() + PATIENCE;
        loop {
            match engine.inspect_container(name, None::<InspectContainerOptions>).await {
                Err(error) if meaning(&error) == Meaning::NoSuchContainer => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) if Instant::now() >= give_up_at => return Err(busy),
                Ok(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// For a box that never had a container. Best effort: `list` shows what stays.
    pub(super) async fn drop_run_dir(&self, id: SandboxId) {
        let _ = run_dir::release(&self.run_dir(id));
        let _ = tokio::fs::remove_dir(self.run_dir(id)).await;
    }
}
