//! The system calls that a box may make.
//!
//! One table ([`syscalls`]) gives the profile for the Docker engine and the filter for bubblewrap. It is an
//! allow-list in the manner of the engine's own default for a container without capabilities, and tighter in these
//! places, each of which was a way out or a way around once:
//!
//! - sockets are unix, IPv4, IPv6 and netlink only: no `AF_ALG` (CVE-2026-31431), no `AF_VSOCK`;
//! - no `io_uring`, which opens sockets without passing this filter;
//! - no user namespaces and no `clone3`, whose flags a filter cannot see (it fails with `ENOSYS`, so that libc falls
//!   back to `clone`);
//! - the native ABI only: 32-bit `socketcall` hides its arguments from a filter.

mod filter;
mod profile;
mod syscalls;

pub(crate) use filter::filter;
pub(crate) use profile::profile;
