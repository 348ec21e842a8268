use base64::Engine as _;
use events::{EventData, ExecEvent};
use proptest::prelude::*;

use super::*;

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
    told.extend_from_slice(&stream.finish());
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
    assert_eq!(stream.push(b"h")[..], *b"");
    assert_eq!((stream.begun(), stream.guarded()), (1, 0));
    assert_eq!(stream.flush()[..], *b"h");
    assert_eq!(stream.push(b"unt")[..], *b"");
    assert_eq!((stream.begun(), stream.guarded()), (4, 4));
    assert_eq!(stream.flush_words()[..], *b"");
    // What cannot be waited for any longer is masked, but for what was told.
    assert_eq!(stream.flush()[..], *b"***");
    assert_eq!(stream.push(b"er")[..], *b"");
    assert_eq!(stream.push(b"2 x")[..], *b"*** x");
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
    let exec = events::ExecId::from_bytes([1; 16]);
    let code = events::FailureCode::Invalid;
    let message = "no directory /hunter2".to_owned();
    let mut data: EventData = events::ExecFailed { exec, code, message, request_digest: None }.into();
    secrets(["hunter2"]).event(&mut data);
    let EventData::Exec(ExecEvent::Failed(failed)) = data else { panic!("another event") };
    assert_eq!(failed.message, "no directory /*******");
}

/// How other programs than ours write a value, by other means than ours.
fn written(value: &str) -> Vec<(&'static str, Vec<u8>)> {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
    let bytes = value.as_bytes();
    let hex = hex::encode(bytes);
    let percent = |plain: &dyn Fn(u8) -> bool| -> String {
        let each = bytes.iter().map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() || plain(*byte) => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        });
        each.collect()
    };
    let json = serde_json::to_string(value).unwrap();
    let ascii: String = json
        .encode_utf16()
        .map(|unit| match u8::try_from(unit) {
            Ok(unit) if unit.is_ascii() && unit != 0x7f => char::from(unit).to_string(),
            _ => format!("\\u{unit:04x}"),
        })
        .collect();
    let pem: String = STANDARD
        .encode(bytes)
        .as_bytes()
        .chunks(64)
        .fold(String::new(), |lines, line| lines + std::str::from_utf8(line).unwrap() + "\n");
    let mut all = vec![
        ("itself", bytes.to_vec()),
        ("base64", STANDARD.encode(bytes).into_bytes()),
        ("base64 for URLs", URL_SAFE.encode(bytes).into_bytes()),
        ("base64 in lines", pem.into_bytes()),
        ("hex", hex.clone().into_bytes()),
        ("upper hex", hex.to_uppercase().into_bytes()),
        ("RFC 3986", percent(&|byte| b"-_.~".contains(&byte)).into_bytes()),
        ("encodeURIComponent", percent(&|byte| b"-_.~!*'()".contains(&byte)).into_bytes()),
        ("a form", percent(&|byte| b"-_.* ".contains(&byte)).replace(' ', "+").into_bytes()),
        ("JSON", json.as_bytes()[1..json.len() - 1].to_vec()),
        ("JSON in ASCII", ascii.as_bytes()[1..ascii.len() - 1].to_vec()),
        ("JSON with slashes", json[1..json.len() - 1].replace('/', "\\/").into_bytes()),
        ("single quotes", format!("'{}'", value.replace('\'', "'\\''")).into_bytes()),
        ("quotes in quotes", format!("'{}'", value.replace('\'', "'\"'\"'")).into_bytes()),
    ];
    for neighbours in ["", "u", "us", "usr", "user:"] {
        for after in ["", "\n", "@h", "@ho"] {
            let text = format!("{neighbours}{value}{after}");
            all.push(("base64 of a longer text", STANDARD.encode(&text).into_bytes()));
            all.push(("base64 for URLs of a longer text", URL_SAFE_NO_PAD.encode(&text).into_bytes()));
        }
    }
    all
}

#[test]
fn what_encodings_make_of_a_secret_is_masked() {
    let redaction = secrets(["p4ss/w0rd+'\"ü"]);
    for (line, expected) in [
        (
            "Authorization: Basic dXNlcjpwNHNzL3cwcmQrJyLDvA==",
            "Authorization: Basic dXNlcjp******************A==",
        ),
        ("703473732f773072642b2722c3bc", "****************************"),
        ("x?p=p4ss%2Fw0rd%2B%27%22%C3%BC&y", "x?p=**************************&y"),
        (r#"{"p":"p4ss/w0rd+'\"\u00fc"}"#, r#"{"p":"*******************"}"#),
        (r#"{"p":"p4ss\/w0rd+'\"\u00fc"}"#, r#"{"p":"********************"}"#),
    ] {
        assert_eq!(masked(&redaction, line), expected);
    }
}

#[test]
fn short_secrets_do_not_mask_what_only_looks_like_their_forms() {
    let redaction = secrets(["abcd", "12345"]);
    for text in ["YWJjZA==", "61626364", "3132333435", "MTIzNDU="] {
        assert_eq!(masked(&redaction, text), text);
    }
    assert_eq!(masked(&redaction, "abcd"), "****");
}

#[test]
fn the_forms_of_the_most_and_longest_secrets_are_bounded() {
    let many: Vec<String> = (0..MAX_SECRETS)
        .map(|number| format!("{number:03}\u{1}\"/ü").repeat(MAX_SECRETS_BYTES / 64 / 9))
        .collect();
    let one = "\u{1}".repeat(MAX_SECRETS_BYTES);
    let longest = "\u{1}".repeat(forms::MAX_VALUE_BYTES);
    for values in
        [many.iter().map(String::as_str).collect::<Vec<_>>(), vec![&one], vec![&longest, "kestrel-9f31"]]
    {
        let redaction = secrets(values.iter().copied());
        assert!(redaction.lookbehind() < MAX_SECRETS_BYTES);
        for value in values {
            assert!(!masked(&redaction, &format!("x{value}y")).contains(value));
        }
    }
    let redaction = secrets([&longest[..], "kestrel-9f31"]);
    assert_eq!(masked(&redaction, "6b65737472656c2d39663331"), "*".repeat(24));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// In any form, cut anywhere, with pauses anywhere: what was told in clear is no more than a few characters.
    #[test]
    fn no_form_of_a_secret_is_told_however_it_is_cut(
        value in "[a-zA-Z0-9 /+'\"\\\\<&=$ü€\u{1}]{16,120}",
        cuts in prop::collection::vec(1_usize..30, 0..30),
        pauses in prop::collection::vec(any::<bool>(), 30),
    ) {
        let redaction = secrets([&value[..]]);
        for (name, form) in written(&value) {
            let text = [b"before: ".as_slice(), &form, b" :after\n"].concat();
            let whole = redaction.bytes(&text).into_owned();
            prop_assert_eq!(&in_pieces(&redaction, &text, &cuts), &whole, "{} of {:?}", name, value);
            prop_assert_eq!(whole.len(), text.len());
            // Escapes of base64 and hex leave the edges that belong to the neighbours.
            let inner = match name {
                "base64 of a longer text" | "base64 for URLs of a longer text" => &form[10..form.len().saturating_sub(6).max(10)],
                _ => &form[..],
            };
            let at = text.windows(inner.len()).position(|window| window == inner).unwrap();
            let told = &whole[at..at + inner.len()];
            let clear = told.iter().filter(|byte| **byte != b'*').count();
            prop_assert!(clear <= 6, "{}: {:?}", name, String::from_utf8_lossy(&whole));

            // The same with pauses between pieces in which all is told that can be.
            let mut stream = RedactionStream::new(&redaction, 0, 0);
            let mut paused = Vec::new();
            let mut rest = &text[..];
            for (cut, pause) in cuts.iter().zip(&pauses) {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                paused.extend_from_slice(&stream.push(piece));
                if *pause {
                    paused.extend_from_slice(&stream.flush());
                }
                rest = after;
            }
            paused.extend_from_slice(&stream.push(rest));
            paused.extend_from_slice(&stream.flush());
            prop_assert_eq!(paused.len(), text.len());
            let told = &paused[at..at + inner.len()];
            let clear = told.iter().filter(|byte| **byte != b'*').count();
            prop_assert!(clear <= 9, "{}: {:?}", name, String::from_utf8_lossy(&paused));
        }
    }
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
        told.extend_from_slice(&second.finish());
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
