//! Requests to the API, and what comes back when they are refused.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use events::RequestId;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use super::error::ClientError;
use super::{GlobalOptions, tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that vanished without a word is found out by the kernel.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Of an error's body, no more than this is read.
const MAX_ERROR_BYTES: usize = 64 << 10;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// What the server does not know is an error for this client, and never left out in silence.
const STRICT: (HeaderName, HeaderValue) =
    (HeaderName::from_static("prefer"), HeaderValue::from_static("handling=strict"));
const USER_ID: HeaderName = HeaderName::from_static("x-user-id");

/// A server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    base: Url,
    headers: HeaderMap,
    tls: Arc<rustls::ClientConfig>,
}

impl Api {
    /// The server that the options name.
    pub fn new(options: &GlobalOptions) -> Result<Self, ClientError> {
        let wrong = |why: &str| ClientError::Usage(format!("--url {:?}: {why}", options.url));
        let mut base = Url::parse(&options.url).map_err(|error| match options.url.contains("://") {
            true => wrong(&error.to_string()),
            false => wrong("it must begin with http:// or https://"),
        })?;
        match base.scheme() {
            "http" | "https" => {}
            _ => return Err(wrong("it must begin with http:// or https://")),
        }
        if base.host().is_none() || base.query().is_some() || base.fragment().is_some() {
            return Err(wrong("use a form such as http://127.0.0.1:7423"));
        }
        base.path_segments_mut().map_err(|()| wrong("it has no host"))?.pop_if_empty().extend(["api", "v1"]);
        let key = match options.api_key.as_deref().filter(|key| !key.is_empty()) {
            None => None,
            Some(key) => {
                let mut value = HeaderValue::from_str(key).map_err(|_| {
                    ClientError::Usage("the API key has characters that no header can hold".to_owned())
                })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let user = options.user_id.as_deref().filter(|user| !user.is_empty()).map(user_header).transpose()?;
        let mut headers = HeaderMap::new();
        headers.extend([STRICT]);
        headers.extend(key.map(|key| (API_KEY, key)));
        headers.extend(user.map(|user| (USER_ID, user)));
        let tls = tls::config(base.scheme() == "https", options.ca_file.as_deref())?;
        let http = reqwest::Client::builder()
            .user_agent(concat!("stacyvm-cli/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers.clone())
            .tls_backend_preconfigured(tls.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            .redirect(reqwest::redirect::Policy::none())
            // WebSocket connections would not go through one either, and the default server is on loopback.
            .no_proxy()
            .build()
            .map_err(|error| ClientError::Usage(format!("cannot make an HTTP client: {error}")))?;
        Ok(Self { http, base, headers, tls: Arc::new(tls) })
    }

    /// Where the server is, for people.
    pub fn shown_url(&self) -> String {
        let mut url = self.base.clone();
        let _ = url.set_password(None);
        let text = url.as_str();
        text.strip_suffix("/api/v1").unwrap_or(text).to_owned()
    }

    /// The address of a route. Each segment is escaped as a whole.
    pub fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            // "." and ".." are the two that escaping does not keep; no id is either.
            path.extend(segments.iter().map(|segment| match *segment {
                "." | ".." => "-",
                segment => segment,
            }));
        }
        url
    }

    /// Who asks, for requests that do not go through [`Api::request`].
    pub fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    /// What a connection that is not made by [`Api::request`] trusts.
    pub fn tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.tls)
    }

    /// A request with an id of its own.
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.request_as(&RequestId::new(), method, url)
    }

    /// A request with a given id, by which its events are found.
    pub fn request_as(&self, id: &RequestId, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url).header(REQUEST_ID, id.as_str())
    }

    /// Sends a request and insists on success.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.lost(error))?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
    }

    /// Sends a request and reads the JSON that it is answered with.
    pub async fn fetch<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        self.read(response).await
    }

    /// Reads the JSON of an answer.
    pub async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let bytes = response.bytes().await.map_err(|error| self.lost(error))?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Unexpected(error.to_string()))
    }

    /// GET of a route, as JSON.
    pub async fn get<T: DeserializeOwned>(&self, segments: &[&str]) -> Result<T, ClientError> {
        self.fetch(self.request(Method::GET, self.url(segments))).await
    }

    /// What a failed exchange means.
    pub fn lost(&self, error: reqwest::Error) -> ClientError {
        if error.is_connect() {
            return self.unreachable(innermost(&error));
        }
        ClientError::Broken(innermost(&error))
    }

    /// Nobody listens there.
    pub fn unreachable(&self, source: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
        ClientError::Unreachable { url: self.shown_url(), source }
    }
}

fn user_header(user: &str) -> Result<HeaderValue, ClientError> {
    // The server knows the rules for names; this is about what a header can hold.
    HeaderValue::from_bytes(user.as_bytes())
        .map_err(|_| ClientError::Usage(format!("--user-id {user:?}: no header can hold it")))
}

/// The cause that says something: the layers above it only say that there was an error.
fn innermost(error: &reqwest::Error) -> Box<dyn std::error::Error + Send + Sync> {
    let mut cause = error.source();
    let mut text = error.to_string();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    // The TLS library's words for an answer in clear.
    if text.contains("InvalidContentType") {
        text = "what listens there does not speak TLS: is it http://?".to_owned();
    }
    text.into()
}

async fn refused(mut response: Response) -> ClientError {
    let status = response.status();
    let request_id =
        response.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or("unknown").to_owned();
    let mut bytes = Vec::new();
    while let Ok(Some(part)) = response.chunk().await {
        bytes.extend_from_slice(&part);
        if bytes.len() > MAX_ERROR_BYTES {
            break;
        }
    }
    ClientError::refused(status, &request_id, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(url: &str) -> Result<Api, ClientError> {
        Api::new(&GlobalOptions {
            url: url.to_owned(),
            api_key: Some("hunter2".to_owned()),
            user_id: None,
            ca_file: None,
            output: Default::default(),
        })
    }

    #[test]
    fn ids_are_escaped_as_a_whole() {
        let api = api("http://127.0.0.1:7423/").unwrap();
        let url = |id: &str| api.url(&["sandboxes", id]).to_string();
        assert_eq!(url("sb-1"), "http://127.0.0.1:7423/api/v1/sandboxes/sb-1");
        assert_eq!(url("a/b?c#d é"), "http://127.0.0.1:7423/api/v1/sandboxes/a%2Fb%3Fc%23d%20%C3%A9");
        assert_eq!(url(".."), "http://127.0.0.1:7423/api/v1/sandboxes/-");
    }

    #[test]
    fn a_server_may_live_under_a_path() {
        let api = api("http://host.example/vm").unwrap();
        assert_eq!(api.url(&["health"]).as_str(), "http://host.example/vm/api/v1/health");
        assert_eq!(api.shown_url(), "http://host.example/vm");
    }

    #[test]
    fn what_is_no_server_is_a_usage_error() {
        for url in ["", "localhost:7423", "ftp://x", "https://", "http://", "http://x/?a=b", "unix:/run/x"] {
            assert!(matches!(api(url), Err(ClientError::Usage(_))), "{url}");
        }
        for url in ["127.0.0.1:7423", "[::1]:7423", "localhost:7423", "host.example"] {
            let said = api(url).err().map(|error| error.to_string());
            assert_eq!(said, Some(format!("--url {url:?}: it must begin with http:// or https://")));
        }
    }

    #[test]
    fn the_key_is_not_shown() {
        assert!(!format!("{:?}", api("http://x").unwrap()).contains("hunter2"));
    }
}
