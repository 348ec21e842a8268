use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// The registry of names that name none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The longest name, in bytes.
const MAX_NAME: usize = 512;
/// The longest path of a repository, its registry included, in bytes: as the engines have it.
const MAX_REPOSITORY: usize = 255;
/// From how many digits on a name is taken for the id of an image, cut short. Shorter ones are names like others: written out
/// they can mean nothing else.
const SHORT_ID: usize = 6;
/// The longest tag, in bytes.
const MAX_TAG: usize = 128;

/// The name of an image: a registry, a repository, and a tag or a digest.
///
/// Written out ([`Display`](fmt::Display)) it has all of them, so that no part of it is left to an engine to fill in, and it
/// cannot be taken for the id of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    host: String,
    port: Option<u16>,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text names no image that may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageNameError {
    /// It breaks the rules of names.
    #[error(
        "is not a valid image name: write REGISTRY/REPOSITORY:TAG, REPOSITORY:TAG or REPOSITORY@sha256:DIGEST"
    )]
    Malformed,
    /// It is the id of an image, or could be one. Ids are those of the engine, whoever's image it is.
    #[error("looks like the id of an image, and ids are not taken: name it with its tag or digest")]
    Id,
}

impl ImageName {
    /// The host of the registry: a name in lower case, or an address (of IPv6 without brackets).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port of the registry.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(443)
    }

    /// The registry, with its port where one is named.
    pub fn registry(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }

    /// The repository in the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, where one is named. It counts for nothing beside a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where one is named: `sha256:` and 64 hexadecimal digits.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Whether the registry is the usual one, which no request can choose the address of.
    pub fn is_in_default_registry(&self) -> bool {
        self.host == DEFAULT_REGISTRY && self.port.is_none()
    }

    /// The address of the registry, where the name has that instead of a host's name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry(), self.path)?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => f.write_str(":latest"),
        }
    }
}

impl FromStr for ImageName {
    type Err = ImageNameError;

    fn from_str(text: &str) -> Result<Self, ImageNameError> {
        if text.len() > MAX_NAME || !text.is_ascii() {
            return Err(ImageNameError::Malformed);
        }
        if could_be_id(text) {
            return Err(ImageNameError::Id);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest_of(digest)?)),
            None => (text, None),
        };
        let (registry, rest) = split_registry(rest);
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag_of(tag)?)),
            None => (rest, None),
        };
        let (host, port) = match registry {
            Some(registry) => host_of(registry)?,
            None => (DEFAULT_REGISTRY.to_owned(), None),
        };
        if !path.split('/').all(is_component) || host.len() + path.len() >= MAX_REPOSITORY {
            return Err(ImageNameError::Malformed);
        }
        let short = host == DEFAULT_REGISTRY && port.is_none() && !path.contains('/');
        let path = if short { format!("library/{path}") } else { path.to_owned() };
        Ok(Self { host, port, path, tag, digest })
    }
}

/// Engines look up ids, whole and cut short, where no image has that name.
fn could_be_id(text: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    // As a tag beside it would say: a repository of that name has none such.
    let algorithm = text.split_once(':').is_some_and(|(name, id)| {
        (name.eq_ignore_ascii_case("sha256") || name.eq_ignore_ascii_case("sha512")) && hex(id)
    });
    algorithm || (text.len() >= SHORT_ID && hex(text))
}

/// The first part is a registry if it cannot be a part of a repository's path: as engines tell them apart.
fn split_registry(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':', '[', ']'])
                || first.eq_ignore_ascii_case("localhost")
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, text),
    }
}

fn host_of(registry: &str) -> Result<(String, Option<u16>), ImageNameError> {
    let malformed = ImageNameError::Malformed;
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(malformed)?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(port),
                None if rest.is_empty() => None,
                None => return Err(malformed),
            };
            let host: std::net::Ipv6Addr = host.parse().map_err(|_| malformed)?;
            (host.to_string(), port)
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (named_host(host)?, Some(port)),
            None => (named_host(registry)?, None),
        },
    };
    let port = match port {
        // Digits alone: a sign would do for a number.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(port.parse::<u16>().ok().filter(|port| *port > 0).ok_or(malformed)?)
        }
        Some(_) => return Err(malformed),
        None => None,
    };
    let host = if host == "index.docker.io" { DEFAULT_REGISTRY.to_owned() } else { host };
    Ok((host, port))
}

fn named_host(host: &str) -> Result<String, ImageNameError> {
    let good = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if host.len() > 253 || !host.split('.').all(good) {
        return Err(ImageNameError::Malformed);
    }
    // What ends in a number is an address to some resolvers, in forms (127.1, 0x7f000001) that others take for names.
    let last = host.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if number && host.parse::<Ipv4Addr>().is_err() {
        return Err(ImageNameError::Malformed);
    }
    Ok(host.to_ascii_lowercase())
}

/// Lower case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = bytes.first().is_some_and(word) && bytes.last().is_some_and(word);
    ends && bytes.split(word).all(|between| {
        matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|byte| *byte == b'-')
    })
}

fn tag_of(tag: &str) -> Result<String, ImageNameError> {
    let good = !tag.is_empty()
        && tag.len() <= MAX_TAG
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    good.then(|| tag.to_owned()).ok_or(ImageNameError::Malformed)
}

fn digest_of(digest: &str) -> Result<String, ImageNameError> {
    let hex = digest.strip_prefix("sha256:").ok_or(ImageNameError::Malformed)?;
    let good = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    good.then(|| digest.to_owned()).ok_or(ImageNameError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn written(text: &str) -> String {
        text.parse::<ImageName>().unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
    }

    #[test]
    fn a_name_is_written_out_as_engines_understand_it() {
        for (text, whole) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("python:3.12", "docker.io/library/python:3.12"),
            ("stacyvm/base:local", "docker.io/stacyvm/base:local"),
            ("b", "docker.io/library/b:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/team/tool:1", "docker.io/team/tool:1"),
            ("Registry.Example/a/b__c/d---e:V1", "registry.example/a/b__c/d---e:V1"),
            ("registry.example:5000/tool", "registry.example:5000/tool:latest"),
            ("registry:5000/tool:2", "registry:5000/tool:2"),
            ("localhost/tool", "localhost/tool:latest"),
            ("LOCALHOST/tool", "localhost/tool:latest"),
            ("127.0.0.1:5000/tool:1", "127.0.0.1:5000/tool:1"),
            ("[::1]:5000/tool", "[::1]:5000/tool:latest"),
            ("[2001:db8:0::1]/tool", "[2001:db8::1]/tool:latest"),
            // Hexadecimal digits, but no id: it has a tag.
            ("cafe:latest", "docker.io/library/cafe:latest"),
        ] {
            assert_eq!(written(text), whole);
            assert_eq!(written(whole), whole);
        }
        // A tag says nothing beside a digest.
        assert_eq!(written(&format!("python:3.12@{DIGEST}")), format!("docker.io/library/python@{DIGEST}"));
        assert_eq!(written(&format!("r.example/a@{DIGEST}")), format!("r.example/a@{DIGEST}"));
    }

    #[test]
    fn ids_are_no_names() {
        let hex = &DIGEST["sha256:".len()..];
        for id in [DIGEST, hex, &hex[..12], &hex[..6], "sha256:0123", "SHA256:0123", "deadbeef", "DEADBEEF"] {
            assert_eq!(id.parse::<ImageName>(), Err(ImageNameError::Id), "{id}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("{}/x", "a".repeat(300));
        for text in [
            "",
            "/",
            "-",
            "a b",
            "UPPER",
            "a/UPPER",
            "a//b",
            "a/",
            "/a",
            "a/../b",
            "./a",
            "a:",
            "a:b:c",
            "a:-x",
            "a@",
            "a@sha256:0123",
            "a@md5:0123",
            "http://127.0.0.1/x.tar",
            "http://example.com/x",
            "a?fromSrc=http://127.0.0.1",
            "a#b",
            "a%2f..",
            "a\u{e4}",
            "user@127.0.0.1/x",
            "user:pass@127.0.0.1/x",
            "127.0.0.1:/x",
            "127.0.0.1:0/x",
            "127.0.0.1:+80/x",
            "127.0.0.1:99999/x",
            "127.1/x",
            "127.0.1:80/x",
            "2130706433:80/x",
            "0x7f000001:80/x",
            "0x7f.1/x",
            "0177.0.0.1/x",
            "1.2.3.4.5/x",
            "localhost./x",
            "127.0.0.1./x",
            ".example/x",
            "[::1/x",
            "::1/x",
            "[127.0.0.1]/x",
            "[fe80::1%25eth0]/x",
            "a_b.example/x",
            "-a.example/x",
            "a.example\\@127.0.0.1/x",
            "a.example/x\n",
            "a/b..c",
            "a/b___c",
            &long,
        ] {
            assert_eq!(text.parse::<ImageName>(), Err(ImageNameError::Malformed), "{text:?}");
        }
    }
}
