//! Input from outside, parsed once into types that cannot be wrong. Every refusal is a typed 4xx.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use events::{ExecId, JobId, SandboxId, WebhookId};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::auth::Caller;
use crate::body::{declared_length, incomplete, plain};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::patience::Patience;
use crate::share::visit::Visit;
use crate::strict::Unread;

/// A JSON object, whatever Content-Type says, of at most the configured size.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

/// The same with the size that a file's content may have.
#[derive(Debug)]
pub struct FileJsonBody<T>(pub T);

/// The same, or no body at all, which is an empty object.
#[derive(Debug)]
pub struct OptionalJsonBody<T> {
    /// The body as a value.
    pub value: T,
    /// The body as the client sent it.
    pub bytes: Bytes,
}

/// A JSON object together with its exact bytes, for the digest of an idempotent request.
#[derive(Debug)]
pub struct RawJsonBody<T> {
    /// The body as a value.
    pub value: T,
    /// The body as the client sent it.
    pub bytes: Bytes,
}

/// The same with the size that a file's content may have: many things at once.
#[derive(Debug)]
pub struct LargeRawJsonBody<T> {
    /// The body as a value.
    pub value: T,
    /// The body as the client sent it.
    pub bytes: Bytes,
}

impl<T: DeserializeOwned> FromRequest<Gateway> for LargeRawJsonBody<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, gateway: &Gateway) -> Result<Self, ApiError> {
        let (unread, bytes) = take(request, gateway, gateway.config().max_file_body_bytes).await?;
        Ok(Self { value: unread.body(&bytes)?, bytes })
    }
}

impl<T: DeserializeOwned> FromRequest<Gateway> for JsonBody<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, gateway: &Gateway) -> Result<Self, ApiError> {
        let (unread, bytes) = take(request, gateway, gateway.config().max_body_bytes).await?;
        unread.body(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned> FromRequest<Gateway> for FileJsonBody<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, gateway: &Gateway) -> Result<Self, ApiError> {
        let (unread, bytes) = take(request, gateway, gateway.config().max_file_body_bytes).await?;
        unread.body(&bytes).map(Self)
    }
}

impl<T: DeserializeOwned> FromRequest<Gateway> for OptionalJsonBody<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, gateway: &Gateway) -> Result<Self, ApiError> {
        let (unread, bytes) = take(request, gateway, gateway.config().max_body_bytes).await?;
        let empty = matches!(bytes.trim_ascii(), b"" | b"null");
        let bytes = if empty { Bytes::from_static(b"{}") } else { bytes };
        Ok(Self { value: unread.body(&bytes)?, bytes })
    }
}

impl<T: DeserializeOwned> FromRequest<Gateway> for RawJsonBody<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, gateway: &Gateway) -> Result<Self, ApiError> {
        let (unread, bytes) = take(request, gateway, gateway.config().max_body_bytes).await?;
        Ok(Self { value: unread.body(&bytes)?, bytes })
    }
}

/// The body, and the place for what of it nothing reads.
async fn take(request: Request, gateway: &Gateway, limit: usize) -> Result<(Unread, Bytes), ApiError> {
    let unread = request.extensions().get::<Unread>().cloned().unwrap_or_default();
    let caller = request.extensions().get::<Caller>().cloned();
    let visit = request.extensions().get::<Visit>().cloned();
    let room = caller.zip(visit).map(|(caller, visit)| Room { gateway, caller, visit, taken: FREE_BYTES });
    Ok((unread, read_body(request, limit, room).await?))
}

/// A body of so many bytes counts for nothing: there are no more of them than there are connections.
const FREE_BYTES: usize = 16 << 10;
/// What a body of unknown length takes in advance.
const STEP_BYTES: usize = 256 << 10;
/// A body that comes more slowly than this, in bytes a second, is given up, after a grace.
const SLOWEST: u64 = 16 << 10;

/// Where the bytes of a body are counted.
struct Room<'a> {
    gateway: &'a Gateway,
    caller: Caller,
    visit: Visit,
    taken: usize,
}

impl Room<'_> {
    /// Makes sure that so many bytes are taken. They come and are parsed, so each is there twice.
    async fn make(&mut self, bytes: usize, now: bool) -> Result<(), ApiError> {
        if bytes > self.taken {
            let more = (bytes - self.taken).saturating_mul(2);
            self.visit.hold(self.gateway.shares().memory(&self.caller, more, now).await?);
            self.taken = bytes;
        }
        Ok(())
    }
}

/// Reads a whole body, and refuses one that says it is too long before any of it was sent.
async fn read_body(request: Request, limit: usize, mut room: Option<Room<'_>>) -> Result<Bytes, ApiError> {
    plain(request.headers())?;
    let too_large = || ApiError::too_large(format!("the body is over the limit of {limit} bytes"));
    let declared = declared_length(request.headers());
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let declared = declared.and_then(|length| usize::try_from(length).ok());
    if let (Some(room), Some(length)) = (&mut room, declared) {
        room.make(length, false).await?;
    }
    let grace = request.extensions().get::<Patience>().map(Patience::limit);
    let began = Instant::now();
    let mut body: Body = request.into_body();
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| incomplete(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        let have = first.as_ref().map_or(0, Bytes::len) + rest.len() + data.len();
        if have > limit {
            return Err(too_large());
        }
        if let Some(room) = &mut room
            && have > room.taken
        {
            // Whoever waits here holds what others wait for.
            room.make(have.saturating_add(STEP_BYTES).min(limit), true).await?;
        }
        if grace.is_some_and(|grace| began.elapsed() > grace + Duration::from_secs(have as u64 / SLOWEST)) {
            return Err(ApiError::timeout("the body comes too slowly"));
        }
        match first.take() {
            // Nearly every body is one frame, which is then not copied.
            None if rest.is_empty() => first = Some(data),
            before => {
                if let Some(before) = before {
                    // As much as is announced, and no room for more: growing would have it twice.
                    rest.reserve(declared.unwrap_or(0).max(before.len() + data.len()));
                    rest.extend_from_slice(&before);
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| rest.freeze()))
}

/// Reads a JSON object of which whatever nothing reads may be left out: a control frame, of which the tag says the rest.
pub fn parse_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    crate::strict::parse_object(bytes, |_| {})
}

/// A whole number as people write it: digits, without a sign.
pub fn whole<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// The query, form-encoded.
#[derive(Debug)]
pub struct QueryOf<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryOf<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(error) => Err(ApiError::bad_request(events::without_values(&error.body_text()))),
        }
    }
}

/// The sandbox that the path names. What cannot be an id is the id of nothing.
#[derive(Debug, Clone, Copy)]
pub struct SandboxPath(pub SandboxId);

impl<S: Send + Sync> FromRequestParts<S> for SandboxPath {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = path_segment(parts, state).await;
        let id: SandboxId = text.parse().map_err(|_| crate::gateway::no_sandbox(text))?;
        tracing::Span::current().record("sandbox.id", tracing::field::display(id));
        Ok(Self(id))
    }
}

/// The exec that the path names.
#[derive(Debug, Clone, Copy)]
pub struct ExecPath(pub ExecId);

impl<S: Send + Sync> FromRequestParts<S> for ExecPath {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = path_segment(parts, state).await;
        let id: ExecId = text.parse().map_err(|_| ApiError::absent("exec", text))?;
        tracing::Span::current().record("exec.id", tracing::field::display(id));
        Ok(Self(id))
    }
}

/// The webhook that the path names.
#[derive(Debug, Clone, Copy)]
pub struct WebhookPath(pub WebhookId);

impl<S: Send + Sync> FromRequestParts<S> for WebhookPath {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = path_segment(parts, state).await;
        text.parse().map(Self).map_err(|_| ApiError::absent("webhook", text))
    }
}

/// The schedule that the path names, by its id or its name.
#[derive(Debug, Clone)]
pub struct SchedulePath(pub String);

impl<S: Send + Sync> FromRequestParts<S> for SchedulePath {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Self(path_segment(parts, state).await))
    }
}

/// The job that the path names.
#[derive(Debug, Clone, Copy)]
pub struct JobPath(pub JobId);

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        job_id(path_segment(parts, state).await).map(Self)
    }
}

/// The job that the path names, and the path of one of its artifacts.
#[derive(Debug, Clone)]
pub struct ArtifactPath(pub JobId, pub String);

impl<S: Send + Sync> FromRequestParts<S> for ArtifactPath {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Ok(Path((job, path))) = Path::<(String, String)>::from_request_parts(parts, state).await else {
            return Err(ApiError::not_found("what is no text names no artifact"));
        };
        Ok(Self(job_id(job)?, path))
    }
}

fn job_id(text: String) -> Result<JobId, ApiError> {
    let id: JobId = text.parse().map_err(|_| ApiError::absent("job", text))?;
    tracing::Span::current().record("job.id", tracing::field::display(id));
    Ok(id)
}

/// The name of a template that the path names.
#[derive(Debug, Clone)]
pub struct TemplatePath(pub String);

impl<S: Send + Sync> FromRequestParts<S> for TemplatePath {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Self(path_segment(parts, state).await))
    }
}

/// What cannot be read (bytes that are no text) is the name of nothing.
async fn path_segment<S: Send + Sync>(parts: &mut Parts, state: &S) -> String {
    Path::<String>::from_request_parts(parts, state).await.map_or_else(|_| String::new(), |Path(text)| text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::body::Body;
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::error::ErrorCode;

    #[derive(Debug, Deserialize, Default)]
    #[serde(default)]
    struct Anything {
        name: Option<String>,
        labels: Option<BTreeMap<String, String>>,
    }

    #[test]
    fn what_is_not_an_object_is_a_bad_request() {
        let deep = format!("{{\"labels\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for body in ["", "{", "[]", "\"x\"", "5", "null", "{\"a\":1}}", "{'a':1}", "{\"name\":5}", &deep] {
            let error = parse_object::<Anything>(body.as_bytes()).unwrap_err();
            assert_eq!(error.code(), ErrorCode::BadRequest, "{body:.40}");
        }
        assert!(parse_object::<Anything>(b"{\"name\":\"\xff\"}").is_err());
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let body: Anything = parse_object(br#" {"name":"n","colour":{"a":[1]}}"#).unwrap();
        assert_eq!((body.name.as_deref(), body.labels), (Some("n"), None));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_too_large_declared_or_not() {
        let declared =
            Request::post("/").header("content-length", "1000000000000").body(Body::empty()).unwrap();
        let chunks =
            futures::stream::iter((0..5).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"123"))));
        let streamed = Request::post("/").body(Body::from_stream(chunks)).unwrap();
        for request in [declared, streamed] {
            let error = read_body(request, 14, None).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::TooLarge);
        }
    }

    #[tokio::test]
    async fn a_body_that_is_not_its_bytes_is_refused() {
        let refused = [
            ("content-encoding", "gzip"),
            ("content-encoding", "identity, br"),
            ("content-type", "multipart/form-data; boundary=x"),
            ("content-type", " MultiPart/mixed"),
        ];
        for (name, value) in refused {
            let request = Request::post("/").header(name, value).body(Body::from("{}")).unwrap();
            let error = read_body(request, 5, None).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::UnsupportedMediaType, "{name}: {value}");
        }
        for (name, value) in [("content-encoding", "Identity"), ("content-type", "text/x-multipart/")] {
            let request = Request::post("/").header(name, value).body(Body::from("{}")).unwrap();
            assert_eq!(read_body(request, 5, None).await.unwrap(), "{}");
        }
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together() {
        let chunks = futures::stream::iter(
            ["ab", "", "cd", "e"].map(|part| Ok::<_, std::io::Error>(Bytes::from(part))),
        );
        let request = Request::post("/").body(Body::from_stream(chunks)).unwrap();
        assert_eq!(read_body(request, 5, None).await.unwrap(), "abcde");
    }

    #[tokio::test]
    async fn a_query_that_is_wrong_is_not_repeated() {
        #[derive(Debug, Deserialize)]
        #[allow(dead_code, reason = "only its errors are wanted")]
        struct Asked {
            #[serde(default)]
            follow: bool,
            #[serde(default)]
            from: u64,
            stream: Option<Stream>,
        }
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Stream {
            Stdout,
        }
        for (query, said) in [
            ("follow=s3cret", "follow: "),
            ("from=s3cret", "from: invalid digit found in string"),
            ("stream=s3cret", "stream: unknown variant, expected `stdout`"),
            ("stream=s3cret,%20expected%20s3cret", "stream: unknown variant, expected "),
            ("from=1&from=s3cret", "duplicate field `from`"),
        ] {
            let (mut parts, ()) =
                axum::http::Request::get(format!("/?{query}")).body(()).unwrap().into_parts();
            let error = QueryOf::<Asked>::from_request_parts(&mut parts, &()).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::BadRequest);
            let text = error.to_string();
            assert!(text.contains(said), "{text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
        let (mut parts, ()) =
            axum::http::Request::get("/?stream=stdout&from=7").body(()).unwrap().into_parts();
        let QueryOf(read) = QueryOf::<Asked>::from_request_parts(&mut parts, &()).await.unwrap();
        assert_eq!(read.from, 7);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_object_or_a_bad_request(bytes: Vec<u8>) {
            if let Err(error) = parse_object::<Anything>(&bytes) {
                prop_assert_eq!(error.code(), ErrorCode::BadRequest);
            }
        }
    }
}
