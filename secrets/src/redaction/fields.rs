use events::{
    AccessEvent, EventData, ExecEvent, ExecSpec, FileEvent, JobEvent, JobPlace, JobSpec, SandboxEvent,
    SandboxSpec, ScheduleCreated, ScheduleEvent, ScheduleUpdated, TemplateEvent,
};
use serde_json::Value;

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
            EventData::Job(event) => self.job(event),
            EventData::Template(TemplateEvent::Saved(saved)) => {
                saved.template.metadata.values_mut().for_each(|value| self.text(value));
                saved.template.setup.iter_mut().for_each(|line| self.text(line));
                self.text(&mut saved.template.description);
            }
            EventData::Access(AccessEvent::Denied(denied)) => self.text(&mut denied.reason),
            EventData::Schedule(
                ScheduleEvent::Created(ScheduleCreated { schedule })
                | ScheduleEvent::Updated(ScheduleUpdated { schedule }),
            ) => self.json(&mut schedule.job),
            EventData::Template(TemplateEvent::Deleted(_))
            | EventData::Access(AccessEvent::Granted(_) | AccessEvent::Revoked(_))
            | EventData::Node(_)
            | EventData::Audit(_)
            | EventData::Log(_)
            | EventData::Webhook(_)
            | EventData::Schedule(_) => {}
        }
    }

    /// Every text in it, however deep; names of fields stay.
    pub fn json(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(list) => list.iter_mut().for_each(|value| self.json(value)),
            Value::Object(map) => map.values_mut().for_each(|value| self.json(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn sandbox(&self, event: &mut SandboxEvent) {
        match event {
            SandboxEvent::Requested(requested) => sandbox_spec(&mut requested.spec, self),
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

    fn job(&self, event: &mut JobEvent) {
        match event {
            JobEvent::Submitted(submitted) => job_spec(&mut submitted.spec, self),
            JobEvent::Held(held) => self.text(&mut held.message),
            JobEvent::AttemptEnded(ended) => self.text(&mut ended.message),
            JobEvent::Progressed(progressed) => self.text(&mut progressed.message),
            JobEvent::ArtifactStored(stored) => self.text(&mut stored.artifact.path),
            JobEvent::Succeeded(end) => self.text(&mut end.message),
            JobEvent::Failed(end) => self.text(&mut end.message),
            JobEvent::Cancelled(end) => self.text(&mut end.message),
            JobEvent::TimedOut(end) => self.text(&mut end.message),
            JobEvent::OutcomeUnknown(end) => self.text(&mut end.message),
            JobEvent::Queued(_)
            | JobEvent::Admitted(_)
            | JobEvent::AttemptStarted(_)
            | JobEvent::AttemptRunning(_)
            | JobEvent::RetryScheduled(_)
            | JobEvent::CancelRequested(_) => {}
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

fn sandbox_spec(spec: &mut SandboxSpec, redaction: &Redaction) {
    spec.metadata.values_mut().for_each(|value| redaction.text(value));
    spec.setup.iter_mut().for_each(|line| redaction.text(line));
}

/// What files and stdin hold is not looked at: it is bytes, as in a file that is written.
fn job_spec(job: &mut JobSpec, redaction: &Redaction) {
    job.name.iter_mut().for_each(|name| redaction.text(name));
    job.labels.values_mut().for_each(|value| redaction.text(value));
    job.files.iter_mut().for_each(|file| redaction.text(&mut file.path));
    if let Some(callback) = &mut job.callback {
        redaction.text(&mut callback.url);
    }
    spec(&mut job.command, redaction);
    match &mut job.place {
        JobPlace::Fresh(sandbox) => sandbox_spec(sandbox, redaction),
        JobPlace::Existing(_) => {}
    }
}

fn spec(spec: &mut ExecSpec, redaction: &Redaction) {
    spec.argv.iter_mut().for_each(|arg| redaction.text(arg));
    spec.cwd.iter_mut().for_each(|cwd| redaction.text(cwd));
}
