//! The reply of a sync exec, also where its output is long: then it is read from the record while it is sent, so that what
//! one client waits for does not lie in memory, each byte as the six characters that JSON may make of it.

use std::io;

use api_types::ExecReply;
use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use events::{ExecId, OutputStream};

use crate::gateway::Gateway;
use crate::stream::utf8::Utf8Splitter;

/// How much output is kept for the reply. More is read again from the record.
const KEPT: usize = 64 << 10;
/// How much is read from the record at once.
const PAGE: usize = 64 << 10;

/// What an exec wrote to a stream.
#[derive(Debug, Default)]
pub struct Written {
    kept: Vec<u8>,
    length: u64,
}

impl Written {
    pub fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.length <= KEPT as u64 {
            self.kept.extend_from_slice(bytes);
        } else {
            self.kept = Vec::new();
        }
    }

    /// In bytes.
    pub const fn len(&self) -> u64 {
        self.length
    }

    /// Whether all of it was kept.
    pub const fn is_whole(&self) -> bool {
        self.kept.len() as u64 == self.length
    }

    /// All of it as text, with U+FFFD where it is none, if it was kept.
    pub fn text(&self) -> Option<String> {
        self.is_whole().then(|| String::from_utf8_lossy(&self.kept).into_owned())
    }
}

/// What comes next.
enum Part {
    /// JSON as it is.
    Json(Bytes),
    /// The rest of a stream, as the inside of a JSON string: how much of how much was read.
    Output { stream: OutputStream, read: u64, length: u64, splitter: Utf8Splitter },
}

/// The body of a reply whose texts are read from the record where they are not in it.
pub fn stream(
    gateway: Gateway,
    exec: ExecId,
    reply: &ExecReply,
    [stdout, stderr]: [Written; 2],
) -> serde_json::Result<Body> {
    // The texts stand in the middle, and an empty one is there as `""`. No other member before them holds a text of a client.
    let json = serde_json::to_string(reply)?;
    let mut parts = Vec::new();
    let mut rest = json.as_str();
    for (name, stream, written) in
        [("\"stdout\":\"", OutputStream::Stdout, stdout), ("\"stderr\":\"", OutputStream::Stderr, stderr)]
    {
        if written.is_whole() {
            continue;
        }
        if let Some(at) = rest.find(name) {
            let (before, after) = rest.split_at(at + name.len());
            parts.push(Part::Json(Bytes::copy_from_slice(before.as_bytes())));
            parts.push(Part::Output {
                stream,
                read: 0,
                length: written.len(),
                splitter: Utf8Splitter::default(),
            });
            rest = after;
        }
    }
    parts.push(Part::Json(Bytes::copy_from_slice(rest.as_bytes())));
    parts.reverse();
    let bytes = futures::stream::try_unfold((gateway, parts), move |(gateway, mut parts)| async move {
        let Some(part) = parts.pop() else { return Ok(None) };
        let bytes = match part {
            Part::Json(bytes) => bytes,
            Part::Output { stream, mut read, length, mut splitter } => {
                let left = usize::try_from(length - read).unwrap_or(usize::MAX);
                // What is not there any more breaks the connection, so that nobody takes it for a whole reply.
                let chunks = gateway
                    .record()
                    .output
                    .read(exec, stream, read, left.min(PAGE))
                    .await
                    .map_err(io::Error::other)?;
                if chunks.is_empty() && read < length {
                    return Err(io::Error::other("recorded output cannot be read"));
                }
                let mut out = BytesMut::new();
                for mut chunk in chunks {
                    chunk.bytes.truncate(usize::try_from(length - read).unwrap_or(usize::MAX));
                    read += chunk.bytes.len() as u64;
                    if let Some(whole) = splitter.push(chunk.offset, chunk.bytes) {
                        escape(&whole.text(), &mut out)?;
                    }
                }
                if read < length {
                    parts.push(Part::Output { stream, read, length, splitter });
                } else if let Some(last) = splitter.finish() {
                    escape(&last.text(), &mut out)?;
                }
                out.freeze()
            }
        };
        Ok::<_, io::Error>(Some((bytes, (gateway, parts))))
    });
    Ok(Body::from_stream(bytes))
}

/// Writes a text as the inside of a JSON string.
fn escape(text: &str, out: &mut BytesMut) -> io::Result<()> {
    let quoted = serde_json::to_string(text).map_err(io::Error::other)?;
    out.put_slice(quoted.as_bytes().get(1..quoted.len() - 1).unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_kept_and_of_what_is_long_the_length() {
        let mut short = Written::default();
        short.add(b"a\xff");
        short.add(b"b");
        assert_eq!(short.text().as_deref(), Some("a\u{fffd}b"));
        let mut long = Written::default();
        (0..3).for_each(|_| long.add(&[0; KEPT / 2]));
        assert_eq!((long.len(), long.is_whole(), long.text()), (KEPT as u64 * 3 / 2, false, None));
        assert_eq!(Written::default().text().as_deref(), Some(""));
    }

    #[test]
    fn the_inside_of_a_string_is_what_json_makes_of_it() {
        let text = "\0\"\\\n\u{7f}ü";
        let mut out = BytesMut::new();
        escape(text, &mut out).unwrap();
        let json = format!("\"{}\"", std::str::from_utf8(&out).unwrap());
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
