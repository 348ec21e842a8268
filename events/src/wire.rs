//! How events travel and how they are stored.
//!
//! An event is a JSON header (CloudEvents 1.0 names) and a raw body; only output and input have one. A batch is a sequence of
//! frames: header length and body length (32 bits each, big-endian), header, body. A batch that has been recorded has
//! the position (64 bits, big-endian) in front of each frame. The bytes of header and body are what the store keeps and
//! what the hash chain covers; nothing re-encodes them on the way.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Actor, CommandId, Event, EventData, EventId, ExecEvent, Gone, IdError, MissingBody, Position, RequestId,
    SandboxId, TenantId, UnknownEventType,
};

/// The largest header that is read, in bytes.
const MAX_HEADER_LEN: usize = 1 << 20;
/// The largest body that is read, in bytes.
const MAX_BODY_LEN: usize = 8 << 20;

/// One event in its exact bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where it stands in the log, once it is recorded.
    pub position: Position,
    /// JSON.
    pub header: Bytes,
    /// Output or input, or nothing.
    pub body: Bytes,
    /// Set on a recorded event whose body is not kept any more; then `body` is empty.
    pub missing: Option<MissingBody>,
}

/// Why bytes are not an event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A frame that ends too early or is too long.
    #[error("damaged frame: {0}")]
    Frame(&'static str),
    /// A header that is not the JSON of an event, and what is wrong with it without its values.
    #[error("damaged event header: {0}")]
    Header(String),
    /// An event of a newer build.
    #[error(transparent)]
    UnknownType(#[from] UnknownEventType),
    /// An id that is none.
    #[error(transparent)]
    Id(#[from] IdError),
}

impl From<serde_json::Error> for DecodeError {
    fn from(error: serde_json::Error) -> Self {
        Self::Header(crate::without_values(&error))
    }
}

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    specversion: &'a str,
    id: EventId,
    source: &'a str,
    r#type: &'a str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<SandboxId>,
    time: DateTime<Utc>,
    tenant: TenantId,
    actor: Actor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<CommandId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requestid: Option<RequestId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Event {
    /// The event in the bytes that it will keep for ever.
    pub fn to_frame(&self) -> Result<Frame, DecodeError> {
        let mut data = Vec::with_capacity(256);
        self.data.data_to_json(&mut data)?;
        let data: &RawValue = serde_json::from_slice(&data)?;
        let header = Header {
            specversion: "1.0",
            id: self.id,
            source: "stacyvm",
            r#type: self.data.type_name(),
            subject: self.sandbox,
            time: self.time,
            tenant: self.tenant.clone(),
            actor: self.actor.clone(),
            cause: self.cause,
            requestid: self.request_id.clone(),
            traceparent: self.traceparent.clone(),
            data,
        };
        let body = self.data.body().cloned().unwrap_or_default();
        Ok(Frame {
            position: Position::ZERO,
            header: serde_json::to_vec(&header)?.into(),
            body,
            missing: None,
        })
    }
}

impl Frame {
    /// Reads the event. The body is shared, not copied.
    pub fn decode(&self) -> Result<Event, DecodeError> {
        let header: Header<'_> = serde_json::from_slice(&self.header)?;
        let mut data = EventData::from_json(header.r#type, header.data.get())?;
        if let EventData::Exec(ExecEvent::Output(output)) = &mut data {
            output.bytes = self.body.clone();
            output.missing = self.missing;
            // 63 bits are what every database counts in; nobody who adds up offsets need look out for more.
            if output.offset.checked_add(output.length()).is_none_or(|end| end > i64::MAX as u64) {
                return Err(DecodeError::Frame("output past the end of all numbers"));
            }
        } else if let EventData::Exec(ExecEvent::Input(input)) = &mut data {
            input.bytes = self.body.clone();
            input.missing = self.missing;
        } else if !self.body.is_empty() {
            return Err(DecodeError::Frame("only output and input have a body"));
        }
        Ok(Event {
            id: header.id,
            tenant: header.tenant,
            sandbox: header.subject,
            time: header.time,
            actor: header.actor,
            cause: header.cause,
            request_id: header.requestid,
            traceparent: header.traceparent,
            data,
        })
    }

    /// How many bytes it takes in a batch.
    pub fn encoded_len(&self) -> usize {
        let body = if self.missing.is_some() { 8 } else { self.body.len() };
        8 + self.header.len() + body
    }
}

/// Appends one frame to a batch.
pub fn encode_frame(frame: &Frame, into: &mut BytesMut) {
    into.reserve(frame.encoded_len());
    into.put_u32(frame.header.len() as u32);
    into.put_u32(match frame.missing {
        Some(missing) => missing_code(missing.why),
        None => frame.body.len() as u32,
    });
    into.put_slice(&frame.header);
    match frame.missing {
        Some(missing) => into.put_u64(missing.length),
        None => into.put_slice(&frame.body),
    }
}

/// Stands in place of the length of a body that is not there any more; the length that it had follows the header.
const fn missing_code(why: Gone) -> u32 {
    match why {
        Gone::Erased => u32::MAX,
        Gone::Expired => u32::MAX - 1,
    }
}

/// Frames without positions, as they go to JetStream.
pub fn encode_batch(frames: &[Frame]) -> Bytes {
    let mut out = BytesMut::with_capacity(frames.iter().map(Frame::encoded_len).sum());
    for frame in frames {
        encode_frame(frame, &mut out);
    }
    out.freeze()
}

/// Frames with positions, as the recorder announces them.
pub fn encode_recorded_batch(frames: &[Frame]) -> Bytes {
    let mut out = BytesMut::with_capacity(frames.iter().map(|frame| 8 + frame.encoded_len()).sum());
    for frame in frames {
        out.put_u64(frame.position.0);
        encode_frame(frame, &mut out);
    }
    out.freeze()
}

/// Splits a batch into its frames, which share its bytes.
pub fn decode_batch(mut batch: Bytes, recorded: bool) -> Result<Vec<Frame>, DecodeError> {
    let mut frames = Vec::new();
    while batch.has_remaining() {
        let prefix = if recorded { 16 } else { 8 };
        if batch.remaining() < prefix {
            return Err(DecodeError::Frame("ends inside a length"));
        }
        let position = if recorded { Position(batch.get_u64()) } else { Position::ZERO };
        let (header_len, body_len) = (batch.get_u32() as usize, batch.get_u32() as usize);
        // Only what is recorded can have lost its body.
        let why = [Gone::Erased, Gone::Expired]
            .into_iter()
            .find(|why| recorded && missing_code(*why) as usize == body_len);
        let body_len = if why.is_some() { 8 } else { body_len };
        if header_len > MAX_HEADER_LEN || body_len > MAX_BODY_LEN {
            return Err(DecodeError::Frame("longer than any event"));
        }
        if batch.remaining() < header_len + body_len {
            return Err(DecodeError::Frame("ends inside an event"));
        }
        let (header, mut body) = (batch.split_to(header_len), batch.split_to(body_len));
        let missing = why.map(|why| MissingBody { why, length: body.get_u64() });
        frames.push(Frame { position, header, body, missing });
    }
    Ok(frames)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
pub(crate) mod tests;
