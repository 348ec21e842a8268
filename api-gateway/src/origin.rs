//! Browsers say where a request comes from. Scripts of other sites must not get in, least of all where no key is needed.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

use crate::denied::Denial;
use crate::error::ApiError;

/// Lets in what has no origin (no browser), the server's own, and those that the operator named.
///
/// A site can send a simple request anywhere and open a WebSocket to anywhere; CORS only keeps it from reading answers.
pub fn check(headers: &HeaderMap, allowed: &[String]) -> Result<(), ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let foreign = || ApiError::forbidden("this origin may not call").denied(Denial::Origin, None);
    let origin = origin.to_str().map_err(|_| foreign())?;
    if allowed.iter().any(|known| known.trim_end_matches('/').eq_ignore_ascii_case(origin)) {
        return Ok(());
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).ok_or_else(foreign)?;
    match origin.split_once("://") {
        Some((_, authority)) if authority.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(foreign()),
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

/// The host without its port, and an IPv6 address without its brackets.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.split(':').next().unwrap_or_default()
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
    fn no_origin_the_own_and_the_named_get_in() {
        let allowed = ["https://console.example/".to_owned()];
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
    fn without_keys_only_loopback_names_are_answered() {
        for host in ["localhost", "localhost:1", "127.0.0.1:7423", "127.1.2.3", "[::1]:80"] {
            assert!(check_loopback(&headers(None, host)).is_ok(), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1:80", "[::2]:80", ""] {
            assert!(check_loopback(&headers(None, host)).is_err(), "{host}");
        }
        assert!(check_loopback(&HeaderMap::new()).is_ok());
    }
}
