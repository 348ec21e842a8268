//! What the driver does, as data.

use events::{
    CommandEnvelope, Event, ExecId, ExecState, JobId, JobOutcome, JobState, NodeId, PoolName, SandboxId,
    SandboxState,
};
use transport::LinkRequest;

/// A step of a job. The same step is not taken again before what came of it had time to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Its state is read.
    Load,
    /// It is looked what became of the jobs that it needs.
    LookUp,
    /// It goes into its queue.
    Queue,
    /// What keeps it in its queue is said.
    Hold,
    /// It leaves its queue. Of all jobs that do so together.
    Admit,
    /// Its attempt has a sandbox.
    Start(u32),
    /// The sandbox is asked for.
    Sandbox(u32),
    /// Its files are written, and it is said that its command is asked for.
    Begin(u32),
    /// The command is sent; again as the same message.
    Command(u32),
    /// The files that it left are kept.
    Collect(u32),
    /// It is said that it runs.
    Running(u32),
    /// It is asked to end.
    Terminate(u32),
    /// It is ended.
    Kill(u32),
    /// It is said how the attempt ended.
    EndAttempt(u32),
    /// What follows from that.
    Follow(u32),
    /// The job ends before an attempt.
    End,
    /// A sandbox of it is destroyed.
    Destroy(SandboxId),
}

/// Something to be done, for a step.
#[derive(Debug)]
pub struct Effect {
    /// For which.
    pub step: Step,
    /// What.
    pub deed: Deed,
}

/// Something to be done.
#[derive(Debug)]
pub enum Deed {
    /// Something is said: a message a list, each of one tenant and one sandbox or none.
    Say(Vec<Vec<Event>>),
    /// What is sealed of a job is destroyed, and then something is said.
    DestroySealed(JobId, Vec<Event>),
    /// The states of a job, and of the sandbox and the exec of its attempt, are read.
    Load(JobId, Option<(SandboxId, ExecId)>),
    /// It is looked how these jobs ended.
    LookUp(Vec<JobId>),
    /// A sandbox is asked for.
    Sandbox(Box<Request>, Box<JobState>),
    /// A command is prepared.
    Begin(Box<Beginning>),
    /// The command of a job is sent to a node.
    Start(Box<JobState>, NodeId),
    /// What matches is taken out of the sandbox of a job, and it is said what was kept.
    Collect(Box<JobState>, NodeId),
    /// A command is sent to a node.
    Send(Box<CommandEnvelope>, NodeId),
    /// The executor of a node is asked for something.
    Call(Box<LinkRequest>, NodeId),
}

/// What is said and asked for where a sandbox is.
#[derive(Debug)]
pub struct Request {
    /// What is said.
    pub event: Event,
    /// What is asked for after that.
    pub command: CommandEnvelope,
    /// Of whom.
    pub pool: PoolName,
}

/// How a command is begun.
#[derive(Debug)]
pub struct Beginning {
    /// Whose it is: its sandbox is given its files and the artifacts of others first.
    pub job: Box<JobState>,
    /// What is said then. Only when that is recorded is the command sent.
    pub event: Event,
    /// Who has the sandbox.
    pub node: NodeId,
}

/// What came of a step.
#[derive(Debug)]
pub struct Came {
    /// Of which.
    pub step: Step,
    /// What.
    pub news: News,
}

/// What came of it.
#[derive(Debug)]
pub enum News {
    /// It is done.
    Done,
    /// What the log says.
    Loaded(Box<Whole>),
    /// How jobs ended; inner `None`: not yet. Outer `None`: there is no such job.
    Ended(Vec<(JobId, Option<Option<JobOutcome>>)>),
    /// It cannot be done, and could not another time.
    Refused(String),
    /// What is needed for it is not there any more.
    InputLost,
}

/// What the log says of a job and its attempt.
#[derive(Debug, Default)]
pub struct Whole {
    /// The job.
    pub job: Option<JobState>,
    /// The sandbox of its last attempt.
    pub sandbox: Option<SandboxState>,
    /// The exec of its last attempt.
    pub exec: Option<ExecState>,
}
