//! Commands: what the gateway and the reaper ask of executors.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Actor, DestroyReason, ExecSpec, SandboxSpec, Term};
use crate::{CommandId, ExecId, RequestId, SandboxId, TenantId};

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
        /// Why.
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
