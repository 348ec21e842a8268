//! Webhooks: readers of the log that are called over HTTP.

use api_types::{RedeliverRequest, Webhook, WebhookPing, WebhookRequest};
use reqwest::Method;

use crate::client::Client;
use crate::error::ClientError;

impl Client {
    /// All webhooks of the tenant, the oldest first.
    pub async fn webhooks(&self) -> Result<Vec<Webhook>, ClientError> {
        self.get(&["webhooks"]).await
    }

    /// One webhook, and how it is doing.
    pub async fn webhook(&self, id: &str) -> Result<Webhook, ClientError> {
        self.get(&["webhooks", id]).await
    }

    /// Makes a webhook. The answer has its signing secret, which is never shown again.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// use client::WebhookRequest;
    ///
    /// let request = WebhookRequest {
    ///     url: Some("https://example.com/hook".into()),
    ///     types: Some(vec!["exec.exited".into()]),
    ///     ..WebhookRequest::default()
    /// };
    /// let webhook = client.create_webhook(&request).await?;
    /// println!("{} is signed with {}", webhook.id, &*webhook.secret.unwrap_or_default());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_webhook(&self, request: &WebhookRequest) -> Result<Webhook, ClientError> {
        self.fetch(self.request(Method::POST, self.url(&["webhooks"])).json(request)).await
    }

    /// Replaces what a webhook is. Its place in the log stays; its secret too, unless there is a new one.
    pub async fn update_webhook(&self, id: &str, request: &WebhookRequest) -> Result<Webhook, ClientError> {
        self.fetch(self.request(Method::PUT, self.url(&["webhooks", id])).json(request)).await
    }

    /// Deletes a webhook. A delivery that is under way may still arrive.
    pub async fn delete_webhook(&self, id: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, self.url(&["webhooks", id]))).await.map(drop)
    }

    /// Goes on at the event with this position, back or forth, or skips all that waits (`None`). Wakes a suspended webhook.
    pub async fn redeliver(&self, id: &str, from: Option<u64>) -> Result<Webhook, ClientError> {
        let from = from.map_or_else(|| "now".into(), Into::into);
        let url = self.url(&["webhooks", id, "redeliver"]);
        self.fetch(self.request(Method::POST, url).json(&RedeliverRequest { from: Some(from) })).await
    }

    /// Sends the receiver a test and waits for what comes of it.
    pub async fn ping_webhook(&self, id: &str) -> Result<WebhookPing, ClientError> {
        self.fetch(self.request(Method::POST, self.url(&["webhooks", id, "ping"]))).await
    }
}
