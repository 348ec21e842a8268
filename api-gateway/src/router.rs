//! All routes, on one page.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::{Json, Router};
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::Action;
use crate::config::GatewayConfig;
use crate::error::ApiError;
use crate::front::{admit, audited, identify, observe, turned_away};
use crate::gateway::Gateway;
use crate::openapi::Api;
use crate::origin::Origin;
use crate::routes::{
    audit, events, execs, files, health, jobs, metrics, pool, providers, quotas, sandboxes, schedules,
    snapshots, system, templates, tickets, webhooks,
};
use crate::share::visit;
use crate::strict::{Parameters, watch};
use crate::table::Table;
use crate::{openapi, table};

pub(crate) const PREFIX: &str = "/api/v1";

/// All routes, each behind what it does.
#[rustfmt::skip]
fn table() -> Table {
    use Action::*;
    Table::default()
        .on(Probe, routes!(health::check::check))
        .on(Probe, routes!(health::live::live))
        .on(Probe, routes!(health::ready::ready))

        .on(SandboxCreate, routes!(sandboxes::spawn::spawn))
        .on(SandboxList, routes!(sandboxes::list::list))
        .on(SandboxPrune, routes!(sandboxes::prune::prune))
        .on(SandboxAdmission, routes!(sandboxes::admission::admission))
        .on(SandboxRead, routes!(sandboxes::get::get))
        .on(SandboxDestroy, routes!(sandboxes::destroy::destroy))
        .on(SandboxExtend, routes!(sandboxes::extend::extend))
        .on(SandboxErase, routes!(sandboxes::erase::erase))
        .on(SandboxLogs, routes!(sandboxes::logs::logs))
        .on(SandboxStats, routes!(sandboxes::stats::stats))
        .on(SandboxTimeline, routes!(sandboxes::timeline::timeline))
        .on(SandboxReplay, routes!(sandboxes::replay::replay))

        .on(ExecRun, routes!(execs::run::run))
        .on(ExecConverse, routes!(execs::ws::ws))
        .on(ExecList, routes!(execs::list::list))
        .on(ExecRead, routes!(execs::get::get))
        .on(ExecKill, routes!(execs::kill::kill))
        .on(ExecAttach, routes!(execs::attach::attach))
        .on(ExecOutput, routes!(execs::output::output))
        .on(ExecStream, routes!(execs::stream::stream))
        .on(ExecRecording, routes!(execs::recording::recording))
        .on(ExecSignal, routes!(execs::signal::signal))
        .on(ExecInput, routes!(execs::stdin::stdin))
        .on(ExecResize, routes!(execs::resize::resize))
        .on(ViewerList, routes!(execs::viewers::list::list))
        .on(ViewerShare, routes!(execs::viewers::share::share))
        .on(ViewerRevoke, routes!(execs::viewers::revoke::revoke))

        .on(JobSubmit, routes!(jobs::submit::submit))
        .on(JobList, routes!(jobs::list::list))
        .on(JobSubmit, routes!(jobs::batch::batch))
        .on(JobRead, routes!(jobs::get::get))
        .on(JobRead, routes!(jobs::attempts::attempts))
        .on(JobRead, routes!(jobs::timeline::timeline))
        .on(JobOutput, routes!(jobs::output::output))
        .on(JobCancel, routes!(jobs::cancel::cancel))
        .on(JobSubmit, routes!(jobs::retry::retry))

        .on(FileRead, routes!(files::read::read))
        .on(FileWrite, routes!(files::write::write))
        .on(FileWrite, routes!(files::upload::upload))
        .on(FileDelete, routes!(files::delete::delete))
        .on(FileRead, routes!(files::list::list))
        .on(FileRead, routes!(files::stat::stat))
        .on(FileRead, routes!(files::glob::glob))
        .on(FileWrite, routes!(files::rename::rename))
        .on(FileWrite, routes!(files::chmod::chmod))

        .on(JobArtifacts, routes!(jobs::artifacts::list::list))
        .on(JobArtifacts, routes!(jobs::artifacts::read::read))

        .on(TemplateRead, routes!(templates::list::list))
        .on(TemplateSave, routes!(templates::save::save))
        .on(TemplateRead, routes!(templates::get::get))
        .on(TemplateSave, routes!(templates::replace::replace))
        .on(TemplateDelete, routes!(templates::delete::delete))
        .on(SandboxCreate, routes!(templates::spawn::spawn))

        .on(WebhookRead, routes!(webhooks::list::list))
        .on(WebhookSave, routes!(webhooks::create::create))
        .on(WebhookRead, routes!(webhooks::get::get))
        .on(WebhookSave, routes!(webhooks::update::update))
        .on(WebhookDelete, routes!(webhooks::delete::delete))
        .on(WebhookDeliver, routes!(webhooks::redeliver::redeliver))
        .on(WebhookDeliver, routes!(webhooks::ping::ping))

        .on(ScheduleRead, routes!(schedules::list::list))
        .on(ScheduleSave, routes!(schedules::create::create))
        .on(ScheduleRead, routes!(schedules::get::get))
        .on(ScheduleSave, routes!(schedules::update::update))
        .on(ScheduleDelete, routes!(schedules::delete::delete))
        .on(SchedulePause, routes!(schedules::pause::pause))
        .on(ScheduleSave, routes!(schedules::resume::resume))
        .on(ScheduleTrigger, routes!(schedules::trigger::trigger))

        .on(EventFollow, routes!(events::follow::follow))
        .on(EventStream, routes!(events::ws::ws))
        .on(AuditList, routes!(audit::list::list))
        .on(AuditExport, routes!(audit::export::export))
        .on(AuditVerify, routes!(audit::verify::verify))
        .on(AuditCheckpoints, routes!(audit::checkpoints::checkpoints))
        .on(TicketIssue, routes!(tickets::issue::issue))

        .on(ProviderRead, routes!(providers::list::list))
        .on(ProviderRead, routes!(providers::test::test))
        .on(ProviderRead, routes!(providers::get::get))
        .on(ProviderRead, routes!(snapshots::list::list))
        .on(ProviderRead, routes!(pool::status::status))
        .on(QuotaRead, routes!(quotas::list::list))
        .on(QuotaRead, routes!(quotas::summary::summary))
        .on(QuotaRead, routes!(quotas::get::get))
        .on(QuotaRead, routes!(quotas::usage::usage))
        .on(MetricsRead, routes!(metrics::summary::summary))
        .on(MetricsRead, routes!(system::diagnostics::diagnostics))
        .on(DeploymentRead, routes!(metrics::prometheus::prometheus))
        .on(HostRead, routes!(system::stats::stats))
}

/// The OpenAPI document.
pub(crate) fn document(config: &GatewayConfig) -> utoipa::openapi::OpenApi {
    let Table { open, keyed, actions } = table();
    let api = OpenApiRouter::<Gateway>::with_openapi(Api::openapi());
    let mut document = api.nest(PREFIX, open.merge(keyed)).into_openapi();
    openapi::complete(&mut document, PREFIX, config, |method, path| actions.of(method, path));
    document
}

/// The OpenAPI document of the API with its default configuration, as JSON.
pub fn openapi_document() -> Result<String, serde_json::Error> {
    openapi::published(document(&GatewayConfig::default())).to_pretty_json()
}

/// The routes with all that stands in front of them. Paths come in normalised: see [`normalise`].
pub(crate) fn router(gateway: Gateway) -> Router {
    let document = document(gateway.config());
    // Without a document nothing is judged; that it has a JSON form is tested.
    let parameters = Parameters::of(&serde_json::to_value(&document).unwrap_or_default());
    let document = openapi::published(document);
    let Table { open, keyed, actions } = table();
    let keyed: Router<Gateway> = Router::from(keyed)
        .route_layer(from_fn_with_state(parameters.clone(), watch))
        .route_layer(from_fn_with_state(gateway.clone(), audited::require))
        .route_layer(from_fn_with_state(gateway.clone(), admit::admit))
        .route_layer(from_fn_with_state(gateway.clone(), identify::require))
        .route_layer(from_fn_with_state((PREFIX, Arc::new(actions)), table::name))
        .route_layer(from_fn_with_state(gateway.clone(), turned_away::watch));
    let open: Router<Gateway> = Router::from(open)
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
        "traceparent",
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
