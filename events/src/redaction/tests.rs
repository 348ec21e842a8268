use proptest::prelude::*;

use super::*;
use crate::EventData;

fn secrets<'a>(values: impl IntoIterator<Item = &'a str>) -> Redaction {
    Redaction::default().with_secrets(values)
}

fn rules(patterns: &[&str]) -> Redaction {
    Redaction::from(&RedactionRules::new(patterns.iter().map(|pattern| ("rule", *pattern))).unwrap())
}

fn masked(redaction: &Redaction, text: &str) -> String {
    let mut text = text.to_owned();
    redaction.text(&mut text);
    text
}

/// Every byte of every place, found the slow way.
fn expected(needles: &[String], text: &[u8]) -> Vec<u8> {
    let mut masked = text.to_vec();
    for needle in needles.iter().map(String::as_bytes) {
        for start in 0..(text.len() + 1).saturating_sub(needle.len()) {
            if text[start..].starts_with(needle) {
                masked[start..start + needle.len()].fill(b'*');
            }
        }
    }
    masked
}

fn in_pieces(redaction: &Redaction, text: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut stream = RedactionStream::new(redaction, 0, 0);
    let mut told = Vec::new();
    let mut rest = text;
    for cut in cuts {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        told.extend_from_slice(&stream.push(piece));
        assert!(stream.held() <= redaction.lookbehind() as u64 + RULE_WINDOW as u64);
        rest = after;
    }
    told.extend_from_slice(&stream.push(rest));
    told.extend_from_slice(&stream.flush());
    told
}

#[test]
fn a_match_keeps_its_length() {
    let redaction = secrets(["hunter2", "grün"]);
    assert_eq!(masked(&redaction, "p=hunter2!"), "p=*******!");
    assert_eq!(masked(&redaction, "ein grünes Feld"), "ein *****es Feld");
    assert_eq!(masked(&redaction, "hunter"), "hunter");
    assert_eq!(masked(&rules(&["AKIA[A-Z0-9]{4}"]), "id AKIAX9Y8 ok"), "id ******** ok");
}

#[test]
fn without_rules_and_secrets_nothing_is_held_or_masked() {
    assert!(Redaction::default().is_empty());
    assert!(secrets(["", "abc"]).is_empty());
    assert_eq!(Redaction::default().lookbehind(), 0);
    assert!(matches!(Redaction::default().bytes(b"abc"), Cow::Borrowed(_)));
}

#[test]
fn secrets_are_added_to_those_that_are_there() {
    let both = secrets(["first"]).with_secrets(["second"]);
    assert_eq!(masked(&both, "first second third"), "***** ****** third");
}

#[test]
fn only_what_may_begin_a_secret_is_held() {
    let mut stream = RedactionStream::new(&secrets(["hunter2"]), 0, 0);
    assert_eq!(stream.push(b"$ ")[..], *b"$ ");
    assert_eq!(stream.push(b"ls h")[..], *b"ls ");
    assert_eq!(stream.held(), 1);
    assert_eq!(stream.push(b"unter")[..], *b"");
    assert_eq!(stream.push(b"2\n")[..], *b"*******\n");
    assert_eq!(stream.push(b"hunt")[..], *b"");
    assert_eq!(stream.flush()[..], *b"hunt");
    // What was told cannot be taken back, the rest is masked all the same.
    assert_eq!(stream.push(b"er2 x")[..], *b"*** x");
}

#[test]
fn the_lines_of_a_secret_are_secrets() {
    let redaction = secrets(["-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nabc\n-----END KEY-----"]);
    assert_eq!(masked(&redaction, "\r\nMIIEvQIBADANBgkq\r\nabc\r\n"), "\r\n****************\r\nabc\r\n");
}

#[test]
fn a_rule_sees_the_word_and_what_is_before_it() {
    let redaction = rules(&[r"password: \S+"]);
    let mut stream = RedactionStream::new(&redaction, 0, 0);
    let mut told = Vec::new();
    for piece in ["a pass", "word", ": hun", "ter2\nnext pass", "word: x"] {
        told.extend_from_slice(&stream.push(piece.as_bytes()));
    }
    told.extend_from_slice(&stream.flush());
    assert_eq!(String::from_utf8(told).unwrap(), "a *****************\nnext ***********");
}

#[test]
fn a_rule_that_cannot_be_used_is_named() {
    let error = RedactionRules::new([("keys", "(")]).unwrap_err();
    assert!(error.to_string().contains("keys"), "{error}");
    assert!(RedactionRules::new([("large", r"(\w{200}){200}")]).is_err());
}

#[test]
fn events_are_masked_where_they_hold_text() {
    let exec = crate::ExecId::from_bytes([1; 16]);
    let code = crate::FailureCode::Invalid;
    let message = "no directory /hunter2".to_owned();
    let mut data: EventData = crate::ExecFailed { exec, code, message, request_digest: None }.into();
    data.redact(&secrets(["hunter2"]));
    let EventData::ExecFailed(failed) = data else { panic!("another event") };
    assert_eq!(failed.message, "no directory /*******");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn however_a_stream_is_cut_its_secrets_are_masked_as_in_one_piece(
        needles in prop::collection::vec("[ab]{4,9}", 1..4),
        text in "[abc]{0,200}",
        cuts in prop::collection::vec(0_usize..12, 0..40),
    ) {
        let redaction = secrets(needles.iter().map(String::as_str));
        let whole = expected(&needles, text.as_bytes());
        prop_assert_eq!(&redaction.bytes(text.as_bytes())[..], &whole[..]);
        prop_assert_eq!(in_pieces(&redaction, text.as_bytes(), &cuts), whole);
    }

    #[test]
    fn a_stream_that_is_taken_over_goes_on_as_before(
        needles in prop::collection::vec("[ab]{4,9}", 1..4),
        text in "[abc]{40,200}",
        cut in 0_usize..20,
        more in 0_usize..20,
    ) {
        let redaction = secrets(needles.iter().map(String::as_str));
        let whole = expected(&needles, text.as_bytes());
        let mut first = RedactionStream::new(&redaction, 0, 0);
        let mut told = first.push(&text.as_bytes()[..cut + more]).to_vec();
        // Only a part of what was told reached the record.
        told.truncate(cut);
        let released = told.len();
        let from = released.saturating_sub(redaction.lookbehind());
        let mut second = RedactionStream::new(&redaction, from as u64, released as u64);
        told.extend_from_slice(&second.push(&text.as_bytes()[from..]));
        told.extend_from_slice(&second.flush());
        prop_assert_eq!(told, whole);
    }

    #[test]
    fn rules_keep_every_length(
        text in "[a-z0-9 \n]{0,600}",
        cuts in prop::collection::vec(0_usize..60, 0..40),
    ) {
        let redaction = rules(&["[0-9]{3,}", "key[a-z]*"]).with_secrets(["secret"]);
        let told = in_pieces(&redaction, text.as_bytes(), &cuts);
        prop_assert_eq!(told.len(), text.len());
        let same = told.iter().zip(text.as_bytes()).all(|(told, byte)| told == byte || *told == b'*');
        prop_assert!(same);
    }
}
