//! Who watches what: viewers that come and go are events.

use std::time::Duration;

use events::{ApiKeyId, DetachReason, EventData, EventId, ExecAttached, ExecDetached};
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::denied::source_name;
use crate::exec::input::Target;

/// How long a leaving viewer's session waits until that is recorded.
const PATIENCE: Duration = Duration::from_secs(5);

/// A viewer that is there.
pub struct Presence {
    target: Target,
    attachment: ApiKeyId,
    recorded: JoinHandle<()>,
}

impl Presence {
    /// Records that a viewer came. It is not waited for: what is recorded can be watched also while nothing more can be.
    /// `None` when it came too often to be recorded.
    pub fn begin(target: &Target, writes: bool, [stdout_offset, stderr_offset]: [u64; 2]) -> Option<Self> {
        let (exec, caller) = (target.exec, &target.caller);
        let untold = target.gateway.shares().comings().count(exec, caller.actor().to_string())?;
        let unique = EventId::new().to_string();
        let attachment: ApiKeyId =
            format!("at-{}", unique.trim_start_matches(EventId::PREFIX)).parse().ok()?;
        let source = caller.source.map(source_name);
        let attached = ExecAttached {
            exec,
            attachment: attachment.clone(),
            writes,
            source,
            stdout_offset,
            stderr_offset,
            untold,
        };
        let recorded = tokio::spawn(record(target.clone(), attached.into()).in_current_span());
        Some(Self { target: target.clone(), attachment, recorded })
    }

    /// Records that it has gone.
    pub async fn end(self, reason: DetachReason, [stdout_offset, stderr_offset]: [u64; 2]) {
        let Self { target, attachment, recorded } = self;
        let detached = ExecDetached { exec: target.exec, attachment, stdout_offset, stderr_offset, reason };
        let leaving = tokio::spawn(
            async move {
                // In this order.
                let _ = recorded.await;
                record(target, detached.into()).await;
            }
            .in_current_span(),
        );
        let _ = tokio::time::timeout(PATIENCE, leaving).await;
    }
}

async fn record(target: Target, data: EventData) {
    let Target { gateway, caller, sandbox, exec } = target;
    let now = gateway.clock().now();
    let what = data.type_name();
    if gateway.publish(&caller, Some(sandbox), EventId::new(), now, data).await.is_err() {
        tracing::warn!(exec.id = %exec, event.type = what, "a viewer's coming or going is not recorded");
    }
}
