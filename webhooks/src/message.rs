//! What is sent: one event as CloudEvents 1.0 in structured mode, signed as the Standard Webhooks specification says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use events::Frame;
use secrets::WebhookSecret;
use serde::Deserialize;

/// The id and the body of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The event's id: the same in every attempt.
    pub id: String,
    /// JSON.
    pub body: Bytes,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

impl Message {
    /// The message of a recorded event. `None`: its header is not what this build writes.
    pub fn new(frame: &Frame) -> Option<Self> {
        let Id { id } = serde_json::from_slice(&frame.header).ok()?;
        let rest = frame.header.strip_prefix(b"{")?;
        let mut body = format!("{{\"position\":{},", frame.position).into_bytes();
        if !frame.body.is_empty() {
            body.extend_from_slice(format!("\"bodybase64\":\"{}\",", BASE64.encode(&frame.body)).as_bytes());
        }
        if let Some(missing) = frame.missing {
            body.extend_from_slice(format!("\"bodymissing\":\"{}\",", missing.why).as_bytes());
        }
        body.extend_from_slice(rest);
        Some(Self { id, body: body.into() })
    }

    /// The headers that an attempt at this time is sent with, besides those of every attempt.
    pub fn signature(&self, secret: &WebhookSecret, now: DateTime<Utc>) -> [(&'static str, String); 3] {
        let timestamp = now.timestamp();
        [
            ("webhook-id", self.id.clone()),
            ("webhook-timestamp", timestamp.to_string()),
            ("webhook-signature", secret.sign(&self.id, timestamp, &self.body)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use events::{Actor, Event, EventId, ExecId, ExecOutput, OutputStream, Position, SandboxId, TenantId};
    use serde_json::Value;

    use super::*;

    fn frame() -> Frame {
        let output = ExecOutput {
            exec: ExecId::from_bytes([2; 16]),
            stream: OutputStream::Stdout,
            offset: 7,
            bytes: Bytes::from_static(b"\xff\n"),
            marks: Vec::new(),
            missing: None,
        };
        let event = Event {
            id: EventId::from_bytes([1; 16]),
            tenant: TenantId::default_tenant(),
            sandbox: Some(SandboxId::from_bytes([3; 16])),
            time: DateTime::from_timestamp(1_750_000_000, 0).unwrap(),
            actor: Actor::Reaper,
            cause: None,
            request_id: None,
            traceparent: None,
            data: output.into(),
        };
        Frame { position: Position(41), ..event.to_frame().unwrap() }
    }

    #[test]
    fn the_recorded_header_is_sent_as_it_is_with_its_position() {
        let frame = frame();
        let message = Message::new(&frame).unwrap();
        let sent: Value = serde_json::from_slice(&message.body).unwrap();
        let mut recorded: Value = serde_json::from_slice(&frame.header).unwrap();
        recorded["position"] = 41.into();
        recorded["bodybase64"] = "/wo=".into();
        assert_eq!(sent, recorded);
        assert_eq!((sent["specversion"].as_str(), sent["id"].as_str()), (Some("1.0"), Some(&*message.id)));
    }

    #[test]
    fn all_attempts_have_one_id_and_each_its_own_time() {
        let secret = WebhookSecret::random().unwrap();
        let message = Message::new(&frame()).unwrap();
        let at = |seconds| DateTime::from_timestamp(seconds, 999_000_000).unwrap();
        let (first, second) = (message.signature(&secret, at(5)), message.signature(&secret, at(6)));
        assert_eq!(first[0], second[0]);
        assert_eq!(first[1].1, "5");
        assert_eq!(first[2].1, secret.sign(&message.id, 5, &message.body));
        assert_ne!(first[2], second[2]);
    }

    #[test]
    fn what_is_no_header_is_no_message() {
        for header in ["", "[]", "{}", "null"] {
            let frame = Frame { header: Bytes::copy_from_slice(header.as_bytes()), ..frame() };
            assert_eq!(Message::new(&frame), None, "{header}");
        }
    }
}
