//! The floor of everything that goes on in containers: the same container through the Engine API alone.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use std::pin::Pin;

use anyhow::{Context, bail};
use bollard::Docker;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, ListContainersOptions, RemoveContainerOptions,
    StartContainerOptions,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tempfile::TempDir;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::rig::{LABEL, Rig};

/// Where a box has the directory that it shares with the executor.
const RUN_DIR: &str = "/.stacyvm/run";
/// The largest piece that the client reads at once: more than this makes streams no faster.
const OUTPUT_CAPACITY: usize = 256 << 10;

/// Makes containers that are like one of ours: image, command, user, mounts, limits, capabilities, seccomp and network
/// are read back from the engine, not written down a second time.
pub struct Twins {
    docker: Docker,
    run: String,
    body: ContainerCreateBody,
    host: HostConfig,
    dir: TempDir,
    made: AtomicU32,
}

impl Twins {
    /// Reads what the container of this sandbox is.
    pub async fn of(rig: &Rig, sandbox: &str) -> anyhow::Result<Self> {
        let docker = rig.docker().await?.clone();
        let options = ListContainersOptions {
            filters: Some([("label".to_owned(), vec![format!("stacyvm.sandbox={sandbox}")])].into()),
            ..ListContainersOptions::default()
        };
        let found = docker.list_containers(Some(options)).await?.into_iter().next();
        let id = found.and_then(|found| found.id).with_context(|| format!("{sandbox} has no container"))?;
        let seen = docker.inspect_container(&id, None::<InspectContainerOptions>).await?;
        let config = seen.config.context("a container without config")?;
        let mut host = seen.host_config.context("a container without host config")?;
        if host.network_mode.as_ref().is_some_and(|mode| mode.starts_with("container:")) {
            // Somebody else's namespace: the floor is what the engine itself makes.
            host.network_mode = Some("none".to_owned());
        }
        let body = ContainerCreateBody {
            image: config.image,
            user: config.user,
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            env: config.env,
            healthcheck: config.healthcheck,
            tty: Some(false),
            open_stdin: Some(false),
            ..ContainerCreateBody::default()
        };
        let dir = tempfile::Builder::new().prefix("stacyvm-bench-floor-").tempdir()?;
        Ok(Self { docker, run: rig.run.clone(), body, host, dir, made: AtomicU32::new(0) })
    }

    /// What has to be there before the engine is asked.
    pub fn prepare(&self) -> anyhow::Result<Order> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("stacyvm-bench-{}-{number}", self.run);
        let run_dir = self.dir.path().join(number.to_string());
        std::fs::create_dir(&run_dir)?;
        std::fs::set_permissions(&run_dir, std::fs::Permissions::from_mode(0o777))?;
        let mut host = self.host.clone();
        for mount in host.mounts.iter_mut().flatten() {
            if mount.target.as_deref() == Some(RUN_DIR) {
                mount.source = Some(run_dir.to_string_lossy().into_owned());
            }
        }
        let labels = [(LABEL.to_owned(), self.run.clone())].into();
        let body = ContainerCreateBody {
            hostname: Some(name.clone()),
            labels: Some(labels),
            host_config: Some(host),
            ..self.body.clone()
        };
        Ok(Order { name, body })
    }

    /// Create and start: what a spawn has to do at the least.
    pub async fn start(&self, order: Order) -> anyhow::Result<Twin> {
        let options =
            CreateContainerOptions { name: Some(order.name.clone()), ..CreateContainerOptions::default() };
        self.docker.create_container(Some(options), order.body).await?;
        self.docker.start_container(&order.name, None::<StartContainerOptions>).await?;
        Ok(Twin { docker: self.docker.clone(), name: order.name })
    }
}

/// A container that is about to be made.
pub struct Order {
    name: String,
    body: ContainerCreateBody,
}

/// A running container like one of ours.
pub struct Twin {
    /// The connection.
    pub docker: Docker,
    /// Its name.
    pub name: String,
}

impl Twin {
    /// Removes it.
    pub async fn remove(self) -> anyhow::Result<()> {
        let force = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
        Ok(self.docker.remove_container(&self.name, Some(force)).await?)
    }

    /// Starts an exec with a terminal, as `docker exec -it` does.
    pub async fn terminal(&self, argv: &[&str]) -> anyhow::Result<Terminal> {
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(true),
            cmd: Some(argv.to_vec()),
            ..CreateExecOptions::default()
        };
        let created = self.docker.create_exec(&self.name, options).await?;
        let options = StartExecOptions { tty: true, ..StartExecOptions::default() };
        let StartExecResults::Attached { output, input } =
            self.docker.start_exec(&created.id, Some(options)).await?
        else {
            bail!("the exec was detached");
        };
        Ok(Terminal { input, output: output.map(|piece| Ok(piece?.into_bytes())).boxed() })
    }

    /// Creates and starts an exec and reads its output to the end: how many bytes it was. Its exit code would cost
    /// another request; the floor goes without.
    pub async fn exec(&self, argv: &[&str]) -> anyhow::Result<u64> {
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(argv.to_vec()),
            ..CreateExecOptions::default()
        };
        let created = self.docker.create_exec(&self.name, options).await?;
        let options =
            StartExecOptions { output_capacity: Some(OUTPUT_CAPACITY), ..StartExecOptions::default() };
        let StartExecResults::Attached { mut output, .. } =
            self.docker.start_exec(&created.id, Some(options)).await?
        else {
            bail!("the exec was detached");
        };
        let mut total = 0;
        while let Some(piece) = output.next().await {
            total += piece?.into_bytes().len() as u64;
        }
        Ok(total)
    }
}

/// The terminal of an engine exec.
pub struct Terminal {
    input: Pin<Box<dyn AsyncWrite + Send>>,
    output: Pin<Box<dyn Stream<Item = anyhow::Result<Bytes>> + Send>>,
}

impl Terminal {
    /// Types.
    pub async fn input(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.input.write_all(bytes).await?;
        Ok(self.input.flush().await?)
    }

    /// The next piece of output; `None` at the end.
    pub async fn output(&mut self) -> anyhow::Result<Option<Bytes>> {
        self.output.next().await.transpose()
    }
}
