//! Output on its way to clients: characters stay whole, lines stay lines, nothing is held but what the socket takes.

pub mod archive;
pub mod asciicast;
pub mod attach;
pub mod attach_frame;
pub mod exec;
pub mod lines;
pub mod ndjson;
pub mod pacer;
pub mod pieces;
mod presence;
pub mod raw;
pub mod record;
pub mod replay;
pub mod socket;
pub mod utf8;
pub mod ws_frame;
