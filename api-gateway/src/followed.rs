//! Waiting until what was just published is recorded, and shows.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::ApiError;

/// How long a change may take to be recorded, and how often that is looked for.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(2);

/// Looks until there is what is looked for. `what` is what was changed, for the error that says that it is not recorded.
pub(crate) async fn followed<T>(what: &str, look: impl Fn() -> Option<T>) -> Result<T, ApiError> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if began.elapsed() > PATIENCE {
            return Err(ApiError::unavailable(format!(
                "the recorder does not follow: a change of {what} is not recorded"
            )));
        }
        sleep(PAUSE).await;
    }
}
