//! The streams, and the proof that the server took them as they were meant.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use chrono::{DateTime, Utc};

use super::{ConnectError, Log};

/// Below this, acknowledged writes can be lost and newer options are dropped in silence.
const FLOOR: &str = "2.12.7";
/// How long the server remembers message ids. A producer gives up re-sending one message long before.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// How long it is remembered that a one-time thing may be used.
const SPENT_MEMORY: Duration = Duration::from_secs(120);

/// How many bytes of sealed values of jobs are kept, until the jobs have ended. A job has less than 2 MiB of them.
const MAX_SEALED_BYTES: i64 = 512 << 20;

/// How long is waited for the server to say what time it is.
const CLOCK_PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn check_version(version: &str) -> Result<(), ConnectError> {
    let parse = |text: &str| {
        let core = text.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = core.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    };
    if parse(version) >= parse(FLOOR) {
        Ok(())
    } else {
        Err(ConnectError::TooOld { found: version.to_owned(), floor: FLOOR })
    }
}

impl Log {
    /// What time the server says it is. `None`: it does not answer.
    pub async fn clock(&self) -> Option<DateTime<Utc>> {
        #[derive(serde::Deserialize)]
        struct Answer {
            ts: DateTime<Utc>,
        }
        let subject = format!("$JS.API.STREAM.INFO.{}", self.subjects().spent_stream());
        let asked = self.client().request(subject, Vec::new().into());
        let answer = tokio::time::timeout(CLOCK_PATIENCE, asked).await.ok()?.ok()?;
        serde_json::from_slice::<Answer>(&answer.payload).ok().map(|answer| answer.ts)
    }

    /// Creates the streams that are missing, and refuses a server that changed what was asked for. Says which stream of
    /// events is there: see [`incarnation`].
    pub(super) async fn ensure_streams(&self) -> Result<String, ConnectError> {
        let base = Config {
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            num_replicas: self.config.replicas,
            duplicate_window: DUPLICATE_WINDOW,
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            max_message_size: -1,
            ..Config::default()
        };
        let subjects = self.subjects();
        let streams = [
            Config {
                name: subjects.commands_stream(),
                subjects: vec![subjects.commands()],
                retention: RetentionPolicy::WorkQueue,
                max_bytes: self.config.max_commands_bytes,
                ..base.clone()
            },
            Config {
                name: subjects.events_stream(),
                subjects: vec![subjects.events()],
                retention: RetentionPolicy::Limits,
                max_bytes: self.config.max_events_bytes,
                ..base.clone()
            },
            // Limits retention and the oldest go first: it is there to be looked at, never to hold anybody up.
            Config {
                name: subjects.dead_stream(),
                subjects: vec![subjects.dead()],
                retention: RetentionPolicy::Limits,
                discard: DiscardPolicy::Old,
                max_bytes: 64 << 20,
                max_age: Duration::from_secs(14 * 24 * 3600),
                ..base.clone()
            },
            // One message a job that has not ended. Full, it refuses: what a job needs is never pushed out by another's.
            Config {
                name: subjects.sealed_stream(),
                subjects: vec![subjects.sealed()],
                retention: RetentionPolicy::Limits,
                max_bytes: MAX_SEALED_BYTES,
                max_message_size: 2 << 20,
                ..base.clone()
            },
            // One message a thing that may be used once, and one when it was. In memory: what is lost was not used, and is
            // worth nothing minutes later.
            Config {
                name: subjects.spent_stream(),
                subjects: vec![subjects.spent()],
                storage: StorageType::Memory,
                retention: RetentionPolicy::Limits,
                max_bytes: 16 << 20,
                max_age: SPENT_MEMORY,
                duplicate_window: SPENT_MEMORY,
                ..base
            },
        ];
        let mut events = String::new();
        for wanted in streams {
            let name = wanted.name.clone();
            let stream = self
                .jetstream
                .get_or_create_stream(wanted.clone())
                .await
                .map_err(|error| ConnectError::Stream { stream: name.clone(), source: error.into() })?;
            check_config(&wanted, &stream.cached_info().config)?;
            if name == subjects.events_stream() {
                events = incarnation(stream.cached_info());
            }
        }
        Ok(events)
    }
}

/// What tells a stream from one of the same name that was there before.
pub(super) fn incarnation(info: &Info) -> String {
    info.created.unix_timestamp_nanos().to_string()
}

fn check_config(wanted: &Config, found: &Config) -> Result<(), ConnectError> {
    type Option = (&'static str, fn(&Config) -> String);
    let options: [Option; 5] = [
        ("storage", |config| format!("{:?}", config.storage)),
        ("retention", |config| format!("{:?}", config.retention)),
        ("discard", |config| format!("{:?}", config.discard)),
        ("subjects", |config| format!("{:?}", config.subjects)),
        ("duplicate_window", |config| format!("{:?}", config.duplicate_window)),
    ];
    for (option, read) in options {
        let (wanted_value, found_value) = (read(wanted), read(found));
        if wanted_value != found_value {
            return Err(ConnectError::Config {
                stream: wanted.name.clone(),
                option,
                found: found_value,
                wanted: wanted_value,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_below_the_floor_is_refused() {
        for version in ["2.9.10", "2.12.6", "1.0", "", "rubbish"] {
            assert!(matches!(check_version(version), Err(ConnectError::TooOld { .. })), "{version}");
        }
        for version in ["2.12.7", "2.14.0", "2.15.1", "2.15.0-RC.1", "3.0.0"] {
            assert!(check_version(version).is_ok(), "{version}");
        }
    }

    #[test]
    fn an_option_that_the_server_changed_is_named() {
        let wanted = Config { name: "X".to_owned(), discard: DiscardPolicy::New, ..Config::default() };
        let found = Config { discard: DiscardPolicy::Old, ..wanted.clone() };
        let error = check_config(&wanted, &found).unwrap_err();
        assert!(error.to_string().contains("stream X has discard = Old where New is needed"), "{error}");
    }
}
