use events::{EventData, ExecSpec};

use super::Redaction;

impl Redaction {
    /// Masks the text in what an event says. Bodies (output, input) are the business of who has the streams; ids, names, images and
    /// owners stay, because things are found by them.
    pub fn event(&self, data: &mut EventData) {
        if self.is_empty() {
            return;
        }
        match data {
            EventData::SandboxRequested(requested) => {
                requested.spec.metadata.values_mut().for_each(|value| self.text(value));
                requested.spec.setup.iter_mut().for_each(|line| self.text(line));
            }
            EventData::SandboxFailed(failed) => self.text(&mut failed.message),
            EventData::SandboxUnhealthy(unhealthy) => self.text(&mut unhealthy.message),
            EventData::ExecRequested(requested) => spec(&mut requested.spec, self),
            EventData::ExecStarted(started) => spec(&mut started.spec, self),
            EventData::ExecFailed(failed) => self.text(&mut failed.message),
            EventData::ExecOutcomeUnknown(unknown) => self.text(&mut unknown.message),
            EventData::FileWritten(file) => self.text(&mut file.path),
            EventData::FileRead(file) => self.text(&mut file.path),
            EventData::FileDeleted(file) => self.text(&mut file.path),
            EventData::FileMoved(file) => {
                self.text(&mut file.from);
                self.text(&mut file.to);
            }
            EventData::FileModeChanged(file) => self.text(&mut file.path),
            EventData::TemplateSaved(saved) => {
                saved.template.metadata.values_mut().for_each(|value| self.text(value));
                saved.template.setup.iter_mut().for_each(|line| self.text(line));
                self.text(&mut saved.template.description);
            }
            EventData::AccessDenied(denied) => self.text(&mut denied.reason),
            EventData::SandboxStarting(_)
            | EventData::SandboxPulling(_)
            | EventData::SandboxRunning(_)
            | EventData::SandboxTtlExtended(_)
            | EventData::SandboxDestroying(_)
            | EventData::SandboxDestroyed(_)
            | EventData::ExecAttached(_)
            | EventData::ExecDetached(_)
            | EventData::SandboxLost(_)
            | EventData::SandboxErased(_)
            | EventData::ExecOutput(_)
            | EventData::ExecInput(_)
            | EventData::ExecResized(_)
            | EventData::ExecSignaled(_)
            | EventData::ExecExited(_)
            | EventData::ExecTimedOut(_)
            | EventData::ExecKilled(_)
            | EventData::TemplateDeleted(_)
            | EventData::NodeJoined(_)
            | EventData::NodeDraining(_)
            | EventData::AccessGranted(_)
            | EventData::AccessRevoked(_)
            | EventData::AuditCheckpoint(_)
            | EventData::LogTrimmed(_)
            | EventData::LogRestored(_)
            | EventData::AuditKeyChanged(_)
            | EventData::WebhookSaved(_)
            | EventData::WebhookDeleted(_)
            | EventData::WebhookAdvanced(_)
            | EventData::WebhookRewound(_)
            | EventData::WebhookSuspended(_)
            | EventData::WebhookFailed(_)
            | EventData::WebhookPinged(_)
            | EventData::WebhookPingEnded(_) => {}
        }
    }
}

fn spec(spec: &mut ExecSpec, redaction: &Redaction) {
    spec.argv.iter_mut().for_each(|arg| redaction.text(arg));
    spec.cwd.iter_mut().for_each(|cwd| redaction.text(cwd));
}
