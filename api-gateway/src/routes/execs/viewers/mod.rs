//! Links with which others may watch an exec.

pub mod list;
pub mod revoke;
pub mod share;

use events::ApiKeyId;
use feed::Link;

use crate::error::ApiError;
use crate::followed::followed;
use crate::gateway::Gateway;

/// How many links of a tenant may be good at a time: gateways keep them in memory.
const MOST: usize = 1_000;

/// Waits until the view shows a link that was just made, or does not show one that was just revoked.
async fn shown(
    gateway: &Gateway,
    id: &ApiKeyId,
    is_there: impl Fn(Option<&Link>) -> bool,
) -> Result<(), ApiError> {
    followed("viewer links", || gateway.view().links(|links| is_there(links.get(id))).then_some(())).await
}
