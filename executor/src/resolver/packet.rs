//! Questions as they come, and answers as they go.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;

/// Where name servers listen.
pub(super) const PORT: u16 = 53;
/// How long a question may be, in bytes: a name has at most 255.
pub(super) const LONGEST_QUESTION: usize = 512;
/// How long an answer may be in one datagram, in bytes, where who asks takes more than 512: what fits through any network.
pub(super) const LONGEST_DATAGRAM: u16 = 1_232;
const HEADER: usize = 12;
/// The number of the option that says what was wrong (RFC 8914).
const EXTENDED_ERROR: u16 = 15;

/// One question of a box.
#[derive(Debug)]
pub(super) struct Asked {
    id: u16,
    recursion_desired: bool,
    /// How long an answer may be in one datagram; `None`: who asks knows nothing of such things.
    payload: Option<u16>,
    pub(super) query: Query,
}

/// Why a question is not answered as it might be (RFC 8914).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The servers said no.
    Other = 0,
    /// It is nothing for boxes.
    Blocked = 15,
    /// There are no servers, or none answers.
    NoServer = 22,
    /// What they said cannot be used.
    Unusable = 24,
}

/// Reads a question. `None`: it is none, and whoever sends such things hears nothing.
pub(super) fn read(bytes: &[u8]) -> Option<Asked> {
    if bytes.len() > LONGEST_QUESTION {
        return None;
    }
    let header = bytes.get(..HEADER)?;
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    // One question, and at most the record that says what who asks can do. Looked at before anything is made of it.
    if count(4) != 1 || count(6) != 0 || count(8) != 0 || count(10) > 1 {
        return None;
    }
    let message = Message::from_vec(bytes).ok()?;
    let of_a_client = message.metadata.message_type == MessageType::Query
        && message.metadata.op_code == OpCode::Query
        && !message.metadata.truncation;
    if !of_a_client || message.edns.is_none() != (count(10) == 0) {
        return None;
    }
    let [query] = <[Query; 1]>::try_from(message.queries).ok()?;
    Some(Asked {
        id: message.metadata.id,
        recursion_desired: message.metadata.recursion_desired,
        payload: message.edns.map(|edns| edns.max_payload().clamp(512, LONGEST_DATAGRAM)),
        query,
    })
}

impl Asked {
    /// An answer to it, empty.
    pub(super) fn response(&self, code: ResponseCode, reason: Option<Reason>) -> Message {
        let mut response = Message::response(self.id, OpCode::Query);
        response.metadata.recursion_desired = self.recursion_desired;
        response.metadata.recursion_available = true;
        response.metadata.response_code = code;
        response.add_query(self.query.clone());
        if self.payload.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(LONGEST_DATAGRAM);
            if let Some(reason) = reason {
                let code = (reason as u16).to_be_bytes().to_vec();
                edns.options_mut().insert(EdnsOption::Unknown(EXTENDED_ERROR, code));
            }
            response.set_edns(edns);
        }
        response
    }

    /// An answer as bytes. What is too long for a datagram is said to be, and can be asked for over a connection.
    pub(super) fn bytes(&self, response: &Message, datagram: bool) -> Option<Vec<u8>> {
        let most = if datagram { self.payload.unwrap_or(512).into() } else { usize::from(u16::MAX) };
        // What is longer than any message is cut short there, and marked so.
        let cut = |bytes: &[u8]| bytes.get(2).is_none_or(|flags| flags & 0x02 != 0);
        // What a server wrote badly, and we after it, nobody is to read in a way of their own.
        let readable = |bytes: &[u8]| Message::from_vec(bytes).is_ok();
        let fits = |bytes: &Vec<u8>| bytes.len() <= most && !cut(bytes) && readable(bytes);
        let whole = response.to_vec().ok().filter(fits);
        whole.or_else(|| {
            let mut short = self.response(ResponseCode::NoError, None);
            short.metadata.truncation = datagram;
            if !datagram {
                short.metadata.response_code = ResponseCode::ServFail;
            }
            short.to_vec().ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{A, TXT};
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn question(payload: Option<u16>) -> Message {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name("x.test."), RecordType::A));
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        message
    }

    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = question(None).to_vec().unwrap();
        change(&mut bytes);
        bytes
    }

    #[test]
    fn what_is_no_question_is_not_read() {
        assert!(read(&changed(|_| ())).is_some());
        let flags = |at: usize, bits: u8| changed(|bytes| bytes[at] |= bits);
        let count = |at: usize, count: u8| changed(|bytes| bytes[at + 1] = count);
        let record = |additional: bool| {
            let mut message = question(None);
            let record = Record::from_rdata(name("x.test."), 60, RData::A(A::new(10, 0, 0, 5)));
            if additional {
                message.add_additional(record)
            } else {
                message.add_answer(record)
            };
            message.to_vec().unwrap()
        };
        let with_name = |name: &[u8]| {
            changed(|bytes| {
                bytes.truncate(12);
                bytes.extend_from_slice(name);
                bytes.extend_from_slice(&[0, 1, 0, 1]);
            })
        };
        let mut two = question(None);
        two.add_query(Query::query(name("y.test."), RecordType::A));
        for (what, bytes) in [
            ("nothing", Vec::new()),
            ("a part of a header", vec![0; 11]),
            ("a header", changed(|bytes| bytes.truncate(12))),
            ("half a question", changed(|bytes| bytes.truncate(18))),
            ("too long", changed(|bytes| bytes.resize(LONGEST_QUESTION + 1, 0))),
            ("an answer", flags(2, 0x80)),
            ("cut short", flags(2, 0x02)),
            ("a status", flags(2, 0x10)),
            ("a notice", flags(2, 0x20)),
            ("an update", flags(2, 0x28)),
            ("no question", count(4, 0)),
            ("two questions", two.to_vec().unwrap()),
            ("65,535 questions", changed(|bytes| bytes[4..6].fill(255))),
            ("an answer that is not there", count(6, 1)),
            ("65,535 records", changed(|bytes| bytes[10..12].fill(255))),
            ("an answer in a question", record(false)),
            ("a record beside it", record(true)),
            ("a loop", with_name(&[0xc0, 12])),
            ("a way forward", with_name(&[0xc0, 40])),
            ("a label without an end", with_name(&[63, b'a', 0])),
            ("a label of another kind", with_name(&[0x80, b'a', 0])),
            ("a name of 300 bytes", with_name(&[&[9; 10].repeat(30)[..], &[0]].concat())),
        ] {
            assert!(read(&bytes).is_none(), "{what}");
        }
    }

    #[test]
    fn answers_fit_where_they_go_or_are_said_not_to() {
        let long = |count: usize, asked: &Asked| {
            let mut response = asked.response(ResponseCode::NoError, None);
            let text = RData::TXT(TXT::new(vec!["x".repeat(200)]));
            response.answers = vec![Record::from_rdata(name("x.test."), 60, text); count];
            response
        };
        for (payload, most) in
            [(None, 512), (Some(0), 512), (Some(512), 512), (Some(1_000), 1_000), (Some(65_535), 1_232)]
        {
            let asked = read(&question(payload).to_vec().unwrap()).unwrap();
            for count in 0..10 {
                let response = long(count, &asked);
                let bytes = asked.bytes(&response, true).unwrap();
                assert!(bytes.len() <= most, "{payload:?}, {count}: {}", bytes.len());
                let told = Message::from_vec(&bytes).unwrap();
                let whole = response.to_vec().unwrap().len() <= most;
                assert_eq!(
                    (told.metadata.truncation, told.answers.len()),
                    (!whole, if whole { count } else { 0 })
                );
                let by_connection = Message::from_vec(&asked.bytes(&response, false).unwrap()).unwrap();
                assert_eq!(by_connection.answers, response.answers);
            }
            // More than any message can have.
            let told = Message::from_vec(&asked.bytes(&long(400, &asked), false).unwrap()).unwrap();
            assert_eq!(told.metadata.response_code, ResponseCode::ServFail);
        }
    }

    #[test]
    fn an_answer_is_of_its_question_and_says_why_where_that_is_understood() {
        for payload in [None, Some(1_232)] {
            let sent = question(payload);
            let asked = read(&sent.to_vec().unwrap()).unwrap();
            let response = asked.response(ResponseCode::NXDomain, Some(Reason::Blocked));
            let told = Message::from_vec(&asked.bytes(&response, true).unwrap()).unwrap();
            assert_eq!((told.metadata.id, &told.queries), (sent.metadata.id, &sent.queries));
            assert!(told.metadata.recursion_available && told.metadata.recursion_desired);
            let why = told.edns.map(|edns| edns.option(EXTENDED_ERROR.into()).cloned());
            let blocked = EdnsOption::Unknown(EXTENDED_ERROR, vec![0, 15]);
            assert_eq!(why, payload.map(|_| Some(blocked)));
        }
    }
}
