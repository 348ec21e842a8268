use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent::client::UnixConnect;
use bollard::Docker;
use bollard::models::ContainerStateStatusEnum;
use bollard::query_parameters::{CreateContainerOptions, InspectContainerOptions};
use events::{Network, SandboxId};
use tokio::time::{Instant, sleep, timeout_at};

use super::errors::{Meaning, create_error, meaning};
use super::registry::Chosen;
use super::{DockerProvider, PullPolicy, body};
use crate::provider::{BoxHandle, BoxOrder, CreateError, PullCause, PullProgress, Source};
use crate::providers::arrival::agent_answers;
use crate::providers::image::ImageConfig;
use crate::providers::run_dir;

/// How long to wait for another create or removal of the same box to get out of the way.
const PATIENCE: Duration = Duration::from_secs(30);

impl DockerProvider {
    pub(super) async fn create_box(
        &self,
        order: &BoxOrder,
        chosen: &Chosen,
        progress: &dyn PullProgress,
    ) -> Result<BoxHandle, CreateError> {
        if order.time_left.is_zero() {
            return Err(CreateError::DeadlinePassed);
        }
        chosen.check_use().await?;
        let made = AtomicBool::new(false);
        let outcome = self.bring_up(order, chosen, progress, &made).await;
        if outcome.is_err() {
            self.take_back(order.id, made.into_inner()).await;
        }
        outcome
    }

    /// Only what this call made: a box that was there before is not ours to take away.
    async fn take_back(&self, id: SandboxId, made: bool) {
        if !made {
            if self.has_no_container(id).await {
                // What stays is listed.
                let _ = self.drop_run_dir(id).await;
            }
        } else if let Err(error) = self.remove_box(id).await {
            tracing::warn!(
                sandbox.id = %id,
                error = &error as &dyn std::error::Error,
                "a half-made sandbox could not be removed"
            );
        }
    }

    /// Whether the engine says so: a box that is there is reached through its directory.
    async fn has_no_container(&self, id: SandboxId) -> bool {
        let Ok(engine) = self.engine().await else { return false };
        let found = engine.inspect_container(&self.container_name(id), None::<InspectContainerOptions>).await;
        found.is_err_and(|error| meaning(&error) == Meaning::NoSuchContainer)
    }

    /// The runtime is what keeps a box and the host apart, so nobody chooses one that the operator has not listed. Without a
    /// list there is the engine's own, by its name too.
    async fn check_runtime(&self, engine: &Docker, asked: Option<&str>) -> Result<(), CreateError> {
        let Some(asked) = asked else { return Ok(()) };
        let known = if self.config.runtimes.is_empty() {
            let info = engine.info().await.map_err(|error| create_error(error, None, ""))?;
            info.default_runtime.as_deref() == Some(asked)
        } else {
            self.config.runtimes.iter().any(|runtime| runtime == asked)
        };
        if known { Ok(()) } else { Err(CreateError::Unsupported { what: format!("runtime {asked:?}") }) }
    }

    async fn bring_up(
        &self,
        order: &BoxOrder,
        chosen: &Chosen,
        progress: &dyn PullProgress,
        made: &AtomicBool,
    ) -> Result<BoxHandle, CreateError> {
        // Not around the calls that create and start: the engine goes on with them when nobody listens any more, and
        // what it makes then would be nobody's.
        let deadline = Instant::now() + order.make_within;
        let engine = self.engine().await.map_err(|error| create_error(error, None, ""))?;
        self.check_runtime(engine, order.spec.runtime.as_deref()).await?;
        if order.spec.network == Network::Bridge {
            self.make_network(engine, order.id).await?;
        }
        let mut runtime_id = self.create_container(engine, order, chosen, deadline, progress, made).await?;
        if let Err(error) = self.start_container(engine, order).await {
            // Older engines look for the network only now, and give the container up when it is missing.
            if meaning(&error) != Meaning::NoSuchNetwork || order.spec.network != Network::Bridge {
                return Err(create_error(error, order.spec.runtime.as_deref(), &order.spec.image));
            }
            self.make_network(engine, order.id).await?;
            let failed = |error| create_error(error, order.spec.runtime.as_deref(), &order.spec.image);
            self.remove_container(engine, order.id).await.map_err(failed)?;
            runtime_id = self.create_container(engine, order, chosen, deadline, progress, made).await?;
            self.start_container(engine, order).await.map_err(failed)?;
        }
        let handle = self.handle(order.id, runtime_id, true);
        let way = || UnixConnect::new(run_dir::socket(&self.run_dir(order.id))).into();
        match timeout_at(deadline, agent_answers(way, || self.ended(engine, order.id))).await {
            Ok(Ok(())) => {
                run_dir::keep_socket(&self.run_dir(order.id)).await.map_err(CreateError::here)?;
                let handle = self.handle(order.id, handle.runtime_id, true);
                let address = self.address(engine, order.id, order.spec.network).await;
                Ok(BoxHandle { address, ..handle })
            }
            Ok(Err(reason)) => Err(CreateError::AgentUnreachable(reason)),
            Err(_) => Err(CreateError::DeadlinePassed),
        }
    }

    /// Asks for the container first and looks into what is there only when the engine says no.
    async fn create_container(
        &self,
        engine: &Docker,
        order: &BoxOrder,
        chosen: &Chosen,
        deadline: Instant,
        progress: &dyn PullProgress,
        made: &AtomicBool,
    ) -> Result<String, CreateError> {
        let name = self.container_name(order.id);
        let run_dir = self.run_dir(order.id);
        let image = &order.spec.image;
        let give_up_at = Instant::now() + PATIENCE;
        let mut pulled = false;
        loop {
            let mount = self.mounts_are_seen().await;
            // Writable for whatever user of the host is root in the box, who is not known; nobody else's files can be
            // taken away.
            run_dir::make(&run_dir, 0o1777, order.spec.memory_mib, mount).map_err(CreateError::here)?;
            // Until the engine says otherwise: if the answer gets lost, the container may be there.
            made.store(true, Ordering::Relaxed);
            let error = match self.create_once(engine, &name, &run_dir, order).await {
                Ok(id) => {
                    // Of a box of that name that died: nobody listens there, and the new one has yet to begin.
                    run_dir::forget_socket(&run_dir).map_err(CreateError::here)?;
                    return Ok(id);
                }
                Err(error) => error,
            };
            match meaning(&error) {
                Meaning::NoSuchImage if pulled || self.config.pull == PullPolicy::Never => {
                    let source = Some(Box::new(error).into());
                    let (image, cause) = (image.clone(), PullCause::NotHere);
                    return Err(CreateError::ImageNotFound { image, cause, source });
                }
                Meaning::NoSuchImage => {
                    made.store(false, Ordering::Relaxed);
                    chosen.check_pull().await?;
                    let pull = timeout_at(deadline, self.pulls.pull(engine, image, progress)).await;
                    pull.unwrap_or(Err(CreateError::DeadlinePassed))?;
                    pulled = true;
                }
                Meaning::NoSuchNetwork => self.make_network(engine, order.id).await?,
                Meaning::Conflict => {
                    made.store(false, Ordering::Relaxed);
                    if let Some(id) = self.adopt(engine, order.id).await? {
                        return Ok(id);
                    }
                    if Instant::now() >= give_up_at {
                        return Err(CreateError::here(error));
                    }
                    // The engine takes the name some time before the container can be seen.
                    sleep(Duration::from_millis(5)).await;
                }
                Meaning::Unreachable
                | Meaning::NoSuchContainer
                | Meaning::NoSuchRuntime
                | Meaning::InTheWay
                | Meaning::BadRequest
                | Meaning::Shortage
                | Meaning::Other => {
                    return Err(create_error(error, order.spec.runtime.as_deref(), &order.spec.image));
                }
            }
        }
    }

    async fn create_once(
        &self,
        engine: &Docker,
        name: &str,
        run_dir: &Path,
        order: &BoxOrder,
    ) -> Result<String, bollard::errors::Error> {
        let image = image_config(engine, &order.spec.image).await?;
        let group = self.groups.parent(engine, &self.config, &order.tenant).await?;
        let names = self.resolver.address(order.id);
        let body = body::create_body(&self.config, &self.seccomp, run_dir, order, &image, group, names);
        let options =
            CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
        let _turn = order.turns.launch(&order.tenant).await;
        Ok(engine.create_container(Some(options), body).await?.id)
    }

    async fn start_container(&self, engine: &Docker, order: &BoxOrder) -> Result<(), bollard::errors::Error> {
        let _turn = order.turns.launch(&order.tenant).await;
        let _starting = self.groups.starting().await;
        engine.start_container(&self.container_name(order.id), None).await
    }

    /// The container that has the name already, if it can still become or be our box. Otherwise it is removed.
    async fn adopt(&self, engine: &Docker, id: SandboxId) -> Result<Option<String>, CreateError> {
        let name = self.container_name(id);
        let found = match engine.inspect_container(&name, None::<InspectContainerOptions>).await {
            Ok(found) => found,
            Err(error) if meaning(&error) == Meaning::NoSuchContainer => return Ok(None),
            Err(error) => return Err(create_error(error, None, "")),
        };
        let status = found.state.and_then(|state| state.status);
        match (status, found.id) {
            (Some(ContainerStateStatusEnum::CREATED | ContainerStateStatusEnum::RUNNING), Some(id)) => {
                Ok(Some(id))
            }
            _ => {
                self.remove_container(engine, id).await.map_err(|error| create_error(error, None, ""))?;
                Ok(None)
            }
        }
    }

    /// Why the agent will never answer, if the box is over.
    async fn ended(&self, engine: &Docker, id: SandboxId) -> Option<Source> {
        let name = self.container_name(id);
        match engine.inspect_container(&name, None::<InspectContainerOptions>).await {
            Ok(found) => {
                let state = found.state.unwrap_or_default();
                let over =
                    state.running == Some(false) && state.status != Some(ContainerStateStatusEnum::CREATED);
                over.then(|| {
                    format!("the agent ended with exit code {}", state.exit_code.unwrap_or(-1)).into()
                })
            }
            Err(error) if meaning(&error) == Meaning::NoSuchContainer => {
                Some("the agent ended at once, and the container is gone".into())
            }
            Err(_) => None,
        }
    }
}

/// What the image says about itself, if it is here.
async fn image_config(engine: &Docker, image: &str) -> Result<ImageConfig, bollard::errors::Error> {
    // It becomes part of a path of the engine's, which a name cannot lead out of.
    let config = engine.inspect_image(image).await?.config.unwrap_or_default();
    // Variables come to the agent by way of the engine.
    Ok(ImageConfig::new(None, config.working_dir, config.user))
}
