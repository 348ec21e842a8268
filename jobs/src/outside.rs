//! What the driver stands on: the record, the log, and the executors.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use events::{
    Actor, Clock, Command, JobContent, JobFile, JobNeed, JobOutcome, JobPhase, JobPlace, JobSecrets,
    JobState, NodeId, Position, SandboxSpec, SandboxState,
};
use globset::{GlobBuilder, GlobSetBuilder};
use reactor::Failure;
use record::{EventStore, StoreError};
use secrets::MasterKey;
use transport::{CollectedLine, Destination, FaultCode, LinkClient, LinkError, LinkOp, LinkRequest, Log};

use crate::asking;
use crate::effect::{Beginning, Deed, News, Request, Whole};
use crate::entry::Light;

/// How many bytes of a file are sent at once.
const PIECE: usize = 64 << 10;

/// What the driver stands on.
#[async_trait]
pub trait Outside: Send + Sync + 'static {
    /// Little of every job that has not ended, and the head that this is true at.
    async fn live_jobs(&self) -> Result<(Position, Vec<Light>), StoreError>;

    /// All sandboxes that live, and the head that this is true at.
    async fn live_sandboxes(&self) -> Result<(Position, Vec<SandboxState>), StoreError>;

    /// Does something.
    async fn perform(&self, deed: Deed) -> Result<News, Failure>;
}

/// The real things.
pub struct Real {
    log: Log,
    link: LinkClient,
    store: Arc<dyn EventStore>,
    key: MasterKey,
    clock: Arc<dyn Clock>,
}

/// How long taking files out of a sandbox may take.
const COLLECTING_MS: u64 = 100_000;
/// How many artifacts a request names.
const PLACED_AT_ONCE: usize = 200;

/// What keeps an attempt from its beginning.
enum Obstacle {
    /// It may go better another time.
    Passing(Failure),
    /// It cannot be done.
    Refused(String),
    /// What is needed is not there any more.
    InputLost,
}

impl Obstacle {
    fn passing(error: &dyn std::error::Error) -> Self {
        Self::Passing(Failure::passing(error))
    }

    fn into_news(self) -> Result<News, Failure> {
        match self {
            Self::Passing(failure) => Err(failure),
            Self::Refused(message) => Ok(News::Refused(message)),
            Self::InputLost => Ok(News::InputLost),
        }
    }

    fn of_link(what: &str, error: LinkError) -> Self {
        match error {
            LinkError::Refused(fault) if is_for_good(fault.code) => {
                Self::Refused(format!("{what}: {}", fault.message))
            }
            error @ (LinkError::Refused(_)
            | LinkError::Unreachable
            | LinkError::Unanswered
            | LinkError::Broken(_)) => Self::passing(&error),
        }
    }
}

impl Real {
    pub fn new(log: Log, store: Arc<dyn EventStore>, key: MasterKey, clock: Arc<dyn Clock>) -> Self {
        Self { link: LinkClient::new(&log), log, store, key, clock }
    }

    /// What a job knows and the log does not.
    async fn secrets(&self, job: &JobState) -> Result<JobSecrets, Obstacle> {
        if !job.spec.has_sealed {
            return Ok(JobSecrets::default());
        }
        let sealed = self.log.sealed(job.id).await.map_err(|error| Obstacle::passing(&error))?;
        let context = JobSecrets::context(&job.tenant, job.id);
        let opened =
            sealed.and_then(|sealed| self.key.open(JobSecrets::PURPOSE, context.as_bytes(), &sealed).ok());
        let read = opened.and_then(|json| serde_json::from_slice(&json).ok());
        read.ok_or(Obstacle::InputLost)
    }

    async fn sandbox(&self, mut request: Request, job: &JobState) -> Result<(), Obstacle> {
        let secrets = self.secrets(job).await?;
        if let (JobPlace::Fresh(real), Command::CreateSandbox { spec, .. }) =
            (&secrets.spec(&job.spec).place, &mut request.command.command)
        {
            // What was masked in the record, and what only the driver says of it.
            *spec = SandboxSpec { job: spec.job, owner: spec.owner.take(), ..real.clone() };
        }
        self.log.publish(&[request.event]).await.map_err(|error| Obstacle::passing(&error))?;
        let to = Destination::Pool(&request.pool);
        self.log.send(to, &request.command).await.map_err(|error| Obstacle::passing(&error))
    }

    async fn begin(&self, beginning: Beginning) -> Result<(), Obstacle> {
        let Beginning { job, event, node } = beginning;
        let secrets = self.secrets(&job).await?;
        let spec = secrets.spec(&job.spec);
        if spec.stdin.is_some() {
            // Run without it, it would do something else.
            let message = "what a job is to read on its standard input cannot be given to it yet";
            return Err(Obstacle::Refused(message.to_owned()));
        }
        for need in spec.needs.iter().filter(|need| !need.artifacts.is_empty()) {
            self.place(&job, need, &node).await?;
        }
        for file in &spec.files {
            self.write(&job, file, &node).await?;
        }
        self.log.publish(&[event]).await.map_err(|error| Obstacle::passing(&error))
    }

    async fn start(&self, job: &JobState, node: &NodeId) -> Result<(), Obstacle> {
        let secrets = self.secrets(job).await?;
        if job.spec.env_names.iter().any(|name| !secrets.env.0.contains_key(name)) {
            return Err(Obstacle::InputLost);
        }
        let spec = secrets.spec(&job.spec).command.clone();
        let command = asking::start_exec(job, spec, secrets.env);
        self.log.send(Destination::Node(node), &command).await.map_err(|error| Obstacle::passing(&error))
    }

    /// Puts what a needed job left into the sandbox.
    async fn place(&self, job: &JobState, need: &JobNeed, node: &NodeId) -> Result<(), Obstacle> {
        let needed = self.store.get_of::<JobState>(&job.tenant, need.job).await;
        let needed = needed.map_err(|error| Obstacle::passing(&error))?.ok_or(Obstacle::InputLost)?;
        let mut wanted = GlobSetBuilder::new();
        for pattern in &need.artifacts {
            let glob = GlobBuilder::new(pattern).literal_separator(true).build();
            wanted.add(glob.map_err(|error| Obstacle::Refused(error.to_string()))?);
        }
        let wanted = wanted.build().map_err(|error| Obstacle::Refused(error.to_string()))?;
        let mut artifacts: Vec<_> = needed.artifacts;
        artifacts.retain(|artifact| wanted.is_match(&artifact.path));
        let directory = need.path.clone().or_else(|| job.spec.command.cwd.clone()).unwrap_or_default();
        for some in artifacts.chunks(PLACED_AT_ONCE) {
            let op = LinkOp::PlaceArtifacts {
                job: need.job,
                artifacts: some.to_vec(),
                directory: if directory.is_empty() { ".".to_owned() } else { directory.clone() },
            };
            let placed = async { self.link.open(node, &request(job, op)).await?.finish().await };
            placed.await.map_err(|error| Obstacle::of_link("what it needs", error))?;
        }
        Ok(())
    }

    async fn write(&self, job: &JobState, file: &JobFile, node: &NodeId) -> Result<(), Obstacle> {
        let JobFile { path, mode, content } = file;
        let bytes = match content {
            JobContent::Inline(text) => BASE64_STANDARD
                .decode(text)
                .map(Bytes::from)
                .map_err(|_| Obstacle::Refused(format!("{path}: what it is to have in it cannot be read")))?,
            JobContent::Object(_) => {
                return Err(Obstacle::Refused(format!(
                    "{path}: files that are kept as objects cannot be given yet"
                )));
            }
        };
        let op =
            LinkOp::WriteFile { path: path.clone(), mode: mode.unwrap_or(0o644), keep_mode: mode.is_none() };
        let written = async {
            let mut stream = self.link.open(node, &request(job, op)).await?;
            let mut rest = bytes;
            while !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(PIECE));
                stream.write(piece).await?;
            }
            stream.finish().await
        };
        written.await.map(drop).map_err(|error| Obstacle::of_link(path, error))
    }

    /// Keeps the files that a job left, and says so.
    async fn collect(&self, job: &JobState, node: &NodeId) -> Result<(), Obstacle> {
        let op = LinkOp::CollectArtifacts {
            job: job.id,
            directory: job.spec.command.cwd.clone().unwrap_or_else(|| ".".to_owned()),
            patterns: job.spec.artifacts.clone(),
            within_ms: COLLECTING_MS,
        };
        let what = "what it left";
        let mut lines: Vec<u8> = Vec::new();
        let mut stream =
            self.link.open(node, &request(job, op)).await.map_err(|error| Obstacle::of_link(what, error))?;
        while let Some(bytes) = stream.read().await.map_err(|error| Obstacle::of_link(what, error))? {
            lines.extend_from_slice(&bytes);
            if lines.len() > MAX_LINES {
                return Err(Obstacle::Refused(format!("{what}: the list of it is too long")));
            }
        }
        let mut events = Vec::new();
        let mut left_out = 0;
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = serde_json::from_slice(line)
                .map_err(|_| Obstacle::Refused(format!("{what}: the list of it cannot be read")))?;
            match line {
                CollectedLine::Stored(artifact) => {
                    events.push(asking::artifact_stored(job, artifact, self.clock.now()));
                }
                CollectedLine::LeftOut { .. } => {}
                CollectedLine::End { left_out: count } => left_out = count,
            }
        }
        for some in events.chunks(PLACED_AT_ONCE) {
            self.log.publish(some).await.map_err(|error| Obstacle::passing(&error))?;
        }
        if left_out > 0 {
            tracing::info!(job.id = %job.id, left_out, "files of a job match and are not kept");
        }
        Ok(())
    }
}

/// The longest list of what a job left, in bytes.
const MAX_LINES: usize = 16 << 20;

fn request(job: &JobState, op: LinkOp) -> LinkRequest {
    LinkRequest {
        tenant: job.tenant.clone(),
        actor: Actor::Jobs,
        request_id: None,
        traceparent: None,
        sandbox: job.sandbox_of(job.attempt()),
        op,
        tell_working: true,
    }
}

/// Whether what was refused so is refused another time as well.
const fn is_for_good(code: FaultCode) -> bool {
    match code {
        FaultCode::NotFound
        | FaultCode::InvalidPath
        | FaultCode::PermissionDenied
        | FaultCode::IsADirectory
        | FaultCode::NotADirectory
        | FaultCode::AlreadyExists
        | FaultCode::DirectoryNotEmpty
        | FaultCode::NoSpace
        | FaultCode::Failed
        | FaultCode::Unsupported => true,
        FaultCode::Busy
        | FaultCode::TooMany
        | FaultCode::SandboxGone
        | FaultCode::ExecGone
        | FaultCode::Unrecorded
        | FaultCode::Internal
        | FaultCode::Unavailable
        | FaultCode::Crowded => false,
    }
}

#[async_trait]
impl Outside for Real {
    async fn live_jobs(&self) -> Result<(Position, Vec<Light>), StoreError> {
        let (position, jobs) = self.store.live::<JobState>().await?;
        Ok((position, jobs.iter().map(Light::of).collect()))
    }

    async fn live_sandboxes(&self) -> Result<(Position, Vec<SandboxState>), StoreError> {
        self.store.live_sandboxes().await
    }

    async fn perform(&self, deed: Deed) -> Result<News, Failure> {
        let passing = |error: &dyn std::error::Error| Failure::passing(error);
        match deed {
            Deed::Say(messages) => {
                for message in messages {
                    self.log.publish(&message).await.map_err(|error| passing(&error))?;
                }
                Ok(News::Done)
            }
            Deed::Load(id, attempt) => {
                let store = &self.store;
                let job = store.get::<JobState>(id).await.map_err(|error| passing(&error))?;
                let mut whole = Whole { job, ..Whole::default() };
                if let Some((sandbox, exec)) = attempt {
                    whole.sandbox = store.sandbox(sandbox).await.map_err(|error| passing(&error))?;
                    whole.exec = store.exec(exec).await.map_err(|error| passing(&error))?;
                }
                Ok(News::Loaded(Box::new(whole)))
            }
            Deed::LookUp(jobs) => {
                let mut ended = Vec::new();
                for id in jobs {
                    let state = self.store.get::<JobState>(id).await.map_err(|error| passing(&error))?;
                    ended.push((id, state.map(|state| outcome_of(&state))));
                }
                Ok(News::Ended(ended))
            }
            Deed::DestroySealed(job, end) => {
                self.log.destroy_sealed(job).await.map_err(|error| passing(&error))?;
                self.log.publish(&end).await.map_err(|error| passing(&error))?;
                Ok(News::Done)
            }
            Deed::Sandbox(request, job) => done(self.sandbox(*request, &job).await),
            Deed::Begin(beginning) => done(self.begin(*beginning).await),
            Deed::Start(job, node) => done(self.start(&job, &node).await),
            Deed::Collect(job, node) => done(self.collect(&job, &node).await),
            Deed::Send(command, node) => {
                self.log.send(Destination::Node(&node), &command).await.map_err(|error| passing(&error))?;
                Ok(News::Done)
            }
            Deed::Call(request, node) => match self.link.call(&node, &request).await {
                Ok(_) => Ok(News::Done),
                // It has ended, or will not: that is seen in the record.
                Err(LinkError::Refused(fault)) => Ok(News::Refused(fault.message)),
                Err(error) => Err(passing(&error)),
            },
        }
    }
}

fn done(outcome: Result<(), Obstacle>) -> Result<News, Failure> {
    outcome.map_or_else(Obstacle::into_news, |()| Ok(News::Done))
}

fn outcome_of(state: &JobState) -> Option<JobOutcome> {
    match &state.phase {
        JobPhase::Ended { outcome, .. } => Some(*outcome),
        JobPhase::Waiting
        | JobPhase::Queued
        | JobPhase::Starting
        | JobPhase::Running
        | JobPhase::Settling
        | JobPhase::Retrying { .. } => None,
    }
}
