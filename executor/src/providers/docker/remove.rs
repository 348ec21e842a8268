use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, RemoveContainerOptionsBuilder,
};
use events::{ErrorChain, SandboxId};
use tokio::time::{Instant, sleep};

use super::DockerProvider;
use super::errors::{Meaning, destroy_error, meaning};
use crate::provider::DestroyError;
use crate::providers::remover::{Removed, Remover};
use crate::providers::run_dir;

/// How long an end, or a removal that somebody else began, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer waits for the files of a box to be gone. It takes milliseconds, unless the work in it left a great many:
/// those go by themselves.
const NOTICEABLE: Duration = Duration::from_secs(3);
/// How long one later try may take.
const SLICE: Duration = Duration::from_secs(20);
/// Between later tries of what does not go: from the shortest, twice as long each time, to the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];

/// Dead boxes whose files are being removed. They are listed no more: nobody has to do anything about them.
pub(super) type SetAside = Arc<Mutex<HashSet<SandboxId>>>;

impl DockerProvider {
    pub(super) async fn remove_box(&self, id: SandboxId) -> Result<(), DestroyError> {
        let engine = self.engine().await.map_err(destroy_error)?;
        let container = self.container(engine, id).await;
        container.end().await.map_err(destroy_error)?;
        if self.is_set_aside(id) {
            return self.drop_run_dir(id).await;
        }
        let left = match container.remove_within(NOTICEABLE).await {
            Ok(()) => None,
            Err(Left::Engine(error)) if meaning(&error) == Meaning::Unreachable => {
                return Err(destroy_error(error));
            }
            Err(left) => Some(left),
        };
        // Late: while it is there, the box is listed, and a destroy that was interrupted is taken up again.
        self.drop_run_dir(id).await?;
        self.groups.tidy_up(&self.config);
        if let Some(left) = left {
            self.go_on_with(id, container, left);
        }
        Ok(())
    }

    async fn container(&self, engine: &Docker, id: SandboxId) -> Container {
        Container {
            engine: engine.clone(),
            name: self.container_name(id),
            remover: self.mounts_are_seen().await.then(|| self.remover.clone()),
        }
    }

    pub(super) fn is_set_aside(&self, id: SandboxId) -> bool {
        self.set_aside.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// Goes on removing a dead box beside all else.
    fn go_on_with(&self, id: SandboxId, container: Container, left: Left) {
        let set_aside = Arc::clone(&self.set_aside);
        if !set_aside.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return;
        }
        tokio::spawn(async move {
            // By hand: what goes slowly is gone on with at once, and only what stays is waited for.
            let (mut left, mut pause) = (left, PAUSES[0]);
            loop {
                match &left {
                    Left::Files => {}
                    Left::Stays(_) | Left::Engine(_) => {
                        if pause == PAUSES[0] {
                            let error: &dyn std::error::Error = match &left {
                                Left::Engine(error) => error,
                                Left::Stays(error) => error,
                                Left::Files => break,
                            };
                            tracing::warn!(
                                sandbox.id = %id,
                                error = %ErrorChain(error),
                                "what a sandbox left cannot be removed now; it is tried again"
                            );
                        }
                        sleep(pause).await;
                        pause = (pause * 2).min(PAUSES[1]);
                    }
                }
                match container.remove_within(SLICE).await {
                    Ok(()) => break,
                    Err(next) => left = next,
                }
            }
            set_aside.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        });
    }

    /// Returns when there is no container of that name.
    pub(super) async fn remove_container(&self, engine: &Docker, id: SandboxId) -> Result<(), Error> {
        let container = self.container(engine, id).await;
        container.end().await?;
        match container.remove_within(NOTICEABLE).await {
            Ok(()) => Ok(()),
            Err(Left::Engine(error)) => Err(error),
            Err(Left::Files | Left::Stays(_)) => Err(Error::RequestTimeoutError),
        }
    }

    /// Takes away what the box shared with the executor.
    pub(super) async fn drop_run_dir(&self, id: SandboxId) -> Result<(), DestroyError> {
        let failed = |error: std::io::Error| DestroyError::Failed(Box::new(error));
        if self.run_dir(id).exists() {
            let engine = self.engine().await.map_err(destroy_error)?;
            self.remove_network(engine, id).await;
        }
        run_dir::release(&self.run_dir(id)).map_err(failed)?;
        if let Some(thrown) = self.trash.throw(&self.run_dir(id)).map_err(failed)? {
            thrown.gone(NOTICEABLE).await;
        }
        Ok(())
    }
}

/// The container of a box, on its way out.
struct Container {
    engine: Docker,
    name: String,
    /// For its files, where the engine has them on file systems that are ours too.
    remover: Option<Remover>,
}

/// Why a dead container is still there.
enum Left {
    /// There are so many files.
    Files,
    /// Some file cannot be removed.
    Stays(std::io::Error),
    /// The engine says so.
    Engine(Error),
}

impl Container {
    /// Ends all that runs in it. Returns when it has ended, or is not there.
    async fn end(&self) -> Result<(), Error> {
        let kill = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        match self.engine.kill_container(&self.name, Some(kill)).await {
            Ok(()) => {}
            Err(error) if meaning(&error) == Meaning::NoSuchContainer => return Ok(()),
            // It does not run.
            Err(error) if meaning(&error) == Meaning::Conflict => {}
            Err(error) => return Err(error),
        }
        let give_up_at = Instant::now() + PATIENCE;
        loop {
            let found = self.engine.inspect_container(&self.name, None::<InspectContainerOptions>).await;
            match found {
                Ok(found) if found.state.as_ref().and_then(|state| state.running) == Some(true) => {
                    if Instant::now() >= give_up_at {
                        return Err(Error::RequestTimeoutError);
                    }
                    sleep(Duration::from_millis(5)).await;
                }
                Ok(_) => return Ok(()),
                Err(error) if meaning(&error) == Meaning::NoSuchContainer => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes its files and then itself.
    ///
    /// The engine removes trees with a descriptor for each level, all at once; it may have too few, or leave none for others.
    /// So it gets empty ones.
    async fn remove_within(&self, within: Duration) -> Result<(), Left> {
        let over_at = Instant::now() + within;
        if let Some(remover) = &self.remover {
            for place in self.places().await.map_err(Left::Engine)? {
                match remover.empty(&place, over_at.saturating_duration_since(Instant::now())).await {
                    Removed::Gone => {}
                    Removed::NotYet => return Err(Left::Files),
                    Removed::Stays(error) => return Err(Left::Stays(error)),
                }
            }
        }
        self.remove().await.map_err(Left::Engine)
    }

    /// Where what work in it wrote lies on this machine.
    async fn places(&self) -> Result<Vec<PathBuf>, Error> {
        let found = self.engine.inspect_container(&self.name, None::<InspectContainerOptions>).await;
        let found = match found {
            Err(error) if meaning(&error) == Meaning::NoSuchContainer => return Ok(Vec::new()),
            found => found?,
        };
        let layer = found.graph_driver.and_then(|driver| driver.data.get("UpperDir").cloned());
        let volumes = found.mounts.into_iter().flatten();
        // All of them are the container's own: an image asked for them.
        let volumes = volumes.filter(|mount| mount.typ.as_deref() == Some("volume"));
        let places = layer.into_iter().chain(volumes.filter_map(|mount| mount.source)).map(PathBuf::from);
        Ok(places.filter(|place| place.is_absolute() && place.is_dir()).collect())
    }

    async fn remove(&self) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let error = match self.engine.remove_container(&self.name, Some(options)).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match meaning(&error) {
            Meaning::NoSuchContainer => Ok(()),
            // Somebody else is removing it: the engine does not say when that is done.
            Meaning::Conflict => self.wait_until_gone(error).await,
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

    async fn wait_until_gone(&self, busy: Error) -> Result<(), Error> {
        let give_up_at = Instant::now() + PATIENCE;
        loop {
            match self.engine.inspect_container(&self.name, None::<InspectContainerOptions>).await {
                Err(error) if meaning(&error) == Meaning::NoSuchContainer => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) if Instant::now() >= give_up_at => return Err(busy),
                Ok(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }
}
