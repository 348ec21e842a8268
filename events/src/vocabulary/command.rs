//! Commands: what the gateway and the reaper ask of executors.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Actor, DestroyReason, ExecSpec, JobSpec, SandboxSpec, Term};
use crate::{CommandId, ExecId, JobId, RequestId, SandboxId, TenantId};

/// Environment variables: names and secret values. Rides in commands and in what asks for an exec over
/// the link, and never shows its values.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretMap(pub BTreeMap<String, String>);

impl SecretMap {
    /// The values of those of these names that are there.
    pub fn of<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = &'a str> {
        names.iter().filter_map(|name| self.0.get(name)).map(String::as_str)
    }

    /// The names, which may be shown.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

impl fmt::Debug for SecretMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a job knows and the log does not. Sealed under the deployment's master key, it is kept beside the log until the job has
/// ended. Shows no value.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct JobSecrets {
    /// The digest of the request that it came with: of two that ask for the same job only the first is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<String>,
    /// All environment variables of the command.
    #[serde(default)]
    pub env: SecretMap,
    /// What the job is really to do, where what is masked in the event made it something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Box<JobSpec>>,
    /// What the callback gets back untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_token: Option<String>,
    /// What is sent to the callback's address beside it.
    #[serde(default)]
    pub callback_headers: SecretMap,
}

impl JobSecrets {
    /// What the master key seals it for.
    pub const PURPOSE: &'static str = "job";

    /// What it is sealed with, beside the purpose: one job's cannot be put in the place of another's.
    pub fn context(tenant: &TenantId, job: JobId) -> String {
        format!("{tenant}/{job}")
    }

    /// What the job is really to do, where this is what was recorded.
    pub fn spec<'a>(&'a self, recorded: &'a JobSpec) -> &'a JobSpec {
        self.spec.as_deref().unwrap_or(recorded)
    }

    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        let Self { request_digest: _, env, spec, callback_token, callback_headers } = self;
        env.0.is_empty() && spec.is_none() && callback_token.is_none() && callback_headers.0.is_empty()
    }
}

impl fmt::Debug for JobSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobSecrets")
    }
}

/// A command with all that must travel with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandEnvelope {
    /// Unique; a repeated command has the same id, so that it is stored once.
    pub id: CommandId,
    /// Whose wish it is.
    pub tenant: TenantId,
    /// Who asked.
    pub actor: Actor,
    /// The request that it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Which sandbox it is about.
    pub sandbox: SandboxId,
    /// What is asked.
    pub command: Command,
}

/// What is asked of an executor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Command {
    /// Make the sandbox.
    CreateSandbox {
        /// What it shall be.
        spec: SandboxSpec,
        /// The environment of every exec in it.
        #[serde(default)]
        env: SecretMap,
        /// Its deadline, if it runs at the last moment: for executors from before there was a `term`.
        expires_at: DateTime<Utc>,
        /// How long it may wait and live.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        term: Option<Term>,
    },
    /// Run something in it.
    StartExec {
        /// The exec's id: a second start of the same id is the first.
        exec: ExecId,
        /// What to run.
        spec: ExecSpec,
        /// Environment variables, over those of the sandbox.
        #[serde(default)]
        env: SecretMap,
    },
    /// Move its deadline.
    ExtendTtl {
        /// The new deadline.
        expires_at: DateTime<Utc>,
    },
    /// End it.
    DestroySandbox {
        /// The reason.
        reason: DestroyReason,
    },
    /// Say that it never ran, if nobody has begun it: its first command was lost, and no other can be made. It has the id of the
    /// one that it stands for, so that of the two only one is stored.
    AbandonSandbox {
        /// What to say.
        message: String,
    },
}

impl Command {
    /// The verb in the subject.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::CreateSandbox { .. } => "create",
            Self::StartExec { .. } => "exec",
            Self::ExtendTtl { .. } => "extend",
            Self::DestroySandbox { .. } => "destroy",
            Self::AbandonSandbox { .. } => "abandon",
        }
    }
}
