//! Whether queries find an event by what it says. The hash chain covers an event, not the columns beside it.

use events::{Event, Registry, Subject};
use record::{BodyStream, Columns, Encoding, StoredBody, signed};

/// The first column that says something else than the event.
pub(super) fn differs(
    columns: &Columns,
    event: &Event,
    body: Option<&StoredBody>,
    registry: &Registry,
) -> Option<&'static str> {
    let exec = event.data.exec();
    let subject = registry.subject(event);
    let same = |column: Option<&[u8]>, id: Option<&[u8; 16]>| column == id.map(|id| &id[..]);
    let checks = [
        ("id", columns.id[..] == event.id.as_bytes()[..]),
        ("type", columns.type_name == event.data.type_name()),
        ("time", columns.time_us == event.time.timestamp_micros()),
        ("sandbox", same(columns.sandbox.as_deref(), event.sandbox.as_ref().map(|id| id.as_bytes()))),
        ("exec", same(columns.exec.as_deref(), exec.as_ref().map(|id| id.as_bytes()))),
        ("subject", columns.subject.as_deref() == subject.as_ref().map(Subject::as_bytes)),
    ];
    if let Some((name, _)) = checks.into_iter().find(|(_, fits)| !fits) {
        return Some(name);
    }
    let Some(found) = &columns.body else {
        return None;
    };
    let Some(stream) = BodyStream::of(&event.data) else {
        return Some("body");
    };
    let plain = body.and_then(plain_length);
    let checks = [
        ("body's exec", same(Some(&found.exec), exec.as_ref().map(|id| id.as_bytes()))),
        ("body's stream", found.stream == i64::from(stream.code())),
        ("body's offset", found.offset == stream.offset().map(signed)),
        ("body's length", columns.body_length == Some(found.length)),
        ("body's length", plain.is_none_or(|length| signed(length) == found.length)),
    ];
    checks.into_iter().find(|(_, fits)| !fits).map(|(name, _)| name)
}

/// How long a stored body is when it is decoded, where that can be seen without a key.
fn plain_length(body: &StoredBody) -> Option<u64> {
    match body.encoding {
        Encoding::Raw => Some(body.bytes.len() as u64),
        Encoding::Zstd => zstd::zstd_safe::get_frame_content_size(&body.bytes).ok().flatten(),
        Encoding::SealedRaw | Encoding::SealedZstd => None,
    }
}
