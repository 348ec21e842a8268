//! Sandboxes, as the API shows them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::api::Api;
use super::error::ClientError;
use super::patience::Patience;

/// How long a destroy is tried while the server does not answer.
const DESTROY_PATIENCE: Duration = Duration::from_secs(15);

/// What the client reads of a sandbox.
#[derive(Debug, Clone, Deserialize)]
pub struct Sandbox {
    pub id: String,
    #[serde(default)]
    pub state: String,
    #[serde(default)]
    pub provider: String,
    #[serde(default)]
    pub image: String,
    #[serde(default)]
    pub memory_mb: u64,
    #[serde(default)]
    pub vcpus: f64,
    #[serde(default)]
    pub created_at: Option<DateTime<Utc>>,
    #[serde(default)]
    pub expires_at: Option<DateTime<Utc>>,
    #[serde(default)]
    pub owner_id: String,
    #[serde(default)]
    pub message: String,
}

impl Sandbox {
    /// Reads one from the JSON, which stays with the caller.
    pub fn read(value: &Value) -> Result<Self, ClientError> {
        Self::deserialize(value).map_err(|error| ClientError::Unexpected(format!("not a sandbox: {error}")))
    }
}

/// Whether the server says that a sandbox is gone, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destroyed {
    /// It is.
    Gone,
    /// Its node is slow or away.
    Later,
}

/// Destroys a sandbox.
pub async fn destroy(api: &Api, id: &str) -> Result<Destroyed, ClientError> {
    let response = api.send(api.request(Method::DELETE, api.url(&["sandboxes", id]))).await?;
    Ok(if response.status() == 202 { Destroyed::Later } else { Destroyed::Gone })
}

/// Destroys a sandbox that this program made. One that is gone already is as good.
pub async fn destroy_own(api: &Api, id: &str) -> Result<Destroyed, ClientError> {
    let mut patience = Patience::new(DESTROY_PATIENCE);
    loop {
        match destroy(api, id).await {
            Err(error) if error.is_not_found() => return Ok(Destroyed::Gone),
            // 409: it is not placed yet.
            Err(error) if error.is_passing() || matches!(error, ClientError::Refused { status: 409, .. }) => {
                if !patience.again().await {
                    return Err(error);
                }
            }
            outcome => return outcome,
        }
    }
}
