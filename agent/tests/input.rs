//! Input as a stream: in order, once, and taken up again after its connection broke.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod harness;

use std::time::Duration;

use agent::client::{CallError, ExecConnection, InputConnection, InputEvent};
use agent::protocol::{ExecRefusal, MAX_CHUNK, STDIN_WINDOW, StartExec, WriterId};
use bytes::Bytes;
use harness::{Running, collect, new_id};

fn reading(script: &str) -> StartExec {
    StartExec { stdin: true, ..StartExec::new(new_id(), ["/bin/sh", "-c", script]) }
}

async fn taken(input: &mut InputConnection, wanted: u64) {
    while input.taken() < wanted {
        assert!(matches!(input.next().await.unwrap(), InputEvent::Taken(_)));
    }
}

#[tokio::test]
async fn keys_come_in_order_over_one_connection() {
    let agent = Running::start().await;
    let start = reading("cat");
    let exec = agent.client.start_exec(start.clone()).await.unwrap();
    let mut input = agent.client.open_input(start.exec_id, WriterId([1; 16])).await.unwrap();
    assert_eq!(input.taken(), 0);
    let text: String = (0..500).map(|n| format!("{n} ")).collect();
    for key in text.as_bytes() {
        input.send(Bytes::copy_from_slice(&[*key])).await.unwrap();
    }
    input.close_stdin().await.unwrap();
    let mut last = 0;
    while let InputEvent::Taken(offset) = input.next().await.unwrap() {
        last = offset;
    }
    assert_eq!(last, text.len() as u64);
    assert_eq!(collect(exec).await.stdout(), text);
}

#[tokio::test]
async fn a_stream_that_broke_goes_on_without_a_doubled_or_lost_key() {
    let agent = Running::start().await;
    let start = reading("cat");
    let exec = agent.client.start_exec(start.clone()).await.unwrap();
    let bytes: Vec<u8> = (0..3000_u32).map(|n| b'a' + (n % 23) as u8).collect();
    let writer = WriterId([7; 16]);
    let mut stands = 0;
    for round in 0..40 {
        let mut input = agent.client.open_input(start.exec_id, writer).await.unwrap();
        // What was under way when it broke was taken, or was not: the agent says which.
        assert!(input.taken() >= stands && input.taken() <= bytes.len() as u64);
        stands = input.taken();
        let rest = &bytes[usize::try_from(stands).unwrap()..];
        for piece in rest[..rest.len().min(75)].chunks(1 + round % 9) {
            input.send(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        if round % 3 == 0 {
            let half = stands + input.outstanding() / 2;
            taken(&mut input, half).await;
        }
        // Broken off with some of it on its way.
    }
    let mut input = agent.client.open_input(start.exec_id, writer).await.unwrap();
    let rest = bytes[usize::try_from(input.taken()).unwrap()..].to_vec();
    input.send(rest.into()).await.unwrap();
    input.close_stdin().await.unwrap();
    assert_eq!(collect(exec).await.stdout().as_bytes(), bytes);
}

#[tokio::test]
async fn each_writer_keeps_its_order_and_its_newest_connection_has_the_say() {
    let agent = Running::start().await;
    let start = reading("cat");
    let exec = agent.client.start_exec(start.clone()).await.unwrap();
    let open = |n: u8| agent.client.open_input(start.exec_id, WriterId([n; 16]));
    let (mut red, mut blue) = (open(1).await.unwrap(), open(2).await.unwrap());
    for n in 0..100_u8 {
        red.send(vec![b'0' + n % 10].into()).await.unwrap();
        blue.send(vec![b'a' + n % 10].into()).await.unwrap();
    }
    taken(&mut red, 100).await;
    taken(&mut blue, 100).await;
    let mut again = open(1).await.unwrap();
    assert_eq!(again.taken(), 100);
    // The one before it is cut off, and nothing that it still sends has an effect.
    let _ = red.send(Bytes::from_static(b"!")).await;
    assert!(red.next().await.is_err());
    again.send(Bytes::from_static(b"#")).await.unwrap();
    taken(&mut again, 101).await;
    blue.close_stdin().await.unwrap();
    let all = collect(exec).await.stdout();
    let of = |range: std::ops::RangeInclusive<char>| -> String {
        all.chars().filter(|c| range.contains(c)).collect()
    };
    assert_eq!(of('0'..='9'), "0123456789".repeat(10));
    assert_eq!(of('a'..='j'), "abcdefghij".repeat(10));
    assert!(all.ends_with('#') && !all.contains('!'), "{all}");
    assert!(matches!(open(1).await, Err(CallError::Refused(ExecRefusal::Ended))));
}

#[tokio::test]
async fn a_process_that_does_not_read_makes_its_writer_wait() {
    let agent = Running::start().await;
    let start = reading("while ! test -e go; do sleep 0.05; done; wc -c");
    let exec: ExecConnection = agent.client.start_exec(start.clone()).await.unwrap();
    let mut input = agent.client.open_input(start.exec_id, WriterId([1; 16])).await.unwrap();
    let chunk = Bytes::from(vec![b'x'; MAX_CHUNK]);
    let mut sent = 0;
    // A pipe, the window and one chunk are taken; then nothing moves.
    loop {
        input.send(chunk.clone()).await.unwrap();
        sent += MAX_CHUNK as u64;
        let moved = tokio::time::timeout(Duration::from_millis(500), taken(&mut input, sent)).await;
        if moved.is_err() {
            break;
        }
        assert!(sent < 4 * STDIN_WINDOW + MAX_CHUNK as u64, "{sent} bytes were taken that nobody reads");
    }
    std::fs::write(agent.workspace().join("go"), "").unwrap();
    taken(&mut input, sent).await;
    input.close_stdin().await.unwrap();
    let output = collect(exec).await;
    assert_eq!(output.stdout().trim().parse::<u64>().unwrap(), sent);
}
