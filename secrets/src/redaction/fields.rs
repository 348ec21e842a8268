use events::{AccessEvent, EventData, ExecEvent, ExecSpec, FileEvent, SandboxEvent, TemplateEvent};

use super::Redaction;

impl Redaction {
    /// Masks the text in what an event says. Bodies (output, input) are the business of who has the streams; ids, names, images and
    /// owners stay, because things are found by them.
    pub fn event(&self, data: &mut EventData) {
        if self.is_empty() {
            return;
        }
        match data {
            EventData::Sandbox(event) => self.sandbox(event),
            EventData::Exec(event) => self.exec(event),
            EventData::File(event) => self.file(event),
            EventData::Template(TemplateEvent::Saved(saved)) => {
                saved.template.metadata.values_mut().for_each(|value| self.text(value));
                saved.template.setup.iter_mut().for_each(|line| self.text(line));
                self.text(&mut saved.template.description);
            }
            EventData::Access(AccessEvent::Denied(denied)) => self.text(&mut denied.reason),
            EventData::Template(TemplateEvent::Deleted(_))
            | EventData::Access(AccessEvent::Granted(_) | AccessEvent::Revoked(_))
            | EventData::Node(_)
            | EventData::Audit(_)
            | EventData::Log(_)
            | EventData::Webhook(_) => {}
        }
    }

    fn sandbox(&self, event: &mut SandboxEvent) {
        match event {
            SandboxEvent::Requested(requested) => {
                requested.spec.metadata.values_mut().for_each(|value| self.text(value));
                requested.spec.setup.iter_mut().for_each(|line| self.text(line));
            }
            SandboxEvent::Failed(failed) => self.text(&mut failed.message),
            SandboxEvent::Starting(_)
            | SandboxEvent::Pulling(_)
            | SandboxEvent::Running(_)
            | SandboxEvent::TtlExtended(_)
            | SandboxEvent::Destroying(_)
            | SandboxEvent::Destroyed(_)
            | SandboxEvent::Erased(_) => {}
        }
    }

    fn exec(&self, event: &mut ExecEvent) {
        match event {
            ExecEvent::Requested(requested) => spec(&mut requested.spec, self),
            ExecEvent::Started(started) => spec(&mut started.spec, self),
            ExecEvent::Failed(failed) => self.text(&mut failed.message),
            ExecEvent::OutcomeUnknown(unknown) => self.text(&mut unknown.message),
            ExecEvent::Output(_)
            | ExecEvent::Input(_)
            | ExecEvent::Resized(_)
            | ExecEvent::Signaled(_)
            | ExecEvent::Attached(_)
            | ExecEvent::Detached(_)
            | ExecEvent::OutputClosed(_)
            | ExecEvent::Exited(_)
            | ExecEvent::TimedOut(_)
            | ExecEvent::Killed(_) => {}
        }
    }

    fn file(&self, event: &mut FileEvent) {
        match event {
            FileEvent::Written(file) => self.text(&mut file.path),
            FileEvent::Read(file) => self.text(&mut file.path),
            FileEvent::Deleted(file) => self.text(&mut file.path),
            FileEvent::Moved(file) => {
                self.text(&mut file.from);
                self.text(&mut file.to);
            }
            FileEvent::ModeChanged(file) => self.text(&mut file.path),
        }
    }
}

fn spec(spec: &mut ExecSpec, redaction: &Redaction) {
    spec.argv.iter_mut().for_each(|arg| redaction.text(arg));
    spec.cwd.iter_mut().for_each(|cwd| redaction.text(cwd));
}
