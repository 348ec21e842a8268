//! What the driver stands on: the record, the log, and the executors.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use events::{
    Actor, JobContent, JobFile, JobOutcome, JobPhase, JobState, NodeId, Position, SandboxId, SandboxState,
    TenantId,
};
use reactor::Failure;
use record::{EventStore, StoreError};
use transport::{Destination, FaultCode, LinkClient, LinkError, LinkOp, LinkRequest, Log};

use crate::effect::{Beginning, Deed, News, Whole};
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
}

impl Real {
    pub fn new(log: Log, store: Arc<dyn EventStore>) -> Self {
        Self { link: LinkClient::new(&log), log, store }
    }

    async fn begin(&self, beginning: Beginning) -> Result<News, Failure> {
        let Beginning { tenant, sandbox, files, event, node } = beginning;
        for file in files {
            if let Some(refused) = self.write(&tenant, sandbox, &node, file).await? {
                return Ok(News::Refused(refused));
            }
        }
        self.log.publish(&[event]).await.map_err(|error| Failure::passing(&error))?;
        Ok(News::Done)
    }

    /// Writes a file; what is given back says why it can never be written.
    async fn write(
        &self,
        tenant: &TenantId,
        sandbox: SandboxId,
        node: &NodeId,
        file: JobFile,
    ) -> Result<Option<String>, Failure> {
        let JobFile { path, mode, content } = file;
        let bytes = match content {
            JobContent::Inline(text) => match BASE64_STANDARD.decode(text) {
                Ok(bytes) => Bytes::from(bytes),
                Err(_) => return Ok(Some(format!("{path}: what it is to have in it cannot be read"))),
            },
            JobContent::Object(_) => {
                return Ok(Some(format!("{path}: this server has no store of objects")));
            }
        };
        let op =
            LinkOp::WriteFile { path: path.clone(), mode: mode.unwrap_or(0o644), keep_mode: mode.is_none() };
        let request = LinkRequest {
            tenant: tenant.clone(),
            actor: Actor::Jobs,
            request_id: None,
            traceparent: None,
            sandbox,
            op,
            tell_working: false,
        };
        let written = async {
            let mut stream = self.link.open(node, &request).await?;
            let mut rest = bytes;
            while !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(PIECE));
                stream.write(piece).await?;
            }
            stream.finish().await
        };
        match written.await {
            Ok(_) => Ok(None),
            Err(LinkError::Refused(fault)) if is_for_good(fault.code) => {
                Ok(Some(format!("{path}: {}", fault.message)))
            }
            Err(error) => Err(Failure::passing(&error)),
        }
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
            Deed::Sandbox(request) => {
                self.log.publish(&[request.event]).await.map_err(|error| passing(&error))?;
                let to = Destination::Pool(&request.pool);
                self.log.send(to, &request.command).await.map_err(|error| passing(&error))?;
                Ok(News::Done)
            }
            Deed::Begin(beginning) => self.begin(*beginning).await,
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
