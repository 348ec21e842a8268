//! What can be done through the API: each route names one of these, in the table of routes.

use std::fmt;

/// What doing something leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing changes. It is allowed while nothing can be recorded.
    Reads,
    /// Something changes, and there is more to run or to keep than before.
    MakesMore,
    /// Something changes, and there is less than before: it is allowed while the disk is nearly full.
    MakesRoom,
}

/// Whose things something is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Nobody's: whoever can reach the server may ask, without a key.
    Server,
    /// The caller's own tenant.
    Tenant,
    /// All tenants together: their sum shows what the others do.
    Deployment,
    /// The machine that the gateway runs on.
    Host,
}

macro_rules! actions {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal, $effect:ident, $scope:ident;)+) => {
        /// One thing that can be done.
        ///
        /// What a caller may do is decided by its role and by this ([`super::authorize`]), never by the path of a route.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Action {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Action {
            /// All there are.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name in the docs and in the log of the process.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }

            /// What it leads to.
            pub const fn effect(self) -> Effect {
                match self {
                    $(Self::$name => Effect::$effect,)+
                }
            }

            /// Whose things it is done to.
            pub const fn scope(self) -> Scope {
                match self {
                    $(Self::$name => Scope::$scope,)+
                }
            }
        }
    };
}

actions! {
    /// Asks whether the server is there and ready.
    Probe = "probe", Reads, Server;

    /// Makes a sandbox, also from a template.
    SandboxCreate = "sandbox.create", MakesMore, Tenant;
    /// Lists sandboxes.
    SandboxList = "sandbox.list", Reads, Tenant;
    /// Destroys the expired ones.
    SandboxPrune = "sandbox.prune", MakesRoom, Tenant;
    /// Asks whether a sandbox would be admitted.
    SandboxAdmission = "sandbox.admission", Reads, Tenant;
    /// Looks at one sandbox.
    SandboxRead = "sandbox.read", Reads, Tenant;
    /// Ends it.
    SandboxDestroy = "sandbox.destroy", MakesRoom, Tenant;
    /// Gives it more time.
    SandboxExtend = "sandbox.extend", MakesMore, Tenant;
    /// Erases what was recorded of it.
    SandboxErase = "sandbox.erase", MakesRoom, Tenant;
    /// Reads its log lines.
    SandboxLogs = "sandbox.logs", Reads, Tenant;
    /// Reads how much it uses.
    SandboxStats = "sandbox.stats", Reads, Tenant;
    /// Reads what happened in it, in short.
    SandboxTimeline = "sandbox.timeline", Reads, Tenant;
    /// Plays back what happened in it, over a WebSocket.
    SandboxReplay = "sandbox.replay", Reads, Tenant;

    /// Runs a command.
    ExecRun = "exec.run", MakesMore, Tenant;
    /// Runs a command over a WebSocket.
    ExecConverse = "exec.converse", MakesMore, Tenant;
    /// Lists the execs of a sandbox.
    ExecList = "exec.list", Reads, Tenant;
    /// Looks at one exec.
    ExecRead = "exec.read", Reads, Tenant;
    /// Ends it.
    ExecKill = "exec.kill", MakesRoom, Tenant;
    /// Watches it over a WebSocket. Typing into it is [`Action::ExecInput`].
    ExecAttach = "exec.attach", Reads, Tenant;
    /// Reads its output.
    ExecOutput = "exec.output", Reads, Tenant;
    /// Follows its output.
    ExecStream = "exec.stream", Reads, Tenant;
    /// Reads it as the recording of a terminal.
    ExecRecording = "exec.recording", Reads, Tenant;
    /// Sends it a signal.
    ExecSignal = "exec.signal", MakesRoom, Tenant;
    /// Writes to its standard input, or types into its terminal.
    ExecInput = "exec.input", MakesMore, Tenant;
    /// Says how large its terminal is.
    ExecResize = "exec.resize", MakesMore, Tenant;
    /// Lists the links with which others may watch it.
    ViewerList = "viewer.list", Reads, Tenant;
    /// Makes such a link.
    ViewerShare = "viewer.share", MakesMore, Tenant;
    /// Revokes one.
    ViewerRevoke = "viewer.revoke", MakesRoom, Tenant;

    /// Submits a job, also the same once more.
    JobSubmit = "job.submit", MakesMore, Tenant;
    /// Lists jobs.
    JobList = "job.list", Reads, Tenant;
    /// Looks at one job, its attempts and what happened to it.
    JobRead = "job.read", Reads, Tenant;
    /// Reads what it wrote.
    JobOutput = "job.output", Reads, Tenant;
    /// Asks for its end.
    JobCancel = "job.cancel", MakesRoom, Tenant;

    /// Reads a file, a directory, or what a file is.
    FileRead = "file.read", Reads, Tenant;
    /// Writes, moves or changes a file.
    FileWrite = "file.write", MakesMore, Tenant;
    /// Removes a file.
    FileDelete = "file.delete", MakesRoom, Tenant;

    /// Lists and reads the files that a job left.
    JobArtifacts = "job.artifacts", Reads, Tenant;

    /// Looks at templates.
    TemplateRead = "template.read", Reads, Tenant;
    /// Makes or changes one.
    TemplateSave = "template.save", MakesMore, Tenant;
    /// Removes one.
    TemplateDelete = "template.delete", MakesRoom, Tenant;

    /// Looks at webhooks.
    WebhookRead = "webhook.read", Reads, Tenant;
    /// Makes or changes one.
    WebhookSave = "webhook.save", MakesMore, Tenant;
    /// Removes one.
    WebhookDelete = "webhook.delete", MakesRoom, Tenant;
    /// Has one deliver something again, or a test.
    WebhookDeliver = "webhook.deliver", MakesMore, Tenant;

    /// Looks at schedules.
    ScheduleRead = "schedule.read", Reads, Tenant;
    /// Makes, changes or resumes one.
    ScheduleSave = "schedule.save", MakesMore, Tenant;
    /// Removes one.
    ScheduleDelete = "schedule.delete", MakesRoom, Tenant;
    /// Has nothing of one be due for a while.
    SchedulePause = "schedule.pause", MakesRoom, Tenant;
    /// Has the job of one submitted at once.
    ScheduleTrigger = "schedule.trigger", MakesMore, Tenant;

    /// Reads the log as it grows.
    EventFollow = "event.follow", Reads, Tenant;
    /// Reads the log as it grows, over a WebSocket.
    EventStream = "event.stream", Reads, Tenant;
    /// Searches the log.
    AuditList = "audit.list", Reads, Tenant;
    /// Takes the log as a file.
    AuditExport = "audit.export", Reads, Tenant;
    /// Checks that nothing in the log was changed.
    AuditVerify = "audit.verify", Reads, Tenant;
    /// Reads its signed checkpoints.
    AuditCheckpoints = "audit.checkpoints", Reads, Tenant;
    /// Buys a ticket for a WebSocket. It opens no more than the key that buys it.
    TicketIssue = "ticket.issue", Reads, Tenant;

    /// Looks at providers, the pool and snapshots.
    ProviderRead = "provider.read", Reads, Tenant;
    /// Reads what the tenant may use and uses.
    QuotaRead = "quota.read", Reads, Tenant;
    /// Reads a few numbers: the tenant's own, and those of the deployment for whoever may see them.
    MetricsRead = "metrics.read", Reads, Tenant;
    /// Reads numbers of all tenants together.
    DeploymentRead = "deployment.read", Reads, Deployment;
    /// Reads how busy the machine is.
    HostRead = "host.read", Reads, Host;
}

impl Action {
    /// Whether it reads the log, which is kept of each tenant apart and can be read over all of them by who may.
    pub const fn reads_log(self) -> bool {
        matches!(
            self,
            Self::EventFollow
                | Self::EventStream
                | Self::AuditList
                | Self::AuditExport
                | Self::AuditVerify
                | Self::AuditCheckpoints
        )
    }

    /// Whether it looks through much of the record before it answers, and so waits for its turn.
    pub const fn reads_much(self) -> bool {
        matches!(
            self,
            Self::AuditList
                | Self::AuditCheckpoints
                | Self::SandboxTimeline
                | Self::SandboxLogs
                | Self::ExecList
                | Self::JobList
        )
    }

    /// Whether it opens a WebSocket, for which a ticket is as good as a key. Anywhere else a ticket is nothing.
    pub const fn takes_tickets(self) -> bool {
        matches!(self, Self::ExecConverse | Self::SandboxReplay | Self::ExecAttach | Self::EventStream)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_action_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
        assert_eq!(names.len(), Action::ALL.len());
    }

    #[test]
    fn what_needs_no_recording_changes_nothing() {
        for action in Action::ALL {
            let special = action.reads_log() || action.reads_much() || action.scope() != Scope::Tenant;
            assert!(!special || action.effect() == Effect::Reads, "{action}");
        }
    }
}
