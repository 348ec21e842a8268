//! One measurement a file. Variants are interleaved within each, so that both see the same weather.

mod attach;
mod exec;
mod fanout;
mod files;
mod growth;
mod keystroke;
mod memory;
mod recorder;
mod replay;
mod siege;
mod spawn;
mod stream;
mod throughput;

use crate::report::Row;
use crate::rig::Rig;

/// All there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Measurement {
    /// Sandboxes from nothing.
    Spawn,
    /// One short exec after another.
    Exec,
    /// Short execs of 8 clients in one sandbox.
    Throughput,
    /// 500 MB of output to one client.
    Stream,
    /// 100 MB up and down.
    Files,
    /// Small events into the database.
    Recorder,
    /// 100 viewers of one exec.
    Fanout,
    /// The log over one WebSocket.
    Replay,
    /// Attaching to an exec that has printed much.
    Attach,
    /// A key to its echo in a terminal.
    Keystroke,
    /// Resident memory with 100 idle sandboxes.
    Memory,
    /// Execs with many live sandboxes against execs with one.
    Growth,
    /// Execs of one tenant while another one attacks from five sandboxes.
    Siege,
}

impl Measurement {
    /// In the order of measuring: those that need a crowd of sandboxes late, and what leaves a mess last.
    pub const ALL: [Self; 13] = [
        Self::Exec,
        Self::Throughput,
        Self::Spawn,
        Self::Stream,
        Self::Recorder,
        Self::Replay,
        Self::Keystroke,
        Self::Files,
        Self::Fanout,
        Self::Attach,
        Self::Memory,
        Self::Growth,
        Self::Siege,
    ];

    /// As given on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::Exec => "exec",
            Self::Throughput => "throughput",
            Self::Stream => "stream",
            Self::Files => "files",
            Self::Recorder => "recorder",
            Self::Fanout => "fanout",
            Self::Replay => "replay",
            Self::Attach => "attach",
            Self::Keystroke => "keystroke",
            Self::Memory => "memory",
            Self::Growth => "growth",
            Self::Siege => "siege",
        }
    }

    /// Measures.
    pub async fn run(self, rig: &Rig) -> anyhow::Result<Vec<Row>> {
        match self {
            Self::Spawn => spawn::run(rig).await,
            Self::Exec => exec::run(rig).await,
            Self::Throughput => throughput::run(rig).await,
            Self::Stream => stream::run(rig).await,
            Self::Files => files::run(rig).await,
            Self::Recorder => recorder::run(rig).await,
            Self::Fanout => fanout::run(rig).await,
            Self::Replay => replay::run(rig).await,
            Self::Attach => attach::run(rig).await,
            Self::Keystroke => keystroke::run(rig).await,
            Self::Memory => memory::run(rig).await,
            Self::Growth => growth::run(rig).await,
            Self::Siege => siege::run(rig).await,
        }
    }
}
