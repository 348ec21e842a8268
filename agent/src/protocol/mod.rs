//! What the executor and the agent say to each other.
//!
//! # Connections
//!
//! One connection carries one operation; flow control is the kernel's. Any byte stream will do (a
//! unix socket now, vsock for microVMs). A frame is a 4 byte big-endian length, then a
//! [postcard](https://docs.rs/postcard) message, then the message's raw bytes if its kind has any
//! (output, stdin, file chunks): bytes are never copied through serde. A frame is at most
//! [`MAX_FRAME`] long.
//!
//! Both sides first send [`Hello`]: a range of versions and a set of [`Features`]. The newest version that both speak is
//! spoken; where there is none, both close. A caller that has not met the agent yet waits for its hello, so that it asks for
//! nothing that the agent cannot do. From then on it knows the agent, and sends its [`Request`] at once, so that an operation costs
//! one round trip; it offers no newer version than the one that it sends the request in. The agent's hello comes at once too where
//! its answer may take a while. Garbage closes the connection and nothing else.
//!
//! An agent of version 1 says nothing of features and closes on a caller of version 2, after it has said its own version. So it is
//! known by its word, and called again as one of version 1.
//!
//! ```text
//! caller                              agent
//!   Hello, Request ─────────────────►
//!                  ◄───────────────── Hello, Reply...
//!   Input...       ─────────────────►            (attach streams, uploads)
//!                  ◄───────────────── Reply...
//! ```
//!
//! [`Reply::Refused`] ends any operation; it carries a typed [`Refusal`].
//!
//! | request | replies |
//! |---|---|
//! | `Ping`, `SetDeadline`, `Shutdown`, `SignalExec`, `WriteStdin`, `CloseStdin`, `ResizeExec`, `KillExec`, `CloseOutput`, `SetEnvironment`, `Delete`, `Move`, `Chmod`, `Mkdir` | `Done` |
//! | `Stats` | `Stats` |
//! | `StartExec`, `AttachExec` | `Started`, then `Output`\*, then `Exited` or `Superseded` |
//! | the same, of an exec with a `linger` | where its output stays open, `ExitedOpen`, `Output`\*, `OutputClosed` for `Exited` |
//! | `OpenInput` | `StdinTaken`; the caller sends `Stdin`\*, `CloseStdin`; `StdinTaken`\*, and `Done` for `CloseStdin` |
//! | `ListExecs` | `Execs`\*, `Done` |
//! | `Secrets` | `Secrets` |
//! | `ReadFile` | `File`, `Chunk`\*, `Done` |
//! | `WriteFile` | the caller sends `Chunk`\*, `Commit`; `Written` |
//! | `Stat` | `File` |
//! | `List` | `Entries`\*, `Listed` |
//! | `Glob` | `Paths`\*, `Listed` |
//! | `Search` | `Found`\*, `Searched` |
//! | `ReadBeneath` | `File`, `Chunk`\*, `Done` |
//! | `OpenTcp` | `Connected`, then raw bytes both ways |
//!
//! # Executions
//!
//! The caller chooses the [`ExecId`]. Starting an id twice runs nothing twice: the second start
//! attaches to the first. Each stream is a sequence of bytes counted from 0. The agent keeps every
//! byte until it is acked ([`Input::Ack`]): first in memory, then in a bounded file. When both are
//! full it stops reading, so the process blocks; nothing is dropped. `AttachExec` goes on from any
//! offset that has not been released.
//!
//! The newest attach owns the exec: the older connection gets [`Reply::Superseded`] and is closed,
//! and nothing it still sends has an effect.
//!
//! `Exited` comes after all output. When the main process has ended but something it left behind
//! holds a stream open, the agent waits until the stream closes or has been quiet for 1 s, at most
//! 10 s; later output of such leftovers is read and discarded, so that they do not block or die of
//! it.
//!
//! An exec that was started with a `linger` ends sooner: so long after the main process at the latest. If something holds its
//! output open by then, `ExitedOpen` is said, and what comes is kept and sent as before, until all have closed it, a caller
//! closes it, the sandbox ends, or [`MAX_OPEN_OUTPUTS`] execs have left theirs open after it. Then `OutputClosed` says why, and
//! what is still written is thrown away.
//!
//! Ended execs are remembered: unacked output until it is acked, the outcome for the last 4,096.
//!
//! Stdin is counted in bytes too. The agent takes what it has room for and says so with
//! [`Reply::StdinTaken`]; the caller has at most [`STDIN_WINDOW`] bytes outstanding. A `WriteStdin`
//! with an offset is idempotent: bytes already taken are skipped.
//!
//! # Files
//!
//! Paths are resolved by the agent inside the sandbox; relative ones start at its workspace
//! directory. Writes go to a temporary file beside the target and are renamed over it on `Commit`;
//! a connection that ends earlier leaves nothing. What cannot be renamed over, a mount point such as
//! `/etc/hosts`, is written in place on `Commit`. Parent directories are created. Only regular files are
//! opened, and opening one never waits.

use std::time::Duration;

mod frame;
mod hello;
mod message;
mod refusal;
mod search;
mod version_1;

pub use frame::{FrameError, FrameReader, FrameWriter, decode, decode_as, encode, encode_as};
pub use hello::{Features, Greeting, Hello, Offer, Versions};
pub use message::{
    Attach, ClosedOutput, Entry, ExecEnd, ExecId, ExecOutcome, ExecSummary, FilePart, Input, KillCause, Left,
    Message, OutputEnd, Reply, Request, SecretValues, StartExec, Started, Stats, StatsSource, Stream,
    TerminalSize, WriterId,
};
pub use refusal::{
    AttachRefusal, ExecRefusal, FileErrorKind, FileRefusal, Refusal, StartErrorKind, StartRefusal,
    TunnelRefusal, UnexpectedRefusal,
};
pub use search::{FoundFile, PassedOver, PassedOverReason, Search, Searched};

/// The newest version of the messages that this build speaks. Raised with a release in which a message changes in any way: postcard
/// has no field names on the wire. Version 1 is spoken too, because sandboxes of before an upgrade live on. A message that is new stands
/// last and gets a [`Features`] bit instead, and [`Request::needs`] it. [`crate::EDITION`] is raised in either case.
pub const PROTOCOL_VERSION: u32 = 2;

/// Longest frame either side accepts, in bytes.
pub const MAX_FRAME: usize = 1024 * 1024 + 64 * 1024;

/// Longest run of raw bytes in one message.
pub const MAX_CHUNK: usize = 256 * 1024;

/// Stdin bytes a caller may have outstanding on one attach stream.
pub const STDIN_WINDOW: u64 = 256 * 1024;

/// Execs of one sandbox whose output may be open after their end.
pub const MAX_OPEN_OUTPUTS: usize = 32;

/// Longest time that the end of an exec waits for what it has left running.
pub const MAX_LINGER: Duration = Duration::from_secs(10);

/// Longest path accepted, in bytes (`PATH_MAX`).
pub const MAX_PATH: usize = 4096;

/// Most entries one `List` or `Glob` answers; more are refused. An agent of before that answers so many and says
/// `truncated`.
pub const MAX_LISTED: usize = 100_000;

/// Most bytes of paths in the answer to one `List` or `Glob`; more are refused.
pub const MAX_LISTED_BYTES: usize = 32 * 1024 * 1024;
