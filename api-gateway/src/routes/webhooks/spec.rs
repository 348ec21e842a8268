//! What a client may ask for, checked once.

use api_types::WebhookRequest;
use events::{Position, SandboxId, Webhook};
use policy::AddressPolicy;
use secrets::WebhookSecret;
use serde_json::Value;
use url::{Host, Url};

use crate::auth::Caller;
use crate::config::WebhookLimits;
use crate::error::ApiError;
use crate::gateway::Gateway;

pub(crate) const MAX_URL: usize = 2048;
pub(crate) const MAX_TYPES: usize = 64;
pub(crate) const MAX_DESCRIPTION: usize = 1024;

/// A request that is in order.
pub(super) struct Spec {
    pub url: String,
    pub types: Vec<String>,
    pub sandbox: Option<SandboxId>,
    pub description: String,
    pub secret: Option<WebhookSecret>,
    pub cursor: Option<Position>,
}

impl Spec {
    /// Checks what can be checked without looking at anything.
    pub fn read(request: WebhookRequest, limits: &WebhookLimits, head: Position) -> Result<Self, ApiError> {
        let url = request.url.filter(|url| !url.is_empty());
        let url = url.ok_or_else(|| ApiError::bad_request("url is missing"))?;
        let types = request.types.unwrap_or_default();
        if types.len() > MAX_TYPES {
            return Err(ApiError::bad_request(format!("types may have {MAX_TYPES} names at most")));
        }
        if types.iter().any(|name| Webhook::select(name).is_empty()) {
            return Err(ApiError::bad_request(
                "types has a name that is no event type, no category and not *, or that webhooks never get",
            ));
        }
        let sandbox = match request.sandbox.filter(|id| !id.is_empty()) {
            None => None,
            Some(id) => Some(id.parse().map_err(|_| crate::gateway::no_sandbox(&id))?),
        };
        let description = request.description.unwrap_or_default();
        if description.len() > MAX_DESCRIPTION {
            return Err(ApiError::bad_request(format!(
                "description must be at most {MAX_DESCRIPTION} bytes"
            )));
        }
        let secret = match request.secret.filter(|secret| !secret.is_empty()) {
            None => None,
            Some(text) => {
                Some(text.parse().map_err(|error| ApiError::bad_request(format!("secret: {error}")))?)
            }
        };
        Ok(Self {
            url: check_url(&url, limits)?,
            types,
            sandbox,
            description,
            secret,
            cursor: request.from.as_ref().map(|from| cursor(from, head)).transpose()?,
        })
    }

    /// A destroyed sandbox still has its events; another tenant's does not exist.
    pub async fn check_sandbox(&self, gateway: &Gateway, caller: &Caller) -> Result<(), ApiError> {
        let Some(id) = self.sandbox else { return Ok(()) };
        gateway.any_sandbox(caller, &caller.tenant, id).await.map(drop)
    }
}

/// Where delivery begins so that the event at `from` is the first: right before it.
pub(super) fn cursor(from: &Value, head: Position) -> Result<Position, ApiError> {
    let wrong = || ApiError::bad_request("from must be a position of the log, or \"now\"");
    let number = match from {
        Value::String(text) if text == "now" => return Ok(head),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Value::Number(number) => number.as_u64(),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let number: u64 = number.ok_or_else(wrong)?;
    if number > head.0.saturating_add(1) {
        return Err(ApiError::bad_request("from is after the end of the log"));
    }
    Ok(Position(number.saturating_sub(1)))
}

/// Early, so that a mistake is told at once. What counts is the check of the address at each delivery.
pub(crate) fn check_url(text: &str, limits: &WebhookLimits) -> Result<String, ApiError> {
    let wrong = |why: &str| ApiError::bad_request(format!("url: {why}"));
    if text.len() > MAX_URL {
        return Err(wrong("is too long: 2048 characters at most"));
    }
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    match url.scheme() {
        "https" => {}
        "http" if limits.allow_http => {}
        _ => return Err(wrong("must begin with https://")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not carry a user or a password"));
    }
    if url.fragment().is_some() {
        return Err(wrong("must not have a fragment"));
    }
    let host = url.host().ok_or_else(|| wrong("has no host"))?;
    if !may_be_called(&host, &limits.addresses) {
        return Err(wrong("this address may not be called"));
    }
    if url.as_str().len() > MAX_URL {
        return Err(wrong("is too long: 2048 characters at most"));
    }
    Ok(url.into())
}

fn may_be_called(host: &Host<&str>, addresses: &AddressPolicy) -> bool {
    match host {
        Host::Ipv4(address) => addresses.permits((*address).into()),
        Host::Ipv6(address) => addresses.permits((*address).into()),
        Host::Domain(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::ErrorCode;

    fn read(body: Value, limits: &WebhookLimits) -> Result<Spec, ApiError> {
        Spec::read(serde_json::from_value(body).unwrap(), limits, Position(40))
    }

    fn refused(body: Value) -> ErrorCode {
        match read(body.clone(), &WebhookLimits::default()) {
            Ok(_) => panic!("{body}"),
            Err(error) => error.code(),
        }
    }

    #[test]
    fn a_url_is_https_without_credentials_to_an_address_that_may_be_called() {
        let long = format!("https://a.example/{}", "x".repeat(MAX_URL));
        for url in [
            "",
            "x",
            "/hook",
            "http://a.example/",
            "ftp://a.example/",
            "file:///etc/passwd",
            "https://",
            "https://ada@a.example/",
            "https://ada:secret@a.example/",
            "https://a.example/#part",
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://017700000001/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest/meta-data",
            "https://10.0.0.1:8443/",
            &long,
        ] {
            assert_eq!(refused(json!({ "url": url })), ErrorCode::BadRequest, "{url}");
        }
        for url in ["https://a.example", "https://a.example:8443/x?y=z", "https://1.1.1.1/"] {
            assert!(read(json!({ "url": url }), &WebhookLimits::default()).is_ok(), "{url}");
        }
    }

    #[test]
    fn the_operator_may_allow_http_and_networks() {
        let limits = WebhookLimits {
            allow_http: true,
            addresses: AddressPolicy::new(&["127.0.0.0/8"]).unwrap(),
            ..WebhookLimits::default()
        };
        let spec = read(json!({"url": "http://127.1:80/hook"}), &limits).unwrap();
        // As it is parsed, so that nobody later reads it in another way.
        assert_eq!(spec.url, "http://127.0.0.1/hook");
        assert!(read(json!({"url": "http://10.0.0.1/"}), &limits).is_err());
    }

    #[test]
    fn wrong_fields_are_bad_requests() {
        let url = "https://a.example/";
        for body in [
            json!({}),
            json!({"url": url, "types": ["nothing.*"]}),
            json!({"url": url, "types": ["sandbox"]}),
            json!({"url": url, "types": ["webhook.*"]}),
            json!({"url": url, "types": ["audit.checkpoint"]}),
            json!({"url": url, "types": vec!["*"; MAX_TYPES + 1]}),
            json!({"url": url, "description": "x".repeat(MAX_DESCRIPTION + 1)}),
            json!({"url": url, "secret": "secret"}),
            json!({"url": url, "secret": "whsec_AAAA"}),
            json!({"url": url, "from": -1}),
            json!({"url": url, "from": 1.5}),
            json!({"url": url, "from": "then"}),
            json!({"url": url, "from": true}),
            json!({"url": url, "from": 42}),
        ] {
            assert_eq!(refused(body.clone()), ErrorCode::BadRequest, "{body}");
        }
        assert_eq!(refused(json!({"url": url, "sandbox": "sb-x"})), ErrorCode::NotFound);
    }

    #[test]
    fn from_is_the_position_of_the_first_event_that_is_sent() {
        let at = |from: Value| cursor(&from, Position(40)).unwrap().0;
        assert_eq!(
            [at(json!(0)), at(json!(1)), at(json!("7")), at(json!(41)), at(json!("now"))],
            [0, 0, 6, 40, 40]
        );
    }
}
