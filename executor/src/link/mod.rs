//! What gateways ask for directly: files, input, statistics.

mod artifacts;
mod files;
mod input;
mod recording;
mod start;
mod typing;

use std::sync::Arc;
use std::time::Duration;

use events::ErrorChain;
use transport::{
    FaultCode, LinkFault, LinkIncoming, LinkOp, LinkRequest, LinkServer, LinkValue, SandboxStats,
};

use tokio_util::task::TaskTracker;

use crate::artifacts::Wanted;
use crate::context::Context;
use crate::hosted::Hosted;
use crate::provider::StatsError;
use crate::shared::Shared;

use self::recording::Recording;

type Answer = Result<LinkValue, LinkFault>;

/// Serves requests until the executor stops.
pub async fn serve(shared: Arc<Shared>, mut server: LinkServer, tasks: TaskTracker) {
    loop {
        let incoming = tokio::select! {
            () = shared.shutdown.cancelled() => return,
            incoming = server.next() => incoming,
        };
        let Some(incoming) = incoming else { return };
        let shared = Arc::clone(&shared);
        if let LinkOp::StartExec { .. } = &incoming.request.op {
            // What was taken is begun before this executor ends.
            tasks.spawn(async move { start::exec(&shared, incoming).await });
        } else {
            tokio::spawn(async move { handle(&shared, incoming).await });
        }
    }
}

async fn handle(shared: &Shared, mut incoming: LinkIncoming) {
    shared.joined.cancelled().await;
    let request = incoming.request.clone();
    let hosted = match shared.registry.get(request.sandbox) {
        Some(hosted) if hosted.tenant == request.tenant && !hosted.is_closing() => hosted,
        _ => {
            incoming.answer(Err(gone())).await;
            return;
        }
    };
    shared.neighbours.note(&hosted.tenant);
    let Ok(_place) = Arc::clone(&hosted.requests).try_acquire_owned() else {
        let message = "too many requests to this sandbox are under way: try again";
        incoming.answer(Err(LinkFault::new(FaultCode::Crowded, message))).await;
        return;
    };
    let answer = tokio::select! {
        answer = carry_out(shared, &hosted, &request, &mut incoming) => answer,
        // Whatever was asked of its agent is not answered any more.
        () = hosted.gone() => Err(gone()),
    };
    let answer = answer.map_err(|fault| explain(shared, &hosted, fault));
    incoming.answer(answer).await;
}

async fn carry_out(
    shared: &Shared,
    hosted: &Arc<Hosted>,
    request: &LinkRequest,
    incoming: &mut LinkIncoming,
) -> Answer {
    let context = Context::of_link(request, &hosted.redaction, &shared.clock);
    match &request.op {
        LinkOp::ReadFile { path } => files::read(shared, &context, hosted, path, incoming).await,
        LinkOp::ReadFilePart { path, range } => {
            files::read_part(shared, &context, hosted, path, *range, incoming).await
        }
        LinkOp::WriteFile { path, mode, keep_mode } => {
            let mode = files::Mode { bits: *mode, keep: *keep_mode };
            files::write(shared, &context, hosted, path, mode, incoming).await
        }
        LinkOp::ListFiles { path } => files::list(hosted, path, incoming).await,
        LinkOp::StatFile { path } => files::stat(hosted, path).await,
        LinkOp::DeleteFile { path, recursive } => {
            files::delete(shared, &context, hosted, path, *recursive).await
        }
        LinkOp::MoveFile { from, to } => files::rename(shared, &context, hosted, from, to).await,
        LinkOp::ChangeMode { path, mode } => files::change_mode(shared, &context, hosted, path, *mode).await,
        LinkOp::Glob { pattern } => files::glob(hosted, pattern, incoming).await,
        LinkOp::Stats => stats(hosted).await,
        LinkOp::Input { exec, close } => {
            let recording = Recording::start(shared, &context, hosted, *exec);
            input::stream(shared, hosted, *exec, *close, recording, incoming).await
        }
        LinkOp::Signal { exec, signal } => input::signal(shared, &context, hosted, *exec, *signal).await,
        LinkOp::Resize { exec, size } => input::resize(shared, &context, hosted, *exec, *size).await,
        LinkOp::AdjustMode { path, change } => {
            files::adjust_mode(shared, &context, hosted, path, change).await
        }
        LinkOp::Kill { exec } => input::kill(shared, &context, hosted, *exec).await,
        LinkOp::CollectArtifacts { job, directory, patterns, within_ms } => {
            let within = Duration::from_millis(*within_ms);
            let wanted = Wanted { directory: directory.clone(), patterns: patterns.clone(), within };
            artifacts::collect(shared, hosted, *job, wanted, incoming).await
        }
        LinkOp::PlaceArtifacts { job, artifacts, directory } => {
            artifacts::place(shared, hosted, *job, artifacts, directory, incoming).await
        }
        LinkOp::CloseOutput { exec } => input::close_output(hosted, *exec).await,
        // Taken apart before: it takes turns with others of its kind, and no place of those that are served at once.
        LinkOp::StartExec { .. } => Err(LinkFault::new(FaultCode::Internal, "a start is no call")),
    }
}

/// What fails in a sandbox that is being destroyed, or has gone meanwhile, fails because of that.
fn explain(shared: &Shared, hosted: &Hosted, fault: LinkFault) -> LinkFault {
    let here = shared.registry.get(hosted.id).is_some_and(|known| !known.is_closing());
    match fault.code {
        FaultCode::Internal | FaultCode::Unavailable if !here => gone(),
        FaultCode::Internal
        | FaultCode::Unavailable
        | FaultCode::NotFound
        | FaultCode::InvalidPath
        | FaultCode::PermissionDenied
        | FaultCode::IsADirectory
        | FaultCode::NotADirectory
        | FaultCode::AlreadyExists
        | FaultCode::DirectoryNotEmpty
        | FaultCode::NoSpace
        | FaultCode::Busy
        | FaultCode::TooMany
        | FaultCode::Failed
        | FaultCode::SandboxGone
        | FaultCode::ExecGone
        | FaultCode::Unsupported
        | FaultCode::Unrecorded
        | FaultCode::Crowded => fault,
    }
}

fn gone() -> LinkFault {
    LinkFault::new(FaultCode::SandboxGone, "the sandbox is gone")
}

async fn stats(hosted: &Hosted) -> Answer {
    match hosted.provider.stats(hosted.id).await {
        Ok(stats) => Ok(LinkValue::Stats(SandboxStats {
            cpu_percent: stats.cpu_pct,
            memory_bytes: stats.mem_bytes,
            memory_limit_bytes: stats.mem_limit_bytes,
        })),
        Err(StatsError::Unsupported) => {
            Err(LinkFault::new(FaultCode::Unsupported, "the provider keeps no stats"))
        }
        Err(StatsError::NotRunning) => Err(gone()),
        Err(error @ StatsError::Failed(_)) => Err(unanswered(hosted, &error, "stats cannot be read")),
    }
}

/// Not done, because the log has to know of it first and takes nothing.
fn unrecordable() -> LinkFault {
    let message = "nothing can be recorded at the moment, so it was not done: try again";
    LinkFault::new(FaultCode::Unrecorded, message)
}

/// A sandbox, or what is under it, that does not answer. Of one that is being destroyed that is no news.
fn unanswered(hosted: &Hosted, error: &dyn std::error::Error, what: &'static str) -> LinkFault {
    if hosted.is_closing() {
        tracing::debug!(sandbox.id = %hosted.id, error = %ErrorChain(error), "{what}: it is being destroyed");
    } else {
        tracing::warn!(sandbox.id = %hosted.id, error = %ErrorChain(error), "{what}");
    }
    unavailable()
}

/// Nobody was asked: as many calls as may be are under way.
fn crowded(error: &dyn std::error::Error) -> LinkFault {
    tracing::debug!(error = %error, "a call was not made");
    LinkFault::new(FaultCode::Crowded, format!("{error}: try again"))
}

/// What a client may know of it.
fn unavailable() -> LinkFault {
    LinkFault::new(FaultCode::Unavailable, "the sandbox did not answer")
}
