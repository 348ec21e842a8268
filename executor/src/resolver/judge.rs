//! What is asked for boxes, and what of an answer they hear.

use std::net::IpAddr;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::svcb::{IpHint, SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};

use super::LeadsInside;
use super::names::{Name, is_closed};

/// What is asked for, and the records that are told. Nothing else has an address in it, and no record of theirs is read in a way that we
/// do not know.
const KINDS: [RecordType; 22] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::CAA,
    RecordType::CERT,
    RecordType::CNAME,
    RecordType::DNSKEY,
    RecordType::DS,
    RecordType::HTTPS,
    RecordType::MX,
    RecordType::NAPTR,
    RecordType::NS,
    RecordType::OPENPGPKEY,
    RecordType::PTR,
    RecordType::SMIMEA,
    RecordType::SOA,
    RecordType::SRV,
    RecordType::SSHFP,
    RecordType::SVCB,
    RecordType::TLSA,
    RecordType::TXT,
    RecordType::Unknown(29),  // LOC
    RecordType::Unknown(256), // URI
];

/// Whether and how a box hears of something.
pub(super) struct Judge {
    pub(super) leads_inside: LeadsInside,
    pub(super) open_names: Vec<Name>,
}

/// What is told of an answer.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
}

/// An answer that leads inside, or goes by way of a name of the inside.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LedInside;

impl Judge {
    /// What a box hears at once, if the question is not to be passed on.
    pub(super) fn refuses(&self, query: &Query) -> Option<ResponseCode> {
        if query.query_class != DNSClass::IN || !KINDS.contains(&query.query_type) {
            return Some(ResponseCode::Refused);
        }
        is_closed(&query.name, &self.open_names, &self.leads_inside).then_some(ResponseCode::NXDomain)
    }

    /// What a box hears of a server's answer. One record that leads inside is enough to hear nothing of it.
    pub(super) fn told(&self, answer: Message) -> Result<Told, LedInside> {
        let records = answer.answers.iter().chain(&answer.authorities).chain(&answer.additionals);
        if records.clone().any(|record| self.leads_inside(record)) {
            return Err(LedInside);
        }
        // A name of the inside that somebody outside has pointed to would say what is there.
        if answer.answers.iter().any(|record| self.goes_by_the_inside(record)) {
            return Err(LedInside);
        }
        let told = |records: Vec<Record>| -> Vec<Record> {
            let ours =
                |record: &Record| record.dns_class == DNSClass::IN && KINDS.contains(&record.record_type());
            records.into_iter().filter(ours).filter_map(|record| self.without_hints(record)).collect()
        };
        let mut authorities = told(answer.authorities);
        // How long there is no such name. Who else might be asked is nothing to a box, which asks nobody else.
        authorities.retain(|record| record.record_type() == RecordType::SOA);
        Ok(Told { answers: told(answer.answers), authorities })
    }

    fn leads_inside(&self, record: &Record) -> bool {
        if let RData::A(address) = &record.data {
            (self.leads_inside)(IpAddr::V4(address.0))
        } else if let RData::AAAA(address) = &record.data {
            (self.leads_inside)(IpAddr::V6(address.0))
        } else {
            false
        }
    }

    fn goes_by_the_inside(&self, record: &Record) -> bool {
        let closed = |name| is_closed(name, &self.open_names, &self.leads_inside);
        closed(&record.name) || matches!(&record.data, RData::CNAME(to) if closed(&to.0))
    }

    /// The record without hints at addresses that lead inside; nothing is left of one that cannot be used without them.
    fn without_hints(&self, mut record: Record) -> Option<Record> {
        let service: &mut SVCB = if let RData::HTTPS(https) = &mut record.data {
            &mut https.0
        } else if let RData::SVCB(service) = &mut record.data {
            service
        } else {
            return Some(record);
        };
        let inside = |value: &SvcParamValue| {
            if let SvcParamValue::Ipv4Hint(IpHint(hints)) = value {
                hints.iter().any(|hint| (self.leads_inside)(IpAddr::V4(hint.0)))
            } else if let SvcParamValue::Ipv6Hint(IpHint(hints)) = value {
                hints.iter().any(|hint| (self.leads_inside)(IpAddr::V6(hint.0)))
            } else {
                false
            }
        };
        let gone: Vec<SvcParamKey> =
            service.svc_params.iter().filter(|(_, value)| inside(value)).map(|(key, _)| *key).collect();
        service.svc_params.retain(|(key, _)| !gone.contains(key));
        let needed = service.svc_params.iter().any(|(_, value)| {
            matches!(value, SvcParamValue::Mandatory(keys) if keys.0.iter().any(|key| gone.contains(key)))
        });
        (!needed).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Name as DnsName;
    use hickory_proto::rr::rdata::svcb::{Alpn, Mandatory};
    use hickory_proto::rr::rdata::{A, AAAA, CNAME, HTTPS, NULL, SOA, TXT};
    use policy::AddressPolicy;

    use super::*;

    const PUBLIC: &str = "93.184.215.14";

    fn judge() -> Judge {
        let leads_inside = Box::new(|address| !AddressPolicy::default().permits(address));
        Judge { leads_inside, open_names: vec!["open.internal".parse().unwrap()] }
    }

    fn name(text: &str) -> DnsName {
        let mut name = DnsName::from_ascii(text).unwrap();
        name.set_fqdn(true);
        name
    }

    fn address(owner: &str, address: &str) -> Record {
        let data = match address.parse().unwrap() {
            IpAddr::V4(v4) => RData::A(A(v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
        };
        Record::from_rdata(name(owner), 60, data)
    }

    fn alias(owner: &str, to: &str) -> Record {
        Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(to))))
    }

    fn answer(answers: Vec<Record>) -> Message {
        let mut message = Message::query();
        message.answers = answers;
        message
    }

    #[test]
    fn an_answer_with_anything_that_leads_inside_is_not_told() {
        for inside in [
            "10.0.0.5",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00::5",
            "fd00:ec2::254",
            "fec0::1",
            "ff02::fb",
            "::ffff:10.0.0.5",
            "::ffff:0:10.0.0.5",
            "::10.0.0.5",
            "64:ff9b::10.0.0.5",
            "64:ff9b:1::10.0.0.5",
            "2002:a00:5::",
            "2001:0:a00:5::",
            "2001:db8::1",
        ] {
            let leading = || address("x.test", inside);
            let good = || address("x.test", PUBLIC);
            for answers in [
                vec![leading()],
                vec![good(), leading()],
                vec![leading(), good()],
                vec![alias("x.test", "y.test"), address("y.test", inside)],
                vec![alias("x.test", "y.test"), alias("y.test", "z.test"), address("z.test", inside)],
            ] {
                assert_eq!(judge().told(answer(answers)).unwrap_err(), LedInside, "{inside}");
            }
            let (mut beside, mut above) = (answer(vec![good()]), answer(vec![good()]));
            beside.additionals.push(leading());
            above.authorities.push(leading());
            assert_eq!(judge().told(beside).unwrap_err(), LedInside, "{inside}");
            assert_eq!(judge().told(above).unwrap_err(), LedInside, "{inside}");
            // Of whatever class.
            let mut chaos = leading();
            chaos.dns_class = DNSClass::CH;
            assert_eq!(judge().told(answer(vec![good(), chaos])).unwrap_err(), LedInside, "{inside}");
        }
    }

    #[test]
    fn an_answer_by_way_of_a_name_of_the_inside_is_not_told() {
        let text = |owner: &str| {
            Record::from_rdata(name(owner), 60, RData::TXT(TXT::new(vec!["secret".to_owned()])))
        };
        for inside in
            ["db.internal", "1.0.0.10.in-addr.arpa", "10.in-addr.arpa", "db", "x.local", "x.LOCALHOST"]
        {
            for answers in [
                vec![alias("x.test", inside)],
                vec![alias("x.test", inside), text(inside)],
                vec![text(inside)],
            ] {
                assert_eq!(judge().told(answer(answers)).unwrap_err(), LedInside, "{inside}");
            }
        }
        let opened = vec![alias("x.test", "a.open.internal"), text("a.open.internal")];
        assert_eq!(judge().told(answer(opened.clone())).unwrap().answers, opened);
    }

    #[test]
    fn what_is_public_is_told_and_nothing_that_nobody_asked_for() {
        let mut message = answer(vec![
            alias("x.test", "y.test"),
            address("y.test", PUBLIC),
            address("y.test", "2606:4700:4700::1111"),
            address("y.test", "::ffff:93.184.215.14"),
        ]);
        let answers = message.answers.clone();
        message.answers.push(Record::from_rdata(
            name("x.test"),
            60,
            RData::NULL(NULL::with(vec![10, 0, 0, 5])),
        ));
        let unknown = RData::Unknown { code: RecordType::Unknown(38), rdata: NULL::with(vec![0; 17]) };
        message.answers.push(Record::from_rdata(name("x.test"), 60, unknown));
        message.additionals.push(address("ns.test", PUBLIC));
        let soa = SOA::new(name("ns.test"), name("host.test"), 1, 2, 3, 4, 5);
        message.authorities.push(address("ns.test", PUBLIC));
        message.authorities.push(Record::from_rdata(name("test"), 60, RData::SOA(soa)));
        let told = judge().told(message).unwrap();
        assert_eq!(told.answers, answers);
        let kinds: Vec<_> = told.authorities.iter().map(Record::record_type).collect();
        assert_eq!(kinds, [RecordType::SOA]);
    }

    #[test]
    fn hints_that_lead_inside_are_taken_out_of_services() {
        let v4 = |hints: &[&str]| {
            let hints = hints.iter().map(|hint| A(hint.parse().unwrap())).collect();
            (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(hints)))
        };
        let v6 = |hints: &[&str]| {
            let hints = hints.iter().map(|hint| AAAA(hint.parse().unwrap())).collect();
            (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(hints)))
        };
        let alpn = (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(vec!["h2".to_owned()])));
        let record = |params: Vec<(SvcParamKey, SvcParamValue)>, https: bool| {
            let service = SVCB::new(1, name("x.test"), params);
            let data = if https { RData::HTTPS(HTTPS(service)) } else { RData::SVCB(service) };
            Record::from_rdata(name("x.test"), 60, data)
        };
        for https in [true, false] {
            let told = |params| judge().told(answer(vec![record(params, https)])).unwrap().answers;
            let good = vec![alpn.clone(), v4(&[PUBLIC]), v6(&["2606:4700:4700::1111"])];
            assert_eq!(told(good.clone()), [record(good, https)]);
            for bad in
                [v4(&["10.0.0.5"]), v4(&[PUBLIC, "10.0.0.5"]), v6(&["fd00::5"]), v6(&["::ffff:10.0.0.5"])]
            {
                assert_eq!(told(vec![alpn.clone(), bad.clone()]), [record(vec![alpn.clone()], https)]);
                let mandatory = (SvcParamKey::Mandatory, SvcParamValue::Mandatory(Mandatory(vec![bad.0])));
                assert_eq!(told(vec![mandatory, bad]), []);
            }
        }
    }

    #[test]
    fn only_ordinary_questions_about_names_of_the_outside_are_passed_on() {
        let asked = |text: &str, kind: RecordType| Query::query(name(text), kind);
        let outcome = |query: Query| judge().refuses(&query);
        for kind in KINDS {
            assert_eq!(outcome(asked("x.test", kind)), None, "{kind}");
            assert_eq!(outcome(asked("x.internal", kind)), Some(ResponseCode::NXDomain), "{kind}");
            assert_eq!(outcome(asked("x.open.internal", kind)), None, "{kind}");
        }
        for kind in [
            RecordType::ANY,
            RecordType::AXFR,
            RecordType::IXFR,
            RecordType::OPT,
            RecordType::TSIG,
            RecordType::NULL,
        ]
        .into_iter()
        .chain([10, 38, 253, 254, 249, 65_280].map(RecordType::from))
        {
            assert_eq!(outcome(asked("x.test", kind)), Some(ResponseCode::Refused), "{kind}");
        }
        for class in [DNSClass::CH, DNSClass::HS, DNSClass::NONE, DNSClass::ANY] {
            let mut query = asked("version.bind", RecordType::TXT);
            query.set_query_class(class);
            assert_eq!(outcome(query), Some(ResponseCode::Refused), "{class}");
        }
    }
}
