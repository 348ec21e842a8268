//! How messages travel: commands and events on NATS JetStream; announcements, signs of life, questions to the record, and the
//! link between a gateway and an executor on core NATS.
//!
//! This is the one crate that sees NATS. It knows nothing of databases: what the record is asked, the recorder answers.

mod announce;
mod file_mode;
#[doc(hidden)]
pub mod fuzzing;
mod link;
mod log;
mod query;

pub use announce::{Announcement, Announcements, Announcer, RecorderLag};
pub use file_mode::{ModeChange, NotAModeChange};
pub use link::{
    ByteRange, CollectedLine, FaultCode, FileEntry, LinkClient, LinkError, LinkFault, LinkIncoming, LinkOp,
    LinkRequest, LinkServer, LinkStream, LinkValue, SandboxStats, Taken,
};
pub use log::{
    CommandConsumer, ConnectError, ConsumeError, CursorError, Delivery, Destination, EventSource,
    ExecProgress, Heartbeat, Heartbeats, Lease, ListenError, Log, Machine, NatsAccess, NatsConfig,
    PendingPublish, ProbeError, ProbeFailure, ProgressNews, ProviderHealth, PublishError, SealedError,
    SourceError, SourceMessage, StoredCursor, StreamPlace, TransportTrouble,
};
pub use query::{Answer, Asker, Query, QueryError, QueryRequests, SANDBOXES_A_PAGE, SandboxRecord};
