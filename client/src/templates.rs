//! Templates: named sets of defaults.

use api_types::{Sandbox, SpawnRequest, Template, TemplateRequest};
use reqwest::Method;

use crate::client::Client;
use crate::error::ClientError;
use crate::key::IdempotencyKey;

impl Client {
    /// All templates of the tenant, by name.
    pub async fn templates(&self) -> Result<Vec<Template>, ClientError> {
        self.get(&["templates"]).await
    }

    /// One template.
    pub async fn template(&self, name: &str) -> Result<Template, ClientError> {
        self.get(&["templates", name]).await
    }

    /// Makes a template, or replaces the one with its name.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// use client::{SpawnRequest, TemplateRequest};
    ///
    /// let request = TemplateRequest {
    ///     name: Some("python".into()),
    ///     image: Some("python:3.12".into()),
    ///     setup: Some(vec!["pip install requests".into()]),
    ///     ..TemplateRequest::default()
    /// };
    /// client.save_template(&request).await?;
    /// let sandbox = client.spawn_template("python", &SpawnRequest::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn save_template(&self, request: &TemplateRequest) -> Result<Template, ClientError> {
        self.fetch(self.request(Method::POST, self.url(&["templates"])).json(request)).await
    }

    /// The same under a name of the caller's; the request need not have one.
    pub async fn replace_template(
        &self,
        name: &str,
        request: &TemplateRequest,
    ) -> Result<Template, ClientError> {
        self.fetch(self.request(Method::PUT, self.url(&["templates", name])).json(request)).await
    }

    /// Deletes a template. Sandboxes that were made from it live on.
    pub async fn delete_template(&self, name: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, self.url(&["templates", name]))).await.map(drop)
    }

    /// Makes a sandbox from a template; what the request says wins over it, but for the image. Answers before a slow image
    /// is pulled: the state tells.
    pub async fn spawn_template(&self, name: &str, request: &SpawnRequest) -> Result<Sandbox, ClientError> {
        let url = self.url(&["templates", name, "spawn"]);
        let key = IdempotencyKey::new();
        self.fetch_once(|| self.request_once(&key, Method::POST, url.clone()).json(request)).await
    }
}
