//! Input on its way to a running exec: one long-lived stream an attachment, not one call a key.

use std::time::Duration;

use bytes::Bytes;
use events::{ExecId, SandboxId};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;
use transport::{LinkError, LinkOp, LinkValue};

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::gateway::{Gateway, OpenCall, link_failed};

/// Input that waits for the process, in frames. After that the socket is not read.
const QUEUE: usize = 16;
/// How long an executor that does not listen is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// Something for stdin.
#[derive(Debug)]
pub enum Input {
    /// Bytes.
    Bytes(Bytes),
    /// The end.
    Close,
}

/// Where an exec is, and who writes to it.
#[derive(Clone)]
pub struct Target {
    /// The gateway.
    pub gateway: Gateway,
    /// On whose behalf.
    pub caller: Caller,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// The exec.
    pub exec: ExecId,
}

/// Takes input in order. Dropping it leaves stdin open.
pub struct InputQueue {
    sender: mpsc::Sender<Input>,
    pump: AbortOnDropHandle<()>,
}

impl InputQueue {
    /// A queue that is carried to the process once it runs. What cannot be delivered is told to `failures`.
    pub fn open(target: Target, started: watch::Receiver<bool>, failures: mpsc::Sender<ErrorBody>) -> Self {
        let (sender, inputs) = mpsc::channel(QUEUE);
        let pump = Pump { target, link: None };
        let task = tokio::spawn(pump.run(inputs, started, failures).in_current_span());
        Self { sender, pump: AbortOnDropHandle::new(task) }
    }

    /// Adds input; waits while the process does not take what came before.
    pub async fn push(&self, input: Input) {
        // A pump that has stopped belongs to a process that takes no more input.
        let _ = self.sender.send(input).await;
    }

    /// Nothing more comes, and what has come still reaches the process, if it takes it soon.
    pub async fn finish(self) {
        let Self { sender, pump } = self;
        drop(sender);
        let _ = tokio::time::timeout(PATIENCE, pump).await;
    }
}

struct Pump {
    target: Target,
    link: Option<OpenCall>,
}

impl Pump {
    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut started: watch::Receiver<bool>,
        failures: mpsc::Sender<ErrorBody>,
    ) {
        // One whose sender is gone has nothing more to tell: the exec will refuse what it does not take.
        let _ = started.wait_for(|started| *started).await;
        loop {
            let input = tokio::select! {
                biased;
                input = inputs.recv() => input,
                error = watch(&mut self.link) => {
                    self.link = None;
                    let _ = failures.send(error.into_body()).await;
                    continue;
                }
            };
            let Some(input) = input else {
                if let Some(link) = self.link.take()
                    && let Err(error) = link.finish().await
                {
                    tracing::debug!(error = %error, "the last of the input did not arrive");
                }
                return;
            };
            let outcome = match input {
                Input::Bytes(bytes) => self.write(bytes).await,
                Input::Close => self.close().await,
            };
            if let Err(error) = outcome {
                self.link = None;
                let _ = failures.send(error.into_body()).await;
            }
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), ApiError> {
        let link = match &mut self.link {
            Some(link) => link,
            empty => empty.insert(self.target.input(false).await?),
        };
        link.write(bytes).await.map_err(link_failed)
    }

    async fn close(&mut self) -> Result<(), ApiError> {
        if let Some(link) = self.link.take() {
            link.finish().await.map_err(link_failed)?;
        }
        self.target.input(true).await?.finish().await.map_err(link_failed)?;
        Ok(())
    }
}

impl Target {
    /// A stream into stdin.
    pub async fn input(&self, close: bool) -> Result<OpenCall, ApiError> {
        let mut patience = Patience::new();
        loop {
            let op = LinkOp::Input { exec: self.exec, close };
            match self.gateway.try_open(&self.caller, self.sandbox, op).await? {
                Err(LinkError::Unreachable) if patience.is_left().await => {}
                outcome => return outcome.map_err(link_failed),
            }
        }
    }

    /// A signal, a resize, a kill.
    pub async fn call(&self, op: LinkOp) -> Result<LinkValue, ApiError> {
        let mut patience = Patience::new();
        loop {
            match self.gateway.try_call(&self.caller, self.sandbox, op.clone()).await? {
                Err(LinkError::Unreachable) if patience.is_left().await => {}
                outcome => return outcome.map_err(link_failed),
            }
        }
    }
}

/// Waits for a node on which nobody listens: an executor that restarts is back in a moment, and whoever is attached need
/// not notice.
struct Patience(Instant);

impl Patience {
    fn new() -> Self {
        Self(Instant::now() + PATIENCE)
    }

    /// Whether to try again, after a pause.
    async fn is_left(&mut self) -> bool {
        tokio::time::sleep(PAUSE).await;
        Instant::now() < self.0
    }
}

/// Why the link broke. Waits for ever without a link, and while it is well.
async fn watch(link: &mut Option<OpenCall>) -> ApiError {
    match link {
        Some(link) => link_failed(link.watch().await),
        None => std::future::pending().await,
    }
}
