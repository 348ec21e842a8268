use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use agent::client::{Client, ExecEvent};
use agent::protocol::{ExecId, ExecOutcome, StartExec, Stream};
use events::{NodeId, SandboxId, SandboxSpec};
use executor::provider::{BoxHandle, BoxOrder, NoProgress, Provider};
use executor::providers::bubblewrap::{BubblewrapConfig, BubblewrapProvider, RootfsSource};
use executor::providers::docker::{DockerConfig, DockerProvider, PullPolicy};

/// What `scripts/setup` makes: Debian with Python, in the engine and as a root file system.
const IMAGE: &str = "stacyvm/base:local";

/// What `scripts/work-image` makes: the same with Node.js, npm and PostgreSQL, for those who call [`Rig::work_box`].
const WORK_IMAGE: &str = "stacyvm/work:local";

/// One provider with a deployment and a data directory of its own.
pub struct Rig {
    pub provider: Arc<dyn Provider>,
    again: Box<dyn Fn() -> Arc<dyn Provider> + Send + Sync>,
    /// Where [`publish`](Self::publish) puts an image.
    shelf: Shelf,
    /// Made by the provider on machines that have control groups.
    cgroup_parent: Option<String>,
    data: tempfile::TempDir,
}

/// Where an image of a test's own goes.
enum Shelf {
    /// On the engine, under this name.
    Engine(String),
    /// A tar file, which the provider knows by this name.
    Tar(&'static str, PathBuf),
}

/// What a command in a box gave.
#[derive(Debug)]
pub struct Ran {
    pub outcome: ExecOutcome,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn code(&self) -> i32 {
        self.outcome.end.exit_code()
    }
}

impl Rig {
    /// That of a registered kind, for the facts of an area. A kind that is new gets its line here.
    pub fn of(kind: &str, area: &str) -> Self {
        match kind {
            "docker" => Self::docker(),
            "bubblewrap" => Self::bubblewrap_with(|config| {
                // What these unpack is of no use to others.
                if area == "images" {
                    config.image_dir = config.data_dir.join("images");
                }
            }),
            other => panic!("there is no rig for providers of the kind {other}"),
        }
    }

    pub fn docker() -> Self {
        Self::docker_with(|_| ())
    }

    pub fn docker_with(change: impl FnOnce(&mut DockerConfig)) -> Self {
        let data = tempfile::tempdir().expect("make a temporary directory");
        let mut config = DockerConfig::new(data.path(), agent_path(), node()).expect("the names are valid");
        config.deployment = format!("test-{}", SandboxId::new());
        config.pull = PullPolicy::Never;
        change(&mut config);
        let again = move || -> Arc<dyn Provider> {
            Arc::new(DockerProvider::new(config.clone()).expect("set up the Docker provider"))
        };
        let shelf = Shelf::Engine(format!("stacyvm-test/{}:1", SandboxId::new()));
        Self::new(data, None, shelf, again)
    }

    pub fn bubblewrap_with(change: impl FnOnce(&mut BubblewrapConfig)) -> Self {
        let data = tempfile::tempdir().expect("make a temporary directory");
        let cache = std::env::var("STACYVM_CACHE").unwrap_or_else(|_| "/var/cache/stacyvm".to_owned());
        let base = Path::new(&cache).join("base.tar");
        assert!(base.exists(), "there is no {}: scripts/setup makes it", base.display());
        let mut config = BubblewrapConfig::new(data.path(), agent_path()).expect("the names are valid");
        config.image_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bubblewrap-images");
        config.cgroup_parent = format!("stacyvm-test-{}", SandboxId::new());
        config.images.insert(IMAGE.to_owned(), RootfsSource::Tar(base));
        let work = Path::new(&cache).join("work.tar");
        config.images.insert(WORK_IMAGE.to_owned(), RootfsSource::Tar(work));
        let (name, own) = ("test-image:1", data.path().join("image.tar"));
        config.images.insert(name.to_owned(), RootfsSource::Tar(own.clone()));
        change(&mut config);
        let parent = config.cgroup_parent.clone();
        let again = move || -> Arc<dyn Provider> {
            Arc::new(BubblewrapProvider::new(config.clone()).expect("set up the bubblewrap provider"))
        };
        Self::new(data, Some(parent), Shelf::Tar(name, own), again)
    }

    fn new(
        data: tempfile::TempDir,
        cgroup_parent: Option<String>,
        shelf: Shelf,
        again: impl Fn() -> Arc<dyn Provider> + Send + Sync + 'static,
    ) -> Self {
        Self { provider: again(), again: Box::new(again), shelf, cgroup_parent, data }
    }

    /// Makes an image of these files that says this about itself, in the words of a Dockerfile. One a test.
    pub fn publish(&self, root: &Path, says: &[(&str, &str)]) -> String {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(root).args(["-c", "."]);
        match &self.shelf {
            Shelf::Engine(name) => {
                let archive = self.data.path().join("image.tar");
                succeeds(tar.arg("-f").arg(&archive));
                let mut import = Command::new("docker");
                import.arg("import");
                for (word, value) in says {
                    import.args(["--change", &format!("{word} {value}")]);
                }
                succeeds(import.arg(&archive).arg(name));
                name.clone()
            }
            Shelf::Tar(name, archive) => {
                succeeds(tar.arg("-f").arg(archive));
                let all = |wanted: &str| -> Vec<_> {
                    says.iter().filter(|(word, _)| *word == wanted).map(|(_, value)| *value).collect()
                };
                let config = serde_json::json!({
                    "Env": all("ENV"),
                    "WorkingDir": all("WORKDIR").first(),
                    "User": all("USER").first(),
                    "Entrypoint": all("ENTRYPOINT"),
                });
                std::fs::write(archive.with_extension("tar.json"), config.to_string()).expect("write it");
                (*name).to_owned()
            }
        }
    }

    /// Runs a test and removes what it made, however it ends.
    pub async fn run<F: Future<Output = ()> + Send + 'static>(self, test: impl FnOnce(Arc<Self>) -> F) {
        let rig = Arc::new(self);
        let outcome = tokio::spawn(test(Arc::clone(&rig))).await;
        for left in rig.provider.list().await.expect("list what is left") {
            rig.provider.destroy(left.id).await.expect("remove what is left");
        }
        assert_eq!(rig.provider.list().await.expect("list again"), [], "something stays");
        rig.forget_image();
        rig.remove_cgroups();
        if let Err(failure) = outcome {
            std::panic::resume_unwind(failure.into_panic());
        }
    }

    fn forget_image(&self) {
        if let Shelf::Engine(name) = &self.shelf
            && self.data.path().join("image.tar").exists()
        {
            succeeds(Command::new("docker").args(["rmi", name]));
        }
    }

    /// The group of all boxes stays in real life. That it can be removed shows that nothing is left in it.
    fn remove_cgroups(&self) {
        let Some(parent) = &self.cgroup_parent else { return };
        for tree in std::fs::read_dir("/sys/fs/cgroup").expect("read the control groups").flatten() {
            let group = tree.path().join(parent);
            if group.exists() {
                std::fs::remove_dir(&group).expect("remove the group of all boxes");
            }
        }
    }

    /// A provider as a new process would have it.
    pub fn provider_again(&self) -> Arc<dyn Provider> {
        (self.again)()
    }

    pub fn data_dir(&self) -> &Path {
        self.data.path()
    }

    /// Something of a box that is still on this machine, though nobody lists it any more.
    pub fn left_of(&self, id: SandboxId) -> Option<String> {
        let trash = [self.data_dir().join("boxes/.trash"), self.data_dir().join(".trash")];
        let left = trash.iter().filter_map(|trash| std::fs::read_dir(trash).ok()).flatten().flatten().next();
        if let Some(left) = left {
            return Some(left.path().display().to_string());
        }
        if matches!(self.shelf, Shelf::Tar(..)) {
            return None;
        }
        let filter = format!("label=stacyvm.sandbox={id}");
        let list =
            Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().expect("ask docker");
        let container = String::from_utf8_lossy(&list.stdout).trim().to_owned();
        (!container.is_empty()).then_some(container)
    }

    pub fn spec(&self) -> SandboxSpec {
        // As it comes out of the log: what this suite does not care about takes its default.
        serde_json::from_value(serde_json::json!({
            "provider": self.provider.name(),
            "image": IMAGE,
            "memory_mib": 256,
            "cpu_millis": 1000,
            "pids_limit": 100,
        }))
        .expect("the spec is complete")
    }

    pub fn order(&self, spec: SandboxSpec) -> BoxOrder {
        BoxOrder {
            id: SandboxId::new(),
            tenant: events::TenantId::default_tenant(),
            spec,
            time_left: Duration::from_secs(300),
            make_within: Duration::from_secs(300),
            turns: Default::default(),
        }
    }

    pub async fn create(&self, order: &BoxOrder) -> BoxHandle {
        self.provider.create(order, &NoProgress).await.expect("create a box")
    }

    /// A box with the usual spec.
    pub async fn any_box(&self) -> BoxHandle {
        self.create(&self.order(self.spec())).await
    }

    /// A box of the image of everyday work, which is made when it is not there yet.
    pub async fn work_box(&self) -> BoxHandle {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/work-image");
        tokio::task::spawn_blocking(|| succeeds(&mut Command::new(script))).await.expect("make the image");
        let mut spec = self.spec();
        spec.image = WORK_IMAGE.to_owned();
        spec.memory_mib = 768;
        self.create(&self.order(spec)).await
    }

    pub async fn listed(&self, id: SandboxId) -> Option<BoxHandle> {
        let boxes = self.provider.list().await.expect("list boxes");
        boxes.into_iter().find(|found| found.id == id)
    }
}

fn succeeds(command: &mut Command) {
    let output = command.stdin(std::process::Stdio::null()).output().expect("run a program");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a command to its end.
/// Where the agent of a box listens on this machine.
pub fn socket(handle: &BoxHandle) -> PathBuf {
    let place = handle.agent.place();
    let path = place.strip_prefix("unix:").expect("its agent listens on a unix socket");
    path.split(", ").next().unwrap_or_default().into()
}

pub async fn run(handle: &BoxHandle, argv: &[&str]) -> Ran {
    run_exec(handle, StartExec::new(new_exec(), argv.iter().copied())).await
}

pub fn new_exec() -> ExecId {
    ExecId(*SandboxId::new().as_bytes())
}

/// The same, with all that a start can say.
pub async fn run_exec(handle: &BoxHandle, start: StartExec) -> Ran {
    let connection = Client::with(handle.agent.clone()).start_exec(start).await.expect("start a command");
    let (mut reader, writer) = connection.split();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match reader.next().await.expect("read a command's output") {
            Some(ExecEvent::Output { stream, offset, bytes }) => {
                match stream {
                    Stream::Stdout => stdout.extend_from_slice(&bytes),
                    Stream::Stderr => stderr.extend_from_slice(&bytes),
                }
                // The command may have ended meanwhile.
                let _ = writer.ack(stream, offset + bytes.len() as u64).await;
            }
            Some(ExecEvent::Exited(outcome)) => {
                return Ran {
                    outcome,
                    stdout: String::from_utf8_lossy(&stdout).into_owned(),
                    stderr: String::from_utf8_lossy(&stderr).into_owned(),
                };
            }
            Some(ExecEvent::Superseded) => panic!("somebody else took the command's output"),
            Some(ExecEvent::ExitedOpen(_) | ExecEvent::OutputClosed(_)) => panic!("nobody asked for that"),
            None => panic!("the output ended without an outcome"),
        }
    }
}

/// Runs a line of shell.
pub async fn shell(handle: &BoxHandle, line: &str) -> Ran {
    run(handle, &["/bin/sh", "-c", line]).await
}

/// Runs a Python program.
pub async fn python(handle: &BoxHandle, program: &str) -> Ran {
    run(handle, &["python3", "-c", program]).await
}

/// Starts a command and leaves it alone.
pub async fn leave_running(handle: &BoxHandle, line: &str) {
    let start = StartExec::new(ExecId(*SandboxId::new().as_bytes()), ["/bin/sh", "-c", line]);
    Client::with(handle.agent.clone()).start_exec(start).await.expect("start a command");
}

pub fn node() -> NodeId {
    "test-node".parse().expect("the node id is valid")
}

pub fn agent_path() -> PathBuf {
    let path = std::env::var_os("STACYVM_AGENT")
        .expect("STACYVM_AGENT must hold the absolute path of stacyvm-agent: `make agent` builds it");
    let path = PathBuf::from(path);
    assert!(
        path.is_absolute() && path.exists(),
        "STACYVM_AGENT names {}, which is not there",
        path.display()
    );
    path
}
