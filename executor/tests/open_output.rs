//! What an exec leaves running: its end comes at once, and what is still written is recorded until it is closed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use events::*;
use feed::{OutputItem, Recorded};
use transport::*;
use world::{IMAGE, World, types};

/// Counts to 400, 20 ms a line, in the background.
const COUNTER: &str =
    "(i=0; while test $i -lt 400; do i=$((i+1)); echo $i; sleep 0.02; done) & echo up; exit 5";

/// Everything of an exec until its output is closed: what came before its end, what after, and how it was closed.
async fn to_the_close(world: &World, exec: ExecId) -> (String, String, OutputClosed) {
    let mut reader = world.feed.exec_output(exec, 0, 0).await.unwrap();
    let (mut before, mut after, mut ended) = (String::new(), String::new(), false);
    let read = async {
        loop {
            match reader.next().await.unwrap().unwrap() {
                OutputItem::Output { bytes, .. } if ended => after.push_str(&String::from_utf8_lossy(&bytes)),
                OutputItem::Output { bytes, .. } => before.push_str(&String::from_utf8_lossy(&bytes)),
                OutputItem::Ended { open, .. } => {
                    assert!(open && !ended, "an end that does not leave it open, or a second one");
                    ended = true;
                }
                OutputItem::Closed(closed) => return closed,
                OutputItem::Gone { .. } => panic!("output is gone"),
                OutputItem::Started | OutputItem::Resized(_) => {}
            }
        }
    };
    let closed = tokio::time::timeout(Duration::from_secs(60), read).await.expect("it was never closed");
    assert!(ended);
    assert_eq!(reader.next().await.unwrap(), None);
    (before, after, closed)
}

fn count(all: &[Arc<Recorded>], name: &str) -> usize {
    types(all).iter().filter(|other| **other == name).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_running_is_recorded_over_the_death_of_the_executor_and_each_line_once() {
    let mut world = World::start().await;
    let sandbox = world.create(IMAGE).await;
    world.until(sandbox, "sandbox.running").await;
    let exec = world.start_exec(sandbox, COUNTER).await;
    world.until(sandbox, "exec.exited").await;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        world.stop_executor().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.start_executor();
    }
    let (before, after, closed) = to_the_close(&world, exec).await;
    let lines: String = (1..=400).map(|n| format!("{n}\n")).collect();
    assert!(before.starts_with("up\n") || before.starts_with("1\n"), "{before}");
    assert_eq!(format!("{before}{after}").replacen("up\n", "", 1), lines);
    assert!(!after.is_empty());
    assert_eq!((closed.reason, closed.truncated_bytes), (OutputCloseReason::Eof, 0));
    let all = world.until(sandbox, "exec.output_closed").await;
    assert_eq!((count(&all, "exec.exited"), count(&all, "exec.output_closed")), (1, 1));
    world.provider.destroy(sandbox).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_sandbox_closes_what_is_open_in_it_also_where_nobody_saw_it_end() {
    let mut world = World::start().await;
    let (sandbox, other) = (world.create(IMAGE).await, world.create(IMAGE).await);
    let mut execs = Vec::new();
    for sandbox in [sandbox, other] {
        world.until(sandbox, "sandbox.running").await;
        execs.push(world.start_exec(sandbox, "echo up; sleep 1000 &").await);
        world.until(sandbox, "exec.exited").await;
    }
    let destroy = world.envelope(sandbox, Command::DestroySandbox { reason: DestroyReason::User });
    world.log.send(Destination::Node(&world.node), &destroy).await.unwrap();
    let all = world.until(sandbox, "sandbox.destroyed").await;
    assert_eq!(types(&all)[6..], ["sandbox.destroying", "exec.output_closed", "sandbox.destroyed"]);
    assert_eq!(to_the_close(&world, execs[0]).await.2.reason, OutputCloseReason::Sandbox);
    // Its box goes while no executor is there: the next one finds it gone.
    world.stop_executor().await;
    world.provider.destroy(other).await.unwrap();
    world.start_executor();
    let all = world.until(other, "sandbox.destroyed").await;
    assert_eq!((count(&all, "exec.output_closed"), count(&all, "exec.outcome_unknown")), (1, 0));
    assert_eq!(to_the_close(&world, execs[1]).await.2.reason, OutputCloseReason::Sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_an_exec_closes_what_it_left_open() {
    let mut world = World::start().await;
    world.stop_executor().await;
    world.start_executor_with(100_000);
    let sandbox = world.create(IMAGE).await;
    world.until(sandbox, "sandbox.running").await;
    let exec = world.start_exec(sandbox, "yes & echo up").await;
    let (before, after, closed) = to_the_close(&world, exec).await;
    assert_eq!(before.len() + after.len(), 100_000);
    assert_eq!(closed.reason, OutputCloseReason::Limit);
    assert!(closed.truncated_bytes > 0);
    // What writes on is thrown away inside: the next exec is served as ever.
    let next = world.start_exec(sandbox, "echo next").await;
    assert_eq!(world.output(next).await.0, b"next\n");
    world.provider.destroy(sandbox).await.unwrap();
}
