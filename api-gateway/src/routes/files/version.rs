//! What a client may hold a file by, to have the rest of it and not of another (RFC 9110, 8.8 and 13.1.5).

use axum::http::{HeaderMap, header};
use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use transport::FileEntry;

use crate::routes::range::set;

/// For so long after a change of a file another one may leave it with the same time, in milliseconds: a tick of the kernel's
/// clock.
const TICK_MS: i64 = 10;
/// The same of a time in whole seconds.
const SECOND_MS: i64 = 2_000;

/// A file as it was when it was looked at, by its size and the time of its last change.
pub struct Version {
    /// Without what marks it as weak.
    tag: String,
    /// Whether no other content can have the same tag, as long as nobody sets times back.
    strong: bool,
    /// Only once nothing else can have the same.
    modified: Option<String>,
}

impl Version {
    /// Of what was found at this time.
    pub fn of(entry: &FileEntry, now: DateTime<Utc>) -> Self {
        let at = entry.modified_at;
        let past = |ms| at <= now - TimeDelta::milliseconds(ms);
        let shown = past(SECOND_MS) && (1_000..10_000).contains(&at.year());
        Self {
            tag: format!("\"{:x}-{:x}.{:x}\"", entry.size, at.timestamp(), at.timestamp_subsec_nanos()),
            strong: past(TICK_MS),
            modified: shown.then(|| at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()),
        }
    }

    /// Whether a request names this version, or none in particular.
    pub fn fits(&self, headers: &HeaderMap) -> bool {
        let Some(named) = headers.get(header::IF_RANGE) else { return true };
        let Ok(named) = named.to_str() else { return false };
        let named = named.trim();
        (self.strong && named == self.tag) || self.modified.as_deref() == Some(named)
    }

    /// Tells the client.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        let mark = if self.strong { "" } else { "W/" };
        set(headers, header::ETAG, &format!("{mark}{}", self.tag));
        if let Some(modified) = &self.modified {
            set(headers, header::LAST_MODIFIED, modified);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(size: u64, at: &str, now: &str) -> Version {
        let entry = FileEntry {
            name: "f".to_owned(),
            path: "/f".to_owned(),
            size,
            mode: 0o644,
            is_dir: false,
            is_symlink: false,
            modified_at: at.parse().unwrap(),
        };
        Version::of(&entry, now.parse().unwrap())
    }

    fn told(version: &Version) -> (String, Option<String>) {
        let mut headers = HeaderMap::new();
        version.write_to(&mut headers);
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        (text(header::ETAG).unwrap(), text(header::LAST_MODIFIED))
    }

    fn fits(version: &Version, named: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_RANGE, named.parse().unwrap());
        version.fits(&headers)
    }

    #[test]
    fn a_file_is_held_by_its_tag_or_its_time() {
        let version = version(26, "2026-01-02T03:04:05.5Z", "2026-01-02T04:00:00Z");
        let (tag, modified) = told(&version);
        assert_eq!(tag, "\"1a-695735a5.1dcd6500\"");
        assert_eq!(modified.as_deref(), Some("Fri, 02 Jan 2026 03:04:05 GMT"));
        assert!(version.fits(&HeaderMap::new()));
        assert!(fits(&version, &tag) && fits(&version, "Fri, 02 Jan 2026 03:04:05 GMT"));
        for other in [
            &format!("W/{tag}"),
            "\"1b-695735a5.1dcd6500\"",
            "*",
            "",
            "Fri, 02 Jan 2026 03:04:06 GMT",
            "2026-01-02T03:04:05.5Z",
        ] {
            assert!(!fits(&version, other), "{other}");
        }
    }

    #[test]
    fn what_may_change_unseen_is_held_by_nothing() {
        let just_now = version(1, "2026-01-02T03:04:05.000Z", "2026-01-02T03:04:05.009Z");
        let (tag, modified) = told(&just_now);
        assert!(tag.starts_with("W/\"") && modified.is_none());
        assert!(!fits(&just_now, &tag) && !fits(&just_now, &tag[2..]));
        // The same second may have had another one.
        let this_second = version(1, "2026-01-02T03:04:05.000Z", "2026-01-02T03:04:06.500Z");
        assert!(fits(&this_second, &told(&this_second).0));
        assert_eq!(told(&this_second).1, None);
        assert!(!fits(&this_second, "Fri, 02 Jan 2026 03:04:05 GMT"));
        for odd in ["2027-01-01T00:00:00Z", "0900-01-01T00:00:00Z"] {
            assert_eq!(told(&version(1, odd, "2026-01-02T03:04:06Z")).1, None, "{odd}");
        }
    }
}
