use super::Redaction;
use crate::{EventData, ExecSpec};

impl EventData {
    /// Masks the text in it. Bodies (output, input) are the business of who has the streams; ids, names, images and
    /// owners stay, because things are found by them.
    pub fn redact(&mut self, redaction: &Redaction) {
        if redaction.is_empty() {
            return;
        }
        match self {
            Self::SandboxRequested(requested) => {
                requested.spec.metadata.values_mut().for_each(|value| redaction.text(value));
                requested.spec.setup.iter_mut().for_each(|line| redaction.text(line));
            }
            Self::SandboxFailed(failed) => redaction.text(&mut failed.message),
            Self::SandboxUnhealthy(unhealthy) => redaction.text(&mut unhealthy.message),
            Self::ExecRequested(requested) => spec(&mut requested.spec, redaction),
            Self::ExecStarted(started) => spec(&mut started.spec, redaction),
            Self::ExecFailed(failed) => redaction.text(&mut failed.message),
            Self::ExecOutcomeUnknown(unknown) => redaction.text(&mut unknown.message),
            Self::FileWritten(file) => redaction.text(&mut file.path),
            Self::FileRead(file) => redaction.text(&mut file.path),
            Self::FileDeleted(file) => redaction.text(&mut file.path),
            Self::FileMoved(file) => {
                redaction.text(&mut file.from);
                redaction.text(&mut file.to);
            }
            Self::FileModeChanged(file) => redaction.text(&mut file.path),
            Self::TemplateSaved(saved) => {
                saved.template.metadata.values_mut().for_each(|value| redaction.text(value));
                saved.template.setup.iter_mut().for_each(|line| redaction.text(line));
                redaction.text(&mut saved.template.description);
            }
            Self::AccessDenied(denied) => redaction.text(&mut denied.reason),
            Self::SandboxStarting(_)
            | Self::SandboxPulling(_)
            | Self::SandboxRunning(_)
            | Self::SandboxTtlExtended(_)
            | Self::SandboxDestroying(_)
            | Self::SandboxDestroyed(_)
            | Self::ExecAttached(_)
            | Self::ExecDetached(_)
            | Self::SandboxLost(_)
            | Self::SandboxErased(_)
            | Self::ExecOutput(_)
            | Self::ExecInput(_)
            | Self::ExecResized(_)
            | Self::ExecSignaled(_)
            | Self::ExecExited(_)
            | Self::ExecTimedOut(_)
            | Self::ExecKilled(_)
            | Self::TemplateDeleted(_)
            | Self::NodeJoined(_)
            | Self::NodeDraining(_)
            | Self::AccessGranted(_)
            | Self::AccessRevoked(_)
            | Self::AuditCheckpoint(_)
            | Self::LogTrimmed(_)
            | Self::LogRestored(_)
            | Self::AuditKeyChanged(_)
            | Self::WebhookSaved(_)
            | Self::WebhookDeleted(_)
            | Self::WebhookAdvanced(_)
            | Self::WebhookRewound(_)
            | Self::WebhookSuspended(_)
            | Self::WebhookFailed(_)
            | Self::WebhookPinged(_)
            | Self::WebhookPingEnded(_) => {}
        }
    }
}

fn spec(spec: &mut ExecSpec, redaction: &Redaction) {
    spec.argv.iter_mut().for_each(|arg| redaction.text(arg));
    spec.cwd.iter_mut().for_each(|cwd| redaction.text(cwd));
}
