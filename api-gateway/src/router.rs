//! All routes, on one page.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::{Json, Router};
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::GatewayConfig;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::openapi::Api;
use crate::origin::Origin;
use crate::routes::{
    audit, events, execs, files, health, metrics, pool, providers, quotas, sandboxes, snapshots, system,
    templates, tickets, webhooks,
};
use crate::share::visit;
use crate::strict::{Parameters, watch};
use crate::{audited, auth, denied, observe, openapi};

pub(crate) const PREFIX: &str = "/api/v1";

/// What anybody may ask.
#[rustfmt::skip]
fn open() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(health::check::check))
        .routes(routes!(health::live::live))
        .routes(routes!(health::ready::ready))
}

/// What needs a key.
#[rustfmt::skip]
fn keyed() -> OpenApiRouter<Gateway> {
    OpenApiRouter::new()
        .routes(routes!(sandboxes::spawn::spawn, sandboxes::list::list, sandboxes::prune::prune))
        .routes(routes!(sandboxes::admission::admission))
        .routes(routes!(sandboxes::get::get, sandboxes::destroy::destroy))
        .routes(routes!(sandboxes::extend::extend))
        .routes(routes!(sandboxes::erase::erase))
        .routes(routes!(sandboxes::logs::logs))
        .routes(routes!(sandboxes::stats::stats))
        .routes(routes!(sandboxes::timeline::timeline))
        .routes(routes!(sandboxes::replay::replay))

        .routes(routes!(execs::run::run))
        .routes(routes!(execs::ws::ws))
        .routes(routes!(execs::list::list))
        .routes(routes!(execs::get::get, execs::kill::kill))
        .routes(routes!(execs::attach::attach))
        .routes(routes!(execs::output::output))
        .routes(routes!(execs::stream::stream))
        .routes(routes!(execs::recording::recording))
        .routes(routes!(execs::signal::signal))
        .routes(routes!(execs::stdin::stdin))
        .routes(routes!(execs::resize::resize))
        .routes(routes!(execs::viewers::list::list, execs::viewers::share::share))
        .routes(routes!(execs::viewers::revoke::revoke))

        .routes(routes!(files::read::read, files::write::write, files::upload::upload, files::delete::delete))
        .routes(routes!(files::list::list))
        .routes(routes!(files::stat::stat))
        .routes(routes!(files::glob::glob))
        .routes(routes!(files::rename::rename))
        .routes(routes!(files::chmod::chmod))

        .routes(routes!(templates::list::list, templates::save::save))
        .routes(routes!(templates::get::get, templates::replace::replace, templates::delete::delete))
        .routes(routes!(templates::spawn::spawn))

        .routes(routes!(webhooks::list::list, webhooks::create::create))
        .routes(routes!(webhooks::get::get, webhooks::update::update, webhooks::delete::delete))
        .routes(routes!(webhooks::redeliver::redeliver))
        .routes(routes!(webhooks::ping::ping))

        .routes(routes!(events::follow::follow))
        .routes(routes!(events::ws::ws))
        .routes(routes!(tickets::issue::issue))
        .routes(routes!(audit::list::list))
        .routes(routes!(audit::export::export))
        .routes(routes!(audit::verify::verify))
        .routes(routes!(audit::checkpoints::checkpoints))
        .routes(routes!(providers::list::list))
        .routes(routes!(providers::test::test))
        .routes(routes!(providers::get::get))
        .routes(routes!(snapshots::list::list))
        .routes(routes!(system::diagnostics::diagnostics))
        .routes(routes!(system::stats::stats))
        .routes(routes!(pool::status::status))
        .routes(routes!(quotas::list::list))
        .routes(routes!(quotas::summary::summary))
        .routes(routes!(quotas::get::get))
        .routes(routes!(quotas::usage::usage))
        .routes(routes!(metrics::summary::summary))
        .routes(routes!(metrics::prometheus::prometheus))
}

/// The OpenAPI document.
pub(crate) fn document(config: &GatewayConfig) -> utoipa::openapi::OpenApi {
    let api = OpenApiRouter::<Gateway>::with_openapi(Api::openapi());
    let mut document = api.nest(PREFIX, open().merge(keyed())).into_openapi();
    openapi::complete(&mut document, PREFIX, config);
    document
}

/// The routes with all that stands in front of them. Paths come in normalised: see [`normalise`].
pub(crate) fn router(gateway: Gateway) -> Router {
    let document = document(gateway.config());
    // Without a document nothing is judged; that it has a JSON form is tested.
    let parameters = Parameters::of(&serde_json::to_value(&document).unwrap_or_default());
    let keyed: Router<Gateway> = Router::from(keyed())
        .route_layer(from_fn_with_state(parameters.clone(), watch))
        .route_layer(from_fn_with_state(gateway.clone(), audited::require))
        .route_layer(from_fn_with_state(gateway.clone(), auth::admit))
        .route_layer(from_fn_with_state(gateway.clone(), auth::require))
        .route_layer(from_fn_with_state(gateway.clone(), denied::watch));
    let open: Router<Gateway> = Router::from(open())
        .route_layer(from_fn_with_state(parameters, watch))
        .route("/openapi.json", axum::routing::get(move || std::future::ready(Json(document))));
    let cors = cors(&gateway.config().allowed_origins);
    let router = Router::new()
        .nest(PREFIX, open.merge(keyed))
        .fallback(|| std::future::ready(ApiError::not_found("no such route").into_response()))
        .method_not_allowed_fallback(|| std::future::ready(ApiError::method_not_allowed().into_response()))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(from_fn(observe::observe))
        .layer(from_fn(visit::receive))
        .with_state(gateway);
    match cors {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

/// Closed, unless the operator names origins.
fn cors(origins: &[Origin]) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(Origin::header).collect();
    if origins.is_empty() {
        return None;
    }
    let request_headers = [
        "x-api-key",
        "x-user-id",
        "x-request-id",
        "idempotency-key",
        "last-event-id",
        "prefer",
        "x-admin-api-key",
    ];
    let mut headers: Vec<HeaderName> = request_headers.map(HeaderName::from_static).into();
    headers.extend([
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::ACCEPT,
        header::RANGE,
        header::IF_RANGE,
    ]);
    Some(
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers(headers)
            .expose_headers(
                [
                    "x-request-id",
                    "x-exec-id",
                    "x-next-offset",
                    "x-next-before",
                    "x-log-floor",
                    "x-exec-state",
                    "x-exec-exit-code",
                    "x-output-bytes",
                    "accept-ranges",
                    "content-range",
                    "etag",
                    "last-modified",
                    "x-limit",
                    "x-unknown-fields",
                    "preference-applied",
                ]
                .map(HeaderName::from_static),
            ),
    )
}

/// What the original has below `/admin` too, for its web UI. The key decides who may see what, not the path.
const ADMIN_TWINS: [&str; 4] = ["providers", "metrics", "diagnostics", "quotas"];

/// `/a/` is `/a`, and `/admin/providers` is `/providers`. Before routing, because clients follow no redirects.
pub(crate) fn normalise<B>(mut request: Request<B>) -> Request<B> {
    let path = request.uri().path();
    let trimmed = path.trim_end_matches('/');
    let target = match admin_twin(trimmed) {
        Some(rest) => format!("{PREFIX}/{rest}"),
        None if trimmed.len() == path.len() || trimmed.is_empty() => return request,
        None => trimmed.to_owned(),
    };
    let target = match request.uri().query() {
        Some(query) => format!("{target}?{query}"),
        None => target,
    };
    // A path without its last slash, or without its middle, is a path still.
    if let Ok(uri) = target.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    request
}

/// What stands behind `/admin/`, where it is a twin.
fn admin_twin(path: &str) -> Option<&str> {
    let rest = path.strip_prefix(PREFIX)?.strip_prefix("/admin/")?;
    let first = rest.split('/').next()?;
    ADMIN_TWINS.contains(&first).then_some(rest)
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
