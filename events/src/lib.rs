//! The language of StacyVM and the log it is written in.
//!
//! Everything that services say to each other is here: ids, commands, events, the pure folds over them, the transport
//! (NATS JetStream) and the record (Postgres or SQLite). This crate knows nothing of HTTP, of sandbox providers or of
//! the agent; it depends on no other crate of the workspace.

mod address;
pub mod audit;
mod clock;
mod disk;
mod duration;
mod error_chain;
mod feed;
mod file_mode;
mod fold;
#[doc(hidden)]
pub mod fuzzing;
mod ids;
mod images;
mod link;
mod links;
mod log;
mod nearest;
mod query;
pub mod recorder;
mod redaction;
mod secret;
mod steady_clock;
mod store;
mod subjects;
mod usage;
mod view;
mod vocabulary;
mod webhook_secret;
mod webhooks;
mod wire;
mod without_values;

pub use address::{AddressPolicy, NotANetwork};
pub use clock::{Clock, ManualClock, SystemClock};
pub use disk::{DiskFloor, LowDisk};
pub use duration::{DurationError, format_go_duration, parse_go_duration};
pub use error_chain::ErrorChain;
pub use feed::{
    After, Announcer, Feed, FeedError, FeedReader, LogReader, OutputItem, OutputReader, Recorded,
    RecorderLag, RecorderTrouble, Topic,
};
pub use file_mode::{ModeChange, NotAModeChange};
pub use fold::{
    Ending, ExecEnd, ExecState, SandboxPhase, SandboxState, WebhookFailure, WebhookPhase, WebhookState,
};
pub use ids::{
    ApiKeyId, CommandId, EventId, ExecId, IdError, NodeId, Position, RequestId, SandboxId, TenantId,
    WebhookId,
};
pub use images::{
    ImageEntry, ImageEntryError, ImageName, ImageNameError, ImagePolicy, ImageRefusal, ImageRule,
    OtherImages, Standing,
};
pub use link::{
    ByteRange, FaultCode, FileEntry, LinkClient, LinkError, LinkFault, LinkIncoming, LinkOp, LinkRequest,
    LinkServer, LinkStream, LinkValue, ListenError, SandboxStats,
};
pub use links::{Link, Links};
pub use log::{
    CommandConsumer, ConnectError, ConsumeError, Delivery, Destination, EventSource, ExecProgress, Heartbeat,
    Heartbeats, Lease, Log, Machine, NatsAccess, NatsConfig, PendingPublish, ProbeError, ProbeFailure,
    ProgressNews, ProviderHealth, PublishError, SourceError, SourceMessage, TransportTrouble,
};
pub use nearest::nearest;
pub use query::{QueryError, SandboxRecord, serve_queries};
pub use redaction::{
    MAX_SECRETS, MAX_SECRETS_BYTES, MIN_SECRET_BYTES, Redaction, RedactionRuleError, RedactionRules,
    RedactionStream,
};
pub use secret::{MasterKey, MasterKeyError, SealError};
pub use steady_clock::{SETTLING, SteadyClock};
pub use store::upkeep;
pub use store::{
    AppendBatch, AppendBody, AppendError, AppendEvent, AuditFilter, AuditRow, BodyColumns, BodyStream,
    ChainHash, ChainedFrame, Columns, DataKey, DataKeyChange, Encoding, EventFilter, EventStore, ExecPage,
    Floor, Head, KeyFate, OpenError, OutputChunk, Protection, Shown, ShownRow, StoreError, StoreOptions,
    StoredBody, StreamMark, TemplateChange, WebhookChange, open_store, open_store_with,
};
pub use subjects::Subjects;
pub use usage::Usage;
pub use view::{NodeStatus, View};
pub use vocabulary::*;
pub use webhook_secret::{SecretFormatError, WebhookSecret};
pub use webhooks::Webhooks;
pub use wire::{DecodeError, Frame, decode_batch, encode_batch, encode_frame, encode_recorded_batch};
pub use without_values::without_values;
