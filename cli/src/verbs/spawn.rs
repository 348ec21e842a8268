//! `stacyvm spawn`, and the making of sandboxes for `stacyvm run`.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use client::{
    Client, EventStream, EventUpdate, EventsQuery, FeedEvent, IdempotencyKey, Sandbox, SpawnRequest,
};
use serde_json::Value;

use super::arguments::EnvPair;
use super::command::map;
use super::error::VerbError;
use super::signals::Signals;
use crate::output::{self, Format, PullBar};

/// How long a server may be away while it is asked for a sandbox.
const RETRY: Duration = Duration::from_secs(30);
/// How long a destroy is tried while the server does not answer.
const DESTROY_PATIENCE: Duration = Duration::from_secs(15);
/// The feed shows progress; a spawn does not wait for it.
const FEED_WAIT: Duration = Duration::from_secs(2);

/// What a sandbox shall be.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SandboxArgs {
    /// Box-maker: docker, bubblewrap [default: the server's].
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// Memory limit in MiB, or with a unit: 512m, 2g.
    #[arg(long, value_name = "SIZE", value_parser = memory_mib)]
    pub memory: Option<u32>,
    /// CPU limit; parts of a CPU are allowed.
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<f64>,
    /// Time to live: 30m, 1h30m.
    #[arg(long, value_name = "DURATION")]
    pub ttl: Option<String>,
    /// none or bridge.
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<String>,
    /// Label; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<EnvPair>,
}

/// Make a sandbox and print its id.
#[derive(Debug, Clone, clap::Args)]
pub struct SpawnArgs {
    /// Image. A template's own image wins over it.
    #[arg(required_unless_present = "template")]
    pub image: Option<String>,
    /// Template with the defaults.
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
    /// Environment variable for every command in it; NAME alone takes the value that it has here. May be repeated.
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<EnvPair>,
    /// The same for a secret: its value is masked in all that is recorded. NAME alone keeps it out of the command line.
    #[arg(long, value_name = "NAME=VALUE")]
    pub secret: Vec<EnvPair>,
    #[command(flatten)]
    pub sandbox: SandboxArgs,
}

/// The request that the command line means.
pub fn request(
    image: Option<String>,
    template: Option<String>,
    args: SandboxArgs,
    env: &[EnvPair],
    secrets: &[EnvPair],
) -> SpawnRequest {
    SpawnRequest {
        image,
        template,
        provider: args.provider,
        memory_mb: args.memory,
        vcpus: args.cpus,
        ttl: args.ttl,
        network: args.network,
        metadata: map(&args.label),
        env: map(env).map(Into::into),
        secrets: map(secrets).map(Into::into),
        ..SpawnRequest::default()
    }
}

pub async fn spawn(api: &Client, format: Format, args: SpawnArgs) -> Result<ExitCode, VerbError> {
    let mut signals = Signals::catch().map_err(VerbError::local("cannot catch signals"))?;
    let request = request(args.image, args.template, args.sandbox, &args.env, &args.secret);
    let sandbox = create(api, &request, &mut signals).await?;
    match format {
        Format::Table => output::print(&format!("{}\n", output::plain(&sandbox.id))),
        // All that the server says of it.
        Format::Json => output::print_json(&api.get::<Value>(&["sandboxes", &sandbox.id]).await?),
    }
    .map_err(VerbError::output)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes a sandbox and waits until it runs. Shows the pull of its image. A signal ends the wait and the sandbox.
pub async fn create(
    api: &Client,
    request: &SpawnRequest,
    signals: &mut Signals,
) -> Result<Sandbox, VerbError> {
    let key = IdempotencyKey::new();
    let mut progress = Progress::open(api, &key).await;
    let api = api.with_patience(RETRY);
    let made = api.spawn_as(&key, request);
    tokio::pin!(made);
    let caught = tokio::select! {
        biased;
        caught = signals.next() => caught,
        made = progress.show_while(&mut made) => return Ok(made?),
    };
    // What was asked for will be made, whether we wait or not: it is ours to destroy.
    let ended = tokio::select! {
        biased;
        _ = signals.next() => None,
        made = async {
            tokio::select! {
                id = progress.sandbox_id() => Some(id),
                made = &mut made => made.ok().map(|sandbox| sandbox.id),
            }
        } => Some(made),
    };
    match ended {
        None => output::note("not waited for: the sandbox, if one was made, lives until its time is up"),
        Some(None) => {}
        Some(Some(sandbox)) => give_back(&api, &sandbox, signals).await,
    }
    Err(VerbError::Interrupted(caught.exit_code()))
}

/// Destroys a sandbox of our own on the way out. A signal ends the wait.
pub async fn give_back(api: &Client, sandbox: &str, signals: &mut Signals) {
    let destroyed = tokio::select! {
        biased;
        _ = signals.next() => return output::note(&format!("not waited for: {sandbox} may live until its time is up")),
        destroyed = api.destroy_own(sandbox, DESTROY_PATIENCE) => destroyed,
    };
    if let Err(error) = destroyed {
        output::note(&format!("cannot destroy {sandbox}, it lives until its time is up: {error}"));
    }
}

/// What the feed tells of a sandbox that is being made.
struct Progress {
    feed: Option<EventStream>,
    request: String,
    sandbox: Option<String>,
    bar: PullBar,
}

impl Progress {
    async fn open(api: &Client, key: &IdempotencyKey) -> Self {
        let types = ["sandbox.requested", "sandbox.pulling", "sandbox.running", "sandbox.failed"];
        let query =
            EventsQuery { types: types.map(str::to_owned).to_vec(), follow: true, ..EventsQuery::default() };
        let feed = tokio::time::timeout(FEED_WAIT, api.events(query)).await;
        Self {
            feed: feed.ok().and_then(Result::ok),
            request: key.to_string(),
            sandbox: None,
            bar: PullBar::new(),
        }
    }

    async fn show_while<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => {
                    self.bar.finish();
                    return result;
                }
                event = self.next() => self.take(&event),
            }
        }
    }

    /// The id of the sandbox, once it is known.
    async fn sandbox_id(&mut self) -> String {
        loop {
            if let Some(id) = &self.sandbox {
                return id.clone();
            }
            let event = self.next().await;
            self.take(&event);
        }
    }

    /// Without a feed, there is nothing to tell: progress is a courtesy.
    async fn next(&mut self) -> FeedEvent {
        while let Some(feed) = &mut self.feed {
            match feed.next().await {
                Some(Ok(EventUpdate::Event(event))) => return event,
                Some(Ok(EventUpdate::Interrupted { .. })) => {}
                Some(Err(_)) | None => self.feed = None,
            }
        }
        std::future::pending().await
    }

    fn take(&mut self, event: &FeedEvent) {
        let event = &event.event;
        if event.r#type == "sandbox.requested" && event.request_id.as_deref() == Some(&self.request) {
            self.sandbox.clone_from(&event.sandbox_id);
        }
        if self.sandbox.is_none() || event.sandbox_id != self.sandbox {
            return;
        }
        if event.r#type == "sandbox.pulling" {
            let number = |key: &str| event.data.get(key).and_then(Value::as_u64).unwrap_or(0);
            let image = event.data.get("image").and_then(Value::as_str).unwrap_or_default();
            self.bar.update(image, number("fetched_bytes"), number("total_bytes"));
        } else {
            self.bar.finish();
        }
    }
}

fn memory_mib(text: &str) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, factor) = match lower.trim_end_matches("ib").trim_end_matches('b') {
        number if number.ends_with('g') => (number.trim_end_matches('g'), 1024),
        number => (number.trim_end_matches('m'), 1),
    };
    digits
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "use MiB or a unit: 512, 512m, 2g".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_units() {
        for (text, mib) in
            [("512", 512), ("512m", 512), ("2g", 2048), ("2G", 2048), ("1GiB", 1024), ("64MB", 64)]
        {
            assert_eq!(memory_mib(text), Ok(mib), "{text}");
        }
        for text in ["", "m", "1.5g", "-1", "5t", "99999999g", "gg"] {
            assert!(memory_mib(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_was_said_is_asked_for() {
        let json = |request: &SpawnRequest| serde_json::to_string(request).unwrap();
        let bare = request(Some("alpine".to_owned()), None, SandboxArgs::default(), &[], &[]);
        assert_eq!(json(&bare), r#"{"image":"alpine"}"#);
        let args = SandboxArgs {
            memory: Some(64),
            cpus: Some(0.5),
            label: vec!["a=b".parse().unwrap()],
            ..Default::default()
        };
        let full = request(
            None,
            Some("t".to_owned()),
            args,
            &["X=1".parse().unwrap()],
            &["S=2345".parse().unwrap()],
        );
        assert_eq!(
            json(&full),
            r#"{"memory_mb":64,"vcpus":0.5,"template":"t","metadata":{"a":"b"},"env":{"X":"1"},"secrets":{"S":"2345"}}"#
        );
    }
}
