//! The envelope of an event, and the closed list of what events are about.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::access::AccessEvent;
use super::audit::{AuditEvent, LogEvent};
use super::exec::ExecEvent;
use super::file::FileEvent;
use super::job::JobEvent;
use super::node::NodeEvent;
use super::sandbox::SandboxEvent;
use super::schedule::ScheduleEvent;
use super::template::TemplateEvent;
use super::webhook::WebhookEvent;
use super::word::Word;
use crate::{ApiKeyId, CommandId, EventId, ExecId, JobId, NodeId, RequestId, SandboxId, TenantId, WebhookId};

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Actor {
    /// A client, by its API key and the user it named.
    Client {
        /// The key; none where authentication is off.
        key: Option<ApiKeyId>,
        /// `X-User-ID`.
        user: Option<String>,
    },
    /// The executor of a node.
    Executor(NodeId),
    /// The reaper.
    Reaper,
    /// The recorder.
    Recorder,
    /// The deliverer of webhooks.
    Webhooks,
    /// The driver of jobs.
    Jobs,
    /// Who submits the jobs of schedules.
    Schedules,
    /// Whoever holds a viewer link, by the link's id.
    Viewer(ApiKeyId),
}

/// A text that names no actor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an actor: {0:?}")]
pub struct UnknownActor(pub String);

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { key, user } => {
                f.write_str("client:")?;
                if let Some(key) = key {
                    write!(f, "{key}")?;
                }
                if let Some(user) = user {
                    write!(f, "/{user}")?;
                }
                Ok(())
            }
            Self::Executor(node) => write!(f, "executor:{node}"),
            Self::Reaper => f.write_str("reaper"),
            Self::Recorder => f.write_str("recorder"),
            Self::Webhooks => f.write_str("webhooks"),
            Self::Jobs => f.write_str("jobs"),
            Self::Schedules => f.write_str("schedules"),
            Self::Viewer(link) => write!(f, "viewer:{link}"),
        }
    }
}

impl FromStr for Actor {
    type Err = UnknownActor;

    fn from_str(text: &str) -> Result<Self, UnknownActor> {
        let unknown = || UnknownActor(text.to_owned());
        if let Some(client) = text.strip_prefix("client:") {
            let (key, user) = match client.split_once('/') {
                Some((key, user)) => (key, Some(user.to_owned())),
                None => (client, None),
            };
            let key = if key.is_empty() { None } else { Some(key.parse().map_err(|_| unknown())?) };
            return Ok(Self::Client { key, user });
        }
        if let Some(node) = text.strip_prefix("executor:") {
            return node.parse().map(Self::Executor).map_err(|_| unknown());
        }
        if let Some(link) = text.strip_prefix("viewer:") {
            return link.parse().map(Self::Viewer).map_err(|_| unknown());
        }
        match text {
            "webhooks" => Ok(Self::Webhooks),
            "jobs" => Ok(Self::Jobs),
            "schedules" => Ok(Self::Schedules),
            "reaper" => Ok(Self::Reaper),
            "recorder" => Ok(Self::Recorder),
            _ => Err(unknown()),
        }
    }
}

impl TryFrom<String> for Actor {
    type Error = UnknownActor;
    fn try_from(text: String) -> Result<Self, UnknownActor> {
        text.parse()
    }
}

impl From<Actor> for String {
    fn from(actor: Actor) -> Self {
        actor.to_string()
    }
}

/// A fact: what happened, to what, when, by whom, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Unique; the same fact published twice has the same id.
    pub id: EventId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which sandbox it is about, if any.
    pub sandbox: Option<SandboxId>,
    /// When it happened, by the clock of who saw it, in microseconds.
    pub time: DateTime<Utc>,
    /// Who did it.
    pub actor: Actor,
    /// The command that it follows from.
    pub cause: Option<CommandId>,
    /// The request that it follows from.
    pub request_id: Option<RequestId>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// What happened.
    pub data: EventData,
}

/// A type of event that this build does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown event type {0:?}")]
pub struct UnknownEventType(pub String);

macro_rules! categories {
    ($($(#[$doc:meta])* $category:ident($events:ident) = $name:literal,)+) => {
        /// What an event is about: the part of its type before the dot.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Category {
            $($(#[$doc])* $category,)+
        }

        impl Category {
            /// As it is written in the names of types and in subjects.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$category => $name,)+
                }
            }

            /// The words of this category.
            pub const fn words(self) -> &'static [Word] {
                match self {
                    $(Self::$category => $events::WORDS,)+
                }
            }
        }

        /// What happened. Each category declares its own words, beside their data.
        #[derive(Debug, Clone, PartialEq)]
        pub enum EventData {
            $($(#[$doc])* $category($events),)+
        }

        impl EventData {
            /// How many types there are.
            const COUNT: usize = 0 $(+ $events::WORDS.len())+;

            /// Every word of the log, category by category.
            pub const WORDS: [Word; Self::COUNT] = {
                let mut all = [Word::plain("", Category::Sandbox); Self::COUNT];
                let mut filled = 0;
                $(
                    let mut next = 0;
                    while next < $events::WORDS.len() {
                        all[filled] = $events::WORDS[next];
                        filled += 1;
                        next += 1;
                    }
                )+
                let _ = filled;
                all
            };

            /// What is always true of events like this.
            pub const fn word(&self) -> &'static Word {
                match self {
                    $(Self::$category(event) => event.word(),)+
                }
            }

            pub(crate) fn data_to_json(&self, into: &mut Vec<u8>) -> serde_json::Result<()> {
                match self {
                    $(Self::$category(event) => event.to_json(into),)+
                }
            }

            pub(crate) fn from_json(type_name: &str, data: &str) -> Result<Self, crate::DecodeError> {
                let category = type_name.split_once('.').map_or(type_name, |(category, _)| category);
                let read = match category {
                    $($name => $events::from_json(type_name, data)?.map(Self::$category),)+
                    _ => None,
                };
                read.ok_or_else(|| UnknownEventType(type_name.to_owned()).into())
            }
        }
    };
}

categories! {
    /// A sandbox: an isolated workspace with a deadline.
    Sandbox(SandboxEvent) = "sandbox",
    /// One run of one command.
    Exec(ExecEvent) = "exec",
    /// A file in a sandbox.
    File(FileEvent) = "file",
    /// A named set of defaults.
    Template(TemplateEvent) = "template",
    /// A machine with an executor.
    Node(NodeEvent) = "node",
    /// Who was let in or turned away.
    Access(AccessEvent) = "access",
    /// What was signed, and by which key.
    Audit(AuditEvent) = "audit",
    /// The log itself.
    Log(LogEvent) = "log",
    /// A reader of the log that is called over HTTP.
    Webhook(WebhookEvent) = "webhook",
    /// A job: a command in a sandbox of its own, with an outcome.
    Job(JobEvent) = "job",
    /// A job, and when it is to be submitted.
    Schedule(ScheduleEvent) = "schedule",
}

impl EventData {
    /// Every name of a type, category by category.
    pub const TYPES: &'static [&'static str] = &{
        let mut names = [""; Self::COUNT];
        let mut next = 0;
        while next < Self::COUNT {
            names[next] = Self::WORDS[next].name;
            next += 1;
        }
        names
    };

    /// The name on the wire.
    pub const fn type_name(&self) -> &'static str {
        self.word().name
    }

    /// What it is about.
    pub const fn category(&self) -> Category {
        self.word().category
    }

    /// The exec that it is about, if any.
    pub const fn exec(&self) -> Option<ExecId> {
        if let Self::Exec(event) = self { Some(event.exec()) } else { None }
    }

    /// The webhook that it is about, if any.
    pub const fn webhook(&self) -> Option<WebhookId> {
        if let Self::Webhook(event) = self { Some(event.webhook()) } else { None }
    }

    /// The job that it is about, if any.
    pub const fn job(&self) -> Option<JobId> {
        if let Self::Job(event) = self { Some(event.job()) } else { None }
    }

    /// The bytes that travel beside the header, if events of this type have such.
    pub const fn body(&self) -> Option<&Bytes> {
        if let Self::Exec(ExecEvent::Output(output)) = self {
            Some(&output.bytes)
        } else if let Self::Exec(ExecEvent::Input(input)) = self {
            Some(&input.bytes)
        } else {
            None
        }
    }

    /// Whether it is the end of an exec.
    pub const fn ends_exec(&self) -> bool {
        if let Self::Exec(event) = self { event.word().ends } else { false }
    }

    /// Whether it is the end of a sandbox.
    pub const fn ends_sandbox(&self) -> bool {
        if let Self::Sandbox(event) = self { event.word().ends } else { false }
    }
}
