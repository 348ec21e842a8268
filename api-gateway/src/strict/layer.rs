use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::handling::Handling;
use super::parameters::Parameters;
use super::unread::{Place, Unknown, Unread};

const UNKNOWN_FIELDS: HeaderName = HeaderName::from_static("x-unknown-fields");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The layer that looks at the query, gives the extractors of bodies a place for what they find, and tells the client.
pub async fn watch(State(parameters): State<Parameters>, mut request: Request, next: Next) -> Response {
    let handling = Handling::of(request.headers());
    let unread = Unread::new(handling == Handling::Strict);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    if let Some(query) = request.uri().query().filter(|query| !query.is_empty()) {
        unread.note(parameters.unknown(request.method(), route, query));
    }
    if sends_a_body(&request) && parameters.reads_no_body(request.method(), route) {
        unread.note([Unknown { place: Place::Unasked, name: "body".to_owned(), meant: None }]);
    }
    request.extensions_mut().insert(unread.clone());
    let mut response = match unread.check() {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    if let Some(names) = unread.header() {
        response.headers_mut().insert(UNKNOWN_FIELDS, names);
        unread.log(route);
    }
    if let Some(applied) = handling.applied() {
        response.headers_mut().insert(PREFERENCE_APPLIED, HeaderValue::from_static(applied));
    }
    response
}

fn sends_a_body(request: &Request) -> bool {
    crate::body::declared_length(request.headers()).is_some_and(|length| length > 0)
        || request.headers().contains_key(header::TRANSFER_ENCODING)
}
