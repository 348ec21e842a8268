//! Output on its way to the log, masked; untouched where nothing is masked.

use std::time::Duration;

use agent::protocol::Stream;
use bytes::Bytes;
use secrets::{Redaction, RedactionStream};
use tokio::time::Instant;

use super::pump::Offsets;

/// How long an unfinished word is held back where there are rules, and the first few characters of a secret: a prompt that
/// ends like this comes so much later.
const HOLD: Duration = Duration::from_millis(200);
/// How long the next byte of a secret that has begun is waited for: whoever types one takes their time. Then what has come
/// of it is masked.
const NEXT_BYTE: Duration = Duration::from_secs(2);
/// How long all of it is waited for.
const WHOLE_SECRET: Duration = Duration::from_secs(5);

pub struct Masking {
    streams: Option<[Held; 2]>,
    lookbehind: u64,
}

/// What of one stream is held back, and until when.
struct Held {
    stream: RedactionStream,
    /// Words, and beginnings that are too short to be masked.
    words_until: Option<Instant>,
    /// The beginning of a secret.
    secret: Option<BegunSecret>,
    /// How much of a secret had come.
    begun: u64,
}

#[derive(Clone, Copy)]
struct BegunSecret {
    since: Instant,
    until: Instant,
}

impl Masking {
    /// The next byte of each stream stands at `read`; what is before `told` is only looked at.
    pub fn new(redaction: &Redaction, read: Offsets, told: Offsets) -> Self {
        let stream = |index: usize| Held::new(RedactionStream::new(redaction, read[index], told[index]));
        let streams = (!redaction.is_empty()).then(|| [stream(0), stream(1)]);
        Self { streams, lookbehind: redaction.lookbehind() as u64 }
    }

    /// Takes bytes and gives those that may be told.
    pub fn push(&mut self, stream: Stream, bytes: Bytes, now: Instant) -> Bytes {
        match &mut self.streams {
            Some(streams) => streams[stream.index()].push(&bytes, now),
            None => bytes,
        }
    }

    /// When something that is held has to be told.
    pub fn due(&self) -> Option<Instant> {
        self.streams.as_ref().and_then(|streams| streams.iter().filter_map(Held::due).min())
    }

    /// Gives what has been held for long enough.
    pub fn take_due(&mut self, stream: Stream, now: Instant) -> Bytes {
        self.streams.as_mut().map_or_else(Bytes::new, |streams| streams[stream.index()].take_due(now))
    }

    /// Gives what was held back, because there is no more.
    pub fn flush(&mut self, stream: Stream) -> Bytes {
        self.streams.as_mut().map_or_else(Bytes::new, |streams| streams[stream.index()].flush())
    }

    pub fn held(&self, stream: Stream) -> u64 {
        self.streams.as_ref().map_or(0, |streams| streams[stream.index()].stream.held())
    }

    /// How much before a place must be seen again to go on there.
    pub const fn lookbehind(&self) -> u64 {
        self.lookbehind
    }
}

impl Held {
    const fn new(stream: RedactionStream) -> Self {
        Self { stream, words_until: None, secret: None, begun: 0 }
    }

    fn due(&self) -> Option<Instant> {
        [self.words_until, self.secret.map(|secret| secret.until)].into_iter().flatten().min()
    }

    fn push(&mut self, bytes: &[u8], now: Instant) -> Bytes {
        let told = self.stream.push(bytes);
        let (held, begun, guarded) = (self.stream.held(), self.stream.begun(), self.stream.guarded());
        let grows = begun > self.begun;
        self.begun = begun;
        self.secret = (held > 0 && guarded > 0).then(|| {
            let since = self.secret.filter(|_| grows).map_or(now, |secret| secret.since);
            BegunSecret { since, until: (now + NEXT_BYTE).min(since + WHOLE_SECRET) }
        });
        if held <= guarded {
            self.words_until = None;
        } else if self.words_until.is_none() || !told.is_empty() || grows && held == begun {
            self.words_until = Some(now + HOLD);
        }
        told
    }

    fn take_due(&mut self, now: Instant) -> Bytes {
        if self.secret.is_some_and(|secret| secret.until <= now) {
            return self.flush();
        }
        if self.words_until.is_some_and(|until| until <= now) {
            self.words_until = None;
            return self.stream.flush_words();
        }
        Bytes::new()
    }

    fn flush(&mut self) -> Bytes {
        (self.words_until, self.secret) = (None, None);
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "kestrel-9f31-violet-77";

    /// Types it a key at a time, with this pause before each, and gives what is told.
    fn typed(redaction: &Redaction, keys: &str, pause: Duration) -> String {
        let mut now = Instant::now();
        let mut masking = Masking::new(redaction, [0, 0], [0, 0]);
        let mut told = Vec::new();
        for key in keys.bytes() {
            let next = now + pause;
            while let Some(due) = masking.due().filter(|due| *due <= next) {
                told.extend_from_slice(&masking.take_due(Stream::Stdout, due));
                // The other stream has its own time.
                assert!(masking.take_due(Stream::Stderr, due).is_empty());
            }
            now = next;
            told.extend_from_slice(&masking.push(Stream::Stdout, Bytes::copy_from_slice(&[key]), now));
        }
        told.extend_from_slice(&masking.flush(Stream::Stdout));
        String::from_utf8(told).unwrap()
    }

    #[test]
    fn however_slowly_a_secret_is_typed_no_more_than_three_characters_are_told() {
        let redaction = Redaction::default().with_secrets([SECRET]);
        let ruled = secrets::RedactionRules::new([("tokens", "tok_[0-9]{4}")]).unwrap();
        let ruled = Redaction::from(&ruled).with_secrets([SECRET]);
        let line = format!("is {SECRET}\r\nkestrel\r\n");
        for redaction in [&redaction, &ruled] {
            for pause in [20, 150, 250, 350, 900, 1900, 2100, 6000] {
                let told = typed(redaction, &line, Duration::from_millis(pause));
                assert_eq!(told.len(), line.len());
                let clear = told["is ".len()..].find('*').unwrap();
                assert!(clear <= 3 && (pause > 200 || clear == 0), "{pause}: {told}");
                let stars = &told["is ".len() + clear..][..SECRET.len() - clear];
                assert!(stars.bytes().all(|byte| byte == b'*'), "{pause}: {told}");
                // What goes on in another way while it is waited for is told.
                assert!(pause > 900 || told.contains("kestrel"), "{pause}: {told}");
                // Neither is what was begun and given up told in part.
                let cut = typed(redaction, &line[.."is ".len() + 18], Duration::from_millis(pause));
                assert!(!cut.contains(&SECRET[..4]), "{pause}: {cut}");
            }
        }
    }

    #[test]
    fn words_wait_for_as_long_as_ever() {
        let ruled = secrets::RedactionRules::new([("tokens", "tok_[0-9]{4}")]).unwrap();
        let redaction = Redaction::from(&ruled).with_secrets([SECRET]);
        let mut masking = Masking::new(&redaction, [0, 0], [0, 0]);
        let now = Instant::now();
        assert!(masking.push(Stream::Stderr, Bytes::from_static(b"kestrel"), now).is_empty());
        assert_eq!(masking.due(), Some(now + NEXT_BYTE));
        let later = now + Duration::from_secs(1);
        assert!(masking.push(Stream::Stdout, Bytes::from_static(b"word"), later).is_empty());
        assert_eq!(masking.due(), Some(later + HOLD));
        assert_eq!(masking.take_due(Stream::Stdout, later + HOLD)[..], *b"word");
        assert!(masking.take_due(Stream::Stderr, later + HOLD).is_empty());
        assert_eq!(masking.take_due(Stream::Stderr, now + NEXT_BYTE)[..], *b"*******");
        assert_eq!(masking.due(), None);
        assert_eq!(masking.push(Stream::Stderr, Bytes::from_static(b"s \n"), now + NEXT_BYTE)[..], *b"s \n");
    }

    #[test]
    fn a_secret_is_not_waited_for_without_end() {
        let redaction = Redaction::default().with_secrets([SECRET.repeat(4)]);
        let mut masking = Masking::new(&redaction, [0, 0], [0, 0]);
        let begin = Instant::now();
        for second in 0..5 {
            let key = Bytes::copy_from_slice(&SECRET.repeat(4).as_bytes()[second * 7..][..7]);
            let now = begin + Duration::from_secs(second as u64);
            assert!(masking.push(Stream::Stdout, key, now).is_empty());
            assert!(masking.due().is_some_and(|due| due <= begin + WHOLE_SECRET));
        }
        assert_eq!(masking.take_due(Stream::Stdout, begin + WHOLE_SECRET)[..], *"*".repeat(35).as_bytes());
    }
}
