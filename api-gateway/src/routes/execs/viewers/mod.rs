//! Links with which others may watch an exec.

pub mod list;
pub mod revoke;
pub mod share;

use std::time::Duration;

use events::ApiKeyId;
use feed::Link;
use tokio::time::{Instant, sleep};

use crate::error::ApiError;
use crate::gateway::Gateway;

/// How many links of a tenant may be good at a time: gateways keep them in memory.
const MOST: usize = 1_000;
/// How long a change is waited for until it is recorded.
const RECORD_PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked whether a change is recorded.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until the view shows a link that was just made, or does not show one that was just revoked.
async fn shown(
    gateway: &Gateway,
    id: &ApiKeyId,
    is_there: impl Fn(Option<&Link>) -> bool,
) -> Result<(), ApiError> {
    let began = Instant::now();
    while !gateway.view().links(|links| is_there(links.get(id))) {
        if began.elapsed() > RECORD_PATIENCE {
            return Err(ApiError::unavailable(
                "the recorder does not follow: a change of viewer links is not recorded",
            ));
        }
        sleep(PAUSE).await;
    }
    Ok(())
}
