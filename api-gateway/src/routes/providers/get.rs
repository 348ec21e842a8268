//! `GET /providers/{name}`

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Provider, count, shown};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::gateway::Gateway;
use crate::routes::sandboxes::plan::no_provider;

/// A box-maker, with what it has.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderDetail {
    /// As in the list.
    #[serde(flatten)]
    pub provider: Provider,
    /// The tenant's live sandboxes that it made.
    pub sandbox_count: usize,
    /// What may be known of its configuration: `type`, what keeps its boxes apart from the host.
    pub config: BTreeMap<&'static str, String>,
}

/// One provider.
#[utoipa::path(
    get,
    path = "/providers/{name}",
    tag = "providers",
    params(("name" = String, Path, description = "The provider")),
    responses(
        (status = 200, description = "The provider", body = ProviderDetail),
        (status = 404, description = "No such provider", body = ErrorBody),
    )
)]
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<ProviderDetail>, ApiError> {
    let providers = shown(&gateway, &caller);
    let provider =
        providers.into_iter().find(|provider| provider.name == name).ok_or_else(|| no_provider(&name))?;
    let sandbox_count = count(&gateway.live_sandboxes(&caller), &name) as usize;
    let isolation = provider.capabilities.iter().find_map(|name| name.strip_prefix("isolation:"));
    let config = isolation.map(|isolation| ("type", isolation.to_owned())).into_iter().collect();
    Ok(Json(ProviderDetail { sandbox_count, config, provider }))
}
