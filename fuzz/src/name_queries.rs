//! What sandboxes ask for, and what servers say to it, on its way to a sandbox.
//!
//! The resolver is a part of executors that is nobody else's: the files that it judges with stand here once more.

#![allow(dead_code, reason = "only what reads bytes of others is wanted of these files")]

#[path = "../../executor/src/resolver/judge.rs"]
mod judge;
#[path = "../../executor/src/resolver/names.rs"]
mod names;
#[path = "../../executor/src/resolver/packet.rs"]
mod packet;

use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;
use policy::AddressPolicy;

use judge::Judge;

type LeadsInside = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// More is not read of a server.
const LONGEST_ANSWER: usize = 16 * 1024;

/// The first byte says how many of the next ones are the question; the rest is the answer.
pub fn name_queries(input: &[u8]) {
    let Some((length, bytes)) = input.split_first() else { return };
    let (question, answer) = bytes.split_at(usize::from(*length).min(bytes.len()));
    let leads_inside = Box::new(|address| !AddressPolicy::default().permits(address));
    let judge = Judge { leads_inside, open_names: Vec::new() };
    let asked = packet::read(question);
    let refused = asked.as_ref().is_some_and(|asked| judge.refuses(&asked.query).is_some());
    let heard = (answer.len() <= LONGEST_ANSWER).then(|| Message::from_vec(answer).ok()).flatten();
    // Of whatever can be read the same is told, whoever asked.
    let somebody = || packet::read(&PLAIN);
    let Some((asked, message)) = asked.filter(|_| !refused).or_else(somebody).zip(heard) else { return };
    let mut response = asked.response(ResponseCode::NoError, None);
    let Ok(told) = judge.told(message) else { return };
    (response.answers, response.authorities) = (told.answers, told.authorities);
    for datagram in [true, false] {
        let Some(bytes) = asked.bytes(&response, datagram) else { continue };
        assert!(!datagram || bytes.len() <= usize::from(packet::LONGEST_DATAGRAM), "it does not fit");
        let Ok(again) = Message::from_vec(&bytes) else { panic!("what is told cannot be read") };
        assert_eq!(again.queries, std::slice::from_ref(&asked.query), "an answer to something else");
        assert!(again.additionals.is_empty(), "nobody asked for that");
        for record in again.answers.iter().chain(&again.authorities) {
            let address = if let RData::A(address) = &record.data {
                Some(IpAddr::V4(address.0))
            } else if let RData::AAAA(address) = &record.data {
                Some(IpAddr::V6(address.0))
            } else {
                None
            };
            let inside = address.is_some_and(|address| !AddressPolicy::default().permits(address));
            assert!(!inside, "it leads inside: {record}");
        }
        let Ok(told) = judge.told(again.clone()) else { panic!("what was told leads inside") };
        assert_eq!(
            (told.answers, told.authorities),
            (again.answers, again.authorities),
            "it is told otherwise"
        );
    }
}

/// Who is `x.`?
const PLAIN: [u8; 19] = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 0, 0, 1, 0, 1];
