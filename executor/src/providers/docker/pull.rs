use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt;
use tokio::sync::watch;

use crate::provider::{CreateError, Pull, PullCause, PullProgress};
use crate::shortage::is_said_in;

/// How long a pull may make no progress at all.
const STALL: Duration = Duration::from_secs(120);

/// The pulls under way: one for an image, however many wait for it.
#[derive(Default)]
pub(super) struct Pulls {
    running: Mutex<HashMap<String, watch::Receiver<State>>>,
}

#[derive(Debug, Clone, Default)]
struct State {
    fetched_bytes: u64,
    total_bytes: u64,
    outcome: Option<Result<(), Arc<PullFailure>>>,
}

#[derive(Debug, thiserror::Error)]
enum PullFailure {
    #[error("the engine could not pull the image")]
    Engine(#[source] Error),
    #[error("the pull made no progress for {} seconds", STALL.as_secs())]
    Stalled,
    #[error("the pull was given up")]
    Dropped,
}

impl Pulls {
    /// Pulls the image, or waits for the pull that is under way. The pull goes on when this is dropped.
    pub(super) async fn pull(
        self: &Arc<Self>,
        engine: &Docker,
        image: &str,
        progress: &dyn PullProgress,
    ) -> Result<(), CreateError> {
        let mut state = self.join(engine, image);
        loop {
            let seen = state.borrow_and_update().clone();
            if let Some(outcome) = seen.outcome {
                return outcome.map_err(|failure| create_error(image, failure));
            }
            progress.pulling(&Pull {
                image: image.to_owned(),
                fetched_bytes: seen.fetched_bytes,
                total_bytes: seen.total_bytes,
            });
            if state.changed().await.is_err() {
                return Err(create_error(image, Arc::new(PullFailure::Dropped)));
            }
        }
    }

    fn join(self: &Arc<Self>, engine: &Docker, image: &str) -> watch::Receiver<State> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = running.get(image) {
            return state.clone();
        }
        let (sender, receiver) = watch::channel(State::default());
        running.insert(image.to_owned(), receiver.clone());
        let (pulls, engine, image) = (Arc::clone(self), engine.clone(), image.to_owned());
        tokio::spawn(async move {
            let outcome = fetch(&engine, &image, &sender).await.map_err(Arc::new);
            // Out of the map first: whoever comes now starts anew and does not read an old outcome.
            pulls.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&image);
            sender.send_modify(|state| state.outcome = Some(outcome));
        });
        receiver
    }
}

async fn fetch(engine: &Docker, image: &str, state: &watch::Sender<State>) -> Result<(), PullFailure> {
    let options = CreateImageOptionsBuilder::new().from_image(image).build();
    let mut messages = engine.create_image(Some(options), None, None);
    let mut layers = Layers::default();
    loop {
        match tokio::time::timeout(STALL, messages.next()).await {
            Err(_) => return Err(PullFailure::Stalled),
            Ok(None) => return Ok(()),
            Ok(Some(Err(error))) => return Err(PullFailure::Engine(error)),
            Ok(Some(Ok(message))) => {
                if layers.note(&message) {
                    let (fetched_bytes, total_bytes) = layers.sum();
                    state.send_modify(|state| {
                        state.fetched_bytes = fetched_bytes;
                        state.total_bytes = total_bytes;
                    });
                }
            }
        }
    }
}

/// Bytes fetched and bytes in all, by layer.
#[derive(Default)]
struct Layers(HashMap<String, (u64, u64)>);

impl Layers {
    /// Whether the message changed a sum.
    fn note(&mut self, message: &CreateImageInfo) -> bool {
        let (Some(layer), Some(status)) = (&message.id, &message.status) else {
            return false;
        };
        match status.as_str() {
            "Downloading" => {
                let Some(detail) = &message.progress_detail else {
                    return false;
                };
                let current = detail.current.unwrap_or_default().try_into().unwrap_or_default();
                let total = detail.total.unwrap_or_default().try_into().unwrap_or_default();
                self.0.insert(layer.clone(), (current, u64::max(total, current)));
                true
            }
            "Download complete" => match self.0.get_mut(layer) {
                Some((current, total)) => {
                    *current = *total;
                    true
                }
                None => false,
            },
            _ => false,
        }
    }

    fn sum(&self) -> (u64, u64) {
        self.0.values().fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1))
    }
}

fn create_error(image: &str, failure: Arc<PullFailure>) -> CreateError {
    let message = match &*failure {
        PullFailure::Engine(Error::DockerResponseServerError { message, .. }) => message.to_ascii_lowercase(),
        PullFailure::Engine(Error::DockerStreamError { error }) => error.to_ascii_lowercase(),
        PullFailure::Engine(_) | PullFailure::Stalled | PullFailure::Dropped => String::new(),
    };
    if is_said_in(&message) {
        return CreateError::Unavailable(Box::new(failure));
    }
    let image = image.to_owned();
    match cause(&failure, &message) {
        cause @ (PullCause::NotHere | PullCause::NoSuchTag | PullCause::NoSuchRepository) => {
            CreateError::ImageNotFound { image, cause, source: Some(Box::new(failure)) }
        }
        cause @ (PullCause::Unauthorized
        | PullCause::UnknownHost
        | PullCause::NotPublic
        | PullCause::Broken
        | PullCause::Refused
        | PullCause::NoRoute
        | PullCause::TimedOut
        | PullCause::Tls
        | PullCause::RateLimited
        | PullCause::OtherPlatform
        | PullCause::Other) => CreateError::ImagePullFailed { image, cause, source: Box::new(failure) },
    }
}

/// What engines say, in lower case; the first that is in a message counts. There is no field that would say it.
const SAYINGS: &[(&str, PullCause)] = &[
    // Whatever form the rest of the answer has.
    ("toomanyrequests", PullCause::RateLimited),
    ("too many requests", PullCause::RateLimited),
    ("http 429", PullCause::RateLimited),
    ("verification failed", PullCause::Broken),
    ("unexpected eof", PullCause::Broken),
    ("unexpected end of json", PullCause::Broken),
    ("invalid character", PullCause::Broken),
    ("invalid checksum digest", PullCause::Broken),
    ("invalid tar header", PullCause::Broken),
    ("empty content-type", PullCause::Broken),
    ("unsupported manifest media type", PullCause::Broken),
    ("gzip: invalid", PullCause::Broken),
    ("no such host", PullCause::UnknownHost),
    ("server misbehaving", PullCause::UnknownHost),
    ("name resolution", PullCause::UnknownHost),
    ("name or service not known", PullCause::UnknownHost),
    ("lookup ", PullCause::UnknownHost),
    ("x509:", PullCause::Tls),
    ("tls: ", PullCause::Tls),
    ("http response to https client", PullCause::Tls),
    ("connection refused", PullCause::Refused),
    ("no route to host", PullCause::NoRoute),
    ("network is unreachable", PullCause::NoRoute),
    ("tls handshake timeout", PullCause::TimedOut),
    ("i/o timeout", PullCause::TimedOut),
    ("deadline exceeded", PullCause::TimedOut),
    ("request canceled", PullCause::TimedOut),
    ("timed out", PullCause::TimedOut),
    // A registry that hides what one may not see says "denied" of what does not exist.
    ("pull access denied", PullCause::NoSuchRepository),
    ("name unknown", PullCause::NoSuchRepository),
    ("repository name not known", PullCause::NoSuchRepository),
    ("no basic auth credentials", PullCause::Unauthorized),
    ("unauthorized", PullCause::Unauthorized),
    ("authentication required", PullCause::Unauthorized),
    ("denied", PullCause::Unauthorized),
    ("no matching manifest", PullCause::OtherPlatform),
    ("does not match the specified platform", PullCause::OtherPlatform),
    ("manifest unknown", PullCause::NoSuchTag),
    ("manifest for ", PullCause::NoSuchTag),
    ("no such image", PullCause::NoSuchTag),
    ("not found", PullCause::NoSuchTag),
];

fn cause(failure: &PullFailure, message: &str) -> PullCause {
    if matches!(failure, PullFailure::Stalled) {
        return PullCause::TimedOut;
    }
    let saying = SAYINGS.iter().find(|(saying, _)| message.contains(saying));
    saying.map_or(PullCause::Other, |(_, cause)| *cause)
}
