use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// A descriptor whose readiness the runtime watches. It must be in non-blocking mode.
pub type Watched = AsyncFd<OwnedFd>;

#[allow(unsafe_code)]
pub fn watch(descriptor: OwnedFd) -> io::Result<Watched> {
    // SAFETY: an OwnedFd keeps its descriptor open, under the same number, for as long as it lives, and
    // `Watched` gives out only shared references to it.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}
