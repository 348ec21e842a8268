//! What an agent says to an executor, and what whoever finds its socket says to an agent.

use agent::protocol::{FrameReader, Greeting, Input, Message, Offer, Reply, Request, decode, encode};
use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first byte says who reads, the rest is what it reads: one message, or a connection's worth of them.
pub fn agent_frames(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 8 {
        0 => {
            message::<Greeting>(bytes);
            message::<Offer>(bytes);
        }
        1 => message::<Request>(bytes),
        2 => message::<Input>(bytes),
        3 => message::<Reply>(bytes),
        4 => connection::<Request>(bytes),
        5 => connection::<Input>(bytes),
        _ => connection::<Reply>(bytes),
    }
}

/// What can be read can be written, and is the same when it is read again.
fn message<M: Message + Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(read) = decode::<M>(&Bytes::copy_from_slice(bytes)) else { return };
    let mut written = BytesMut::new();
    // What was read fits a frame unless the frame was longer than any.
    if encode(&read, &mut written).is_err() {
        assert!(bytes.len() > agent::protocol::MAX_FRAME / 2, "a message that was read cannot be written");
        return;
    }
    let Ok(again) = decode::<M>(&written.split_off(4).freeze()) else {
        panic!("what was written cannot be read");
    };
    let mut twice = BytesMut::new();
    assert!(encode(&again, &mut twice).is_ok());
    let mut once = BytesMut::new();
    assert!(encode(&read, &mut once).is_ok());
    assert_eq!(once, twice, "a message changed on its way");
}

/// A connection ends with its bytes, however they are cut into frames.
fn connection<M: Message + Serialize + DeserializeOwned>(bytes: &[u8]) {
    let mut reader = FrameReader::new(bytes);
    let mut messages = 0;
    // A slice never makes anybody wait.
    while let Some(received) = reader.receive::<M>().now_or_never() {
        match received {
            Ok(Some(_)) => messages += 1,
            Ok(None) | Err(_) => break,
        }
    }
    assert!(messages <= bytes.len() / 5 + 1, "more messages than there were bytes for");
}
