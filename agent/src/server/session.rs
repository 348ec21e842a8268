use std::rc::Rc;
use std::time::Duration;

use agent::protocol::{
    Attach, AttachRefusal, ExecId, ExecRefusal, FrameError, FrameReader, FrameWriter, Hello, Input,
    KillCause, PROTOCOL_VERSION, Refusal, Reply, Request, SecretValues, StartExec, StartRefusal, WriterId,
};
use rustix::process::Signal;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::ending::Ending;
use super::execs::Known;
use super::{Agent, attach, files, kill, spawn, stats, supervise, tunnel};

pub type Reader = FrameReader<OwnedReadHalf>;
pub type Writer = FrameWriter<OwnedWriteHalf>;

/// A caller says what it wants within this time of connecting, or is cut off.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Entries in one message of a list.
const BATCH: usize = 1000;

/// One connection. Whatever is wrong with it ends it, and nothing else.
pub async fn serve(agent: Rc<Agent>, stream: UnixStream) {
    let (read, write) = stream.into_split();
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    let request = match tokio::time::timeout(HANDSHAKE, handshake(&mut reader, &mut writer)).await {
        Ok(Ok(Some(request))) => request,
        // Garbage, another version, or gone: there is nobody to tell.
        Ok(Ok(None) | Err(_)) | Err(_) => return,
    };
    // A connection that breaks is the caller's to notice.
    let _ = answer(&agent, request, reader, writer).await;
    agent.calmed.notify_one();
}

/// The first words of both sides, then what the caller wants.
async fn handshake(reader: &mut Reader, writer: &mut Writer) -> Result<Option<Request>, FrameError> {
    let Some(hello) = Hello::receive(reader).await? else {
        return Ok(None);
    };
    let Some(version) = Hello::ours().versions.common(hello.versions) else {
        // It hears at least which versions it should speak.
        Hello::ours().send(PROTOCOL_VERSION, writer).await?;
        writer.flush().await?;
        return Ok(None);
    };
    Hello::ours().send(version, writer).await?;
    reader.speak(version);
    writer.speak(version);
    if !reader.has_next() {
        // It may be waiting for ours before it asks.
        writer.flush().await?;
    }
    // Else our Hello travels with the first reply.
    reader.receive::<Request>().await
}

async fn answer(
    agent: &Rc<Agent>,
    request: Request,
    mut reader: Reader,
    mut writer: Writer,
) -> Result<(), FrameError> {
    if takes_long(&request) {
        // Whoever asks hears at once that there is somebody.
        writer.flush().await?;
    }
    let reply = match request {
        Request::StartExec(mut start) => {
            let secrets = values_of(&start.env, &start.secret_names);
            agent.complete_environment(&mut start.env);
            return start_exec(agent, &start, secrets, &mut reader, &mut writer).await;
        }
        Request::OpenInput { exec_id, writer: id } => {
            return input(agent, exec_id, id, &mut reader, &mut writer).await;
        }
        Request::CloseOutput { exec_id, reason } => done(match agent.execs.find(exec_id) {
            Some(Known::Held(exec)) if exec.close_output(reason) => Ok(()),
            Some(Known::Held(_) | Known::Spent(_)) => Err(ExecRefusal::Ended),
            None => Err(ExecRefusal::UnknownExec(exec_id)),
        }),
        Request::Secrets { exec_id: Some(exec_id), names: _ } => match agent.execs.find(exec_id) {
            Some(Known::Held(exec)) => Reply::Secrets(SecretValues(exec.secrets())),
            Some(Known::Spent(_)) => Reply::Refused(ExecRefusal::Ended.into()),
            None => Reply::Refused(ExecRefusal::UnknownExec(exec_id).into()),
        },
        Request::Secrets { exec_id: None, names } => {
            Reply::Secrets(SecretValues(values_of(&agent.environment.borrow(), &names)))
        }
        Request::AttachExec(attach) => return attach_exec(agent, attach, &mut reader, &mut writer).await,
        Request::ListExecs => {
            for batch in agent.execs.summaries().chunks(BATCH) {
                writer.send(&Reply::Execs(batch.to_vec())).await?;
            }
            Reply::Done
        }
        Request::OpenTcp { port } => return tunnel::serve(port, reader, writer).await,
        Request::ReadFile { path, part } => return files::read(agent, path, part, &mut writer).await,
        Request::WriteFile { path, mode, size_hint, sync } => {
            let write = files::Write { path, mode, size_hint, sync };
            return files::write(agent, write, &mut reader, &mut writer).await;
        }
        Request::List { path, recursive } => return files::list(agent, path, recursive, &mut writer).await,
        Request::Glob { pattern } => return files::glob(agent, pattern, &mut writer).await,
        Request::Search(search) => return files::search(agent, search, &mut writer).await,
        Request::ReadBeneath { directory, path, limit } => {
            return files::read_beneath(agent, directory, path, limit, &mut writer).await;
        }
        Request::Stat { path } => files::stat(agent, path).await,
        Request::Delete { path, recursive } => files::delete(agent, path, recursive).await,
        Request::Move { from, to } => files::move_path(agent, from, to).await,
        Request::Chmod { path, mode } => files::chmod(agent, path, mode).await,
        Request::Mkdir { path, mode } => files::mkdir(agent, path, mode).await,
        Request::Ping => Reply::Done,
        Request::Stats => Reply::Stats(stats::collect(agent)),
        Request::SetDeadline { remaining } => {
            agent.deadline.set(remaining).map_err(FrameError::Io)?;
            agent.watchdog.set(remaining).map_err(FrameError::Io)?;
            Reply::Done
        }
        Request::SetEnvironment { env } => {
            *agent.environment.borrow_mut() = env;
            Reply::Done
        }
        Request::Shutdown { grace } => {
            // Answered first: nothing is left to answer afterwards.
            writer.send(&Reply::Done).await?;
            writer.flush().await?;
            agent.ending.request(Ending::Shutdown, grace);
            return Ok(());
        }
        Request::SignalExec { exec_id, signal } => {
            let signal = Signal::from_named_raw(signal).ok_or(ExecRefusal::InvalidSignal(signal));
            done(signal.and_then(|signal| {
                kill::signal_group(&*agent.execs.live(exec_id)?, signal);
                Ok(())
            }))
        }
        Request::WriteStdin { exec_id, offset, bytes } => done(match agent.execs.live(exec_id) {
            Ok(exec) => {
                let written = exec.stdin.write(offset, bytes).await;
                exec.notify_changed();
                written
            }
            Err(refusal) => Err(refusal),
        }),
        Request::CloseStdin { exec_id } => done(agent.execs.live(exec_id).map(|exec| exec.stdin.close())),
        Request::ResizeExec { exec_id, size } => done(agent.execs.live(exec_id).and_then(|exec| {
            let terminal = exec.terminal.as_ref().ok_or(ExecRefusal::NoTerminal)?;
            terminal.resize(size).map_err(|_| ExecRefusal::NoTerminal)
        })),
        Request::KillExec { exec_id, grace } => done(agent.execs.live(exec_id).map(|exec| {
            tokio::task::spawn_local(kill::kill(exec, KillCause::Request, grace));
        })),
    };
    writer.send(&reply).await?;
    writer.flush().await
}

/// Whether the answer may be a while in coming.
fn takes_long(request: &Request) -> bool {
    matches!(
        request,
        Request::List { .. }
            | Request::Glob { .. }
            | Request::Search(_)
            | Request::Delete { .. }
            | Request::Move { .. }
            | Request::WriteStdin { .. }
    )
}

fn done(result: Result<(), ExecRefusal>) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(refusal) => Reply::Refused(refusal.into()),
    }
}

/// The values of those variables that are there.
fn values_of(env: &[(String, String)], names: &[String]) -> Vec<String> {
    env.iter().filter(|(name, _)| names.contains(name)).map(|(_, value)| value.clone()).collect()
}

async fn start_exec(
    agent: &Rc<Agent>,
    start: &StartExec,
    secrets: Vec<String>,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), FrameError> {
    let offsets = [start.stdout_offset, start.stderr_offset];
    let who = match agent.execs.find(start.exec_id) {
        Some(_) => None,
        None => Some(spawn::look_up(agent, start).await),
    };
    // Another start of the same exec may have come while this one was looked up.
    let (known, fresh) = match (agent.execs.find(start.exec_id), who) {
        (Some(known), _) => (known, false),
        (None, None) => {
            let refusal = AttachRefusal::UnknownExec(start.exec_id);
            writer.send(&Reply::Refused(StartRefusal::Attach(refusal).into())).await?;
            return writer.flush().await;
        }
        (None, Some(who)) => match supervise::start(agent, start, who) {
            Ok(exec) => {
                exec.keep_secrets(secrets);
                (Known::Held(exec), true)
            }
            Err(refusal) => {
                writer.send(&Reply::Refused(refusal.into())).await?;
                return writer.flush().await;
            }
        },
    };
    // A fresh exec has no output yet; whatever offset the caller hoped to go on at means nothing.
    let offsets = if fresh { [0; 2] } else { offsets };
    attach::serve(agent, known, offsets, fresh, reader, writer).await
}

/// Takes what one writer sends, until it closes the connection. A process that does not read makes it wait.
async fn input(
    agent: &Agent,
    exec_id: ExecId,
    id: WriterId,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), FrameError> {
    let exec = match agent.execs.live(exec_id) {
        Ok(exec) => exec,
        Err(refusal) => {
            writer.send(&Reply::Refused(refusal.into())).await?;
            return writer.flush().await;
        }
    };
    let (opening, taken) = exec.stdin.open(id);
    writer.send(&Reply::StdinTaken { offset: taken }).await?;
    writer.flush().await?;
    while let Some(input) = reader.receive::<Input>().await? {
        let reply = match input {
            Input::Stdin { bytes } if bytes.is_empty() => continue,
            Input::Stdin { bytes } => match exec.stdin.write_as(opening, bytes).await {
                Ok(Some(offset)) => {
                    exec.notify_changed();
                    Reply::StdinTaken { offset }
                }
                Ok(None) => return Ok(()),
                Err(refusal) => Reply::Refused(refusal.into()),
            },
            Input::CloseStdin => {
                exec.stdin.close();
                Reply::Done
            }
            Input::Ack { .. }
            | Input::Resize { .. }
            | Input::Signal { .. }
            | Input::Chunk { .. }
            | Input::Commit => return Err(FrameError::Malformed("no input")),
        };
        writer.send(&reply).await?;
        // Of many pieces that have come at once the last is acknowledged for all.
        if !reader.has_next() {
            writer.flush().await?;
        }
        if let Reply::Refused(_) = reply {
            return writer.flush().await;
        }
    }
    Ok(())
}

async fn attach_exec(
    agent: &Agent,
    attach: Attach,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), FrameError> {
    match agent.execs.find(attach.exec_id) {
        Some(known) => {
            attach::serve(agent, known, [attach.stdout_offset, attach.stderr_offset], false, reader, writer)
                .await
        }
        None => {
            let refusal = AttachRefusal::UnknownExec(attach.exec_id);
            writer.send(&Reply::Refused(Refusal::Attach(refusal))).await?;
            writer.flush().await
        }
    }
}
