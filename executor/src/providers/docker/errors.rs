use bollard::errors::Error;

use crate::provider::{CreateError, DestroyError};
use crate::shortage::is_said_in;

/// What the engine means by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It did not answer, or not in HTTP.
    Unreachable,
    /// There is no such image.
    NoSuchImage,
    /// There is no such network.
    NoSuchNetwork,
    /// There is no such container.
    NoSuchContainer,
    /// The name is taken, or the container is being removed already.
    Conflict,
    /// It has no such runtime.
    NoSuchRuntime,
    /// Something of the image stands where the agent goes.
    InTheWay,
    /// The request makes no sense.
    BadRequest,
    /// The machine of the engine ran out of something.
    Shortage,
    /// Anything else.
    Other,
}

/// Statuses are not enough: the engine's 404 does not say in a field what it did not find.
#[expect(clippy::wildcard_enum_match_arm, reason = "which variants bollard has depends on its features")]
pub(super) fn meaning(error: &Error) -> Meaning {
    let (status, message) = match error {
        Error::DockerResponseServerError { status_code, message } => {
            (*status_code, message.to_ascii_lowercase())
        }
        Error::IOError { .. }
        | Error::HyperResponseError { .. }
        | Error::HyperLegacyError { .. }
        | Error::RequestTimeoutError
        | Error::SocketNotFoundError(_) => return Meaning::Unreachable,
        _ => return Meaning::Other,
    };
    match status {
        // Whatever else it says, and whatever it calls it.
        _ if is_said_in(&message) => Meaning::Shortage,
        404 if message.contains("network") => Meaning::NoSuchNetwork,
        404 if message.contains("image") => Meaning::NoSuchImage,
        404 => Meaning::NoSuchContainer,
        409 => Meaning::Conflict,
        // Not any "unknown" beside any "runtime": what the runtime itself could not do is told in such words too.
        400 | 500
            if message.contains("unknown runtime") || message.contains("unknown or invalid runtime") =>
        {
            Meaning::NoSuchRuntime
        }
        400 | 500 if message.contains("to rootfs at \"/.stacyvm") => Meaning::InTheWay,
        400 => Meaning::BadRequest,
        _ => Meaning::Other,
    }
}

/// The error of a `create` that nothing more can be done about.
pub(super) fn create_error(error: Error, runtime: Option<&str>, image: &str) -> CreateError {
    match meaning(&error) {
        Meaning::Unreachable | Meaning::Shortage => CreateError::Unavailable(Box::new(error)),
        Meaning::NoSuchRuntime => {
            CreateError::Unsupported { what: format!("runtime {:?}", runtime.unwrap_or("the default")) }
        }
        Meaning::InTheWay => CreateError::Invalid {
            reason: "the image has something else at /.stacyvm, where the agent goes".to_owned(),
        },
        Meaning::BadRequest => CreateError::Invalid { reason: reason(&error, image) },
        Meaning::NoSuchImage
        | Meaning::NoSuchNetwork
        | Meaning::NoSuchContainer
        | Meaning::Conflict
        | Meaning::Other => CreateError::here(error),
    }
}

/// The error of a `destroy` that nothing more can be done about.
pub(super) fn destroy_error(error: Error) -> DestroyError {
    match meaning(&error) {
        Meaning::Unreachable | Meaning::Shortage => DestroyError::Unavailable(Box::new(error)),
        Meaning::NoSuchImage
        | Meaning::NoSuchNetwork
        | Meaning::NoSuchContainer
        | Meaning::NoSuchRuntime
        | Meaning::Conflict
        | Meaning::InTheWay
        | Meaning::BadRequest
        | Meaning::Other => DestroyError::Failed(Box::new(error)),
    }
}

/// A bad request in words for the client. The engine's text may name paths of the host, so only what is known to be
/// about the request itself gets out.
fn reason(error: &Error, image: &str) -> String {
    let Error::DockerResponseServerError { message, .. } = error else {
        return "the request is not valid".to_owned();
    };
    if message.contains("invalid reference format") || message.contains("must be lowercase") {
        format!("the image name {image:?} is not valid")
    } else if message.contains("memory limit") {
        "the memory limit is too low".to_owned()
    } else {
        "the engine refused the request".to_owned()
    }
}
