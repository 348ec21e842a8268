//! Links with which others may watch an exec without a key.

use api_types::{ViewerLink, ViewerList, ViewerRequest};
use reqwest::Method;

use crate::client::Client;
use crate::error::ClientError;

impl Client {
    /// Makes a link with which anybody may watch an exec, and nothing else. `ttl` is a Go duration; an hour by default.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// let link = client.share_exec("ex-1", Some("10m")).await?;
    /// println!("{} until {}", &*link.url, link.expires_at);
    /// client.revoke_viewer("ex-1", &link.id).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn share_exec(&self, exec: &str, ttl: Option<&str>) -> Result<ViewerLink, ClientError> {
        let body = ViewerRequest { ttl: ttl.map(str::to_owned) };
        self.fetch(self.request(Method::POST, self.url(&["execs", exec, "viewers"])).json(&body)).await
    }

    /// The links to an exec that are good.
    pub async fn viewers(&self, exec: &str) -> Result<ViewerList, ClientError> {
        self.get(&["execs", exec, "viewers"]).await
    }

    /// Makes a link good for nothing, and ends what is open by it.
    pub async fn revoke_viewer(&self, exec: &str, link: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, self.url(&["execs", exec, "viewers", link]))).await.map(drop)
    }
}
