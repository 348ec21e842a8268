//! How many files a process may have open: as many as the system lets us, and the usual number for what we start.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections to agents where nothing limits descriptors, and where hardly any are left.
const MOST: usize = 1 << 20;
const FEWEST: usize = 16;

/// The limit that the process was started with.
static GIVEN: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit of this process to the hard one. Gives the new limit; `None`: there is none.
pub fn raise_descriptor_limit() -> Option<u64> {
    let given = *GIVEN.get_or_init(|| getrlimit(Resource::Nofile));
    let raised = Rlimit { current: given.maximum, maximum: given.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            tracing::warn!(error = %error, "the limit of open files stays as it is");
            given.current
        }
    }
}

/// How many connections to agents a process may have that has so many descriptors, where clients of its own may have half of
/// them. An eighth is left for all else; one tenant has half of these, which is more than the execs that it may have.
pub fn agent_connections(descriptors: Option<u64>) -> usize {
    descriptors.map_or(MOST, |all| usize::try_from(all / 8 * 3).unwrap_or(MOST)).clamp(FEWEST, MOST)
}

/// The limit for a child: programs that use `select` break where there are more than they know of. Only a system call is
/// made, so this may be called between fork and exec.
pub(crate) fn restore(given: Option<Rlimit>) -> rustix::io::Result<()> {
    given.map_or(Ok(()), |given| setrlimit(Resource::Nofile, given))
}

/// What [`restore`] is to be given.
pub(crate) fn given() -> Option<Rlimit> {
    GIVEN.get().copied()
}
