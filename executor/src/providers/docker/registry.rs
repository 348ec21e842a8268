//! Which image the engine is asked for, and whether it may connect to where that comes from.

use std::time::Duration;

use policy::{AddressPolicy, ImageName, Standing};

use super::DockerProvider;
use crate::provider::{BoxOrder, CreateError, Pull, PullCause, PullProgress, Source};

/// How long the resolver may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An image as the engine is asked for it.
pub(super) struct Chosen {
    /// What the engine is told: a name that it has nothing to add to, and can take for no id.
    pub(super) name: String,
    /// The registry that it may only connect to at public addresses, and whether that holds too if the image is here.
    guarded: Option<(ImageName, bool)>,
}

/// Why the registry is not connected to. For the log: a client is not told which of them it is.
#[derive(Debug, thiserror::Error)]
enum Unsafe {
    #[error("the registry's name cannot be resolved")]
    Unresolved(#[source] std::io::Error),
    #[error("the resolver does not answer")]
    Silent,
    #[error("the registry is at {0}, which is not public, and images.allow does not list the image")]
    Inside(std::net::IpAddr),
}

impl DockerProvider {
    /// What the engine is asked for, if the tenant may have it.
    pub(super) fn chosen(&self, order: &BoxOrder) -> Result<Chosen, CreateError> {
        let asked = &order.spec.image;
        let name = asked.parse::<ImageName>();
        if let Some(image) = self.alias(asked, name.as_ref().ok()) {
            // The operator's word: whatever it names, an id too.
            let name = image.parse::<ImageName>().map_or_else(|_| image.to_owned(), |name| name.to_string());
            return Ok(Chosen { name, guarded: None });
        }
        let invalid = |error: &dyn std::fmt::Display| CreateError::Invalid {
            reason: format!("image {asked:?} {error}"),
        };
        let name = name.map_err(|error| invalid(&error))?;
        let standing = self.config.images.judge(&order.tenant, &name).map_err(|error| invalid(&error))?;
        let written = name.to_string();
        let guarded = match standing {
            Standing::Listed => None,
            // Whoever runs the engine says where that is.
            Standing::Public { .. } if name.is_in_default_registry() => None,
            Standing::Public { always } => Some((name, always)),
        };
        Ok(Chosen { name: written, guarded })
    }

    /// However either of them is written.
    fn alias(&self, asked: &str, name: Option<&ImageName>) -> Option<&str> {
        let aliases = &self.config.image_aliases;
        let same = |alias: &str| {
            let alias = alias.parse::<ImageName>().ok();
            alias.zip(name).is_some_and(|(alias, name)| alias.to_string() == name.to_string())
        };
        let found = aliases
            .get(asked)
            .or_else(|| aliases.iter().find(|(alias, _)| same(alias)).map(|(_, image)| image));
        found.map(String::as_str)
    }
}

impl Chosen {
    /// To be asked before an image is used that may be here.
    pub(super) async fn check_use(&self) -> Result<(), CreateError> {
        match &self.guarded {
            Some((name, true)) => self.check(name).await,
            Some((_, false)) | None => Ok(()),
        }
    }

    /// To be asked before the engine is told to pull.
    pub(super) async fn check_pull(&self) -> Result<(), CreateError> {
        match &self.guarded {
            Some((name, _)) => self.check(name).await,
            None => Ok(()),
        }
    }

    /// The engine resolves the name once more, so this is no proof against a name that changes; docs/security.md says what is.
    async fn check(&self, name: &ImageName) -> Result<(), CreateError> {
        let refused = |why: Unsafe| CreateError::ImagePullFailed {
            image: self.name.clone(),
            cause: PullCause::NotPublic,
            source: Source::from(why),
        };
        let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name.host(), name.port()))).await;
        let found = found.map_err(|_| refused(Unsafe::Silent))?;
        let mut found = found.map_err(|error| refused(Unsafe::Unresolved(error)))?;
        // The engine takes whichever it likes, so one that is inside is one too many.
        match found.find(|address| !AddressPolicy::default().permits(address.ip())) {
            Some(address) => Err(refused(Unsafe::Inside(address.ip()))),
            None => Ok(()),
        }
    }
}

/// Errors and progress say what the client called the image.
pub(super) fn as_asked(error: CreateError, asked: &str) -> CreateError {
    let image = asked.to_owned();
    match error {
        CreateError::ImageNotFound { cause, source, .. } => {
            CreateError::ImageNotFound { image, cause, source }
        }
        CreateError::ImagePullFailed { cause, source, .. } => {
            CreateError::ImagePullFailed { image, cause, source }
        }
        other @ (CreateError::Unsupported { .. }
        | CreateError::Invalid { .. }
        | CreateError::Unavailable(_)
        | CreateError::AgentUnreachable(_)
        | CreateError::DeadlinePassed
        | CreateError::Failed(_)) => other,
    }
}

/// See [`as_asked`].
pub(super) struct ProgressAsAsked<'a> {
    pub(super) progress: &'a dyn PullProgress,
    pub(super) asked: &'a str,
}

impl PullProgress for ProgressAsAsked<'_> {
    fn pulling(&self, pull: &Pull) {
        self.progress.pulling(&Pull { image: self.asked.to_owned(), ..*pull });
    }
}
