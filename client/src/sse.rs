//! Server-sent events: <https://html.spec.whatwg.org/multipage/server-sent-events.html>, as far as a client needs it.

use crate::lines::{LineSplitter, LineTooLong};

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SseEvent {
    /// The last id that the stream named.
    pub id: String,
    /// The data, lines joined by line feeds.
    pub data: String,
}

/// Turns bytes into events.
#[derive(Debug, Default)]
pub struct SseParser {
    lines: LineSplitter,
    id: String,
    data: Option<String>,
}

impl SseParser {
    /// Takes more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.lines.push(bytes);
    }

    /// The next whole event.
    pub fn next_event(&mut self) -> Result<Option<SseEvent>, LineTooLong> {
        while let Some(line) = self.lines.next_line()? {
            let line = String::from_utf8_lossy(&line);
            if line.is_empty() {
                if let Some(data) = self.data.take() {
                    return Ok(Some(SseEvent { id: self.id.clone(), data }));
                }
                continue;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "id" if !value.contains('\0') => value.clone_into(&mut self.id),
                "data" => match &mut self.data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => self.data = Some(value.to_owned()),
                },
                // Comments have an empty name; the other fields are of no use here.
                _ => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parts: &[&[u8]]) -> Vec<(String, String)> {
        let mut parser = SseParser::default();
        let mut events = Vec::new();
        for part in parts {
            parser.push(part);
            while let Some(event) = parser.next_event().unwrap() {
                events.push((event.id, event.data));
            }
        }
        events
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(id, data)| ((*id).to_owned(), (*data).to_owned())).collect()
    }

    #[test]
    fn events_are_the_same_wherever_they_are_cut() {
        let text = "retry: 1000\n\n: still here\n\nid: 1\ndata: {\"a\":\"é\"}\n\nid:2\r\ndata:x\r\ndata: y\r\n\r\nevent: z\n\ndata\n\n";
        let expected = pairs(&[("1", "{\"a\":\"é\"}"), ("2", "x\ny"), ("2", "")]);
        assert_eq!(parse(&[text.as_bytes()]), expected);
        for at in 0..text.len() {
            let (head, tail) = text.as_bytes().split_at(at);
            assert_eq!(parse(&[head, tail]), expected, "cut at {at}");
        }
    }

    #[test]
    fn an_event_that_is_not_finished_is_not_told() {
        assert_eq!(parse(&[b"id: 1\ndata: x\n\nid: 2\ndata: y\n"]), pairs(&[("1", "x")]));
    }
}
