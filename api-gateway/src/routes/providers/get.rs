//! `GET /providers/{name}`

use api_types::ProviderDetail;
use axum::Json;
use axum::extract::{Path, State};

use super::{count, shown};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::gateway::Gateway;
use crate::routes::sandboxes::plan::no_provider;

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
    let config = isolation.map(|isolation| ("type".to_owned(), isolation.to_owned())).into_iter().collect();
    Ok(Json(ProviderDetail { sandbox_count, config, provider }))
}
