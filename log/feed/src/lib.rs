//! The record as it grows: recorded events, live and in order, and what processes keep in memory of them.
//!
//! Begun from the store, followed by the recorder's announcements, and filled from the store wherever one was missed. It
//! knows nothing of NATS or SQL: the one is behind [`transport::Log`], the other behind [`record::EventStore`].

mod feed;
mod held;
mod links;
#[cfg(test)]
mod simulated;
mod usage;
mod view;
mod webhooks;

pub use feed::{
    After, EventReader, Feed, FeedError, FeedReader, LogReader, OutputItem, OutputReader, Recorded,
    RecorderTrouble, Topic,
};
pub use held::Held;
pub use links::{Link, Links};
pub use usage::Usage;
pub use view::{NodeStatus, View};
pub use webhooks::Webhooks;
