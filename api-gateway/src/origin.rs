//! Browsers say where a request comes from. Scripts of other sites must not get in, least of all where no key is needed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use url::Url;

use crate::denied::Denial;
use crate::error::ApiError;

/// Where a browser's page is from, as browsers say it: scheme, host, and the port where it is not the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

/// Why a text is no origin, and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// `x.example`, `x.example:8080`
    #[error("{0:?} has no scheme: write \"https://{0}\", or \"http://{0}\" where it is one without TLS")]
    NoScheme(String),
    /// `https://x.example/console`
    #[error("{given:?} is more than an origin: write {origin:?}")]
    TooLong {
        /// What was given.
        given: String,
        /// What of it is an origin.
        origin: String,
    },
    /// `*`, `https://*.x.example`
    #[error(
        "{0:?} stands for many origins, which would let any page in that gets such a name: name each one, such as \"https://console.example\""
    )]
    Wildcard(String),
    /// The rest.
    #[error("{0:?} is no origin: write one such as \"https://console.example\" or \"http://localhost:3000\"")]
    None(String),
}

impl FromStr for Origin {
    type Err = OriginError;

    /// Reads an origin. Upper case, a slash at the end and the scheme's own port are read as what browsers make of them.
    fn from_str(text: &str) -> Result<Self, OriginError> {
        let text = text.trim();
        let none = || OriginError::None(text.to_owned());
        if text.contains('*') {
            return Err(OriginError::Wildcard(text.to_owned()));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let looks_like_host = !text.is_empty()
                && !text.contains(":/")
                && !text.starts_with(['/', '\\'])
                && !text.eq_ignore_ascii_case("null")
                && Url::parse(&format!("https://{text}")).is_ok_and(|url| is_bare(&url));
            return Err(if looks_like_host { OriginError::NoScheme(text.to_owned()) } else { none() });
        };
        let url = Url::parse(text).map_err(|_| none())?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(none)?;
        // An escaped host, as it is written or as it is read (of a scheme that the standard does not know), may hold what it
        // may not hold as it is, and would be another one when read again.
        let escaped = rest.contains(['\\', '@', '%']) || host.contains('%');
        if scheme.is_empty() || escaped || url.scheme() == "file" {
            return Err(none());
        }
        // A port that is the scheme's own is none here.
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let origin = format!("{}://{}{port}", url.scheme(), host.to_ascii_lowercase());
        if !is_bare(&url) {
            return Err(OriginError::TooLong { given: text.to_owned(), origin });
        }
        Ok(Self(origin))
    }
}

/// Whether a URL has nothing behind its host and port.
fn is_bare(url: &Url) -> bool {
    matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none()
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Origin {
    /// As the answers of CORS name it.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(&self.0).ok()
    }
}

/// Lets in what has no origin (no browser), the server's own, and those that the operator named.
///
/// A site can send a simple request anywhere and open a WebSocket to anywhere; CORS only keeps it from reading answers.
pub fn check(headers: &HeaderMap, allowed: &[Origin]) -> Result<(), ApiError> {
    let mut origins = headers.get_all(header::ORIGIN).into_iter();
    let Some(origin) = origins.next() else {
        return Ok(());
    };
    let foreign = || ApiError::forbidden("this origin may not call").denied(Denial::Origin, None);
    // Browsers say one. Whoever says two is of both, and one of them may be foreign.
    if origins.next().is_some() {
        return Err(foreign());
    }
    let origin = origin.to_str().map_err(|_| foreign())?;
    if allowed.iter().any(|known| known.0.eq_ignore_ascii_case(origin)) {
        return Ok(());
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).ok_or_else(foreign)?;
    match origin.split_once("://") {
        Some((_, authority)) if authority.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(foreign()),
    }
}

/// Says whom a request is for once: what stands in front and this server must not read two different names.
pub fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let mut hosts = headers.get_all(header::HOST).into_iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(ApiError::bad_request("the request has more than one Host header"));
    }
    match (uri.authority(), host) {
        (Some(target), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(target.as_str().as_bytes()) => {
            Err(ApiError::bad_request("the request's target and its Host header name different hosts"))
        }
        _ => Ok(()),
    }
}

/// Where no key is needed, only requests to a loopback name are answered: a site whose name is made to resolve to
/// 127.0.0.1 would otherwise be of the server's own origin.
pub fn check_loopback(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(host) = headers.get(header::HOST) else {
        return Ok(());
    };
    let name = host.to_str().ok().map(host_name).unwrap_or_default();
    let loopback = name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if loopback {
        return Ok(());
    }
    Err(ApiError::forbidden("without API keys this server only answers to localhost")
        .denied(Denial::Host, None))
}

/// The host without its port, and an IPv6 address without its brackets. Empty: it is none.
fn host_name(host: &str) -> String {
    // No user is in front of it, and nothing is left of it but a port.
    let authority = host.parse::<Authority>().ok().filter(|it| {
        let rest = it.as_str().strip_prefix(it.host());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    });
    let name = authority.map(|it| it.host().to_owned()).unwrap_or_default();
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.to_owned(),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origin: Option<&str>, host: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn an_origin_is_read_as_browsers_say_it() {
        for (text, origin) in [
            ("https://console.example", "https://console.example"),
            ("https://console.example/", "https://console.example"),
            ("HTTPS://Console.Example:443", "https://console.example"),
            ("http://console.example:80/", "http://console.example"),
            ("http://console.example:443", "http://console.example:443"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            (" https://x.example ", "https://x.example"),
            ("chrome-extension://AbCdEf", "chrome-extension://abcdef"),
            ("tauri://localhost", "tauri://localhost"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), origin, "{text}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_with_what_to_write() {
        for (text, wanted) in [
            ("x.example", "write \"https://x.example\""),
            ("x.example:8080", "write \"https://x.example:8080\""),
            ("localhost", "write \"https://localhost\", or \"http://localhost\""),
            ("https://x.example/console", "write \"https://x.example\""),
            ("https://x.example?a=b", "write \"https://x.example\""),
            ("https://x.example/#", "write \"https://x.example\""),
            ("*", "name each one"),
            ("https://*.x.example", "name each one"),
            ("", "write one such as"),
            ("null", "write one such as"),
            ("https://", "write one such as"),
            ("://x.example", "write one such as"),
            ("//x.example", "write one such as"),
            ("https:x.example", "write one such as"),
            ("https://user@x.example", "write one such as"),
            ("file:///tmp/x.html", "write one such as"),
            ("https://co%2ample", "write one such as"),
            ("app://con\u{4}t", "write one such as"),
            ("app://bücher", "write one such as"),
            ("https://x.example:99999", "write one such as"),
        ] {
            let error = text.parse::<Origin>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn no_origin_the_own_and_the_named_get_in() {
        let allowed = ["HTTPS://Console.Example:443/".parse().unwrap()];
        for origin in [None, Some("http://127.0.0.1:7423"), Some("https://console.example")] {
            assert!(check(&headers(origin, "127.0.0.1:7423"), &allowed).is_ok(), "{origin:?}");
        }
    }

    #[test]
    fn foreign_origins_are_forbidden() {
        for origin in [
            "https://evil.example",
            "null",
            "http://127.0.0.1.evil.example",
            "http://127.0.0.1:7423.evil.example",
            "http://127.0.0.1",
            "",
        ] {
            assert!(check(&headers(Some(origin), "127.0.0.1:7423"), &[]).is_err(), "{origin}");
        }
    }

    #[test]
    fn a_request_is_from_one_origin() {
        let mut two = headers(Some("http://a.example"), "a.example");
        assert!(check(&two, &[]).is_ok());
        two.append(header::ORIGIN, HeaderValue::from_static("https://evil.example"));
        assert!(check(&two, &[]).is_err());
    }

    #[test]
    fn a_request_is_for_one_host() {
        let uri = |text: &'static str| Uri::from_static(text);
        let mut two = headers(None, "a.example");
        assert!(check_host(&uri("/x"), &two).is_ok());
        assert!(check_host(&uri("http://A.example/x"), &two).is_ok());
        assert!(check_host(&uri("http://b.example/x"), &two).is_err());
        assert!(check_host(&uri("http://a.example:80/x"), &two).is_err());
        assert!(check_host(&uri("http://a.example/x"), &HeaderMap::new()).is_ok());
        two.append(header::HOST, HeaderValue::from_static("a.example"));
        assert!(check_host(&uri("/x"), &two).is_err());
    }

    #[test]
    fn without_keys_only_loopback_names_are_answered() {
        for host in ["localhost", "localhost:1", "127.0.0.1:7423", "127.1.2.3", "[::1]:80"] {
            assert!(check_loopback(&headers(None, host)).is_ok(), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "localhost@evil.example",
            "10.0.0.1:80",
            "[::2]:80",
            "[::1",
            "[::1]x.evil.example",
            "::1",
            "",
        ] {
            assert!(check_loopback(&headers(None, host)).is_err(), "{host}");
        }
        assert!(check_loopback(&HeaderMap::new()).is_ok());
    }
}
