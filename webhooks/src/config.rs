use std::time::Duration;

use policy::AddressPolicy;

/// What the operator decides about deliveries.
#[derive(Debug, Clone)]
pub struct WebhooksConfig {
    /// Which addresses may be called.
    pub addresses: AddressPolicy,
    /// Whether `http://` is good enough.
    pub allow_http: bool,
    /// How long a receiver may take to answer, from the connection on.
    pub timeout: Duration,
    /// How long one event is tried before the webhook is suspended.
    pub give_up_after: Duration,
    /// The greatest number of requests that are under way at once.
    pub concurrency: usize,
}

impl Default for WebhooksConfig {
    fn default() -> Self {
        Self {
            addresses: AddressPolicy::default(),
            allow_http: false,
            timeout: Duration::from_secs(10),
            give_up_after: Duration::from_secs(24 * 3600),
            concurrency: 256,
        }
    }
}
