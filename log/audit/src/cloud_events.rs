//! The log as CloudEvents 1.0 in JSON, for other systems. It cannot be verified.

use record::AuditRow;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The details of an event, as JSON.
pub(super) fn data_of(header: &[u8]) -> Option<&str> {
    serde_json::from_slice::<Header<'_>>(header).ok().map(|header| header.data.get())
}

/// The event as one line of JSON, with the extensions `position` and, where it had a body, `bodylength`. The stored header
/// is a CloudEvent already, so it is kept as it is.
pub fn cloud_event(row: &AuditRow) -> Option<String> {
    let header = std::str::from_utf8(&row.header).ok()?.trim();
    let rest = header.strip_prefix('{')?;
    let body = row.body_length.map(|length| format!("\"bodylength\":{length},")).unwrap_or_default();
    // As text: numbers of CloudEvents have 32 bits.
    Some(format!("{{\"position\":\"{}\",\"datacontenttype\":\"application/json\",{body}{rest}", row.position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::Position;

    #[test]
    fn an_event_is_its_header_with_its_place() {
        let row = AuditRow {
            position: Position(7),
            header: bytes::Bytes::from_static(br#"{"specversion":"1.0","data":{"a":1}}"#),
            body_length: Some(3),
        };
        let text = cloud_event(&row).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["position"], "7");
        assert_eq!(value["data"]["a"], 1);
        assert_eq!(data_of(&row.header), Some(r#"{"a":1}"#));
    }
}
