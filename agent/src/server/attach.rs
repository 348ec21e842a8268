use std::rc::Rc;
use std::time::Duration;

use agent::protocol::{AttachRefusal, FrameError, Input, Refusal, Reply, Started, Stream};
use rustix::process::Signal;

use super::exec::{Exec, Next};
use super::execs::{Known, Spent};
use super::session::{Reader, Writer};
use super::{Agent, clock, kill};

/// How long a caller that was cut off has to take the news.
const PARTING: Duration = Duration::from_secs(1);
/// Stdin taken is reported in steps of this many bytes, and when all was taken.
const STDIN_STEP: u64 = 64 * 1024;

/// Streams an exec to the caller until one of them ends. The error is the connection's.
pub async fn serve(
    agent: &Agent,
    known: Known,
    offsets: [u64; 2],
    fresh: bool,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), FrameError> {
    match known {
        Known::Held(exec) => serve_held(agent, &exec, offsets, fresh, reader, writer).await,
        Known::Spent(spent) => serve_spent(&spent, offsets, reader, writer).await,
    }
}

async fn serve_held(
    agent: &Agent,
    exec: &Rc<Exec>,
    offsets: [u64; 2],
    fresh: bool,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), FrameError> {
    let generation = match exec.attach(offsets) {
        Ok(generation) => generation,
        Err(refusal) => return refuse(refusal, writer).await,
    };
    let started =
        Started { pid: exec.pid, age: clock::since(exec.began), stdin_offset: exec.stdin.accepted(), fresh };
    writer.send(&Reply::Started(started)).await?;
    let result = tokio::select! {
        result = talk(exec, generation, offsets, writer) => result,
        result = listen(agent, exec, generation, reader) => result,
        () = cut_off(exec, generation) => Ok(()),
    };
    exec.detach(generation);
    result
}

/// For an exec of which only the outcome is left.
async fn serve_spent(
    spent: &Spent,
    offsets: [u64; 2],
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), FrameError> {
    let summary = spent.summary();
    for stream in Stream::BOTH {
        let (offset, produced) = (offsets[stream.index()], summary.produced[stream.index()]);
        if offset < produced {
            return refuse(AttachRefusal::Released { stream, retained_from: produced }, writer).await;
        }
        if offset > produced {
            return refuse(AttachRefusal::BeyondEnd { stream, produced }, writer).await;
        }
    }
    let started =
        Started { pid: summary.pid, age: summary.age, stdin_offset: summary.stdin_offset, fresh: false };
    writer.send(&Reply::Started(started)).await?;
    if let Some(outcome) = summary.outcome {
        match spent.closed() {
            None => writer.send(&Reply::Exited(outcome)).await?,
            Some(closed) => {
                writer.send(&Reply::ExitedOpen(outcome)).await?;
                writer.send(&Reply::OutputClosed(closed)).await?;
            }
        }
    }
    writer.flush().await?;
    while reader.receive::<Input>().await?.is_some() {}
    Ok(())
}

async fn refuse(refusal: AttachRefusal, writer: &mut Writer) -> Result<(), FrameError> {
    writer.send(&Reply::Refused(Refusal::Attach(refusal))).await?;
    writer.flush().await
}

/// Sends output, and then the end, until the caller is superseded.
async fn talk(
    exec: &Exec,
    generation: u64,
    mut cursors: [u64; 2],
    writer: &mut Writer,
) -> Result<(), FrameError> {
    let mut first = Stream::Stdout;
    let mut stdin_told = exec.stdin.accepted();
    let (mut end_told, mut close_told) = (false, false);
    loop {
        let changed = exec.changed();
        let (taken, accepted) = (exec.stdin.taken(), exec.stdin.accepted());
        if taken >= stdin_told + STDIN_STEP || (taken == accepted && taken > stdin_told) {
            stdin_told = taken;
            writer.send(&Reply::StdinTaken { offset: taken }).await?;
        }
        match exec.next(generation, &mut cursors, first, end_told) {
            Next::Output { stream, offset, bytes } => {
                // Neither stream waits for the other to be quiet.
                first = match stream {
                    Stream::Stdout => Stream::Stderr,
                    Stream::Stderr => Stream::Stdout,
                };
                writer.send(&Reply::Output { stream, offset, bytes }).await?;
                exec.notify_sent();
            }
            Next::Exited { outcome, open } => {
                end_told = true;
                let end = if open { Reply::ExitedOpen(outcome) } else { Reply::Exited(outcome) };
                writer.send(&end).await?;
                writer.flush().await?;
                if !open {
                    exec.set_heard();
                }
            }
            Next::Closed(closed) if !close_told => {
                close_told = true;
                writer.send(&Reply::OutputClosed(closed)).await?;
                writer.flush().await?;
                exec.set_heard();
            }
            Next::Closed(_) | Next::Nothing => {
                writer.flush().await?;
                changed.await;
            }
            Next::Superseded => {
                writer.send(&Reply::Superseded).await?;
                return writer.shutdown().await;
            }
            Next::Unreadable => return Ok(()),
        }
    }
}

/// Obeys the caller until it closes, breaks the protocol, or is superseded.
async fn listen(
    agent: &Agent,
    exec: &Rc<Exec>,
    generation: u64,
    reader: &mut Reader,
) -> Result<(), FrameError> {
    while let Some(input) = reader.receive::<Input>().await? {
        if !exec.is_current(generation) {
            // It will be told; whatever else it wants has no effect.
            std::future::pending::<()>().await;
        }
        match input {
            Input::Ack { stream, offset } => {
                exec.ack(stream, offset);
                agent.execs.retire_if_spent(exec);
            }
            Input::Stdin { bytes } => {
                if !exec.stdin.push(bytes) {
                    return Err(FrameError::Malformed("stdin beyond the window"));
                }
                exec.notify_changed();
            }
            Input::CloseStdin => exec.stdin.close(),
            Input::Resize { size } => {
                if let Some(terminal) = &exec.terminal {
                    // Sizes that the kernel refuses change nothing.
                    let _ = terminal.resize(size);
                }
            }
            Input::Signal { signal } => {
                if let Some(signal) = Signal::from_named_raw(signal) {
                    kill::signal_group(exec, signal);
                }
            }
            Input::Chunk { .. } | Input::Commit => return Err(FrameError::Malformed("no upload")),
        }
    }
    Ok(())
}

/// Ends a superseded connection even if its caller does not read.
async fn cut_off(exec: &Exec, generation: u64) {
    loop {
        let changed = exec.changed();
        if !exec.is_current(generation) {
            tokio::time::sleep(PARTING).await;
            return;
        }
        changed.await;
    }
}
