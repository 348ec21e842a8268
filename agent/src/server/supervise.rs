use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use agent::protocol::{MAX_CHUNK, MAX_LINGER, OutputEnd, StartErrorKind, StartExec, StartRefusal, Stream};
use futures::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::clock;
use super::exec::Exec;
use super::execs::Reaped;
use super::spawn::{Output, SpawnError, Spawned, Who, spawn};
use super::spool::Limits;
use super::stdin::Stdin;
use super::{Agent, kill};

/// After the main process of an exec ended that was started without a word about that: how long a stream that something still
/// holds open must be quiet.
const QUIET: Duration = Duration::from_secs(1);
/// And how long to wait for that at most.
const LINGER: Duration = Duration::from_secs(10);

/// Starts an exec that is not known yet.
pub fn start(
    agent: &Rc<Agent>,
    start: &StartExec,
    who: Result<Who, SpawnError>,
) -> Result<Rc<Exec>, StartRefusal> {
    let refused = |kind, message: &str| Err(StartRefusal::NotStarted { kind, message: message.to_owned() });
    if agent.ending.is_requested() {
        return refused(StartErrorKind::Other, "the sandbox is ending");
    }
    if agent.execs.is_full() {
        return refused(StartErrorKind::Resources, "too many execs are running or hold unread output");
    }
    let limits = Limits {
        memory_bytes: agent.options.spool_memory_bytes,
        file_bytes: agent.options.spool_file_bytes,
        room: Rc::clone(&agent.spool_room),
    };
    // On a busy machine the process can have run for a while before we do again: its time counts from before it.
    let (began, oom_kills) = (clock::boot(), agent.oom.now());
    match who.and_then(|who| spawn(agent, start, who)) {
        Ok(Spawned { pid, mark, stdin, outputs, terminal }) => {
            let mut exec = Exec::new(start.exec_id, pid, limits, Stdin::new(stdin.is_some()), terminal);
            (exec.began, exec.mark, exec.oom_kills) = (began, mark, oom_kills);
            exec.linger = start.linger.map(|linger| linger.min(MAX_LINGER));
            let exec = Rc::new(exec);
            agent.execs.insert(&exec);
            if let Some(sink) = stdin {
                let exec = Rc::clone(&exec);
                tokio::task::spawn_local(
                    async move { exec.stdin.feed(sink, || exec.notify_changed()).await },
                );
            }
            tokio::task::spawn_local(supervise(Rc::clone(agent), Rc::clone(&exec), outputs, start.timeout));
            Ok(exec)
        }
        Err(SpawnError::NotExecutable { code, message }) => {
            let exec = Rc::new(Exec::new(start.exec_id, 0, limits, Stdin::new(false), None));
            agent.execs.insert(&exec);
            let stream = if start.tty.is_some() { Stream::Stdout } else { Stream::Stderr };
            exec.push_output(stream, message.as_bytes(), &agent.options.run_dir);
            let reaped = Reaped { pid: 0, status: code << 8, cpu_time: Duration::ZERO, max_rss_bytes: 0 };
            exec.set_exit(&reaped, false);
            exec.finish(false);
            Ok(exec)
        }
        Err(SpawnError::Refused(refusal)) => Err(refusal),
    }
}

/// Carries an exec to its end.
async fn supervise(
    agent: Rc<Agent>,
    exec: Rc<Exec>,
    outputs: Vec<(Stream, Output)>,
    timeout: Option<Duration>,
) {
    let ended = async {
        let pumps = outputs.iter().map(|(stream, output)| pump(&agent, &exec, *stream, output));
        let (leftovers, ()) = futures::join!(join_all(pumps), exec.exited());
        leftovers
    };
    let killing = RefCell::new(None);
    let limit = async {
        match timeout {
            None => std::future::pending().await,
            Some(timeout) => tokio::select! {
                () = tokio::time::sleep(timeout) => {
                    if !exec.has_exited() {
                        exec.mark_timed_out();
                        let exec = Rc::clone(&exec);
                        let killed = async move { kill::kill_hard(&exec, Vec::new()).await };
                        // A task of its own: the main process ends before the last of the others does.
                        *killing.borrow_mut() = Some(tokio::task::spawn_local(killed));
                    }
                }
                // Leftovers do not make an exec late that has ended in time.
                () = exec.exited() => {}
            },
        }
        std::future::pending::<Infallible>().await
    };
    let leftovers = tokio::select! {
        leftovers = ended => leftovers,
        never = limit => match never {},
    };
    if let Some(killed) = killing.take()
        && killed.await.is_err()
    {
        eprintln!("stacyvm-agent: the processes of an exec could not all be ended");
    }
    let open: Vec<_> =
        outputs.iter().zip(leftovers).filter(|(_, leftover)| *leftover).map(|(output, _)| output).collect();
    let stays_open = exec.linger.is_some() && !open.is_empty();
    exec.finish(stays_open);
    if stays_open {
        agent.execs.note_open(&exec);
        tokio::select! {
            _ = join_all(open.iter().map(|(stream, output)| keep(&agent, &exec, *stream, output))) => {
                let ending = agent.ending.is_requested();
                exec.close_output(if ending { OutputEnd::Sandbox } else { OutputEnd::Eof });
            }
            () = exec.output_closed() => {}
        }
        agent.execs.note_closed(&exec);
    }
    agent.execs.retire_if_spent(&exec);
    drop(exec);
    join_all(open.iter().map(|(_, output)| discard(&agent, output))).await;
}

/// Moves what is written after the end of an exec into its spool, until nobody holds the stream any more.
async fn keep(agent: &Agent, exec: &Exec, stream: Stream, output: &Output) {
    loop {
        exec.wait_for_room(stream).await;
        readable(output).await;
        match read_some(agent, exec, (stream, output), MAX_CHUNK) {
            Ok(0) => return,
            Ok(_) => tokio::task::yield_now().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // A terminal whose last process has gone.
            Err(_) => return,
        }
    }
}

fn read_some(
    agent: &Agent,
    exec: &Exec,
    (stream, output): (Stream, &Output),
    most: usize,
) -> io::Result<usize> {
    agent.with_scratch(|scratch| {
        let count = try_read(output, &mut scratch[..most])?;
        exec.push_output(stream, &scratch[..count], &agent.options.run_dir);
        Ok(count)
    })
}

/// Moves a stream's output into the spool until it ends. True if it was left open: the main process has
/// ended, and who still holds the stream has been quiet.
async fn pump(agent: &Agent, exec: &Exec, stream: Stream, output: &Output) -> bool {
    let (quiet, longest) = exec.linger.map_or((QUIET, LINGER), |linger| (linger, linger));
    // Set when time is up: what is in the pipe by then was written in time.
    let mut left = None;
    loop {
        exec.wait_for_room(stream).await;
        if let Some(exited_at) = exec.exited_at() {
            let over_at = exited_at + longest;
            if Instant::now() >= over_at {
                if *left.get_or_insert_with(|| pending_bytes(output)) == 0 {
                    return true;
                }
            } else {
                let quiet_at = Instant::now() + quiet;
                if timeout_at(quiet_at.min(over_at), readable(output)).await.is_err() {
                    if quiet_at < over_at {
                        return true;
                    }
                    continue;
                }
            }
        } else {
            tokio::select! {
                () = readable(output) => {}
                () = exec.exited() => continue,
            }
        }
        let most = left.unwrap_or(usize::MAX).min(MAX_CHUNK);
        match read_some(agent, exec, (stream, output), most) {
            Ok(0) => return false,
            Ok(count) => left = left.map(|left: usize| left - count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if left.is_some() {
                    return true;
                }
            }
            // A terminal whose last process has gone.
            Err(_) => return false,
        }
        // Whoever is attached gets this before more is read.
        tokio::task::yield_now().await;
    }
}

async fn readable(output: &Output) {
    // An error shows again in the read that follows.
    if let Ok(mut guard) = output.readable().await {
        guard.retain_ready();
    }
}

fn try_read(output: &Output, buffer: &mut [u8]) -> io::Result<usize> {
    output.try_io(tokio::io::Interest::READABLE, |fd| Ok(rustix::io::read(fd, buffer)?))
}

fn pending_bytes(output: &Output) -> usize {
    let pending = rustix::io::ioctl_fionread(output.get_ref().as_fd()).unwrap_or(0);
    usize::try_from(pending).unwrap_or(usize::MAX)
}

/// Keeps a stream flowing that nobody wants any more: a server left running in the background must not
/// block, or die of a closed pipe, because its start has been reported.
async fn discard(agent: &Agent, output: &Output) {
    loop {
        readable(output).await;
        match agent.with_scratch(|scratch| try_read(output, scratch)) {
            Ok(0) => return,
            Ok(_) => tokio::task::yield_now().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
