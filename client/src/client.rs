//! Requests to a server, and what comes back when they are refused.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use crate::error::{BuildError, Cause, ClientError};
use crate::key::IdempotencyKey;
use crate::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that vanished without a word is found out by the kernel.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long a server may be away before a stream is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of an error's body, no more than this is read.
const MAX_ERROR_BYTES: usize = 64 << 10;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// What the server does not know is an error for this client, and never left out in silence.
const STRICT: (HeaderName, HeaderValue) =
    (HeaderName::from_static("prefer"), HeaderValue::from_static("handling=strict"));
const USER_ID: HeaderName = HeaderName::from_static("x-user-id");

/// A server. Cheap to clone: clones share their connections.
///
/// ```
/// use client::Client;
///
/// let local = Client::new("http://127.0.0.1:7423")?;
/// assert_eq!(local.shown_url(), "http://127.0.0.1:7423");
///
/// let remote = Client::builder("https://vm.example/team-a").api_key("the key").user_id("carol").build()?;
/// assert_eq!(remote.url(&["health"]).as_str(), "https://vm.example/team-a/api/v1/health");
/// # Ok::<(), client::BuildError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    headers: HeaderMap,
    tls: Arc<rustls::ClientConfig>,
    patience: Duration,
}

/// What a [`Client`] is made of.
#[derive(Clone)]
pub struct ClientBuilder {
    url: String,
    api_key: Option<String>,
    user_id: Option<String>,
    authorities: Option<PathBuf>,
    user_agent: String,
    patience: Duration,
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is not for logs.
        f.debug_struct("ClientBuilder").field("url", &self.url).finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// The API key, where the server asks for one. An empty one is none.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into()).filter(|key| !key.is_empty());
        self
    }

    /// Who asks, where several people share a key. It is recorded as it is given: the server cannot verify it.
    pub fn user_id(mut self, user: impl Into<String>) -> Self {
        self.user_id = Some(user.into()).filter(|user| !user.is_empty());
        self
    }

    /// A file of certificate authorities in PEM form to trust beside the system's, for https.
    pub fn authorities(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities = Some(path.into());
        self
    }

    /// What the program calls itself; `stacyvm-rust/VERSION` by default.
    pub fn user_agent(mut self, name: impl Into<String>) -> Self {
        self.user_agent = name.into();
        self
    }

    /// How long a server may be away before a stream is given up; 120 s by default.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Checks what was given. Nothing is sent.
    pub fn build(self) -> Result<Client, BuildError> {
        let wrong = |why: &str| BuildError::Url { url: self.url.clone(), why: why.to_owned() };
        let mut base = Url::parse(&self.url).map_err(|error| match self.url.contains("://") {
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
        let key = match &self.api_key {
            None => None,
            Some(key) => {
                let mut value = HeaderValue::from_str(key).map_err(|_| BuildError::ApiKey)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        // The server knows the rules for names; this is about what a header can hold.
        let user = match self.user_id {
            None => None,
            Some(user) => {
                Some(HeaderValue::from_bytes(user.as_bytes()).map_err(|_| BuildError::UserId(user))?)
            }
        };
        let mut headers = HeaderMap::new();
        headers.extend([STRICT]);
        headers.extend(key.map(|key| (API_KEY, key)));
        headers.extend(user.map(|user| (USER_ID, user)));
        let tls = tls::config(base.scheme() == "https", self.authorities.as_deref())?;
        let http = reqwest::Client::builder()
            .user_agent(self.user_agent)
            .default_headers(headers.clone())
            .tls_backend_preconfigured(tls.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            .redirect(reqwest::redirect::Policy::none())
            // WebSocket connections would not go through one either, and the default server is on loopback.
            .no_proxy()
            .build()
            .map_err(|error| BuildError::Setup(error.into()))?;
        Ok(Client { http, base, headers, tls: Arc::new(tls), patience: self.patience })
    }
}

impl Client {
    /// The server at an address such as `http://127.0.0.1:7423`. It may live under a path.
    pub fn new(url: impl Into<String>) -> Result<Self, BuildError> {
        Self::builder(url).build()
    }

    /// The same, with more to say.
    pub fn builder(url: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            url: url.into(),
            api_key: None,
            user_id: None,
            authorities: None,
            user_agent: concat!("stacyvm-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
            patience: PATIENCE,
        }
    }

    /// Where the server is, for people: without a password.
    pub fn shown_url(&self) -> String {
        let mut url = self.base.clone();
        let _ = url.set_password(None);
        let text = url.as_str();
        text.strip_suffix("/api/v1").unwrap_or(text).to_owned()
    }

    /// The address of a route, below `/api/v1`. Each segment is escaped as a whole, so that no id leads elsewhere.
    ///
    /// ```
    /// let client = client::Client::new("http://127.0.0.1:7423")?;
    /// let url = client.url(&["sandboxes", "a/b", "exec"]);
    /// assert_eq!(url.as_str(), "http://127.0.0.1:7423/api/v1/sandboxes/a%2Fb/exec");
    /// # Ok::<(), client::BuildError>(())
    /// ```
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

    /// A request with an id of its own, for routes that this crate has no method for. [`Client::send`] sends it.
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.request_as(&IdempotencyKey::new(), method, url)
    }

    /// A request with a given id, by which its events are found.
    pub fn request_as(&self, id: &IdempotencyKey, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url).header(REQUEST_ID, id.as_str())
    }

    /// A request that is the same one however often it is sent.
    pub fn request_once(&self, key: &IdempotencyKey, method: Method, url: Url) -> RequestBuilder {
        self.request_as(key, method, url).header(IDEMPOTENCY_KEY, key.as_str())
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

    /// GET of a route, as JSON: `serde_json::Value` shows also what a newer server says and this crate does not know.
    pub async fn get<T: DeserializeOwned>(&self, segments: &[&str]) -> Result<T, ClientError> {
        self.fetch(self.request(Method::GET, self.url(segments))).await
    }

    /// What a failed exchange means, for bodies that are read by hand.
    pub fn lost(&self, error: reqwest::Error) -> ClientError {
        if error.is_connect() {
            return self.unreachable(innermost(&error));
        }
        ClientError::Broken(innermost(&error))
    }

    /// The same server, given up after another time without it.
    pub fn with_patience(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    pub(crate) fn unreachable(&self, source: Cause) -> ClientError {
        ClientError::Unreachable { url: self.shown_url(), source }
    }

    /// Who asks, for requests that do not go through [`Client::request`].
    pub(crate) fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    /// What a connection that is not made by [`Client::request`] trusts.
    pub(crate) fn tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.tls)
    }

    /// How long a server may be away.
    pub(crate) const fn patience(&self) -> Duration {
        self.patience
    }
}

/// The cause that says something: the layers above it only say that there was an error.
fn innermost(error: &reqwest::Error) -> Cause {
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

    fn client(url: &str) -> Result<Client, BuildError> {
        Client::builder(url).api_key("hunter2").build()
    }

    #[test]
    fn ids_are_escaped_as_a_whole() {
        let client = client("http://127.0.0.1:7423/").unwrap();
        let url = |id: &str| client.url(&["sandboxes", id]).to_string();
        assert_eq!(url("sb-1"), "http://127.0.0.1:7423/api/v1/sandboxes/sb-1");
        assert_eq!(url("a/b?c#d é"), "http://127.0.0.1:7423/api/v1/sandboxes/a%2Fb%3Fc%23d%20%C3%A9");
        assert_eq!(url(".."), "http://127.0.0.1:7423/api/v1/sandboxes/-");
    }

    #[test]
    fn a_server_may_live_under_a_path() {
        let client = client("http://host.example/vm").unwrap();
        assert_eq!(client.url(&["health"]).as_str(), "http://host.example/vm/api/v1/health");
        assert_eq!(client.shown_url(), "http://host.example/vm");
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for url in ["", "localhost:7423", "ftp://x", "https://", "http://", "http://x/?a=b", "unix:/run/x"] {
            assert!(matches!(client(url), Err(BuildError::Url { .. })), "{url}");
        }
        for url in ["127.0.0.1:7423", "[::1]:7423", "localhost:7423", "host.example"] {
            let Err(BuildError::Url { why, .. }) = client(url) else { panic!("{url} is taken") };
            assert_eq!(why, "it must begin with http:// or https://", "{url}");
        }
    }

    #[test]
    fn what_no_header_can_hold_is_refused() {
        let builder = || Client::builder("http://x");
        assert!(matches!(builder().api_key("a\nb").build(), Err(BuildError::ApiKey)));
        assert!(matches!(builder().user_id("a\nb").build(), Err(BuildError::UserId(_))));
        assert!(builder().api_key("").user_id("").build().is_ok(), "empty is none");
    }

    #[test]
    fn the_key_is_not_shown() {
        assert!(!format!("{:?}", client("http://x").unwrap()).contains("hunter2"));
        assert!(!format!("{:?}", Client::builder("http://x").api_key("hunter2")).contains("hunter2"));
    }
}
