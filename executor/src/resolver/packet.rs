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
        let whole = response.to_vec().ok().filter(|bytes| bytes.len() <= most);
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
